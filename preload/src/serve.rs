//! RSP_SERVE: what listens on a port is an element. The registration is kept by a process of its own (`rspctl register
//! --while-listening`), which is started here when the first of the server's processes listens, or accepts from a socket that was
//! listening when it got it; docs/reach.md says why it lives there. Kept in the server is nothing: no thread, no descriptor, no child.

use crate::frame::ours;
use crate::socket::{self, option};
use libc::{c_char, c_int, c_void, sockaddr_un};
use rserpool::runtime::keeper_name;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

const UNKNOWN: u8 = 0;
const NOTHING: u8 = 1;
const WANTED: u8 = 2;
/// Everything that is wanted was seen: what is accepted needs no look.
const SEEN: u8 = 3;
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Keepers that a handler of SIGTERM tells.
static TOLD: [AtomicPtr<sockaddr_un>; 16] = [const { AtomicPtr::new(null_mut()) }; 16];
/// How many milliseconds such a handler waits.
const PATIENCE: i64 = 500;

/// One of RSP_SERVE.
struct Service {
    pool: String,
    /// 0: the first port that the program listens on.
    port: AtomicU32,
    options: Vec<String>,
    seen: AtomicBool,
    /// The socket that was seen last.
    cookie: AtomicU64,
}

struct Config {
    services: Vec<Service>,
    rspctl: Option<CString>,
}

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let services: Vec<Service> =
            std::env::var("RSP_SERVE").unwrap_or_default().split(';').filter_map(parse).collect();
        let rspctl = if services.is_empty() { None } else { rspctl() };
        Config { services, rspctl }
    })
}

/// `POOL[:PORT][,OPTION=VALUE]...`: the options are those of `rspctl register`, which says what is wrong with them.
fn parse(text: &str) -> Option<Service> {
    let mut parts = text.trim().split(',');
    let place = parts.next().filter(|place| !place.is_empty())?;
    let (pool, port) = match place.rsplit_once(':') {
        Some((pool, port)) => (pool, port.parse::<u16>().ok()?.into()),
        None => (place, 0),
    };
    Some(Service {
        pool: pool.to_owned(),
        port: AtomicU32::new(port),
        options: parts.map(|option| format!("--{}", option.trim())).collect(),
        seen: AtomicBool::new(false),
        cookie: AtomicU64::new(0),
    })
}

/// Where rspctl is: beside this library, in the bin beside its lib, or in the PATH.
fn rspctl() -> Option<CString> {
    // SAFETY: a structure of pointers, filled for an address in this library.
    let library = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let found = libc::dladdr(rspctl as *const c_void, &raw mut info);
        (found != 0 && !info.dli_fname.is_null())
            .then(|| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())))
    };
    let folder = library.and_then(|library| Some(library.canonicalize().ok()?.parent()?.to_owned()));
    let near =
        folder.iter().flat_map(|folder| ["", "..", "../bin", "../../bin"].map(|place| folder.join(place)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = near
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("rspctl"))
        .find(|file| is_program(file));
    CString::new(found?.as_os_str().as_bytes()).ok()
}

fn is_program(file: &Path) -> bool {
    // SAFETY: a string that ends with a zero.
    CString::new(file.as_os_str().as_bytes())
        .is_ok_and(|file| unsafe { libc::access(file.as_ptr(), libc::X_OK) == 0 })
}

/// Whether the program serves for a pool. All that others' calls cost.
pub fn is_wanted() -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNKNOWN => {
            // SAFETY: a name that ends with a zero.
            let is_set = unsafe { !libc::getenv(c"RSP_SERVE".as_ptr()).is_null() };
            STATE.store(if is_set { WANTED } else { NOTHING }, Ordering::Relaxed);
            is_set
        }
        state => state != NOTHING,
    }
}

/// listen(2) has succeeded.
pub fn listens(fd: c_int) {
    if is_wanted() {
        let _ = ours(|| look(fd, true));
    }
}

/// Somebody is about to accept.
pub fn accepts(fd: c_int) {
    if is_wanted() && STATE.load(Ordering::Relaxed) == WANTED {
        let _ = ours(|| look(fd, false));
    }
}

