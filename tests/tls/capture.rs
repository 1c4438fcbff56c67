//! tshark decodes a capture with the key log that `--tls-unsafe-key-log` writes; and without the option there is none.

use super::{Ca, rspctl, skipped, soon, text};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What passed in one connection: whether from the client, and the bytes.
type Passed = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// Stands before `server` and writes down what passes.
fn relay(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Passed>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a relay");
    let (address, connections) =
        (listener.local_addr().expect("address"), Arc::<Mutex<Vec<Passed>>>::default());
    let copy = |mut from: TcpStream, mut to: TcpStream, is_client: bool, passed: Passed| {
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                // Before the other end can answer it.
                passed.lock().expect("a list").push((is_client, buffer[..count].to_vec()));
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let all = connections.clone();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).expect("the server");
            let (to, from) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            let passed = Passed::default();
            all.lock().expect("a list").push(passed.clone());
            copy(client, to, true, passed.clone());
            copy(server, from, false, passed);
        }
    });
    (address, connections)
}

/// The same as packets of one TCP connection with port 3864, over IPv4 (pcap, LINKTYPE_RAW).
fn capture(passed: &[(bool, Vec<u8>)]) -> Vec<u8> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    // Of the client, of the server.
    let mut next = [1_000_u32, 2_000];
    let mut time = 0_u32;
    let mut packet = |is_client: bool, flags: u8, bytes: &[u8]| {
        let (own, other) = if is_client { (0, 1) } else { (1, 0) };
        let ports = if is_client { [40_000_u16, 3864] } else { [3864, 40_000] };
        let length = u16::try_from(40 + bytes.len()).expect("short");
        let hosts = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let mut ip = vec![0x45, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(hosts[own]);
        ip.extend(hosts[other]);
        ip.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        ip.extend(next[own].to_be_bytes());
        ip.extend(if flags == SYN { 0 } else { next[other] }.to_be_bytes());
        ip.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        ip.extend(bytes);
        time += 1;
        for word in [1_700_000_000, time * 1000, u32::from(length), u32::from(length)] {
            out.extend(word.to_le_bytes());
        }
        out.extend(ip);
        next[own] = next[own]
            .wrapping_add(u32::try_from(bytes.len()).expect("short") + u32::from(flags & (SYN | FIN) != 0));
    };
    packet(true, SYN, &[]);
    packet(false, SYN | ACK, &[]);
    packet(true, ACK, &[]);
    passed.iter().for_each(|(is_client, bytes)| packet(*is_client, ACK | 8, bytes));
    out
}

/// What tshark makes of it with these secrets.
fn decoded(pcap: &Path, secrets: &Path) -> String {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(pcap).arg("-o").arg(format!("tls.keylog_file:{}", secrets.display()));
    command.args(["-d", "tcp.port==3864,tls", "-q", "-z", "follow,tls,raw,0"]);
    text(&command.output().expect("tshark"))
}

#[test]
fn tshark_decodes_what_passed_with_the_key_log() {
    let ca = Ca::new("capture");
    let registrar = ca.registrar(&["--mentordiscoverytimeout=0"]);
    soon("it serves", || text(&ca.resolve(registrar.asap, "Echo", "user")).contains("unknown pool"));
    let secrets = ca.0.join("secrets");
    let resolve = |options: &[&str]| {
        let (at, connections) = relay(registrar.asap);
        let mut command = rspctl(&["resolve", "Echo", "--registrar", &at.to_string()]);
        command.args(["--tls-dir", &ca.of("user")]).args(options).env("SSLKEYLOGFILE", &secrets);
        let said = text(&command.output().expect("rspctl"));
        assert!(said.contains("unknown pool"), "{said}");
        // Where it had to connect again, the last one has the answer.
        let last = connections.lock().expect("a list").pop().expect("it was there");
        let passed = std::mem::take(&mut *last.lock().expect("a list"));
        (said, passed)
    };
    // The variable alone, which may be a browser's, does nothing.
    resolve(&[]);
    assert!(!secrets.exists(), "nobody asked for it");
    let (said, passed) = resolve(&["--tls-unsafe-key-log"]);
    assert!(said.contains("unsafe"), "{said}");
    let text = std::fs::read_to_string(&secrets).expect("a key log");
    for label in ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"] {
        assert!(text.lines().any(|line| line.starts_with(label)), "{text}");
    }
    if Command::new("tshark").arg("--version").output().is_err() {
        return skipped("tshark with a key log", "it is not installed");
    }
    let pcap = ca.0.join("capture.pcap");
    std::fs::write(&pcap, capture(&passed)).expect("written");
    let nothing = ca.0.join("nothing");
    std::fs::write(&nothing, "").expect("written");
    // ASAP_HANDLE_RESOLUTION with the pool handle parameter "Echo".
    let question = "00090008".to_owned() + "4563686f";
    let blind = decoded(&pcap, &nothing);
    assert!(!blind.contains(&question), "without the secrets: {blind}");
    let seen = decoded(&pcap, &secrets);
    assert!(seen.contains(&question), "{seen}");
}
