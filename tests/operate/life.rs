//! From the first argument to the last signal.

use super::elements::{Elements, handle};
use super::{scratch, soon};
use crate::busy::busy;
use crate::process::{Process, Registrar};
use rserpool::wire::{Asap, CauseCode, PeId};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const LOCAL: [&str; 5] =
    ["-config=off", "-asap=127.0.0.1:0", "-enrp=127.0.0.1:0", "-asapannounce=off", "-enrpannounce=off"];

fn registrar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
    command.env("RSP_TRANSPORT", "tcp").stdin(Stdio::null());
    command
}

/// What it says to arguments with which it can't start.
fn refused(arguments: &[&OsStr]) -> String {
    let Output { status, stderr, .. } = registrar().args(LOCAL).args(arguments).output().expect("run");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn a_mistake_is_said_with_option_and_value() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("port");
    let port = taken.local_addr().expect("address").port().to_string();
    let with_port = |option: &str| format!("{option}{port}");
    for (argument, said) in [
        (with_port("--http="), vec![format!("--http={port}"), format!("127.0.0.1:{port}"), "in use".into()]),
        (with_port("--http=127.0.0.1:"), vec![format!("--http=127.0.0.1:{port}"), "in use".into()]),
        (with_port("--asap=127.0.0.1:"), vec![format!("--asap=127.0.0.1:{port}"), "in use".into()]),
        (with_port("--enrp=127.0.0.1:"), vec![format!("--enrp=127.0.0.1:{port}"), "in use".into()]),
        // Of all addresses.
        (with_port("--enrp="), vec![format!("--enrp={port}"), "in use".into()]),
        ("--http=99999".into(), vec!["--http=99999: no port: 0 to 65535".into()]),
        ("--http=".into(), vec!["--http=: ".into(), "an address is missing".into()]),
        ("--peer=127.0.0.1:0".into(), vec!["--peer=127.0.0.1:0: nobody has port 0".into()]),
        ("--http=[::1".into(), vec!["--http=[::1: ']' is missing".into()]),
        ("--asap=1.2.3.4:x".into(), vec!["--asap=1.2.3.4:x: bad port number".into()]),
        ("--peer=9901".into(), vec!["--peer=9901: a port without an address".into()]),
        ("--cspserver=2960".into(), vec!["--cspserver=2960: a port without an address".into()]),
        ("--asapannounce=10.0.0.1".into(), vec!["--asapannounce=10.0.0.1: ".into()]),
        ("--transport=udp".into(), vec!["--transport=udp: not auto, sctp or tcp".into()]),
        ("--minaddressscope=lan".into(), vec!["--minaddressscope=lan: not loopback".into()]),
        ("--logfile=/nowhere/x".into(), vec!["--logfile=/nowhere/x: No such file".into()]),
        ("--daemonpidfile=/nowhere/x".into(), vec!["--daemonpidfile=/nowhere/x: No such file".into()]),
        ("--config=/nowhere/x".into(), vec!["--config=/nowhere/x: No such file".into()]),
        ("--identifier=x".into(), vec!["'x'".into(), "--identifier".into(), "decimal or 0xHEX".into()]),
        ("--maxelements=-1".into(), vec!["--maxelements".into(), "-1".into()]),
        ("--dnsttl=86401".into(), vec!["--dnsttl".into(), "86401".into(), "0..=86400".into()]),
        ("--logformat=xml".into(), vec!["--logformat".into(), "xml".into(), "journal".into()]),
        ("--htpp=127.0.0.1:0".into(), vec!["--htpp".into(), "--http".into()]),
        ("-peerheartbeatcyle=5".into(), vec!["--peerheartbeatcycle".into()]),
    ] {
        let text = refused(&[OsStr::new(&argument)]);
        for word in said {
            assert!(text.contains(&word), "{argument}: no \"{word}\" in: {text}");
        }
    }
}

