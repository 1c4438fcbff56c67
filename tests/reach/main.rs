//! Ways into pools for programs that know nothing of them, with real processes on loopback: `rspctl register` and
//! `rspctl proxy`; and what `rspctl` does with arguments and readers that are not as they should be.
#![allow(clippy::disallowed_methods)]

mod dns;
mod preload;
#[path = "../common/process.rs"]
mod process;
mod serve;
#[path = "../common/skip.rs"]
mod skip;
mod traps;

use process::{Process, Registrar};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// For what has no time of its own, on the slowest of machines.
const LIMIT: Duration = Duration::from_secs(60);
/// From when a server hangs until its users are rid of it: the promise of docs/reach.md.
const HUNG: Duration = Duration::from_secs(2);

/// A server hangs, again and again, until its users were rid of it in the time that is promised: whoever shares the machine
/// with the test may delay it, and does not each time. How long they need where nobody does, `make reach` measures.
fn in_time(mut hangs: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 5 {
        let time = hangs();
        println!("left after {time:?}");
        if time < HUNG {
            return;
        }
        took.push(time);
    }
    panic!("left after {took:?}, and {HUNG:?} are promised");
}

/// A port at which nobody listens, and nobody else can while this lives.
struct Refusing(socket2::Socket);

impl Refusing {
    fn bind() -> Refusing {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // Who says so as well may listen there all the same.
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Refusing(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// An element that is in the pool, and refuses.
    fn register(&self, registrar: &Registrar) -> Process {
        let mut command = rspctl();
        command.args([
            "register",
            "WebPool",
            "--tcp",
            &self.address().to_string(),
            "--check-command",
            "true",
        ]);
        let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
        process.line_with("0x");
        process
    }
}

fn rspctl() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rspctl"))
}

/// `rspctl register` as it is without options, for a server that is to hang.
const HASTY: [&str; 2] = ["--timeout", "500"];

/// Says its name to everybody, then what it gets, and after the end `bye`.
struct Server {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
}

impl Server {
    fn start(name: &'static str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = Arc::new(AtomicBool::new(false));
        let stops = frozen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                thread::spawn(move || -> std::io::Result<()> {
                    // In one piece: `writeln!` makes two.
                    stream.write_all(format!("{name}\n").as_bytes())?;
                    let mut echoed = stream.try_clone()?;
                    std::io::copy(&mut stream, &mut echoed)?;
                    echoed.write_all(b"bye")?;
                    echoed.shutdown(Shutdown::Write)
                });
                while stops.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Server { address, frozen }
    }

    /// Accepts nobody any more, as a stopped process; what is connected stays. Returns since when.
    fn freeze(&self) -> Instant {
        self.frozen.store(true, Ordering::Relaxed);
        // Whoever is next is the last.
        drop(TcpStream::connect(self.address));
        Instant::now()
    }

