//! `struct rsp_info`: environment, switches, and what becomes of them as [`Settings`].

use super::abi::{rsp_info, rsp_registrar_info};
use super::constants::ASAP_PORT;
use super::convert::{MAX_ADDRESSES, allocate_copy, milliseconds, unpack_addresses};
use super::guard::Errno;
use super::{csp, explain, logging};
use crate::machine::{LinkProtocol, Target};
use crate::runtime::{Settings, Tls, address, advertised, parse_transport};
use crate::socket::sockaddr;
use crate::wire::ASAP_TLS_PORT;
use crate::wire::csp::CSP_PORT;
use crate::wire::scope::unmapped;
use libc::c_uint;
use parking_lot::Mutex;
use std::ffi::CStr;
use std::net::SocketAddr;

/// The shortest report interval that the environment can ask for, in milliseconds.
const MIN_CSP_INTERVAL: c_uint = crate::runtime::MIN_CSP_INTERVAL.as_millis() as c_uint;

/// Addresses that we allocated into `rsp_info` structures. `rsp_freeinfo` must tell them from a
/// program's own, which need not come from `malloc`.
static ALLOCATED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// `-transport=`, for which `struct rsp_info` has no room: one choice per process.
static TRANSPORT: Mutex<Option<Vec<LinkProtocol>>> = Mutex::new(None);

/// `-advertise=`, and a `-cspserver=` by name, likewise.
static ADVERTISE: Mutex<Option<String>> = Mutex::new(None);
static CSP_NAME: Mutex<Option<String>> = Mutex::new(None);

/// `-tls..=`, for which it has no room either.
static TLS: Mutex<Option<Tls>> = Mutex::new(None);
/// Registrars of `-registrar=` that are given by name: `struct rsp_info` has room for addresses only.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// CSP_SERVER and CSP_INTERVAL.
pub(super) fn apply_environment(info: &mut rsp_info) -> Result<(), Errno> {
    if let Ok(server) = std::env::var("CSP_SERVER") {
        let is_name = address::is_literal(&server).is_ok_and(|literal| !literal);
        let known = if is_name { None } else { resolve(&server, CSP_PORT) };
        match known {
            Some(address) => info.ri_csp_server = remember(address)?,
            // Looked up later, as the environment says it to whoever starts.
            None if is_name => {}
            None => eprintln!("CSP_SERVER: bad address {server}"),
        }
    }
    if let Ok(interval) = std::env::var("CSP_INTERVAL") {
        match interval.trim().parse::<c_uint>() {
            Ok(interval) => info.ri_csp_interval = interval.max(MIN_CSP_INTERVAL),
            Err(_) => eprintln!("CSP_INTERVAL: bad number {interval}"),
        }
    }
    Ok(())
}

/// One switch. Whether it was one of ours and made sense.
pub(super) fn apply_argument(info: &mut rsp_info, argument: &CStr) -> bool {
    if argument.to_bytes().starts_with(b"-log") {
        return logging::apply_argument(argument);
    }
    let Ok(argument) = argument.to_str() else { return false };
    let Some((name, value)) = argument.split_once('=') else { return false };
    let applied = match name {
        "-registrar" => registrar(info, value),
        "-registrarannouncetimeout" => number(&mut info.ri_registrar_announce_timeout, value),
        "-registrarconnecttimeout" => number(&mut info.ri_registrar_connect_timeout, value),
        "-registrarconnectmaxtrials" => number(&mut info.ri_registrar_connect_max_trials, value),
        "-registrarrequesttimeout" => number(&mut info.ri_registrar_request_timeout, value),
        "-registrarresponsetimeout" => number(&mut info.ri_registrar_response_timeout, value),
        "-registrarrequestmaxtrials" => number(&mut info.ri_registrar_request_max_trials, value),
        "-asapannounce" => announce(info, value),
        "-cspserver" => csp_server(info, value),
        "-cspinterval" => number(&mut info.ri_csp_interval, value),
        "-cspidentifier" => identifier(info, value),
        "-transport" => transport(value),
        "-advertise" => advertise(value),
        name if name.starts_with("-tls") => tls(&name[4..], value),
        _ => return false,
    };
    if applied.is_none() {
        eprintln!("bad argument {argument}");
    }
    applied.is_some()
}

