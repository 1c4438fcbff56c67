//! The C API: any arguments and tag lists of a program that keeps its pointers in order.
#![allow(unsafe_code)]

use super::Input;
use crate::ffi::abi::{rsp_addrinfo, rsp_info, rsp_loadinfo, rsp_sndrcvinfo};
use crate::ffi::legacy::tagitem::{
    TagItem, tagListDuplicateFilter, tagListFind, tagListFree, tagListGetSize,
};
use crate::ffi::{basic, internals, library, message, poll, sendto, session, socket};
use libc::{c_int, c_uint, c_void};
use std::ffi::CString;
use std::net::SocketAddr;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A function of the API may not panic: the caller would never see it, since it is turned into an error.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// One library for all inputs, with a registrar inside and nobody outside.
fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Relaxed);
            before(panic);
        }));
        let variables = [
            ("RSP_REGISTRAR", "embedded"),
            ("RSP_ANNOUNCE", "off"),
            ("RSP_TRANSPORT", "tcp"),
            ("RSP_LOG", "off"),
        ];
        // SAFETY: nobody here reads the environment but by std, which locks it.
        variables.into_iter().for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
        // SAFETY: no information is none.
        assert_eq!(unsafe { library::rsp_initialize(null_mut()) }, 0);
    });
}

/// Numbers at which something ends are likelier than others.
fn number(input: &mut Input) -> u64 {
    match input.byte() % 8 {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::from(u32::MAX),
        4 => i32::MAX as u64,
        5 => 1 << 31,
        _ => u64::from(input.byte()),
    }
}

fn int(input: &mut Input) -> c_int {
    number(input) as c_int
}

/// A tag list in one array or two, with all kinds of control items, none of which leads out of it.
struct Tags {
    _parts: [Vec<TagItem>; 2],
    _text: CString,
    list: *mut TagItem,
}

fn tags(input: &mut Input) -> Tags {
    let end = TagItem { Tag: 0, Data: 0 };
    let text = CString::new(input.bytes(8).split(|&byte| byte == 0).next().unwrap_or_default())
        .expect("nothing behind a zero");
    let mut parts = [Vec::new(), Vec::new()];
    for part in &mut parts {
        for _ in 0..input.byte() % 6 {
            let data = number(input);
            part.push(match input.byte() % 10 {
                0 => TagItem { Tag: 1, Data: data },
                // As many items are skipped as surely follow.
                1 => TagItem { Tag: 3, Data: data % 3 },
                2 => TagItem { Tag: 1_001_000, Data: data },
                3 => TagItem { Tag: 1_002_000, Data: data },
                4 => TagItem { Tag: 1_002_001, Data: data % 1000 },
                5 => TagItem { Tag: 1_009_000, Data: text.as_ptr() as u64 },
                6 => TagItem { Tag: 1_009_000, Data: 0 },
                7 => TagItem { Tag: 1_004_000 + (data % 8) as c_uint, Data: data },
                _ => TagItem { Tag: 4 + data as c_uint % 1_000_000, Data: data },
            });
        }
        part.extend([end; 4]);
    }
    if input.flag() {
        let (at, second) = (usize::from(input.byte()) % parts[0].len(), parts[1].as_mut_ptr());
        parts[0][at] = TagItem { Tag: 2, Data: second as u64 };
        // Behind it as before.
        parts[0].extend([end; 4]);
    }
    let list = if input.flag() { null_mut() } else { parts[0].as_mut_ptr() };
    Tags { _parts: parts, _text: text, list }
}

/// A pool handle of bytes that are there, or none with a size.
fn name<'a>(input: &mut Input<'a>) -> (*const u8, usize, &'a [u8]) {
    let bytes: &[u8] = match input.byte() % 4 {
        0 => input.bytes(3),
        _ => b"fuzz",
    };
    match input.byte() % 16 {
        0 => (null(), 4, bytes),
        1 => (bytes.as_ptr(), usize::MAX, bytes),
        _ => (bytes.as_ptr(), bytes.len(), bytes),
    }
}

fn policy(input: &mut Input) -> Option<rsp_loadinfo> {
    let some = !input.byte().is_multiple_of(4);
    let policy = match input.byte() {
        known @ 0..=9 => u32::from(known),
        other => 0x4000_0000 | u32::from(other),
    };
    some.then(|| rsp_loadinfo {
        rli_policy: policy,
        rli_weight: number(input) as u32,
        rli_weight_dpf: number(input) as u32,
        rli_load: number(input) as u32,
        rli_load_degradation: number(input) as u32,
        rli_load_dpf: number(input) as u32,
    })
}