    fn thaw(&self) {
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// With a patience that no busy machine exhausts, unless `more` says otherwise ([`HASTY`]).
    fn register(&self, registrar: &Registrar, pool: &str, more: &[&str]) -> Process {
        let mut command = rspctl();
        command.args(["register", pool, "--tcp", &self.address.to_string()]).args(more);
        if !more.contains(&"--timeout") {
            command.args(["--timeout", "30000"]);
        }
        let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
        process.line_with("0x");
        process
    }
}

struct Proxy {
    process: Process,
    address: SocketAddr,
}

impl Proxy {
    fn start(registrar: &Registrar, pool: &str, more: &[&str]) -> Proxy {
        let mut command = rspctl();
        command.args(["proxy", "127.0.0.1:0", pool]).args(more);
        let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
        let line = process.line_after("proxy ");
        let address = line.split(' ').next().unwrap().parse().expect("address");
        Proxy { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Who answers.
    fn ask(&self) -> String {
        let mut stream = self.connect();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_or_else(|error| error.kind().to_string(), |_| answer)
    }
}

fn line_of(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reach-{}-{name}", std::process::id()))
}

#[test]
fn a_proxy_chooses_by_policy_and_passes_on_every_byte() {
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let _kept = [one.register(&registrar, "Web", &[]), two.register(&registrar, "Web", &[])];
    let mut proxy = Proxy::start(&registrar, "Web", &["--http", "127.0.0.1:0"]);
    let http = proxy.process.line_after("HTTP ");
    let mut answers: Vec<_> = (0..4).map(|_| proxy.ask()).collect();
    answers.sort();
    assert_eq!(answers, ["one\nbye", "one\nbye", "two\nbye", "two\nbye"], "round robin, and half-closed");

    // A client that does not read for a while, and then gets everything; most of it by splice(2), unless the proxy was
    // always quicker than the others.
    let begun = Instant::now();
    loop {
        let mut stream = proxy.connect();
        let mut writer = stream.try_clone().unwrap();
        let sent: Vec<u8> =
            (0..8_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let expected = sent.clone();
        let sending = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        thread::sleep(Duration::from_millis(300));
        let name = line_of(&mut stream);
        assert!(["one", "two"].contains(&name.as_str()));
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        sending.join().unwrap();
        assert_eq!(got.len(), expected.len() + 3);
        assert!(got[..expected.len()] == expected && got.ends_with(b"bye"), "bytes out are bytes in");
        let [all, spliced] = ["bytes_total", "bytes_spliced_total"]
            .map(|name| metric(&http, &format!("rserpool_proxy_{name}")));
        assert!(all >= spliced && all >= 16_000_000, "{spliced} of {all}");
        if spliced >= 1_000_000 {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "splice(2) moved {spliced} of {all}");
    }
}

/// What a page of metrics says.
fn metric(http: &str, name: &str) -> u64 {
    let page = metrics(http);
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

fn metrics(http: &str) -> String {
    let mut page = TcpStream::connect(http).unwrap();
    page.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut metrics = String::new();
    page.read_to_string(&mut metrics).unwrap();
    metrics
}

#[test]
fn a_server_that_hangs_is_left_in_two_seconds() {
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let _kept = [one.register(&registrar, "Hung", &HASTY), two.register(&registrar, "Hung", &[])];
    let proxy = Proxy::start(&registrar, "Hung", &[]);
    in_time(|| {
        let mut streams: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
        let names: Vec<String> = streams.iter_mut().map(line_of).collect();
        assert!(
            names.iter().any(|name| name == "one") && names.iter().any(|name| name == "two"),
            "{names:?}"
        );
        let hung = one.freeze();
        for (stream, name) in streams.iter_mut().zip(&names).filter(|(_, name)| *name == "one") {
            let error =
                stream.read(&mut [0; 8]).expect_err("reset, so that nobody takes it for an end in order");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
        }
        let took = hung.elapsed();
        assert_eq!((0..4).map(|_| proxy.ask()).collect::<Vec<_>>(), ["two\nbye"; 4]);
        for (stream, _) in streams.iter_mut().zip(&names).filter(|(_, name)| *name == "two") {
            stream.write_all(b"still there\n").unwrap();
            assert_eq!(line_of(stream), "still there");
        }
        one.thaw();
        let begun = Instant::now();
        while proxy.ask() != "one\nbye" {
            assert!(begun.elapsed() < LIMIT, "it does not come back");
        }
        took
    });
}

#[test]
fn an_element_that_deregisters_keeps_its_connections() {
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let kept = server.register(&registrar, "Drained", &[]);
    let proxy = Proxy::start(&registrar, "Drained", &["--patience", "100"]);
    let mut stream = proxy.connect();
    assert_eq!(line_of(&mut stream), "one");
    kept.signal(libc::SIGTERM);
    let (said, status) = kept.end();
    assert!(said.contains("ending") && status == 0, "{said}");
    let begun = Instant::now();
    while proxy.ask() == "one\nbye" {
        assert!(begun.elapsed() < LIMIT, "new users still come");
    }
    stream.write_all(b"still there\n").unwrap();
    assert_eq!(line_of(&mut stream), "still there");
}

#[test]
fn a_proxy_ends_with_its_connections() {
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let _kept = server.register(&registrar, "Ending", &[]);
    let mut proxy = Proxy::start(&registrar, "Ending", &[]);
    let mut stream = proxy.connect();
    assert_eq!(line_of(&mut stream), "one");
    proxy.process.signal(libc::SIGTERM);
    let begun = Instant::now();
    while TcpStream::connect(proxy.address).is_ok() {
        assert!(begun.elapsed() < LIMIT, "it still accepts");
    }
    stream.write_all(b"still there\n").unwrap();
    assert_eq!(line_of(&mut stream), "still there");
    assert!(proxy.process.runs());
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), proxy.process.end().1), ("bye", 0));
}

#[test]
fn a_proxy_says_who_the_client_is_serves_unix_sockets_and_reads_its_file_again() {
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let _kept = server.register(&registrar, "Header", &[]);
    let (socket, other, config) = (temporary("a"), temporary("b"), temporary("config"));
    std::fs::write(&config, format!("# one\nunix:{} Header\n", socket.display())).unwrap();
    let proxy = Proxy::start(
        &registrar,
        "Header",
        &["--proxy-protocol", "--config", &config.display().to_string(), "--http", "127.0.0.1:0"],
    );
    let mut process = proxy.process;
    let http = process.line_after("HTTP ");
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    assert_eq!(line_of(&mut stream), "one");
    let mut header = [0; 28];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(header[24..26], stream.local_addr().unwrap().port().to_be_bytes());

    let mut local = UnixStream::connect(&socket).unwrap();
    assert_eq!(line_of(&mut local), "one");
    std::fs::write(&config, format!("unix:{} Header\n", other.display())).unwrap();
    process.signal(libc::SIGHUP);
    process.line_with(&format!("proxy unix:{}", other.display()));
    assert!(!socket.exists(), "its file goes with it");
    local.write_all(b"x").unwrap();
    let mut rest = [0; 17];
    local.read_exact(&mut rest).unwrap();
    assert_eq!(rest[16], b'x', "connections stay");
    std::fs::write(&config, "nonsense\n").unwrap();
    process.signal(libc::SIGHUP);
    let begun = Instant::now();
    while !process.log().contains("config:1: nonsense: LISTEN without a POOL; nothing changed") {
        assert!(begun.elapsed() < LIMIT, "{}", process.log());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(UnixStream::connect(&other).is_ok());

    let metrics = metrics(&http);
    assert!(metrics.contains("rserpool_proxy_elements{pool=\"Header\"} 1"), "{metrics}");
    let _ = std::fs::remove_file(config);
}

/// The program has this socket as its first after standard error.
fn hand_over(command: &mut Command, number: i32) {
    // SAFETY: what it calls may be called there.
    unsafe {
        command.pre_exec(move || match libc::dup2(number, 3) {
            // It may have been there before, to be closed by exec.
            3 if libc::fcntl(3, libc::F_SETFD, 0) == 0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// As systemd hands them over: who connects before the proxy is there is served by it.
#[test]
fn a_proxy_takes_sockets_that_are_handed_over() {
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    let _kept = server.register(&registrar, "Handed", &[]);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let mut early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = Command::new("/bin/sh");
    let program = env!("CARGO_BIN_EXE_rspctl");
    command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#, program]);
    command.args(["proxy", &address.to_string(), "Handed"]);
    hand_over(&mut command, held.as_raw_fd());
    let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
    assert_eq!(process.line_after("proxy "), format!("{address} for \"Handed\""));
    assert_eq!(line_of(&mut early), "one");
    drop(process);
    // A UNIX socket as well; it is not made anew, and stays when the proxy ends.
    let path = temporary("handed.sock");
    let held = UnixListener::bind(&path).unwrap();
    let mut early = UnixStream::connect(&path).unwrap();
    early.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#, program]);
    command.args(["proxy", &format!("unix:{}", path.display()), "Handed"]);
    hand_over(&mut command, held.as_raw_fd());
    let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
    assert_eq!(process.line_after("proxy "), format!("unix:{} for \"Handed\"", path.display()));
    assert_eq!(line_of(&mut early), "one");
    drop(early);
    process.signal(libc::SIGTERM);
    let begun = Instant::now();
    while process.runs() {
        assert!(begun.elapsed() < LIMIT, "{}", process.log());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(path.exists());
    let _ = std::fs::remove_file(&path);
    // Another address is no matter of it, and a socket that is not there is said.
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        r#"LISTEN_PID=$$ LISTEN_FDS=900 exec "$0" "$@""#,
        program,
        "proxy",
        "127.0.0.1:0",
        "Handed",
    ]);
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && log.contains("LISTEN_FDS: "), "{log}");
}

#[test]
fn nothing_serves_an_empty_pool() {
    let registrar = Registrar::start(&[]);
    let proxy = Proxy::start(&registrar, "Nobody", &["--patience", "2000"]);
    let begun = Instant::now();
    assert_eq!(proxy.ask(), "connection reset");
    assert!(begun.elapsed() >= Duration::from_millis(1900), "somebody might have come");
    // Who comes in time is found.
    let server = Server::start("late");
    let patient = Proxy::start(&registrar, "Nobody", &["--patience", "60000"]);
    let asking = thread::spawn(move || patient.ask());
    let _kept = server.register(&registrar, "Nobody", &[]);
    assert_eq!(asking.join().unwrap(), "late\nbye");
}

#[test]
fn a_watch_writes_files_and_runs_a_command_at_once() {
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let _kept = one.register(&registrar, "Watched", &["--identifier", "1"]);
    let (template, made, ran) = (temporary("in"), temporary("made"), temporary("ran"));
    std::fs::write(&template, "{{for}}\nserver {{address}} weight={{weight}};\n{{end}}\n").unwrap();
    let mut command = rspctl();
    command.args(["watch", "Watched", "--json"]);
    command.args(["--template", &format!("{}:{}", template.display(), made.display())]);
    command.args(["--exec", &format!("echo $RSP_COUNT >> {}", ran.display())]);
    let mut watch = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
    assert!(watch.line_with("{").contains("\"0x00000001\""));
    let soon = |what: &str, is_so: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    };
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let first = format!("server {} weight=1;\n", one.address);
    soon("the first state", &|| text(&made) == first && text(&ran) == "1\n");
    let second = two.register(&registrar, "Watched", &["--identifier", "2"]);
    let took =
        soon("the second", &|| text(&made).contains(&two.address.to_string()) && text(&ran) == "1\n2\n");
    println!("written {took:?} after it was registered");
    second.signal(libc::SIGTERM);
    soon("the first again", &|| text(&made) == first && text(&ran) == "1\n2\n1\n");
    // The last one leaves: the file stays as it is.
    drop(_kept);
    soon("a word on that", &|| watch.log().contains("has 0 elements, fewer than 1"));
    assert_eq!(text(&made), first);
    for path in [template, made, ran] {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn checks_decide_and_a_file_names_several_servers() {
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let config = temporary("servers");
    let lines = format!(
        "First --tcp {} --check-expect 'one' --identifier 1\nSecond --tcp {} --check-expect 'three' --identifier 2\n",
        one.address, two.address
    );
    std::fs::write(&config, lines).unwrap();
    let mut command = rspctl();
    command.args(["register", "--config"]).arg(&config);
    let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
    let mut said = [process.line_with("0x"), process.line_with("0x")];
    said.sort();
    assert!(said[0].starts_with("0x00000001 in \"First\""), "{said:?}");
    assert!(said[1].contains("not in \"Second\"") && said[1].ends_with("it answers \"two\\n\""), "{said:?}");
    let _ = std::fs::remove_file(config);
}

#[test]
fn handles_are_printed_as_they_are_read() {
    let registrar = Registrar::start(&[]);
    let server = Server::start("one");
    for (name, shown) in [
        ("Köln".as_bytes(), "Köln"),
        (&b"\xff\xfe"[..], r"\xff\xfe"),
        (br"a\\b", r"a\\b"),
        (br"\x00", r"\x00"),
    ] {
        let mut command = rspctl();
        command.arg("register").arg(OsStr::from_bytes(name)).args(["--tcp", &server.address.to_string()]);
        let mut process = Process::start(command.env("RSP_REGISTRAR", registrar.asap.to_string()));
        let line = process.line_with("0x");
        assert!(line.contains(&format!("in \"{shown}\"")), "{line}");
        let resolved = rspctl()
            .args(["resolve", shown, "--registrar", &registrar.asap.to_string()])
            .env("RSP_TRANSPORT", "tcp")
            .env("RSP_ANNOUNCE", "off")
            .output()
            .unwrap();
        assert!(resolved.status.success(), "{shown}: {}", String::from_utf8_lossy(&resolved.stderr));
    }
}

#[test]
fn no_argument_and_no_reader_makes_rspctl_panic() {
    let nonsense = OsStr::from_bytes(b"\xff\xfe");
    let commands: &[&[&str]] = &[
        &[],
        &["resolve"],
        &["register", "Web", "--tcp"],
        &["register", "Web", "--config"],
        &["register", "Web", "--policy"],
        &["proxy", "127.0.0.1:0"],
        &["proxy", "--config"],
        &["proxy", "x"],
        &["decode", "asap"],
        &["bench", "resolve", "--registrar", "127.0.0.1:1"],
    ];
    for arguments in commands {
        for closed in [false, true] {
            let mut command = rspctl();
            command.args(*arguments).arg(nonsense);
            command
                .env("RSP_TRANSPORT", "tcp")
                .env("RSP_ANNOUNCE", "off")
                .env("RSP_REGISTRAR", "127.0.0.1:1");
            command.env("RSP_REQUEST_MAX_TRIALS", "1").env("RSP_CONNECT_MAX_TRIALS", "1");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            if closed {
                drop(child.stdout.take());
            }
            // A proxy for a pool of that name is as it should be.
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(1) {
                thread::sleep(Duration::from_millis(10));
            }
            // SAFETY: a process of ours that was not waited for.
            unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
            let output = child.wait_with_output().unwrap();
            let log = String::from_utf8_lossy(&output.stderr);
            assert!(!log.contains("panicked") && output.status.code() != Some(101), "{arguments:?}: {log}");
        }
    }
    // A reader that goes away before anything is written.
    for arguments in [&["--help"][..], &["--version"], &["decode", "asap", "0600001000090008 4563686f"]] {
        let mut child =
            rspctl().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("panicked") && output.status.code() != Some(101), "{arguments:?}: {log}");
    }
}

#[test]
fn mistakes_are_named() {
    for (arguments, wanted) in [
        (&["registr"][..], "register"),
        (&["register", "Web", "--tcp", "127.0.0.1:x"], "--tcp=127.0.0.1:x"),
        (&["register", "Web", "--tcp", "127.0.0.1:1", "--policy", "RoundRobbin"], "did you mean RoundRobin?"),
        (&["register", "Web", "--tcp", "127.0.0.1:1", "--interval", "5"], "100..=60000"),
        (&["register", "Web", "--intervall", "100"], "--interval"),
        (&["register"], "--tcp"),
        (&["proxy"], "LISTEN"),
        (&["proxy", "127.0.0.1:0"], "without a POOL"),
        (&["proxy", "127.0.0.1:0", "Web", "--http", "127.0.0.1:x"], "--http=127.0.0.1:x"),
        (&["resolve", "Web", "--registrar", "127.0.0.1:x"], "--registrar=127.0.0.1:x"),
        (&["resolve", r"a\q"], "backslash"),
        (&["pools", "--http", "ftp://127.0.0.1:1/"], "http:// or https://"),
        (&["pools", "--http", "http://127.0.0.1:1/metrics"], "Connection refused"),
        (&["bench", "resolve", "Web", "--seconds", "0"], "0.1 to 3600"),
    ] {
        let output = rspctl().args(arguments).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(wanted), "{arguments:?}: {log}");
    }
}

/// It goes on trying, and says so.
#[test]
fn who_watches_hears_that_there_is_no_registrar() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut watch = rspctl();
    let mut process = Process::start(watch.args(["watch", "Web", "--registrar", &address]));
    let begun = Instant::now();
    while !process.log().contains("rspctl: watch: no registrar answers") {
        assert!(process.runs() && begun.elapsed() < LIMIT, "{}", process.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let port = address.rsplit(':').next().unwrap();
    let _registrar = Registrar::start(&[&format!("-asap=127.0.0.1:{port}")]);
    while !process.log().contains("rspctl: watch: the registrar ") {
        assert!(process.runs() && begun.elapsed() < 2 * LIMIT, "{}", process.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_bench_of_nobody_fails() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let output = rspctl()
        .args(["bench", "resolve", "Web", "-s", "1", "-c", "1", "--registrar", &address])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && log.contains("nothing was answered"), "{log}");
    assert!(begun.elapsed() < LIMIT);
}