fn number(field: &mut c_uint, value: &str) -> Option<()> {
    *field = value.parse().ok()?;
    Some(())
}

fn identifier(info: &mut rsp_info, value: &str) -> Option<()> {
    let object = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => value.parse().ok()?,
    };
    info.ri_csp_identifier = csp::compound(csp::CID_GROUP_POOLELEMENT, u64::from(object));
    Some(())
}

fn one_address(field: &mut *mut libc::sockaddr, value: &str, default_port: u16) -> Option<()> {
    *field = remember(resolve(value, default_port)?).ok()?;
    Some(())
}

fn announce(info: &mut rsp_info, value: &str) -> Option<()> {
    let off = value.eq_ignore_ascii_case("off");
    if off || value.eq_ignore_ascii_case("auto") {
        info.ri_registrar_announce = std::ptr::null_mut();
    } else {
        one_address(&mut info.ri_registrar_announce, value, ASAP_PORT)?;
    }
    info.ri_disable_autoconfig = off.into();
    Some(())
}

/// A registrar with all its addresses, put first. The first one's port is all their port.
fn registrar(info: &mut rsp_info, value: &str) -> Option<()> {
    if !address::is_literal(value).ok()? {
        // The structure has no room for names: they are looked up when the library has started.
        NAMES.lock().push(value.to_string());
        return Some(());
    }
    let mut addresses = address::parse_list(value, ASAP_PORT).ok()?;
    if addresses.len() > MAX_ADDRESSES {
        return None;
    }
    let tls = TLS.lock().clone().or_else(|| Tls::from_env().ok()).unwrap_or_default();
    let usual = tls.port(ASAP_PORT, ASAP_TLS_PORT);
    let port = Some(addresses.first()?.port()).filter(|port| *port != 0).unwrap_or(usual);
    addresses.iter_mut().for_each(|address| address.set_port(port));
    let count = addresses.len();
    let rri_addr = allocate_copy(&sockaddr::pack(addresses)).ok()?;
    // SAFETY: plain malloc; written before anybody reads it.
    unsafe {
        let node = libc::malloc(size_of::<rsp_registrar_info>()).cast::<rsp_registrar_info>();
        if node.is_null() {
            libc::free(rri_addr.cast());
            return None;
        }
        node.write(rsp_registrar_info {
            rri_next: info.ri_registrars,
            rri_addr: rri_addr.cast(),
            rri_addrs: count,
        });
        info.ri_registrars = node;
    }
    Some(())
}

/// Over what the environment says.
fn tls(name: &str, value: &str) -> Option<()> {
    let mut tls = TLS.lock();
    let mut changed = tls.clone().or_else(|| Tls::from_env().ok())?;
    let set = changed.set(name.strip_prefix('-').unwrap_or(name), value);
    *tls = Some(changed);
    set.then_some(())
}

/// A name is looked up by the event thread, and again if it moves.
fn csp_server(info: &mut rsp_info, value: &str) -> Option<()> {
    if address::is_literal(value).ok()? {
        *CSP_NAME.lock() = None;
        return one_address(&mut info.ri_csp_server, value, CSP_PORT);
    }
    *CSP_NAME.lock() = Some(value.into());
    Some(())
}

fn advertise(value: &str) -> Option<()> {
    advertised(value).ok()?;
    *ADVERTISE.lock() = Some(value.into());
    Some(())
}

fn transport(value: &str) -> Option<()> {
    *TRANSPORT.lock() = Some(parse_transport(value)?);
    Some(())
}

fn remember(address: SocketAddr) -> Result<*mut libc::sockaddr, Errno> {
    let block = allocate_copy(&sockaddr::pack([address]))?;
    ALLOCATED.lock().push(block as usize);
    Ok(block.cast())
}

/// Frees the list, and what `remember` made.
pub(super) unsafe fn free(info: &mut rsp_info) {
    let mut node = std::mem::replace(&mut info.ri_registrars, std::ptr::null_mut());
    while !node.is_null() {
        // SAFETY: the caller's list, made with malloc; each node is freed once.
        unsafe {
            let next = (*node).rri_next;
            libc::free((*node).rri_addr.cast());
            libc::free(node.cast());
            node = next;
        }
    }
    let mut allocated = ALLOCATED.lock();
    for field in [&mut info.ri_csp_server, &mut info.ri_registrar_announce] {
        if let Some(at) = allocated.iter().position(|block| *block == *field as usize) {
            allocated.swap_remove(at);
            // SAFETY: ours, and not freed since it was still remembered.
            unsafe { libc::free(std::mem::replace(field, std::ptr::null_mut()).cast()) };
        }
    }
}