/// Errno stays as it is, since the answer is never ours.
fn look(fd: c_int, listens: bool) -> Option<()> {
    let port = u32::from(port(fd)?);
    let config = config();
    for service in &config.services {
        let _ = service.port.compare_exchange(0, port, Ordering::Relaxed, Ordering::Relaxed);
        if service.port.load(Ordering::Relaxed) != port || !listens && service.seen.load(Ordering::Relaxed) {
            continue;
        }
        // Programs may listen twice.
        let cookie = socket::cookie(fd).unwrap_or_default();
        if service.cookie.swap(cookie, Ordering::Relaxed) != cookie || cookie == 0 {
            start(config, service, port as u16);
        }
        service.seen.store(true, Ordering::Relaxed);
    }
    if config.services.iter().all(|service| service.seen.load(Ordering::Relaxed)) {
        STATE.store(SEEN, Ordering::Relaxed);
    }
    None
}

/// The local port of a TCP socket.
fn port(fd: c_int) -> Option<u16> {
    if option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)? != libc::IPPROTO_TCP {
        return None;
    }
    // SAFETY: a structure of numbers, of the length that is said.
    unsafe {
        let mut address: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        match libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) {
            0 => socket::decode((&raw const address).cast(), length).map(|address| address.port()),
            _ => None,
        }
    }
}

/// Starts who keeps the registration. Another one that does already sends it away.
fn start(config: &Config, service: &Service, port: u16) {
    let Some(rspctl) = &config.rspctl else {
        return complain(
            "rserpool: RSP_SERVE: no rspctl beside this library nor in PATH, so nothing is registered\n",
        );
    };
    let mut arguments =
        vec!["rspctl".into(), "register".into(), service.pool.clone(), format!("--while-listening={port}")];
    arguments.extend(service.options.iter().cloned());
    let arguments: Vec<CString> = arguments.into_iter().filter_map(|text| CString::new(text).ok()).collect();
    let argv: Vec<*const c_char> = arguments.iter().map(|text| text.as_ptr()).chain([null()]).collect();
    let background = c"RSPCTL_IN_BACKGROUND=1";
    let environment: Vec<*const c_char> =
        environment().into_iter().chain([background.as_ptr(), null()]).collect();
    if !spawn(&Plan { path: rspctl.as_ptr(), argv: argv.as_ptr(), environment: environment.as_ptr() }) {
        complain("rserpool: RSP_SERVE: rspctl could not be started, so nothing is registered\n");
    }
    remember(keeper_name(port, service.pool.as_bytes()));
}

fn complain(text: &str) {
    // SAFETY: pointer and length are those of the text.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The program's, without what is for the program alone.
fn environment() -> Vec<*const c_char> {
    let mut kept = Vec::new();
    // SAFETY: a list of strings that ends with a null, as libc keeps it.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            let variable = CStr::from_ptr(*next).to_bytes();
            if !["LD_PRELOAD=", "RSP_SERVE="].iter().any(|name| variable.starts_with(name.as_bytes())) {
                kept.push(*next);
            }
            next = next.add(1);
        }
    }
    kept
}

/// What a started program is given; pointers, because nothing may be made behind clone(2).
struct Plan {
    path: *const c_char,
    argv: *const *const c_char,
    environment: *const *const c_char,
}

const STACK: usize = 64 << 10;

/// Starts a program that is nobody's child: the process between ends at once, and is no child that the program's wait(2) or its
/// handler of SIGCHLD could see, because it ends without a signal (`__WCLONE` in wait(2)).
fn spawn(plan: &Plan) -> bool {
    let mut stacks = vec![0u128; 2 * STACK / size_of::<u128>()];
    let mut ends = Ends { plan, stack: stacks.as_mut_ptr_range().end.cast() };
    // SAFETY: both children have a stack of their own, make system calls only, and are waited for until they have
    // another program's memory. No signal is taken on those stacks.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        let stack = stacks.as_mut_ptr().cast::<u8>().add(STACK);
        let child = libc::clone(between, stack.cast(), flags, (&raw mut ends).cast());
        let mut status = -1;
        if child > 0 {
            libc::waitpid(child, &raw mut status, libc::__WCLONE);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
        status == 0
    }
}

struct Ends<'a> {
    plan: &'a Plan,
    stack: *mut c_void,
}

extern "C" fn between(ends: *mut c_void) -> c_int {
    // SAFETY: as in spawn.
    unsafe {
        let ends = &*ends.cast::<Ends<'_>>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK;
        let child =
            libc::clone(become_program, ends.stack, flags, std::ptr::from_ref(ends.plan).cast_mut().cast());
        libc::_exit(c_int::from(child < 0))
    }
}

