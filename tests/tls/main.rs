//! TLS with real programs: an authority made by `rspctl ca`, a registrar, elements and users by `rspctl`;
//! openssl and tshark as referees where they are installed. Over TCP, on loopback.
#![allow(clippy::disallowed_methods)]

#[path = "../common/anybody.rs"]
mod anybody;
mod authority;
mod capture;
mod matrix;
mod page;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/skip.rs"]
mod skip;

use process::{Process, Registrar};
use skip::skipped;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An authority with a registrar, an element of Echo and two users.
struct Ca(PathBuf);

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rspctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RSP_")) {
        command.env_remove(name);
    }
    command.env("RSP_ANNOUNCE", "off").env("RSP_TRANSPORT", "tcp").env("RSP_LOG", "warn").args(arguments);
    command.stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

impl Ca {
    fn new(name: &str) -> Ca {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("folder");
        let ca = Ca(dir.join("ca"));
        ca.run(&["init", "--scope", "here"]);
        ca.run(&["issue", "registrar", "--role", "registrar"]);
        ca.run(&["issue", "echo", "--role", "element", "--pool", "Echo*"]);
        ca.run(&["issue", "user", "--role", "user"]);
        ca.run(&["issue", "other", "--role", "user", "--pool", "Other"]);
        ca
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        rspctl(&["ca", "--dir", &self.0.to_string_lossy()]).args(arguments).output().expect("rspctl ca")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn of(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn registrar(&self, options: &[&str]) -> Registrar {
        let tls = format!("--tls-dir={}", self.of("registrar"));
        let mut all = vec![tls.as_str(), "-minaddressscope=loopback"];
        all.extend(options);
        Registrar::start(&all)
    }

    /// Puts a server of ours into a pool, by whose certificate.
    fn register(&self, at: SocketAddr, pool: &str, server: SocketAddr, whose: &str) -> Process {
        let mut command = rspctl(&["register", pool, "--tcp", &server.to_string()]);
        Process::start(command.args(["--registrar", &at.to_string(), "--tls-dir", &self.of(whose)]))
    }

    /// What a user with that certificate gets to know.
    fn resolve(&self, at: SocketAddr, pool: &str, whose: &str) -> Output {
        let mut command = rspctl(&["resolve", pool, "--registrar", &at.to_string()]);
        command.env("RSP_CONNECT_TIMEOUT", "1000").env("RSP_REQUEST_TIMEOUT", "500");
        if !whose.is_empty() {
            command.env("RSP_TLS_DIR", self.of(whose));
        }
        command.output().expect("rspctl resolve")
    }
}

/// A server that accepts, which is what `rspctl register` looks at.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a server");
    let address = listener.local_addr().expect("address");
    // Kept open: one that is closed at once looks to the check as if nobody had accepted it.
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

fn soon(what: &str, mut happens: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happens() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_authority_looks_after_its_certificates() {
    let ca = Ca::new("authority");
    let mode = |path: &Path| std::fs::metadata(path).expect("file").permissions().mode() & 0o777;
    assert_eq!(mode(&ca.0.join("ca.key")), 0o600);
    assert_eq!(mode(&ca.0.join("echo/key.pem")), 0o600);
    let serial = |listed: &str, name: &str| -> Vec<String> {
        let of = |line: &&str| line.contains(&format!(" {name} "));
        listed.lines().filter(of).map(|line| line.split(' ').next().unwrap_or_default().into()).collect()
    };
    ca.run(&["renew", "echo"]);
    let listed = ca.run(&["list"]);
    let serials = serial(&listed, "echo");
    assert!(serials.len() == 2 && serials[0] != serials[1], "{listed}");
    assert!(listed.contains("rserpool:element:Echo*"), "{listed}");
    ca.run(&["revoke", &serials[0]]);
    assert!(ca.run(&["list"]).contains(&format!("{} revoked", serials[0])));
    for wrong in
        [&["revoke", "nobody"][..], &["renew", "nobody"], &["issue", "../x", "--role", "user"], &["init"]]
    {
        assert!(!ca.try_run(wrong).status.success(), "{wrong:?}");
    }
    assert!(!ca.try_run(&["issue", "echo", "--role", "user"]).status.success(), "it has one already");
    // A key that others can read signs nothing.
    std::fs::set_permissions(ca.0.join("ca.key"), PermissionsExt::from_mode(0o640)).expect("mode");
    let refused = ca.try_run(&["issue", "late", "--role", "user"]);
    assert!(text(&refused).contains("others may read it"), "{}", text(&refused));

    let Ok(version) = Command::new("openssl").arg("version").output() else {
        return skipped("openssl as a referee", "it is not installed");
    };
    assert!(version.status.success());
    let verify = |name: &str| {
        let crl = ca.0.join("crl.pem");
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-crl_check", "-CAfile"]).arg(ca.0.join("ca.pem"));
        command.arg("-CRLfile").arg(crl).arg(ca.0.join(name).join("cert.pem"));
        text(&command.output().expect("openssl"))
    };
    assert!(verify("user").contains("OK"), "{}", verify("user"));
    ca.run_with_key_of_ours(&["revoke", "other"]);
    assert!(verify("other").contains("revoked"), "{}", verify("other"));
}

impl Ca {
    fn run_with_key_of_ours(&self, arguments: &[&str]) -> String {
        std::fs::set_permissions(self.0.join("ca.key"), PermissionsExt::from_mode(0o600)).expect("mode");
        self.run(arguments)
    }
}

/// Who may what, in a scope that requires TLS; and a certificate that is taken back while it is in use.
#[test]
fn a_scope_that_requires_tls() {
    let ca = Ca::new("require");
    let registrar = ca.registrar(&[]);
    let server = server();
    let _element = ca.register(registrar.asap, "Echo", server, "echo");
    let intruder = ca.register(registrar.asap, "Other", server, "echo");
    soon("registered", || text(&ca.resolve(registrar.asap, "Echo", "user")).contains("home 0x"));
    let told = text(&ca.resolve(registrar.asap, "Echo", "other"));
    assert!(told.contains("security"), "{told}");
    assert!(
        !ca.resolve(registrar.asap, "Other", "user").status.success(),
        "who is no element of it is in it"
    );
    drop(intruder);
    let told = text(&ca.resolve(registrar.asap, "Echo", "element-of-nowhere"));
    assert!(told.contains("no such file") || told.contains("No such file"), "{told}");
    // Without TLS nobody gets in, and the log says how to mix.
    assert!(!ca.resolve(registrar.asap, "Echo", "").status.success());
    soon("the log says how to mix", || registrar.process.log().contains("tls=allow"));
    // Another authority of the same name.
    let theirs = Ca::new("stranger");
    assert!(!theirs.resolve(registrar.asap, "Echo", "user").status.success());
    soon("the log says why", || registrar.process.log().contains("refused: "));
    // Taken back. Who has the new list refuses its own certificate and comes no further, so this user has not heard.
    let (has_not_heard, files) = (ca.0.join("has-not-heard"), ["cert.pem", "key.pem", "ca.pem"]);
    std::fs::create_dir(&has_not_heard).expect("folder");
    for file in files {
        std::fs::copy(ca.0.join("user").join(file), has_not_heard.join(file)).expect("a copy");
    }
    soon("it is let in", || text(&ca.resolve(registrar.asap, "Echo", "has-not-heard")).contains("home 0x"));
    ca.run(&["revoke", "user"]);
    registrar.process.signal(libc::SIGHUP);
    let revoked = || registrar.process.log().contains("refused: the certificate was revoked");
    soon("the registrar refuses the revoked user, and says so", || {
        let refused = !ca.resolve(registrar.asap, "Echo", "has-not-heard").status.success();
        refused && revoked()
    });
    assert!(!ca.resolve(registrar.asap, "Echo", "has-not-heard").status.success());
    let told = text(&ca.resolve(registrar.asap, "Echo", "user"));
    assert!(told.contains("revoked"), "whoever has the list says so itself: {told}");
    let told = ca.resolve(registrar.asap, "Echo", "echo");
    assert!(text(&told).contains("home 0x"), "others stay: {}", text(&told));
}

#[test]
fn a_scope_that_allows_both() {
    let ca = Ca::new("allow");
    let registrar = ca.registrar(&["--tls=allow"]);
    let server = server();
    let _element = ca.register(registrar.asap, "Echo", server, "echo");
    for whose in ["user", ""] {
        soon(whose, || text(&ca.resolve(registrar.asap, "Echo", whose)).contains("home 0x"));
    }
}

/// A registrar whose certificate is a user's does not start, and says why.
#[test]
fn a_wrong_certificate_is_said_at_the_start() {
    let ca = Ca::new("start");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
    command.args(["--asap=127.0.0.1:0", "--enrp=127.0.0.1:0", "--transport=tcp"]);
    let output = command.arg(format!("--tls-dir={}", ca.of("user"))).output().expect("rspregistrar");
    assert!(!output.status.success());
    assert!(text(&output).contains("none of a registrar"), "{}", text(&output));
}

/// Only from the networks that are named.
#[test]
fn only_allowed_networks_get_in() {
    let registrar = Registrar::start(&["--allow=10.0.0.0/8", "-transport=tcp"]);
    let ca = Ca::new("networks");
    assert!(!ca.resolve(registrar.asap, "Echo", "").status.success());
    soon("the log says why", || registrar.process.log().contains("not from an allowed network"));
    let registrar = Registrar::start(&["--allow=10.0.0.0/8,127.0.0.0/8", "-transport=tcp"]);
    let told = text(&ca.resolve(registrar.asap, "Echo", ""));
    assert!(told.contains("unknown pool"), "{told}");
}

/// openssl's client is a TLS 1.3 client like any other; TLS 1.2 is not spoken.
#[test]
fn openssl_is_let_in_with_a_good_certificate_and_tls_1_3() {
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped("openssl as a client", "it is not installed");
    }
    let ca = Ca::new("openssl");
    let registrar = ca.registrar(&[]);
    let client = |options: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &registrar.asap.to_string()]);
        command.arg("-CAfile").arg(ca.0.join("ca.pem")).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl");
        // ASAP_HANDLE_RESOLUTION of pool "Echo".
        let question = [5, 0, 0, 12, 0, 9, 0, 8, b'E', b'c', b'h', b'o'];
        let _ = child.stdin.as_mut().expect("input").write_all(&question);
        let mut out = child.stdout.take().expect("output");
        let answer = std::thread::spawn(move || {
            let (mut got, mut part) = (Vec::new(), [0; 4096]);
            while !got.windows(4).any(|bytes| bytes == b"Echo") {
                match out.read(&mut part) {
                    Ok(count @ 1..) => got.extend(&part[..count]),
                    _ => break,
                }
            }
            got
        });
        // Who is refused ends by itself; who is not, with its input.
        let end = Instant::now() + Duration::from_secs(20);
        while !answer.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("openssl");
        Output { stdout: answer.join().expect("read"), ..output }
    };
    let (cert, key) = (ca.of("user/cert.pem"), ca.of("user/key.pem"));
    let answer = client(&["-tls1_3", "-cert", &cert, "-key", &key]);
    let at = answer.stdout.windows(4).position(|bytes| bytes == b"Echo");
    assert!(at.is_some(), "no answer: {}", text(&answer));
    for wrong in [&["-tls1_2", "-cert", &cert, "-key", &key][..], &["-tls1_3"]] {
        let answer = client(wrong);
        assert!(!answer.stdout.windows(4).any(|bytes| bytes == b"Echo"), "{wrong:?}: {}", text(&answer));
    }
}