/// What the library starts with: `info` goes before the environment, the environment before defaults.
pub(super) unsafe fn settings(info: Option<&rsp_info>) -> Result<Settings, Errno> {
    let mut settings = Settings::from_env().inspect_err(explain::wrong_setting)?;
    if let Some(tls) = TLS.lock().clone() {
        settings.tls = tls;
    }
    if let Some(protocols) = TRANSPORT.lock().clone() {
        settings.protocols = protocols;
    }
    if let Some(advertised) = ADVERTISE.lock().clone() {
        settings.advertise = Some(advertised);
    }
    settings.registrar_names.splice(..0, NAMES.lock().iter().rev().cloned());
    let Some(info) = info else { return Ok(settings) };
    // SAFETY: the caller's structure, as rsp_initarg or the program filled it in.
    let (registrars, announce, csp_server) = unsafe {
        let registrars = registrars(info.ri_registrars, &settings.protocols)?;
        (registrars, optional_address(info.ri_registrar_announce)?, optional_address(info.ri_csp_server)?)
    };
    settings.registrars.splice(..0, registrars);
    if info.ri_disable_autoconfig != 0 {
        settings.announce = None;
    } else if announce.is_some() {
        settings.announce = announce;
    }
    for (value, setting) in [
        (info.ri_registrar_announce_timeout, &mut settings.announce_timeout),
        (info.ri_registrar_connect_timeout, &mut settings.connect_timeout),
        (info.ri_registrar_request_timeout, &mut settings.request_timeout),
        (info.ri_registrar_response_timeout, &mut settings.response_timeout),
        (info.ri_csp_interval, &mut settings.csp_interval),
    ] {
        if value != 0 {
            *setting = milliseconds(value);
        }
    }
    for (value, setting) in [
        (info.ri_registrar_connect_max_trials, &mut settings.connect_max_trials),
        (info.ri_registrar_request_max_trials, &mut settings.request_max_trials),
    ] {
        if value != 0 {
            *setting = value;
        }
    }
    if info.ri_csp_identifier != 0 {
        settings.csp_identifier = info.ri_csp_identifier;
    }
    if let Some(name) = CSP_NAME.lock().clone() {
        (settings.csp_server, settings.csp_server_name) = (None, Some(name));
    }
    settings.csp_server = csp_server.or(settings.csp_server);
    Ok(settings)
}

/// Each registrar over each protocol that may be used.
unsafe fn registrars(
    mut node: *const rsp_registrar_info,
    protocols: &[LinkProtocol],
) -> Result<Vec<Target>, Errno> {
    let mut targets = Vec::new();
    // SAFETY: the caller's list.
    while let Some(registrar) = unsafe { node.as_ref() } {
        // SAFETY: the caller's addresses.
        let addresses = unsafe { unpack_addresses(registrar.rri_addr, registrar.rri_addrs)? };
        if addresses.is_empty() {
            return Err(Errno(libc::EINVAL));
        }
        let addresses: Vec<SocketAddr> = addresses.iter().map(unmapped).collect();
        targets.extend(protocols.iter().map(|&protocol| Target { protocol, addresses: addresses.clone() }));
        node = registrar.rri_next;
    }
    Ok(targets)
}

unsafe fn optional_address(address: *const libc::sockaddr) -> Result<Option<SocketAddr>, Errno> {
    if address.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's address.
    Ok(unsafe { unpack_addresses(address, 1)? }.first().map(unmapped))
}

