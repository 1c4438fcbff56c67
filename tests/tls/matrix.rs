//! {registrar, element, user} × {TLS required, allowed, off} at the registrar that they come to × what certificate they
//! have: who gets in, and the line that says why not. Real programs, but for the certificate that has expired: ours
//! don't start with one, so somebody else shows it.

use super::authority::{Authority, ask};
use super::{rspctl, server, soon, text};
use crate::process::{Process, Registrar};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Registrar,
    Element,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Right,
    Wrong,
    Expired,
    Nothing,
    Foreign,
}

/// What comes of it.
#[derive(Debug, Clone, Copy)]
enum Then {
    In,
    /// The registrar that it comes to logs this.
    Refused(&'static str),
    /// It wants TLS of a registrar that has none, and says so.
    StaysOut,
}
use Then::{In, Refused, StaysOut};

const HOW_TO_MIX: &str = "tls=allow admits peers without TLS";
const EXPIRED: &str = "the certificate has expired";
const FOREIGN: &str = "another authority's";

fn expected(who: Who, mode: &str, has: Has) -> Then {
    match (mode, has) {
        ("off", Has::Nothing) | ("allow", Has::Nothing) | ("require" | "allow", Has::Right) => In,
        ("off", _) => StaysOut,
        (_, Has::Nothing) => Refused(HOW_TO_MIX),
        (_, Has::Expired) => Refused(EXPIRED),
        (_, Has::Foreign) => Refused(FOREIGN),
        _ => Refused(match who {
            Who::Registrar => "is no registrar of here",
            Who::Element => "may not serve pool",
            Who::User => "may not use pool",
        }),
    }
}

pub fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("the page");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("asked");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an answer");
    String::from_utf8_lossy(&all).into_owned()
}

struct World {
    ours: Authority,
    theirs: Authority,
    server: SocketAddr,
    registrar: PathBuf,
}

impl World {
    fn new() -> World {
        let (ours, theirs) = (Authority::new("matrix-ours"), Authority::new("matrix-theirs"));
        let registrar = ours.issue("target", "rserpool:registrar:here", 30);
        World { ours, theirs, server: server(), registrar }
    }

    fn certificate(&self, who: Who, has: Has) -> Option<PathBuf> {
        let (right, wrong) = match who {
            Who::Registrar => ("rserpool:registrar:here", "rserpool:registrar:there"),
            Who::Element => ("rserpool:element:Echo", "rserpool:user"),
            Who::User => ("rserpool:user:Echo", "rserpool:user:Other"),
        };
        let name = format!("{who:?}-{has:?}-{:?}", std::thread::current().id());
        match has {
            Has::Right => Some(self.ours.issue(&name, right, 30)),
            Has::Wrong => Some(self.ours.issue(&name, wrong, 30)),
            Has::Expired => Some(self.ours.issue(&name, right, -1)),
            // Believes both, as somebody does who comes from elsewhere; else it would be the first to refuse.
            Has::Foreign => {
                let dir = self.theirs.issue(&name, right, 30);
                let both = [&self.theirs, &self.ours].map(Authority::pem).concat();
                std::fs::write(dir.join("ca.pem"), both).expect("written");
                Some(dir)
            }
            Has::Nothing => None,
        }
    }

