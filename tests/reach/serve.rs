//! RSP_SERVE: servers that nobody here wrote, with the preload library in them, are elements while they listen.

use super::preload::{has, library, under};
use super::{LIMIT, Refusing, rspctl};
use crate::process::{Process, Registrar};
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A Python script with `s`, a socket bound to the port.
fn server(registrar: &Registrar, port: u16, options: &str, script: &str) -> Option<Process> {
    let library = library().filter(|_| has("python3"))?;
    let script = format!(
        "
import os, signal, socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', {port}))
{script}"
    );
    let given = under(&library, registrar, "python3", &[]);
    let variables: Vec<String> = given
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)))
        .collect();
    // What is removed from the environment before is put back.
    let mut command = Command::new("/usr/bin/env");
    command.args(variables).arg(format!("RSP_SERVE=Served:{port},identifier=7{options}"));
    Some(Process::start(command.args(["python3", "-c", &script])))
}

/// What the registrar says of the pool.
fn resolved(registrar: &Registrar) -> String {
    let mut command = rspctl();
    command.args(["resolve", "Served", "--registrar", &registrar.asap.to_string()]);
    command.env("RSP_TRANSPORT", "tcp").env("RSP_ANNOUNCE", "off");
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

fn soon(registrar: &Registrar, what: &str, is_so: impl Fn(&str) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let said = resolved(registrar);
        if is_so(&said) {
            println!("{what}: {:?}", begun.elapsed());
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "{what}: {said}");
        thread::sleep(Duration::from_millis(50));
    }
}

const ACCEPT: &str = "
def serve():
    while True: s.accept()
";

#[test]
fn a_server_leaves_its_pool_before_sigterm_ends_it() {
    let registrar = Registrar::start(&[]);
    let held = Refusing::bind();
    let port = held.address().port();
    let script = "
def term(*_):
    print('told', flush=True); user.send(b'bye'); sys.stdin.readline(); os._exit(7)
assert signal.signal(signal.SIGTERM, term) == signal.SIG_DFL and signal.getsignal(signal.SIGTERM) == term
files, waited = len(os.listdir('/proc/self/fd')), []
signal.signal(signal.SIGCHLD, lambda *_: waited.append(1))
s.listen(9); s.listen(9)
assert len(os.listdir('/proc/self/fd')) == files, 'a descriptor is kept'
try: os.waitpid(-1, os.WNOHANG); assert False, 'a child'
except ChildProcessError: pass
assert not waited and len(os.listdir('/proc/self/task')) == 1
user = None
while True:
    c = s.accept()[0]
    if c.recv(1) == b'x': user = c; c.send(b'y')
";
    let Some(mut server) = server(&registrar, port, ",weight=5", script) else { return };
    soon(&registrar, "registered", |said| said.contains("127.0.0.1") && said.contains("weight=5"));
    let mut user = TcpStream::connect(("127.0.0.1", port)).unwrap();
    user.set_read_timeout(Some(LIMIT)).unwrap();
    std::io::Write::write_all(&mut user, b"x").unwrap();
    user.read_exact(&mut [0]).unwrap();
    let signalled = Instant::now();
    server.signal(libc::SIGTERM);
    server.line_with("told");
    // After 500 ms it would be called whatever has become of that.
    match signalled.elapsed() < Duration::from_millis(500) {
        true => assert_eq!(resolved(&registrar), "", "the handler is called when it has left"),
        false => drop(soon(&registrar, "left", str::is_empty)),
    }
    let mut bye = [0; 3];
    user.read_exact(&mut bye).unwrap();
    assert_eq!(&bye, b"bye", "who was there is served to the end");
    assert_eq!(resolved(&registrar), "", "it still listens, and does not come back");
    server.say("");
    assert_eq!(server.end().1, 7);
}

#[test]
fn workers_are_one_element_and_come_and_go() {
    let registrar = Registrar::start(&[]);
    let held = Refusing::bind();
    let port = held.address().port();
    let script = "
s.listen(9)
for n in range(2):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        serve()
    s2 = s
ids = open('/proc/self/task/%d/children' % os.getpid()).read().split()
print('workers', *ids, flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True: time.sleep(9)
";
    let Some(mut server) = server(&registrar, port, "", &format!("{ACCEPT}{script}")) else { return };
    let workers: Vec<i32> = server.line_after("workers ").split(' ').map(|id| id.parse().unwrap()).collect();
    assert_eq!(workers.len(), 2);
    let is_one = |said: &str| said.lines().count() == 1;
    soon(&registrar, "registered", is_one);
    // SAFETY: processes of ours.
    unsafe { libc::kill(workers[0], libc::SIGTERM) };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        let said = resolved(&registrar);
        assert!(is_one(&said), "the other worker serves on: {said}");
    }
    server.signal(libc::SIGTERM);
    soon(&registrar, "told", str::is_empty);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "a worker has the socket yet");
    // SAFETY: as above.
    unsafe { libc::kill(workers[1], libc::SIGKILL) };
    server.end();
}

#[test]
fn sockets_may_be_shared_inherited_and_opened_again() {
    let registrar = Registrar::start(&[]);
    let held = Refusing::bind();
    let port = held.address().port();
    // Two sockets for one port; one is closed, then the other.
    let shared = "
s2 = socket.socket(); s2.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s2.bind(s.getsockname())
s.listen(9); s2.listen(9)
import threading
kept = []
def each(s):
    try:
        while True: kept.append(s.accept())
    except OSError: pass
for one in [s, s2]: threading.Thread(target=each, args=[one], daemon=True).start()
sys.stdin.readline(); s.shutdown(2); s.close()
sys.stdin.readline(); s2.shutdown(2); s2.close()
sys.stdin.readline()
";
    let Some(mut first) = server(&registrar, port, ",policy=LeastUsed,load=connections/4", shared) else {
        return;
    };
    soon(&registrar, "registered", |said| said.lines().count() == 1 && said.contains("LeastUsed"));
    let users: Vec<_> = (0..4).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    soon(&registrar, "busy", |said| !said.contains("load=0"));
    drop(users);
    first.say("");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert_ne!(resolved(&registrar), "", "the other socket is open");
    }
    first.say("");
    soon(&registrar, "closed", str::is_empty);
    // At once, with other options: the keeper of the first is still there.
    let inherited = "
os.environ['LD_PRELOAD'], preload = '', os.environ['LD_PRELOAD']
s.listen(9); s.set_inheritable(True)
os.execvpe('python3', ['python3', '-c', '''
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
while True: s.accept()
''', str(s.fileno())], {**os.environ, 'LD_PRELOAD': preload})
";
    let Some(second) = server(&registrar, port, ",weight=3", inherited) else { return };
    soon(&registrar, "inherited", |said| said.lines().count() == 1 && said.contains("weight=3"));
    second.signal(libc::SIGKILL);
    soon(&registrar, "killed", str::is_empty);
}