/// One address, as the library reads them everywhere; port 0 is the default one.
fn resolve(text: &str, default_port: u16) -> Option<SocketAddr> {
    if text.trim().is_empty() {
        return None;
    }
    let mut found = address::parse_one(text, default_port).ok()?;
    if found.port() == 0 {
        found.set_port(default_port);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> rsp_info {
        unsafe { std::mem::zeroed() }
    }

    fn apply(info: &mut rsp_info, argument: &str) -> bool {
        apply_argument(info, &std::ffi::CString::new(argument).unwrap())
    }

    #[test]
    fn addresses_in_every_spelling() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:9"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("192.0.2.1!7", "192.0.2.1:7"),
            ("[2001:db8::1]", "[2001:db8::1]:9"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("[2001:db8::1]!7", "[2001:db8::1]:7"),
            ("2001:db8::1", "[2001:db8::1]:9"),
        ] {
            assert_eq!(resolve(text, 9), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "[::1", "[::1]x", "192.0.2.1:x", "192.0.2.1:70000"] {
            assert_eq!(resolve(text, 9), None, "{text}");
        }
    }

    #[test]
    fn every_switch_is_taken() {
        let mut info = empty();
        for argument in [
            "-registrarannouncetimeout=1",
            "-registrarconnecttimeout=2",
            "-registrarconnectmaxtrials=3",
            "-registrarrequesttimeout=4",
            "-registrarresponsetimeout=5",
            "-registrarrequestmaxtrials=6",
            "-cspinterval=7",
            "-cspidentifier=0xabcd",
            "-cspserver=127.0.0.1",
            "-asapannounce=239.0.0.51",
            "-registrar=127.0.0.1:1234,127.0.0.2",
            "-registrar=127.0.0.3",
        ] {
            assert!(apply(&mut info, argument), "{argument}");
        }
        assert_eq!(info.ri_registrar_announce_timeout, 1);
        assert_eq!(info.ri_registrar_request_max_trials, 6);
        assert_eq!(info.ri_csp_identifier, 2 << 56 | 0xabcd);
        unsafe {
            let settings = settings(Some(&info)).unwrap();
            assert_eq!(settings.csp_server, Some("127.0.0.1:2960".parse().unwrap()));
            assert_eq!(settings.announce, Some("239.0.0.51:3863".parse().unwrap()));
            assert_eq!(settings.registrars[0].addresses, ["127.0.0.3:3863".parse().unwrap()]);
            let second = &settings.registrars[settings.protocols.len()];
            let both: [SocketAddr; 2] = ["127.0.0.1:1234", "127.0.0.2:1234"].map(|a| a.parse().unwrap());
            assert_eq!(second.addresses, both);
            free(&mut info);
        }
        assert!(info.ri_registrars.is_null() && info.ri_csp_server.is_null());
    }

    #[test]
    fn others_are_left_alone() {
        let mut info = empty();
        for argument in [
            "",
            "-",
            "file",
            "-registrar",
            "-registrar=",
            "-registrar=[",
            "-unknown=1",
            "-cspinterval=soon",
            "-cspwhatever=1",
            "-transport=udp",
        ] {
            assert!(!apply(&mut info, argument), "{argument}");
        }
        assert!(info.ri_registrars.is_null());
    }

    #[test]
    fn a_registrar_has_no_more_addresses_than_can_be_used() {
        let mut info = empty();
        let argument = |count| format!("-registrar={}", vec!["127.0.0.1:7"; count].join(","));
        assert!(!apply(&mut info, &argument(129)));
        assert!(info.ri_registrars.is_null());
        assert!(apply(&mut info, &argument(128)));
        assert_eq!(unsafe { settings(Some(&info)) }.unwrap().registrars[0].addresses.len(), 128);
        unsafe { free(&mut info) };
    }

    #[test]
    fn announcements_can_be_turned_off_and_on() {
        let mut info = empty();
        assert!(apply(&mut info, "-asapannounce=OFF"));
        assert_eq!(info.ri_disable_autoconfig, 1);
        assert_eq!(unsafe { settings(Some(&info)) }.unwrap().announce, None);
        assert!(apply(&mut info, "-asapannounce=auto"));
        assert_eq!(info.ri_disable_autoconfig, 0);
    }

    #[test]
    fn a_programs_own_addresses_are_not_freed() {
        let mut info = empty();
        let own = sockaddr::pack(["127.0.0.1:1".parse().unwrap()]);
        info.ri_csp_server = own.as_ptr().cast_mut().cast();
        unsafe { free(&mut info) };
        assert!(!info.ri_csp_server.is_null());
    }
}