#[test]
fn arguments_that_are_no_text_are_mistakes_as_others() {
    for bytes in [
        &b"\xff"[..],
        b"-\xff",
        b"--\xff",
        b"--asap=\xff",
        b"--logfile=/nowhere/\xff",
        b"--peer=\xc3\x28:1",
        b"-",
    ] {
        refused(&[OsStr::from_bytes(bytes)]);
    }
    let said = refused(&[OsStr::from_bytes(b"--asap=\xff")]);
    assert!(said.contains(r#"not UTF-8: "--asap=\xFF""#), "{said}");
    let mut command = registrar();
    command.args(LOCAL).arg("--check").env("CSP_INTERVAL", OsStr::from_bytes(b"\xff"));
    let output = command.output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CSP_INTERVAL: not UTF-8"));
}

/// What `rspctl` says to arguments that make no sense.
#[test]
fn the_tool_says_which_argument_makes_no_sense() {
    let tool = || Command::new(env!("CARGO_BIN_EXE_rspctl"));
    for (arguments, said) in [
        (&[&b"resolve"[..], b"--registrar", b"\xff", b"x"][..], r#"not UTF-8: --registrar "\xFF""#),
        (&[b"pools", b"--http=\xff\xfe"], r#"not UTF-8: "--http=\xFF\xFE""#),
        (
            &[b"register", b"--tcp", b"127.0.0.1:5", b"--weight", b"-1", b"x"],
            "invalid value '-1' for '--weight",
        ),
        (&[b"resolve", b"-n", b"-1", b"x"], "invalid value '-1' for '--items"),
        (&[b"register", b"--tcp", b"", b"x"], "--tcp=: "),
    ] {
        let output =
            tool().args(arguments.iter().map(|bytes| OsStr::from_bytes(bytes))).output().expect("run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "no {said} in: {stderr}");
    }
    // What is asked for and can't be written is not done.
    for arguments in [&["completions", "bash"][..], &["doctor"], &["decode", "asap", "05000004"]] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = tool().args(arguments).stdout(full).output().expect("run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("No space"), "{arguments:?}: {stderr}");
    }
}

/// Nobody reads what it says: it neither panics nor minds.
#[test]
fn outputs_that_are_closed_or_full_are_survived() {
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        writer
    };
    for arguments in [&["--help"][..], &["--version"], &["--nonsense"], &["--asap=x y"], &["--check"]] {
        let code = registrar().args(LOCAL).args(arguments).output().expect("run").status.code();
        let with = |stdout: Stdio, stderr: Stdio| {
            let mut command = registrar();
            command.args(LOCAL).args(arguments).stdout(stdout).stderr(stderr).status().expect("run").code()
        };
        assert_eq!(with(full().into(), full().into()), code, "{arguments:?}, full");
        assert_eq!(with(closed().into(), closed().into()), code, "{arguments:?}, closed");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_rspregistrar")]);
        let closed = command.args(LOCAL).args(arguments).status().expect("run").code();
        assert_eq!(closed, code, "{arguments:?}, without descriptors");
    }
    let mut child =
        registrar().args(LOCAL).arg("-loglevel=9").stdout(closed()).stderr(full()).spawn().expect("run");
    soon("its handler", || catches(child.id(), libc::SIGTERM));
    assert_eq!(child.try_wait().expect("status"), None, "it serves");
    terminate(child.id());
    assert_eq!(child.wait().expect("status").code(), Some(0));
}

fn kill(id: u32, signal: i32) {
    // SAFETY: a process of ours that was not waited for, or one that it started.
    unsafe { libc::kill(id.cast_signed(), signal) };
}

fn terminate(id: u32) {
    kill(id, libc::SIGTERM);
}

/// Whether a process has a handler for a signal.
fn catches(id: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    u64::from_str_radix(caught.trim(), 16).expect("a mask") & 1 << (signal - 1) != 0
}

fn ends_within_a_second(child: &mut std::process::Child) {
    let begin = Instant::now();
    terminate(child.id());
    let status = child.wait().expect("status");
    let took = begin.elapsed();
    assert!(took < busy() * Duration::from_millis(1100), "SIGTERM took {took:?}");
    assert_eq!(status.code(), Some(0));
}

/// A pipe or a disk that takes nothing, a name server that does not answer.
#[test]
fn sigterm_ends_it_within_a_second_whatever_hangs() {
    // Its log, while it opens it.
    let fifo = scratch("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    let log = format!("-logfile={}", fifo.display());
    let mut child = registrar().args(LOCAL).arg(&log).stdout(Stdio::null()).spawn().expect("run");
    soon("its handler", || catches(child.id(), libc::SIGTERM));
    ends_within_a_second(&mut child);

    // Its log, in the middle of a line: nobody reads the pipe.
    let (reader, writer) = std::io::pipe().expect("pipe");
    let pid_file = scratch("hanging.pid");
    let mut command = registrar();
    command.args(LOCAL).args(["-loglevel=9", "-http=127.0.0.1:0"]).stdout(Stdio::piped()).stderr(writer);
    let mut child = command.spawn().expect("run");
    drop(command);
    let mut out = child.stdout.take().expect("output");
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains("is ready") {
        let count = out.read(&mut buffer).expect("text");
        said += &String::from_utf8_lossy(&buffer[..count]);
    }
    let http = said.lines().find_map(|line| line.strip_prefix("HTTP ")).expect("HTTP").to_string();
    let answers = || {
        let Ok(mut stream) = std::net::TcpStream::connect(&http) else { return false };
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
        std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\n\r\n").is_ok()
            && matches!(stream.read(&mut [0; 100]), Ok(1..))
    };
    // Each SIGUSR1 is a line.
    soon("a full pipe", || {
        for _ in 0..200 {
            kill(child.id(), libc::SIGUSR1);
            std::thread::sleep(Duration::from_micros(200));
        }
        !answers()
    });
    ends_within_a_second(&mut child);
    drop((reader, pid_file));
}

#[test]
fn other_signals_do_not_end_it() {
    let mut registrar = Registrar::start(&["-config=off"]);
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGPIPE, libc::SIGWINCH, libc::SIGCHLD] {
        registrar.process.signal(signal);
    }
    soon("the log says what was asked", || registrar.process.log().contains("asked by a signal: "));
    assert!(registrar.process.runs());
}

/// A signal that its starter had blocked works all the same.
#[test]
fn blocked_signals_are_taken() {
    let mut command = registrar();
    command.args(LOCAL).stdout(Stdio::piped());
    // SAFETY: only async-signal-safe calls before exec.
    unsafe {
        command.pre_exec(|| {
            let all = nix::sys::signal::SigSet::all();
            all.thread_block().map_err(Into::into)
        })
    };
    let mut child = command.spawn().expect("run");
    soon("its handler", || catches(child.id(), libc::SIGTERM));
    ends_within_a_second(&mut child);
}

fn daemon(pid_file: &Path, more: &[&str]) -> Output {
    let mut file = OsString::from("-daemonpidfile=");
    file.push(pid_file);
    registrar().args(LOCAL).arg(file).args(more).output().expect("run")
}

fn is_running(id: u32) -> bool {
    // Zombies of a container's first process are no registrars.
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn id_in(pid_file: &Path) -> u32 {
    fs::read_to_string(pid_file).expect("pid file").trim().parse().expect("a number")
}

#[test]
fn a_pid_file_is_one_processs_own() {
    let pid_file = scratch("one.pid");
    let first = daemon(&pid_file, &[]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let id = id_in(&pid_file);
    let second = daemon(&pid_file, &[]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("one.pid: process {id} has it")), "{said}");
    assert_eq!(id_in(&pid_file), id, "the file is the first one's still");
    terminate(id);
    soon("the end", || !is_running(id));
    assert!(!pid_file.exists(), "removed at the end");

    // What a killed one left is taken.
    daemon(&pid_file, &[]);
    let killed = id_in(&pid_file);
    kill(killed, libc::SIGKILL);
    soon("the end", || !is_running(killed));
    assert!(pid_file.exists());
    let third = daemon(&pid_file, &[]);
    assert_eq!(third.status.code(), Some(0), "{third:?}");
    let id = id_in(&pid_file);
    assert_ne!(id, killed);
    terminate(id);
    soon("the end", || !is_running(id));
}

/// Whatever goes wrong, nothing stays behind: no process, no file.
#[test]
fn a_failed_start_leaves_no_process() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("port");
    let http = format!("-http={}", taken.local_addr().expect("address"));
    let mark = format!("-object={}", scratch("mark").display());
    let ours = || {
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(&mark)).count()
    };
    let pid_file = scratch("failed.pid");
    let failed = daemon(&pid_file, &[&http, &mark]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains(&http[1..]) && said.contains("in use"), "{said}");
    assert!(!pid_file.exists());
    let failed = daemon(Path::new("/nowhere/x.pid"), &[&mark]);
    assert_eq!(failed.status.code(), Some(1));
    let failed = daemon(Path::new("/dev/full"), &[&mark]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    soon("nothing left", || ours() == 0);
}

#[test]
fn numbers_out_of_range_are_said() {
    let registrar = Registrar::start(&["-config=off", "-peerheartbeatcycle=5", "-maxhresitems=0"]);
    let note = "--peerheartbeatcycle=5: not within 100 to 300000, taken as 100";
    soon(note, || registrar.process.log().contains(note));
    soon("the other", || registrar.process.log().contains("--maxhresitems=0: less than 1, taken as 1"));
}

/// Its log tells the life of the process.
#[test]
fn the_log_says_how_it_begins_and_ends() {
    let mut command = registrar();
    command.args(LOCAL).args(["-loglevel=info", "-logcolor=off"]);
    let mut process = Process::start(&mut command);
    process.line_with("registrar ");
    process.signal(libc::SIGTERM);
    let log = || process.log();
    soon("the end", || log().contains(" ends: serving: 0 pools"));
    let begins = format!("rspregistrar {}: registrar 0x", env!("CARGO_PKG_VERSION"));
    assert!(log().contains(&begins) && log().contains("ASAP tcp 127.0.0.1:"), "{}", log());
}

/// Each line about a registrar or an element says which one, and where it is.
#[test]
fn lines_about_others_name_identifier_and_address() {
    let home = Registrar::start(&["-loglevel=info"]);
    let other = Registrar::start(&["-loglevel=info", &format!("-peer={}", home.enrp)]);
    let server = TcpListener::bind("127.0.0.1:0").expect("port");
    let at = server.local_addr().expect("address");
    std::thread::spawn(move || while server.accept().is_ok() {});
    let mut register = Command::new("env");
    register.args(["RSP_LOG=info", &format!("RSP_REGISTRAR={}", home.asap), env!("CARGO_BIN_EXE_rspctl")]);
    register.args(["register", "Web", "--tcp", &at.to_string()]);
    let mut element = Process::start(&mut register);
    element.ignore_the_rest();
    let log = || other.process.log();
    let known = || log().contains(&format!(" at {at}, 1 in its pool"));
    soon("the element at both", known);
    let text = log();
    let id = text
        .split("Web/0x")
        .nth(1)
        .and_then(|rest| u32::from_str_radix(&rest[..8], 16).ok())
        .expect("its ID");
    let mut user = Elements::connect(other.asap);
    user.send(&Asap::EndpointUnreachable { handle: handle(b"Web"), id: PeId(id) });
    user.send(&Asap::Error { error: CauseCode(7).into() });
    soon("what the user said", || log().contains(" reports CauseCode"));
    // It knows of no other registrar, so it can't go there before its own is taken over.
    home.process.signal(libc::SIGKILL);
    soon("a takeover", || log().contains(" took over 1 elements from registrar "));
    let begun = log();
    let ours = begun.split(": registrar ").nth(1).map_or("", |rest| &rest[..10]);
    soon("another home", || element.log().contains(&format!("home registrar is {ours}")));
    let dead = format!(" at {} is dead", home.enrp);
    for word in [" is there", &dead, "taking over from registrar", "Reported as unreachable by 127.0.0.1"] {
        assert!(log().contains(word), "{word}: {}", log());
    }
    assert!(element.log().contains(&format!(" at {}", home.asap)), "{}", element.log());
    let all = [home.process.log(), log(), element.log()].concat();
    // Only the first line of a registrar is about itself.
    let nowhere =
        |line: &&str| line.contains("0x") && !line.contains(" at 127.") && !line.contains("rspregistrar 0.");
    let lines: Vec<&str> = all.lines().filter(nowhere).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
