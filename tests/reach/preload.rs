//! `librserpool-preload.so` in programs that nobody here wrote: Python and curl, with and without it.

use super::{HASTY, LIMIT, Refusing, Server, in_time, rspctl, temporary};
use crate::process::{Process, Registrar};
use crate::skip::skipped;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// The library that cargo has built beside the programs; `None`, and said so: it has not.
pub fn library() -> Option<PathBuf> {
    let library = Path::new(env!("CARGO_BIN_EXE_rspctl")).with_file_name("librserpool_preload.so");
    if !library.exists() {
        skipped("preload", "it is not built (cargo build -p rserpool-preload)");
        return None;
    }
    Some(library)
}

pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(&format!("preload with {program}"), "it is not installed");
    }
    found
}

pub fn under(library: &Path, registrar: &Registrar, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_PRELOAD", library);
    for (name, value) in [("RSP_TRANSPORT", "tcp"), ("RSP_ANNOUNCE", "off"), ("RSP_POOLS", "WebPool")] {
        command.env(name, value);
    }
    command.env("RSP_REGISTRAR", registrar.asap.to_string());
    command
}

pub fn said(output: &Output) -> String {
    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{log}");
    out.trim().to_owned()
}

/// A program that uses the library itself gets that, not the one that was loaded before it.
#[test]
fn the_loader_does_not_take_it_for_the_library() {
    let Some(preloaded) = library() else { return };
    if !has("python3") {
        return;
    }
    let built = std::env::current_exe().expect("own path").with_file_name("librserpool.so");
    let folder = temporary("soname");
    std::fs::create_dir_all(&folder).expect("folder");
    std::os::unix::fs::symlink(&built, folder.join("librserpool.so.0")).expect("link");
    let mut command = Command::new("python3");
    command.args(["-c", "import ctypes; ctypes.CDLL('librserpool.so.0').rsp_version; print('found')"]);
    let output = command.env("LD_PRELOAD", preloaded).env("LD_LIBRARY_PATH", &folder).output().expect("run");
    assert_eq!(said(&output), "found");
    std::fs::remove_dir_all(folder).expect("folder");
}

/// What a script may use: a whole line, and nothing behind it, however it comes in.
const LINE: &str = "
def line(s):
    data = b''
    while not data.endswith(b'\\n'):
        more = s.recv(1)
        assert more, data
        data += more
    return data.decode().strip()
";

fn python(library: &Path, registrar: &Registrar, script: &str) -> String {
    said(&under(library, registrar, "python3", &["-c", &format!("{LINE}{script}")]).output().unwrap())
}

#[test]
fn it_exports_what_it_hooks_and_nothing_else() {
    let Some(library) = library() else { return };
    if !has("nm") {
        return;
    }
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().unwrap();
    let exported = said(&output);
    let exported: BTreeSet<&str> = exported.lines().filter_map(|line| line.split(' ').next_back()).collect();
    let wanted = include_str!("../abi/preload.txt").lines().collect();
    assert_eq!(exported, wanted);
}

#[test]
fn a_name_below_the_suffix_is_a_pool() {
    let Some(library) = library().filter(|_| has("python3")) else { return };
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let _kept = [one.register(&registrar, "WebPool", &[]), two.register(&registrar, "WebPool", &[])];
    let script = "
import socket
names = set()
for family in [0, socket.AF_INET, socket.AF_INET6]:
    for n in range(2):
        kind, _, _, _, address = socket.getaddrinfo('webpool.pool', 80, family, socket.SOCK_STREAM)[0]
        s = socket.socket(kind)
        s.connect(address)
        names.add((line(s), s.getpeername()[1]))
print(sorted(names))
print(socket.getaddrinfo('WebPool.pool.', 80, 0, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)[0][3])
print(socket.gethostbyname('webpool.pool').startswith('127.214.'))
for call in [lambda: socket.getaddrinfo('webpool.pool', 80, 0, 0, 0, socket.AI_NUMERICHOST),
             lambda: socket.getaddrinfo('nobody.pool', 80)]:
    try:
        print(call())
    except socket.gaierror as error:
        print(error.errno == socket.EAI_NONAME)
print(socket.getaddrinfo(None, 80, 0, socket.SOCK_STREAM)[0][4][1], socket.getaddrinfo('127.0.0.1', 80)[0][4])
";
    let expected = format!(
        "[('one', {}), ('two', {})]\nWebPool.pool.\nTrue\nTrue\nTrue\n80 ('127.0.0.1', 80)",
        one.address.port(),
        two.address.port()
    );
    assert_eq!(python(&library, &registrar, script), expected);
}

#[test]
fn connects_go_on_to_the_next_element() {
    let Some(library) = library().filter(|_| has("python3")) else { return };
    let registrar = Registrar::start(&[]);
    let one = Server::start("one");
    let refusing = Refusing::bind();
    let _refusing = refusing.register(&registrar);
    let _kept = one.register(&registrar, "WebPool", &[]);
    let script = "
import asyncio, socket, time
names = []
for n in range(4):
    s = socket.create_connection(('webpool.pool', 80), timeout=None)
    names.append(line(s))
async def ask():
    for n in range(20):
        try:
            reader, writer = await asyncio.open_connection('webpool.pool', 80)
            names.append((await reader.readline()).decode().strip())
        except ConnectionRefusedError:
            names.append('refused')
begun = time.monotonic()
asyncio.run(ask())
# Who refused is passed over for a second, then for two.
refused = names[4:].count('refused')
print(names[:4] == ['one'] * 4, refused <= 1 + (time.monotonic() - begun), names.count('one') == 24 - refused)
";
    assert_eq!(python(&library, &registrar, script), "True True True");
}

