//! Sessions of a pool, by the C functions as a C program calls them.
#![allow(dead_code, clippy::disallowed_methods)]

use libc::{c_int, c_void};
use rserpool::ffi::{
    abi::rsp_sndrcvinfo, constants::FFF_UNREACHABLE, library, message, poll, session, socket,
};
use std::io::{BufRead, BufReader};
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

/// An element of a pool.
pub fn listen(pool: &str) -> RawFd {
    let sd = new_socket();
    // SAFETY: our bytes.
    unsafe {
        assert_eq!(socket::rsp_listen(sd, 4096), 0);
        assert_eq!(session::rsp_register(sd, pool.as_ptr(), pool.len(), std::ptr::null(), 30_000, 0), 0);
    }
    sd
}

/// The identifier of an element.
pub fn element(listener: RawFd) -> u32 {
    let mut id = 0;
    // SAFETY: our number.
    assert_eq!(
        unsafe { socket::rsp_getsockname(listener, std::ptr::null_mut(), std::ptr::null_mut(), &raw mut id) },
        0
    );
    id
}

pub fn accept(listener: RawFd) -> RawFd {
    // SAFETY: no pointers.
    let sd = unsafe { session::rsp_accept(listener, -1) };
    assert!(sd >= 0, "{}", std::io::Error::last_os_error());
    sd
}

pub fn connect(pool: &str) -> RawFd {
    let sd = new_socket();
    // SAFETY: our bytes.
    unsafe {
        *libc::__errno_location() = 0;
        assert_eq!(session::rsp_connect(sd, pool.as_ptr(), pool.len(), 10_000), 0);
        assert_eq!(*libc::__errno_location(), 0, "connected");
    }
    sd
}

pub fn fail_over(sd: RawFd) {
    // SAFETY: no pointers.
    unsafe { session::rsp_forcefailover(sd, FFF_UNREACHABLE, 0) };
}

/// Whether all of it was sent.
pub fn send(sd: RawFd, data: &[u8]) -> bool {
    // SAFETY: our bytes.
    let sent =
        unsafe { message::rsp_sendmsg(sd, data.as_ptr().cast(), data.len(), 0, 0, 0, 0, 0, 0, 60_000) };
    sent == data.len() as isize
}

/// A message's length and the element it is from; `None` at the end of the session.
pub fn receive(sd: RawFd, buffer: &mut [u8]) -> Option<(usize, u32)> {
    let (mut flags, mut info): (c_int, _) = (0, rsp_sndrcvinfo::default());
    let (data, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
    // SAFETY: our buffer.
    let length = unsafe { message::rsp_recvfullmsg(sd, data, length, &raw mut info, &raw mut flags, -1) };
    (flags & libc::MSG_EOR != 0).then_some((length as usize, info.rinfo_pe_id))
}

pub fn close(sd: RawFd) {
    // SAFETY: no pointers.
    unsafe { socket::rsp_close(sd) };
}

/// What the two programs of a comparison need from their sockets; every message is one call.
pub trait Side: Sync {
    type Listener: Send;
    /// Opens a place to be connected to; what the client is to be told of it.
    fn listen() -> (Self::Listener, String);
    fn accept(listener: &Self::Listener) -> RawFd;
    fn connect(place: &str) -> RawFd;
    fn send(sd: RawFd, data: &[u8]);
    /// The length of the message, which is known; 0 at the end of the session.
    fn receive(sd: RawFd, buffer: &mut [u8]) -> usize;
    fn close(sd: RawFd);
}

/// Sessions of a pool.
pub struct Pooled;

impl Side for Pooled {
    type Listener = RawFd;

    fn listen() -> (RawFd, String) {
        // A pool of its own, unless it is told which one to join.
        let own = || format!("BenchPool{}", std::process::id());
        let place = std::env::var("RSP_BENCH_POOL").unwrap_or_else(|_| own());
        (listen(&place), place)
    }
    fn accept(listener: &RawFd) -> RawFd {
        accept(*listener)
    }
    fn connect(place: &str) -> RawFd {
        connect(place)
    }
    fn send(sd: RawFd, data: &[u8]) {
        assert!(send(sd, data), "{}", std::io::Error::last_os_error());
    }
    fn receive(sd: RawFd, buffer: &mut [u8]) -> usize {
        receive(sd, buffer).map_or(0, |(length, _)| length)
    }
    fn close(sd: RawFd) {
        close(sd);
    }
}

/// A wait set of the library's.
#[derive(Clone, Copy)]
pub struct WaitSet(RawFd);

impl WaitSet {
    pub fn new() -> WaitSet {
        // SAFETY: no pointers.
        let set = unsafe { poll::rsp_waitset_create() };
        assert!(set >= 0, "{}", std::io::Error::last_os_error());
        WaitSet(set)
    }

    pub fn add(self, sd: RawFd) {
        // SAFETY: no pointers.
        assert_eq!(unsafe { poll::rsp_waitset_set(self.0, sd, libc::POLLIN) }, 0);
    }

    /// Those that have something.
    pub fn wait(self, ready: &mut Vec<RawFd>) {
        let mut entries = [libc::pollfd { fd: 0, events: 0, revents: 0 }; 64];
        // SAFETY: our entries.
        let count = unsafe { poll::rsp_waitset_wait(self.0, entries.as_mut_ptr(), 64, -1) };
        ready.extend(entries[..usize::try_from(count).unwrap_or(0)].iter().map(|entry| entry.fd));
    }
}

fn new_socket() -> RawFd {
    static START: Once = Once::new();
    // SAFETY: no settings are given.
    START.call_once(|| assert_eq!(unsafe { library::rsp_initialize(std::ptr::null_mut()) }, 0));
    // SAFETY: no pointers.
    let sd = unsafe { socket::rsp_socket(0, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
    assert!(sd >= 0, "{}", std::io::Error::last_os_error());
    sd
}

/// Ends with us.
pub struct Registrar(Child);

impl Drop for Registrar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A registrar for this process and those it starts.
pub fn start_registrar(options: &[&str]) -> Registrar {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rspregistrar"))
        .args(["--asap=127.0.0.1:0", "--enrp=127.0.0.1:0", "--asapannounce=off", "--enrpannounce=off"])
        .args(["--transport=tcp", "--mentordiscoverytimeout=0"])
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .expect("rspregistrar starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let asap = lines.find_map(|line| line.strip_prefix("ASAP tcp ").map(str::to_owned));
    let asap = asap.expect("rspregistrar says where it is");
    // SAFETY: nothing else runs yet.
    unsafe {
        std::env::set_var("RSP_REGISTRAR", asap.split([' ', ',']).next().unwrap_or_default());
        std::env::set_var("RSP_TRANSPORT", "tcp");
        std::env::set_var("RSP_ANNOUNCE", "off");
    }
    // It may have more to say.
    std::thread::spawn(move || lines.for_each(drop));
    Registrar(child)
}