extern "C" fn become_program(plan: *mut c_void) -> c_int {
    // SAFETY: system calls, and strings that whoever waits for us has made.
    unsafe {
        let plan = &*plan.cast::<Plan>();
        libc::setsid();
        for signal in 1..=64 {
            let mut default: libc::sigaction = std::mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            crate::real::sigaction(signal, &raw const default, null_mut());
        }
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, null_mut());
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        libc::dup2(null, 0);
        libc::dup2(null, 1);
        if libc::fcntl(2, libc::F_GETFD) < 0 {
            libc::dup2(null, 2);
        }
        // The server's sockets among them: they must not stay open behind its back.
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) != 0 {
            (3..65_536).for_each(|fd| {
                libc::close(fd);
            });
        }
        libc::execve(plan.path, plan.argv, plan.environment);
        libc::_exit(127)
    }
}

/// The keeper's address, for a handler of signals, which can make nothing.
fn remember(name: Vec<u8>) {
    // SAFETY: a structure of numbers.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path[1..].iter_mut().zip(&name) {
        *to = *from as c_char;
    }
    let is_same = |known: *mut sockaddr_un| {
        // SAFETY: what is put there is never freed.
        unsafe { known.as_ref() }.is_some_and(|known| known.sun_path == address.sun_path)
    };
    if TOLD.iter().any(|known| is_same(known.load(Ordering::Acquire))) {
        return;
    }
    let made = Box::into_raw(Box::new(address));
    for place in &TOLD {
        if place.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
    // SAFETY: made above, and known to nobody.
    drop(unsafe { Box::from_raw(made) });
}

/// In a handler of SIGTERM: tells the keepers that this process is to end, and waits until the elements have left, or the
/// keeper says that others still serve. System calls only, and errno stays.
pub fn leave() {
    let errno = socket::errno();
    for address in
        TOLD.iter().map(|address| address.load(Ordering::Acquire)).take_while(|address| !address.is_null())
    {
        // SAFETY: what is put there is never freed, and the kernel reads and writes what is named.
        unsafe {
            let fd = libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
                as c_int;
            if fd < 0 {
                continue;
            }
            let limit = libc::timeval { tv_sec: 0, tv_usec: 1000 * PATIENCE };
            for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
                let length = size_of::<libc::timeval>();
                libc::syscall(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, name, &raw const limit, length);
            }
            let path = &(*address).sun_path;
            let path = path[1..].iter().take_while(|&&byte| byte != 0).count();
            let length = std::mem::offset_of!(sockaddr_un, sun_path) + 1 + path;
            if libc::syscall(libc::SYS_connect, fd, address, length) == 0 {
                let mut end = [b'T'; 1];
                libc::syscall(libc::SYS_sendto, fd, end.as_ptr(), 1, libc::MSG_NOSIGNAL, null::<c_void>(), 0);
                libc::syscall(
                    libc::SYS_recvfrom,
                    fd,
                    end.as_mut_ptr(),
                    1,
                    0,
                    null::<c_void>(),
                    null::<c_void>(),
                );
            }
            libc::syscall(libc::SYS_close, fd);
        }
    }
    socket::set_errno(errno);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read() {
        let service = parse(" WebPool:80,policy=LeastUsed,load=connections/9").unwrap();
        assert_eq!((service.pool.as_str(), service.port.load(Ordering::Relaxed)), ("WebPool", 80));
        assert_eq!(service.options, ["--policy=LeastUsed", "--load=connections/9"]);
        assert_eq!(parse("WebPool").unwrap().port.load(Ordering::Relaxed), 0);
        assert!(parse("").is_none() && parse("Web:http").is_none() && parse(",policy=Random").is_none());
    }

    #[test]
    fn a_started_program_is_nobodys_child() {
        let path = c"/bin/true";
        let argv = [path.as_ptr(), null()];
        let environment = [null()];
        assert!(spawn(&Plan { path: path.as_ptr(), argv: argv.as_ptr(), environment: environment.as_ptr() }));
        // SAFETY: no pointer is given.
        let waited = unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG | libc::__WALL) };
        assert_eq!((waited, socket::errno()), (-1, libc::ECHILD));
    }
}
