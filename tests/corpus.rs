//! Every committed input of the fuzz targets, on any compiler.

// Without debug assertions there are no fuzz functions in the library.
#![cfg(debug_assertions)]

#[cfg(feature = "registrar")]
#[path = "../fuzz/programs.rs"]
mod programs;
// Where the program's files look for each other.
#[cfg(feature = "registrar")]
use programs::{dns_sockets, tls, usage};
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("no corpus of {target} in {}: {error}", directory.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        // Says which input it was, should the run below panic.
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
    println!("{target}: {count} inputs");
}

#[test]
fn wire() {
    replay("wire", rserpool::fuzz::wire);
}

#[test]
fn registrar() {
    replay("registrar", rserpool::fuzz::registrar);
}

#[test]
fn session() {
    replay("session", rserpool::fuzz::session);
}

#[test]
fn client() {
    replay("client", rserpool::fuzz::client);
}

#[test]
fn datagrams() {
    replay("datagrams", rserpool::fuzz::datagrams);
}

#[test]
fn notifications() {
    replay("notifications", rserpool::fuzz::notifications);
}

#[test]
fn settings() {
    replay("settings", rserpool::fuzz::settings);
}

#[test]
fn tls_handshakes() {
    replay("tls", rserpool::fuzz::tls);
}

#[test]
fn capi() {
    replay("capi", rserpool::fuzz::capi);
}

#[cfg(feature = "registrar")]
#[test]
fn http() {
    replay("http", programs::http);
}

#[cfg(feature = "registrar")]
#[test]
fn options_and_their_file() {
    replay("options", programs::options);
}

#[cfg(feature = "dns")]
#[test]
fn dns() {
    replay("dns", rserpool::fuzz::dns);
}
