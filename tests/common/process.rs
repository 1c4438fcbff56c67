//! A process under test, on loopback over TCP: what it says, what it logs, and that it ends with the test,
//! also when it is frozen. For whoever needs it; not all of them need all of it.
#![allow(dead_code)]

use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A connection with `to` from an address of this machine (`ip:port`; port 0: any), for who has to be somebody else.
pub fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    let from: SocketAddr = from.parse().expect("an address");
    socket.bind(&from.into()).expect("bind");
    socket.connect(&to.into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("time-out");
    stream.set_nodelay(true).expect("option");
    stream
}

/// A started program.
pub struct Process {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    said: String,
    log: Arc<Mutex<String>>,
    begun: Instant,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Without anything the environment wants of it.
    pub fn start(command: &mut Command) -> Process {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RSP_")) {
            command.env_remove(name);
        }
        command.env("RSP_LOG", "warn").env("RSP_TRANSPORT", "tcp").env("RSP_ANNOUNCE", "off");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let stdout = BufReader::new(child.stdout.take().expect("output"));
        let stderr = child.stderr.take().expect("log");
        let log = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let log = log.clone();
            move || copy(stderr, &log)
        });
        Process { child, stdout: Some(stdout), said: String::new(), log, begun: Instant::now() }
    }

    /// The next line that begins like this.
    pub fn line_with(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            let stdout = self.stdout.as_mut().expect("still listened to");
            let count = stdout.read_line(&mut line).expect("a line of text");
            self.said.push_str(&line);
            assert!(count > 0, "it ended without \"{beginning}\":\n{}\n{}", self.said, self.log());
            if line.starts_with(beginning) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// The rest of the next line that begins like this.
    pub fn line_after(&mut self, beginning: &str) -> String {
        self.line_with(beginning)[beginning.len()..].trim().to_owned()
    }

    /// Whatever else it prints, somebody takes it.
    pub fn ignore_the_rest(&mut self) {
        if let Some(mut stdout) = self.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        }
    }

    /// A line for its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("input");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("input taken");
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a process of ours that was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it still runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("status").is_none()
    }

    /// Everything that it printed, and its exit status; its standard input ends.
    pub fn end(mut self) -> (String, i32) {
        drop(self.child.stdin.take());
        self.stdout.as_mut().expect("still listened to").read_to_string(&mut self.said).expect("text");
        let status = self.child.wait().expect("status");
        (std::mem::take(&mut self.said), status.code().unwrap_or(-1))
    }
}

fn copy(mut from: ChildStderr, to: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            return;
        }
        to.lock().expect("log").push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// A registrar on loopback with a status page.
pub struct Registrar {
    pub process: Process,
    pub asap: SocketAddr,
    pub enrp: SocketAddr,
    pub http: SocketAddr,
    /// Where it answers DNS queries, if the options say so.
    pub dns: Option<SocketAddr>,
    /// By which programs on the library find it.
    pub switch: String,
}

impl Registrar {
    pub fn start(options: &[&str]) -> Registrar {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
        command
            .args(["-asap=127.0.0.1:0", "-enrp=127.0.0.1:0", "-asapannounce=off", "-enrpannounce=off"])
            .args(["-http=127.0.0.1:0", "-logcolor=off"])
            .args(options);
        let mut process = Process::start(&mut command);
        let asap: SocketAddr = process.line_after("ASAP tcp ").parse().expect("address");
        let enrp: SocketAddr = process.line_after("ENRP tcp ").parse().expect("address");
        let http = process.line_after("HTTP ").parse().expect("address");
        let with_dns = options.iter().any(|option| option.trim_start_matches('-').starts_with("dns="));
        let dns = with_dns.then(|| process.line_after("DNS ").parse().expect("address"));
        process.ignore_the_rest();
        Registrar { process, asap, enrp, http, dns, switch: format!("-registrar={asap}") }
    }
}
