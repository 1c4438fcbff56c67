//! Every committed input of the fuzz targets, on any compiler. Those of what only the programs read: `tests/corpus.rs`.

#[path = "../../tests/common/replay.rs"]
mod replay;

use replay::replay;
use std::process::Command;

#[test]
fn wire() {
    replay("wire", super::wire);
}

#[test]
fn registrar() {
    replay("registrar", super::registrar);
}

#[test]
fn session() {
    replay("session", super::session);
}

#[test]
fn client() {
    replay("client", super::client);
}

#[test]
fn datagrams() {
    replay("datagrams", super::datagrams);
}

#[test]
fn notifications() {
    replay("notifications", super::notifications);
}

#[test]
fn settings() {
    replay("settings", super::settings);
}

#[test]
fn tls_handshakes() {
    replay("tls", super::tls);
}

/// In a process of its own: the library that a process has one of, its environment, and that nobody panics in it.
#[test]
fn capi() {
    const ALONE: &str = "FUZZ_CORPUS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return replay("capi", super::capi);
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", "fuzz::tests::capi", "--nocapture"]).env(ALONE, "1");
    let output = alone.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("capi: "), "{said}{complained}");
}

#[cfg(feature = "dns")]
#[test]
fn dns() {
    replay("dns", super::dns);
}
