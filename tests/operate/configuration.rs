//! The configuration file, `--check`, and reading it again.

use super::{scratch, soon};
use crate::process::{Process, Registrar};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

fn check(text: &str) -> (i32, String) {
    let path = scratch("check.toml");
    fs::write(&path, text).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
    let output = command.arg("--check").arg(format!("--config={}", path.display())).output().expect("run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).replace(&path.display().to_string(), "FILE");
    (output.status.code().expect("status"), said)
}

#[test]
fn check_says_whether_a_file_is_good() {
    assert_eq!(check("asap = \"auto\"\n"), (0, "rspregistrar: FILE is good\n".into()));
    for (text, said) in [
        (
            "\npeerhearbeatcycle = 5",
            "FILE:2:1: unknown key \"peerhearbeatcycle\"; did you mean \"peerheartbeatcycle\"?",
        ),
        ("asap = \"10.0.0.1:x\"", "FILE:1:8: asap=10.0.0.1:x: bad port number"),
        ("http = 123456", "FILE:1:8: http=123456: no port: 0 to 65535"),
        ("dnsttl = 86401", "FILE:1:10: dnsttl: invalid value '86401'"),
        ("asap = \"auto\nx", "FILE:2:2: "),
    ] {
        let (status, output) = check(text);
        assert!(status == 1 && output.contains(said), "{text}: {status}, {output}");
    }
    for (text, said) in [
        ("peerheartbeatcycle = 5", "FILE:1:22: peerheartbeatcycle=5: not within 100 to 300000, taken as 100"),
        ("announcettl = 256", "FILE:1:15: announcettl=256: not within 1 to 255, taken as 255"),
    ] {
        let (status, output) = check(text);
        assert!(status == 0 && output.contains(said), "{text}: {status}, {output}");
    }
}

/// What a service manager hears.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(name: &str) -> (Manager, String) {
        let path = scratch(name);
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("timeout");
        (Manager(socket), path.display().to_string())
    }

    /// The next message with these words.
    fn hears(&self, words: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let count = match self.0.recv(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.unwrap_or_else(|error| panic!("no \"{words}\": {error}")),
            };
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(words) {
                return text;
            }
        }
    }
}

#[test]
fn sighup_takes_what_can_be_taken_without_losing_a_connection() {
    let other = Registrar::start(&["-config=off"]);
    let path = scratch("reload.toml");
    let base = "asap = \"127.0.0.1:0\"\nenrp = \"127.0.0.1:0\"\nasapannounce = \"off\"\nenrpannounce = \"off\"\n\
                http = \"127.0.0.1:0\"\nlogcolor = \"off\"\n";
    fs::write(&path, base).expect("write");
    let (manager, socket) = Manager::listen("notify");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
    command.arg(format!("-config={}", path.display())).env("NOTIFY_SOCKET", socket);
    command.env("WATCHDOG_USEC", "200000");
    let mut process = Process::start(&mut command);
    let asap: std::net::SocketAddr = process.line_after("ASAP tcp ").parse().expect("address");
    let ready = manager.hears("READY=1");
    assert!(ready.contains("STATUS=serving: 0 pools, 0 elements, 0 other registrars"), "{ready}");
    manager.hears("WATCHDOG=1");
    let mut connection = std::net::TcpStream::connect(asap).expect("connect");

    // A mistake: nothing changes, and it is said.
    fs::write(&path, format!("{base}loglevel = \"info\"\npeers = []\n")).expect("write");
    process.signal(libc::SIGHUP);
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let said = manager.hears("READY=1");
    assert!(
        said.contains("STATUS=reload failed: ") && said.contains("reload.toml:8:1: unknown key"),
        "{said}"
    );
    soon("the log", || process.log().contains("did you mean \"peer\"?; everything stays as it was"));

    let enrp = other.enrp;
    let text = format!(
        "{}loglevel = \"info\"\npeer = \"{enrp}\"\n",
        base.replace("enrp = \"127.0.0.1:0\"", "enrp = \"127.0.0.1:1\"")
    );
    fs::write(&path, text).expect("write");
    process.signal(libc::SIGHUP);
    manager.hears("RELOADING=1");
    let said = manager.hears("READY=1");
    assert!(said.contains("STATUS=taken: loglevel, peer; needs a restart: enrp"), "{said}");
    // The new level and the new peer are in force.
    soon("the peer", || process.log().contains("registrar 0x") && process.log().contains(" is there"));
    soon("the status", || manager.hears("STATUS=").contains("1 other registrars"));
    // The old connection still works.
    use std::io::{Read, Write};
    let resolution = rserpool::wire::Asap::HandleResolution {
        subscribe: false,
        handle: rserpool::wire::PoolHandle::new(b"none").expect("handle"),
        items: None,
    };
    connection.write_all(&resolution.encode()).expect("write");
    assert!(connection.read(&mut [0; 512]).expect("answer") > 0);

    process.signal(libc::SIGTERM);
    manager.hears("STOPPING=1");
}