/// Addresses one after the other, the last perhaps of a family that there is not. Loopback, and no port.
fn addresses(input: &mut Input) -> (Vec<u8>, c_int) {
    let count = c_int::from(input.byte() % 4);
    let some = (0..count).map(|_| {
        let address = if input.flag() { "127.0.0.1:0" } else { "[::1]:0" };
        address.parse::<SocketAddr>().expect("an address")
    });
    let mut bytes = crate::socket::sockaddr::pack(some.collect::<Vec<_>>());
    if input.byte().is_multiple_of(8) && bytes.len() >= 2 {
        bytes[0] = input.byte();
        bytes.resize(256, 0);
    }
    (bytes, count)
}

/// A list of calls.
pub fn capi(data: &[u8]) {
    start();
    let mut input = Input(data);
    let mut open: Vec<c_int> = Vec::new();
    for _ in 0..32 {
        if input.0.is_empty() {
            break;
        }
        let sd = match usize::from(input.byte()) {
            0 => -1,
            1 => c_int::MAX,
            some => open.get(some % open.len().max(1)).copied().unwrap_or(some as c_int + 1000),
        };
        call(&mut input, sd, &mut open);
        assert!(!PANICKED.load(Ordering::Relaxed), "a function of the API panicked");
    }
    for sd in open {
        // SAFETY: a number.
        unsafe { socket::rsp_close(sd) };
    }
}

fn call(input: &mut Input, sd: c_int, open: &mut Vec<c_int>) {
    let (name, size, _bytes) = name(input);
    let mut buffer = [0u8; 64];
    let room = usize::from(input.byte()) % buffer.len();
    let info = policy(input);
    let info = info.as_ref().map_or(null(), std::ptr::from_ref);
    let tags = tags(input);
    let stale = number(input) as c_uint;
    let wait = if input.flag() { 0 } else { -1 };
    // SAFETY: every pointer leads to as much as is said, or is NULL, or is not looked at for its size.
    unsafe {
        match input.byte() % 22 {
            0 | 1 => {
                let domain =
                    [libc::AF_UNSPEC, libc::AF_INET, libc::AF_INET6, 99][usize::from(input.byte()) % 4];
                let kind = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET, libc::SOCK_DGRAM]
                    [usize::from(input.byte()) % 3];
                let protocol = [0, libc::IPPROTO_TCP, libc::IPPROTO_SCTP][usize::from(input.byte()) % 3];
                let flags = if input.flag() { libc::SOCK_NONBLOCK } else { 0 };
                let sd = socket::rsp_socket(domain, kind | flags, protocol);
                open.extend((sd >= 0).then_some(sd));
            }
            2 => {
                let (bytes, count) = addresses(input);
                socket::rsp_bind(sd, bytes.as_ptr().cast(), count);
            }
            3 => _ = socket::rsp_listen(sd, int(input)),
            4 => {
                let (interval, flags) = (number(input) as c_uint, int(input));
                internals::rsp_register_tags(sd, name, size, info, interval, flags, tags.list);
            }
            5 => _ = internals::rsp_deregister_tags(sd, int(input), tags.list),
            6 => _ = internals::rsp_connect_tags(sd, name, size, stale, tags.list),
            7 => {
                let session = internals::rsp_accept_tags(sd, 0, tags.list);
                open.extend((session >= 0).then_some(session));
            }
            8 => _ = internals::rsp_forcefailover_tags(sd, number(input) as c_uint, stale, tags.list),
            9 => {
                let (flags, session) = (number(input) as c_uint, int(input));
                let (ppid, stream, life) = (stale, stale as u16, number(input) as u32);
                let data: *const c_void = if input.flag() { buffer.as_ptr().cast() } else { null() };
                message::rsp_sendmsg(sd, data, room, flags, session, ppid, stream, life, stale as u16, wait);
            }
            10 => {
                let (mut info, mut flags) = (rsp_sndrcvinfo::default(), int(input));
                let info: *mut rsp_sndrcvinfo = if input.flag() { &mut info } else { null_mut() };
                message::rsp_recvmsg(sd, buffer.as_mut_ptr().cast(), room, info, &mut flags, wait);
            }
            11 => {
                let flags = int(input) | libc::MSG_DONTWAIT;
                message::rsp_recv(sd, buffer.as_mut_ptr().cast(), room, flags);
                message::rsp_send(sd, buffer.as_ptr().cast(), room, flags);
            }
            12 => _ = message::rsp_send_cookie(sd, buffer.as_ptr(), room, int(input), 0),
            13 => {
                let mut asked: Vec<libc::pollfd> = open
                    .iter()
                    .map(|&fd| libc::pollfd { fd, events: input.byte().into(), revents: 0 })
                    .collect();
                poll::rsp_poll(asked.as_mut_ptr(), asked.len() as c_uint, 0);
            }
            14 => {
                let set = poll::rsp_waitset_create();
                poll::rsp_waitset_set(set, sd, input.byte().into());
                let mut ready = [libc::pollfd { fd: 0, events: 0, revents: 0 }; 4];
                poll::rsp_waitset_wait(set, ready.as_mut_ptr(), u32::from(input.byte() % 5), 0);
                socket::rsp_close(set);
            }
            15 => {
                let mut list: *mut rsp_addrinfo = null_mut();
                let items = number(input) as usize;
                internals::rsp_getaddrinfo_tags(name, size, &mut list, items, stale, tags.list);
                basic::rsp_freeaddrinfo(list);
            }
            16 => {
                let (mut bytes, count) = addresses(input);
                let mut address = rsp_addrinfo {
                    ai_family: int(input),
                    ai_socktype: libc::SOCK_STREAM,
                    ai_protocol: if input.flag() { libc::IPPROTO_TCP } else { int(input) },
                    ai_addrlen: number(input) as usize,
                    ai_addrs: count as usize,
                    ai_addr: bytes.as_mut_ptr().cast(),
                    ai_next: null_mut(),
                    ai_pe_id: number(input) as u32,
                };
                basic::rsp_pe_registration(name, size, &mut address, info, stale, int(input));
                basic::rsp_pe_failure(name, size, address.ai_pe_id);
                basic::rsp_pe_deregistration(name, size, address.ai_pe_id, int(input));
            }
            17 => {
                let (mut length, mut id) = (room, 0);
                socket::rsp_getsockname(sd, buffer.as_mut_ptr(), &mut length, &mut id);
                length = number(input) as usize % (buffer.len() + 1);
                socket::rsp_getpeername(sd, buffer.as_mut_ptr(), &mut length, null_mut());
                session::rsp_has_cookie(sd);
            }
            18 => {
                let (level, option) = (int(input), int(input));
                let mut length = room as libc::socklen_t;
                socket::rsp_getsockopt(sd, level, option, buffer.as_mut_ptr().cast(), &mut length);
                socket::rsp_setsockopt(sd, level, option, buffer.as_ptr().cast(), room as libc::socklen_t);
            }
            19 => {
                let mut id = number(input) as u32;
                let (options, ppid) = (number(input) as c_uint, stale);
                let data: *const c_void = buffer.as_ptr().cast();
                sendto::rsp_sendto_pool(
                    sd, data, room, options, name, size, &mut id, stale, ppid, 0, stale, 0,
                );
                sendto::rsp_cache_populate(name, size);
                sendto::rsp_cache_purge(name, size);
            }
            20 => argument(input),
            _ => {
                let filter: Vec<c_uint> = (0..input.byte() % 4).map(|_| 1_001_000).chain([0]).collect();
                let before = tagListGetSize(tags.list);
                let copy = tagListDuplicateFilter(tags.list, filter.as_ptr());
                assert!(tagListGetSize(copy) <= before, "a copy is no longer than what it is of");
                assert!(
                    filter[0] == 0 || tagListFind(copy, 1_001_000).is_null(),
                    "what was left out is there"
                );
                tagListFree(copy);
                if !open.is_empty() && input.flag() {
                    socket::rsp_close(open.swap_remove(usize::from(input.byte()) % open.len()));
                }
            }
        }
    }
}

