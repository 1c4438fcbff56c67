//! A process under abuse: what it says, how much memory it has, and that it ends with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A started program.
pub struct Process {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let stdout = BufReader::new(child.stdout.take().expect("output"));
        let stderr = child.stderr.take().expect("log");
        let log = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let log = log.clone();
            move || copy(stderr, &log)
        });
        Process { child, stdout: Some(stdout), log, begun: Instant::now() }
    }

    /// The rest of the next line that begins like this.
    pub fn line_after(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            let stdout = self.stdout.as_mut().expect("still listened to");
            let count = stdout.read_line(&mut line).expect("a line of text");
            assert!(count > 0, "it ended without \"{beginning}\":\n{}", self.log());
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Whatever else it prints, somebody takes it.
    pub fn ignore_the_rest(&mut self) {
        if let Some(mut stdout) = self.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
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
    pub http: SocketAddr,
}

impl Registrar {
    pub fn start(options: &[&str]) -> Registrar {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
        command
            .args(["-asap=127.0.0.1:0", "-enrp=127.0.0.1:0", "-asapannounce=off", "-enrpannounce=off"])
            .args(["-http=127.0.0.1:0", "-logcolor=off"])
            .args(options);
        let mut process = Process::start(&mut command);
        let asap = process.line_after("ASAP tcp ").parse().expect("address");
        let http = process.line_after("HTTP ").parse().expect("address");
        process.ignore_the_rest();
        Registrar { process, asap, http }
    }
}

/// `echo_server` of `c-examples`, built against the library of this build.
pub fn echo_server() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abuse-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    let built = std::env::current_exe().expect("own path").with_file_name("librserpool.so");
    for name in ["librserpool.so", "librserpool.so.0"] {
        let _ = fs::remove_file(folder.join(name));
        std::os::unix::fs::symlink(&built, folder.join(name)).expect("link");
    }
    let make = Command::new("make")
        .arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("c-examples"))
        .arg(format!("LIBDIR={}", folder.display()))
        .arg(format!("OUT={}", folder.display()))
        .arg(folder.join("echo_server"))
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .output()
        .expect("make");
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
    folder.join("echo_server")
}
