//! What the registrar's program reads: what somebody asks of the operator's page, its options and their file.

#[allow(dead_code, reason = "what only the program needs")]
#[path = "../src/bin/rspregistrar/configuration.rs"]
mod configuration;
#[allow(dead_code, clippy::disallowed_methods, reason = "what only the program needs")]
#[path = "../src/bin/common/dns.rs"]
pub mod dns_sockets;
#[allow(dead_code, reason = "what only the program needs")]
#[path = "../src/bin/rspregistrar/options.rs"]
mod options;
#[allow(dead_code, reason = "what only the program needs")]
#[path = "../src/bin/rspregistrar/request.rs"]
mod request;
#[path = "../src/bin/common/tls.rs"]
pub mod tls;
#[path = "../src/bin/common/usage.rs"]
pub mod usage;

use configuration::{Configuration, Failure};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Any bytes of a connection to the operator's page: what was taken for a whole request, or for none, stays that
/// whatever follows.
pub fn http(data: &[u8]) {
    let whole = request::parse(data);
    for cut in [data.len() / 2, data.len() * 7 / 8, data.len().saturating_sub(1)] {
        match (request::parse(&data[..cut]), &whole) {
            (None, _) | (Some(Err(_)), Some(Err(_))) => {}
            (Some(Ok(early)), Some(Ok(late))) => assert_eq!(early, *late),
            (early, late) => panic!("{early:?} after {cut} bytes, then {late:?}"),
        }
    }
    let Some(Ok(request)) = whole else { return };
    let names = ["pool", "id", "limit", "after", "q", ""];
    for name in names {
        assert!((1..=1000).contains(&request.number(name, 100, 1000)));
        let _ = (request.text(name), request.id(name));
        if let Some(handle) = request.handle(name) {
            assert!(!handle.as_bytes().is_empty() && handle.as_bytes().len() <= data.len());
        }
    }
    let _ = request.is_for("127.0.0.1:80".parse().expect("an address"));
    let foreign = request.is_foreign();
    assert_eq!(request.came(true, true).is_foreign(), foreign);
}

/// Words that are no names of hosts, which would be looked up.
const WORDS: [&str; 22] = [
    "asap",
    "enrp",
    "asapannounce",
    "enrpannounce",
    "peer",
    "http",
    "dns",
    "identifier",
    "transport",
    "allow",
    "auto",
    "off",
    "tcp",
    "sctp",
    "rfc",
    "rsplib",
    "dialect",
    "minaddressscope",
    "loopback",
    "sitelocal",
    "true",
    "false",
];

/// A command line, arguments apart by line ends, and behind a zero the file: a configuration, or what is wrong with it,
/// in one line.
pub fn options(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let (arguments, file) = (parts.next().unwrap_or_default(), parts.next());
    let is_other = |argument: &&[u8]| {
        let other = [&b"config"[..], b"completions", b"help", b"version"];
        other.iter().any(|other| argument.windows(other.len()).any(|part| part == *other))
    };
    let mut list: Vec<OsString> = arguments
        .split(|&byte| byte == b'\n')
        .filter(|argument| !argument.is_empty() && !is_other(argument))
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    let path = std::env::temp_dir().join(format!("rserpool-fuzz-{}.toml", std::process::id()));
    match file {
        Some(text) => {
            std::fs::write(&path, text).expect("a temporary file");
            list.push(format!("--config={}", path.display()).into());
        }
        None => list.push("--config=off".into()),
    }
    let configuration = match Configuration::load(&list) {
        Ok(configuration) => configuration,
        Err(Failure::Usage(error)) => return assert!(!error.to_string().is_empty()),
        Err(Failure::Wrong(wrong)) => {
            assert!(file.is_some() && wrong.contains(path.to_str().expect("text")), "{wrong}");
            return assert!(!wrong.trim_end().contains('\n'), "more than a line: {wrong}");
        }
    };
    let notes = configuration.options.notes();
    assert!(notes.iter().all(|note| note.starts_with("--")), "{notes:?}");
    let text = String::from_utf8_lossy(data);
    let word = |word: &str| WORDS.contains(&word) || !word.contains(char::is_alphabetic);
    if text.split(|c: char| !c.is_alphanumeric()).all(word) {
        if let Err(wrong) = configuration.options.server() {
            assert!(!configuration.explain(wrong).is_empty());
        }
        let _ = (configuration.options.http(), configuration.options.dns(), configuration.options.reports());
    }
    let mut before = configuration;
    if let Ok(newer) = Configuration::load(&list) {
        let changes = before.compare(&newer);
        assert!(
            changes.taken.is_empty() && changes.need_restart.is_empty(),
            "nothing has changed: {changes:?}"
        );
    }
}