/// One argument of a program, as `rsp_initarg` takes it. Nothing that is a name to look up, or a file.
fn argument(input: &mut Input) {
    const NUMBERS: [&str; 6] = [
        "registrarannouncetimeout",
        "registrarconnecttimeout",
        "registrarrequestmaxtrials",
        "cspinterval",
        "cspidentifier",
        "transport",
    ];
    const ADDRESSES: [&str; 3] = ["registrar", "asapannounce", "cspserver"];
    let number = input.flag();
    let names: &[&str] = if number { &NUMBERS } else { &ADDRESSES };
    let option = names[usize::from(input.byte()) % names.len()];
    let length = usize::from(input.byte() % 24);
    let value = input.bytes(length).iter().map(|&byte| match number {
        true => byte.max(1),
        false => b"0123456789.:[],-% "[usize::from(byte) % 18],
    });
    let dashes: &[u8] = if input.flag() { b"--" } else { b"-" };
    let text: Vec<u8> = [dashes, option.as_bytes(), b"="].concat().into_iter().chain(value).collect();
    let text = CString::new(text).expect("no zeros");
    // SAFETY: all zeros are the defaults; a string; freed once.
    unsafe {
        let mut info: rsp_info = std::mem::zeroed();
        library::rsp_initarg(&mut info, text.as_ptr());
        library::rsp_freeinfo(&mut info);
    }
}
