//! What guests of other programs trip over, in a program of our own (`c/traps.c`): forks, signals, threads that are
//! cancelled, files that are closed behind us, seccomp, chroot, other libraries of the same kind; and what calls cost that are none of ours.

use super::preload::{has, library, said, under};
use super::{Refusing, Server, rspctl, temporary};
use crate::process::{Process, Registrar};
use crate::skip::skipped;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A compiled file of ours, which goes with the test.
struct Compiled(PathBuf);

impl Drop for Compiled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn compile(source: &str, more: &[&str]) -> Compiled {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let made = temporary(&format!("{source}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let from = format!("{}/tests/reach/c/{source}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("cc");
    command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(&made).arg(from).args(more);
    said(&command.output().unwrap());
    Compiled(made)
}

/// The case alone, with an end.
fn run(library: &Path, registrar: &Registrar, traps: &Compiled, case: &[&str]) -> Option<i32> {
    let (program, limit) = (traps.0.to_str().unwrap(), "60");
    let mut command = under(library, registrar, "timeout", &[&[limit, program], case].concat());
    let output = command.output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

#[test]
fn guests_are_as_without_it() {
    let Some(library) = library().filter(|_| has("cc")) else { return };
    let traps = compile("traps.c", &["-lpthread", "-ldl"]);
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let _kept = server.register(&registrar, "WebPool", &[]);
    for case in [
        "forks",
        "spawns",
        "executed",
        "closes",
        "bare",
        "signals",
        "cancels",
        "locked",
        "chrooted",
        "unasked",
        "fast_opens",
    ] {
        match run(&library, &registrar, &traps, &[case]) {
            Some(77) => skipped("preload in a chroot", "not root"),
            status => assert_eq!(status, Some(0), "{case}"),
        }
    }
    let early = compile("early.c", &["-shared", "-fPIC", "-ldl"]);
    for libraries in [[&library, &early.0], [&early.0, &library]] {
        let libraries = libraries.map(|path| path.display().to_string()).join(":");
        assert_eq!(run(Path::new(&libraries), &registrar, &traps, &["reach"]), Some(0), "{libraries}");
    }
}

#[test]
fn a_connect_that_fails_is_heard_of_as_ever() {
    let Some(library) = library().filter(|_| has("cc")) else { return };
    let traps = compile("traps.c", &["-lpthread", "-ldl"]);
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let _kept = server.register(&registrar, "WebPool", &[]);
    let refusing = Refusing::bind();
    let _refusing = refusing.register(&registrar);
    for how in ["epoll", "poll", "select", "again", "write"] {
        assert_eq!(run(&library, &registrar, &traps, &["asks", how]), Some(0), "{how}");
    }
    // One that takes no packet any more, as a host that is gone: others are connected to within two seconds, signals or not.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _fill: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    let mut swallowing = rspctl();
    swallowing.args(["register", "WebPool", "--tcp", &address.to_string(), "--check-command", "true"]);
    let mut swallowing = Process::start(swallowing.env("RSP_REGISTRAR", registrar.asap.to_string()));
    swallowing.line_with("0x");
    let begun = Instant::now();
    assert_eq!(run(&library, &registrar, &traps, &["signals"]), Some(0));
    println!("three connects, of which some were swallowed: {:?}", begun.elapsed());
}

#[test]
fn calls_that_are_none_of_ours_cost_little() {
    let Some(library) = library().filter(|_| has("cc")) else { return };
    let traps = compile("traps.c", &["-lpthread", "-ldl"]);
    let output = Command::new(&traps.0).arg("costs").env("LD_PRELOAD", library).output().unwrap();
    let said = said(&output);
    println!("connect, getsockopt, accept: {said} ns");
    let costs: Vec<i64> = said.split(' ').map(|cost| cost.parse().unwrap()).collect();
    // A build for use is held to the promise, one for tests to the size of it.
    let limit = if cfg!(debug_assertions) { 2000 } else { 100 };
    assert!(costs.iter().all(|&cost| cost < limit), "{said} ns, and {limit} are allowed");
}