    /// What the program that `who` runs, with that certificate.
    fn command(&self, who: Who, at: &Registrar, dir: Option<&Path>) -> Command {
        let asap = at.asap.to_string();
        let mut command = match who {
            Who::User => rspctl(&["resolve", "Echo", "--registrar", &asap]),
            Who::Element => {
                rspctl(&["register", "Echo", "--tcp", &self.server.to_string(), "--registrar", &asap])
            }
            Who::Registrar => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_rspregistrar"));
                command.args(["--asap=127.0.0.1:0", "--enrp=127.0.0.1:0", "--minaddressscope=loopback"]);
                command.args(["--asapannounce=off", "--enrpannounce=off", "--transport=tcp"]);
                command.arg(format!("--peer={}", at.enrp));
                command
            }
        };
        if let Some(dir) = dir {
            command.arg(format!("--tls-dir={}", dir.display()));
        }
        command
    }

    fn is_in(who: Who, at: &Registrar) -> bool {
        match who {
            Who::Registrar => get(at.http, "/api/peers").contains("\"state\":\"alive\""),
            _ => get(at.http, "/handlespace").contains("Echo"),
        }
    }

    fn try_one(&self, who: Who, mode: &str, has: Has) {
        let what = format!("{who:?} with {has:?} at a registrar with tls={mode}");
        let (tls, dir) = (format!("--tls={mode}"), format!("--tls-dir={}", self.registrar.display()));
        let options = [tls.as_str(), "--minaddressscope=loopback", "--mentordiscoverytimeout=0", &dir];
        let options = if mode == "off" { &options[..3] } else { &options[..] };
        let registrar = Registrar::start(options);
        let certificate = self.certificate(who, has);
        let dir = certificate.as_deref();
        let then = expected(who, mode, has);
        let logged =
            |line: &str| soon(&format!("{what}: \"{line}\""), || registrar.process.log().contains(line));

        if has == Has::Expired {
            let output = self.command(who, &registrar, dir).output().expect("a program");
            assert!(!output.status.success(), "{what}: it starts");
            assert!(text(&output).contains(EXPIRED), "{what}: {}", text(&output));
            let (to, protocol) = match who {
                Who::Registrar => (registrar.enrp, "rserpool-enrp"),
                _ => (registrar.asap, "rserpool-asap"),
            };
            // ASAP_HANDLE_RESOLUTION of pool "Echo", which says nothing over ENRP.
            let question = [5, 0, 0, 12, 0, 9, 0, 8, b'E', b'c', b'h', b'o'];
            let answer = ask(to, protocol, dir, &question, |bytes| !bytes.is_empty());
            match then {
                Refused(line) => {
                    assert!(answer.as_ref().is_err_and(|why| why.contains("Expired")), "{what}: {answer:?}");
                    logged(line);
                }
                _ => assert!(answer.is_err(), "{what}: {answer:?}"),
            }
            return;
        }
        let mut command = self.command(who, &registrar, dir);
        if who == Who::User {
            command.env("RSP_CONNECT_TIMEOUT", "1000").env("RSP_REQUEST_TIMEOUT", "500");
            let is_in = |said: &str| said.contains("unknown pool");
            match then {
                // Before it serves it says nothing.
                In => soon(&what, || is_in(&text(&command.output().expect("rspctl")))),
                // On a busy machine its time may be over before the registrar has looked at it.
                Refused(line) => soon(&what, || {
                    let said = text(&command.output().expect("rspctl"));
                    assert!(!is_in(&said), "{what}: {said}");
                    registrar.process.log().contains(line)
                }),
                StaysOut => soon(&what, || {
                    let said = text(&command.output().expect("rspctl"));
                    assert!(!is_in(&said), "{what}: {said}");
                    said.contains("TLS")
                }),
            }
            return;
        }
        let subject = Process::start(&mut command);
        match then {
            In => soon(&what, || World::is_in(who, &registrar)),
            Refused(line) => {
                logged(line);
                assert!(!World::is_in(who, &registrar), "{what}: it is in");
            }
            StaysOut => {
                soon(&format!("{what}: it says so"), || subject.log().contains("TLS"));
                assert!(!World::is_in(who, &registrar), "{what}: it is in");
            }
        }
    }
}

/// All of it; some at a time, each with a registrar of its own, since a line is logged once per cause and minute.
#[test]
fn who_gets_in_and_what_the_log_says() {
    let world = World::new();
    let mut cells = Vec::new();
    for who in [Who::Registrar, Who::Element, Who::User] {
        for mode in ["require", "allow", "off"] {
            cells.extend(
                [Has::Right, Has::Wrong, Has::Expired, Has::Nothing, Has::Foreign]
                    .map(|has| (who, mode, has)),
            );
        }
    }
    let cells = Mutex::new(cells);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                loop {
                    let next = cells.lock().expect("nobody fails with it").pop();
                    let Some((who, mode, has)) = next else { return };
                    world.try_one(who, mode, has);
                }
            });
        }
    });
}