#[test]
fn connections_of_a_lost_element_break_at_once() {
    let Some(library) = library().filter(|_| has("python3")) else { return };
    let registrar = Registrar::start(&[]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let mut hasty = one.register(&registrar, "WebPool", &HASTY);
    let _kept = two.register(&registrar, "WebPool", &[]);
    let script = format!(
        "{LINE}
import os, select, socket, sys
pair = {{}}
while len(pair) < 2:
    s = socket.create_connection(('webpool.pool', 80))
    pair[line(s)] = s
print('connected', flush=True)
# Some programs look at nothing but whether there is something to read.
poll = select.epoll()
poll.register(pair['one'], select.EPOLLIN)
while not any(events & select.EPOLLIN for _, events in poll.poll()): pass
try:
    print('end', pair['one'].recv(9), flush=True)
except OSError:
    print('broken', flush=True)
pair['two'].send(b'there\\n')
assert line(pair['two']) == 'there'
print('there', flush=True)
s = socket.create_connection(('webpool.pool', 80))
print('now', line(s), flush=True)
if os.fork() == 0:
    s = socket.create_connection(('webpool.pool', 80))
    print('child', line(s), flush=True)
    os._exit(0)
os.wait()
"
    );
    let mut command = under(&library, &registrar, "python3", &["-c", &script]);
    let variables: Vec<_> =
        command.get_envs().map(|(n, v)| (n.to_owned(), v.unwrap_or_default().to_owned())).collect();
    in_time(|| {
        // What is removed from the environment before is put back.
        command = Command::new("/usr/bin/env");
        command.args(variables.iter().map(|(n, v)| format!("{}={}", n.display(), v.display())));
        let mut process = Process::start(command.args(["python3", "-c", &script]));
        process.line_with("connected");
        let hung = one.freeze();
        process.line_with("broken");
        let took = hung.elapsed();
        process.line_with("there");
        assert_eq!(process.line_after("now "), "two");
        assert_eq!(process.line_after("child "), "two");
        one.thaw();
        while hasty.line_with("0x").contains(" not in ") {}
        took
    });
}

#[test]
fn names_and_addresses_of_a_configuration_can_mean_pools() {
    let Some(library) = library().filter(|_| has("curl")) else { return };
    let registrar = Registrar::start(&[]);
    let one = Server::start("one");
    let _kept = one.register(&registrar, "WebPool", &[]);
    let other = Server::start("other");
    let ask = |map: &str, url: &str| {
        let mut command = under(&library, &registrar, "curl", &["-sS", "-m", "9", "--http0.9", url]);
        let output = command.env("RSP_MAP", map).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ask("192.0.2.1:80=WebPool", "http://192.0.2.1/"), "one");
    assert_eq!(ask("web.example:80=WebPool", "http://web.example/"), "one");
    let elsewhere = format!("http://localhost:{}/", other.address.port());
    assert_eq!(ask("localhost:80=WebPool", &elsewhere), "other", "another port of a mapped host");
}

#[test]
fn run_sets_it_up_or_says_why_it_can_not_work() {
    let Some(_) = library().filter(|_| has("curl")) else { return };
    let registrar = Registrar::start(&[]);
    let one = Server::start("one");
    let _kept = one.register(&registrar, "WebPool", &[]);
    let run = |arguments: &[&str]| {
        let mut command = rspctl();
        command.args(["run", "--registrar", &registrar.asap.to_string()]).args(arguments);
        command.env("RSP_TRANSPORT", "tcp").env("RSP_ANNOUNCE", "off").output().unwrap()
    };
    let output =
        run(&["--pool", "WebPool", "--", "curl", "-sS", "-m", "9", "--http0.9", "http://webpool.pool/"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("one"), "{output:?}");
    let output = run(&["--", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    let program = temporary("static");
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    std::fs::write(&program, bytes).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (program, why) in [(program.to_str().unwrap(), "statically linked"), ("no-such-program", "not found")]
    {
        let output = run(&["--", program]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(why), "{log}");
    }
    let _ = std::fs::remove_file(program);
}

#[test]
fn what_a_program_listens_on_is_an_element_while_it_does() {
    if !has("python3") {
        return;
    }
    let registrar = Registrar::start(&[]);
    let held = Refusing::bind();
    let free = held.address().port();
    let mut command = rspctl();
    command.args(["run", "--serve", &format!("Served:{free},identifier=7"), "--registrar"]);
    command.arg(registrar.asap.to_string());
    // It turns into a daemon: who listens first is not who serves.
    let server = format!(
        "
import os, socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', {free})); s.listen(9); s.listen(9)
child = os.fork()
if child:
    print('serving', child, flush=True); os._exit(0)
while True:
    s.accept()[0].send(b'served')
"
    );
    let mut program = Process::start(command.args(["--", "python3", "-c", &server]));
    let child: i32 = program.line_after("serving ").parse().unwrap();
    let resolved = || {
        let mut command = rspctl();
        command.args(["resolve", "Served", "--registrar", &registrar.asap.to_string()]);
        command.env("RSP_TRANSPORT", "tcp").env("RSP_ANNOUNCE", "off");
        String::from_utf8_lossy(&command.output().unwrap().stdout).contains("0x00000007 tcp 127.0.0.1")
    };
    let soon = |what: &str, wanted: bool| {
        let begun = Instant::now();
        while resolved() != wanted {
            assert!(begun.elapsed() < LIMIT, "{what}");
        }
        println!("{what}: {:?}", begun.elapsed());
    };
    soon("registered", true);
    let signal = |signal| {
        // SAFETY: the daemon, which nobody else waits for.
        unsafe { libc::kill(child, signal) };
    };
    signal(libc::SIGSTOP);
    soon("stopped", false);
    signal(libc::SIGCONT);
    soon("goes on", true);
    signal(libc::SIGTERM);
    soon("ended", false);
}
