//! The examples in `c-examples/` against a registrar and each other: they do their job, survive the
//! death of the server in use, and are clean under valgrind.
#![allow(clippy::disallowed_methods)]

#[path = "common/busy.rs"]
mod busy;
#[path = "common/examples.rs"]
mod examples;
#[path = "common/process.rs"]
mod process;

use busy::busy;
use examples::build_examples;
use process::{Process, Registrar};
#[path = "common/skip.rs"]
mod skip;

use skip::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// For what must happen: long enough for a busy machine and valgrind.
const SOON: Duration = Duration::from_secs(60);

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("examples-{}", std::process::id()));
        build_examples(&folder);
        folder
    })
}

fn example(name: &str) -> Command {
    Command::new(folder().join(name))
}

/// The example under valgrind; `None` (and a SKIPPED line) without valgrind.
fn example_under_valgrind(name: &str) -> Option<Command> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        skipped(&format!("{name} under valgrind"), &error.to_string());
        return None;
    }
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full"])
        .args([
            "--show-leak-kinds=definite,indirect,possible",
            "--errors-for-leak-kinds=definite,indirect,possible",
        ])
        .arg(concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/tests/c/valgrind.supp"))
        .arg(folder().join(name));
    Some(command)
}

fn hex(text: &str) -> u32 {
    let digits = text.split("0x").nth(1).expect("an identifier");
    u32::from_str_radix(&digits[..8], 16).expect("hexadecimal")
}

fn echo_server(registrar: &Registrar, pool: &str, command: &mut Command) -> (u32, Process) {
    let mut program = Process::start(command.args([pool, &registrar.switch]));
    let id = hex(&program.line_with("element "));
    (id, program)
}

#[test]
fn echo_goes_on_with_another_server() {
    let registrar = Registrar::start(&[]);
    let mut servers = [(); 2].map(|()| Some(echo_server(&registrar, "Echo", &mut example("echo_server"))));
    let mut client = Process::start(example("echo_client").args(["Echo", &registrar.switch]));
    client.say("one");
    let answer = client.line_with("0x");
    assert!(answer.ends_with(": one"), "{answer}");
    let first = hex(&answer);
    for server in &mut servers {
        if server.as_ref().is_some_and(|(id, _)| *id == first) {
            server.as_ref().unwrap().1.signal(libc::SIGKILL);
            *server = None;
        }
    }
    client.say("two");
    let answer = client.line_with("0x");
    assert!(answer.ends_with(": two"), "{answer}");
    assert_ne!(hex(&answer), first);
    assert_eq!(client.end().1, 0);
}

#[test]
fn the_same_in_cpp() {
    if !folder().join("echo_client++").exists() {
        return skipped("c_examples: the_same_in_cpp", "no c++");
    }
    let registrar = Registrar::start(&[]);
    let (id, server) = echo_server(&registrar, "Echo++", &mut example("echo_server++"));
    let mut client = Process::start(example("echo_client++").args(["Echo++", &registrar.switch]));
    client.say("one");
    assert_eq!(client.line_with("0x"), format!("0x{id:08x}: one"));
    let (second, _second) = echo_server(&registrar, "Echo++", &mut example("echo_server++"));
    server.signal(libc::SIGKILL);
    client.say("two");
    assert_eq!(client.line_with("0x"), format!("0x{second:08x}: two"));
    assert_eq!(client.end().1, 0);
    let nobody = Process::start(example("echo_client++").args(["Nobody", &registrar.switch]));
    assert_eq!(nobody.end().1, 1);
}

/// `rserpool.hpp` with either compiler, without a warning, under AddressSanitizer and UndefinedBehaviorSanitizer.
#[test]
fn objects_own_what_they_have() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let registrar = Registrar::start(&[]);
    for compiler in ["g++", "clang++"] {
        let program = folder().join(format!("objects-{compiler}"));
        let built = Command::new(compiler)
            .args([
                "-std=c++17",
                "-g",
                "-Wall",
                "-Wextra",
                "-Wshadow",
                "-Wconversion",
                "-pedantic",
                "-Werror",
            ])
            .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Iinclude", "-o"])
            .arg(&program)
            .args(["tests/c/objects.cc", "-lrserpool"])
            .args([
                format!("-L{}", folder().display()),
                format!("-Wl,--disable-new-dtags,-rpath,{}", folder().display()),
            ])
            .current_dir(root)
            .output();
        let built = match built {
            Ok(built) => built,
            Err(error) => {
                skipped(&format!("c_examples: objects with {compiler}"), &error.to_string());
                continue;
            }
        };
        assert!(built.status.success(), "{compiler}: {}", String::from_utf8_lossy(&built.stderr));
        let mut process = Process::start(Command::new(&program).arg(&registrar.switch));
        process.line_with("good");
        assert_eq!(process.end().1, 0);
    }
}

#[test]
fn resolve_shows_everybody() {
    let registrar = Registrar::start(&[]);
    let (one, _one) = echo_server(&registrar, "Shown", &mut example("echo_server"));
    let (two, _two) = echo_server(&registrar, "Shown", &mut example("echo_server"));
    let (text, status) = Process::start(example("resolve").args(["Shown", &registrar.switch])).end();
    assert_eq!(status, 0);
    let mut seen: Vec<u32> = text.lines().map(hex).collect();
    seen.sort_unstable();
    let mut there = [one, two];
    there.sort_unstable();
    assert_eq!(seen, there, "{text}");
    assert_eq!(Process::start(example("resolve").args(["Nobody", &registrar.switch])).end().1, 1);
}

/// Behind NAT or a published port, users are sent where the operator says.
#[test]
fn an_element_is_where_it_is_advertised() {
    let registrar = Registrar::start(&[]);
    let mut servers = Vec::new();
    for (pool, variable, switch, expected) in [
        ("ByVariable", Some("192.0.2.7:7007"), None, "192.0.2.7:7007"),
        ("BySwitch", Some("192.0.2.7"), Some("-advertise=[2001:db8::7]:7008"), "[2001:db8::7]:7008"),
    ] {
        let mut server = example("echo_server");
        if let Some(value) = variable {
            server.env("RSP_ADVERTISE", value);
        }
        let mut process = Process::start(server.args([pool, &registrar.switch]).args(switch));
        process.line_with("element ");
        servers.push(process);
        let (text, _) = Process::start(example("resolve").args([pool, &registrar.switch])).end();
        assert!(text.contains(expected), "{expected} is not in: {text}");
    }
    let output =
        example("echo_server").args(["Wrong", "-advertise=*:7"]).env("RSP_ADVERTISE", "1.2.3.4:x").output();
    let output = output.expect("run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("bad argument -advertise=*:7"), "{said}");
}

/// Nobody waits for what will not come; in a network of its own, where no registrar announces itself.
#[test]
fn echo_client_says_within_a_second_that_there_is_no_registrar() {
    const SCRIPT: &str = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v1 up; \
        ip addr add 10.77.0.1/24 dev v0; ip link set v0 up; exec \"$0\" \"$@\"";
    let client = folder().join("echo_client");
    for arguments in [&["Echo"][..], &["Echo", "-registrar=127.0.0.1:9"], &["Echo", "-asapannounce=off"]] {
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-c", SCRIPT]).arg(&client).args(arguments).env_remove("RSP_REGISTRAR");
        let run = || {
            let begun = Instant::now();
            command.output().map(|output| (begun.elapsed(), output))
        };
        // The best of a few: what a busy machine adds is not its own.
        let best = std::iter::repeat_with(run).take(5).flatten().min_by_key(|(took, _)| *took);
        let Some((took, output)) = best else {
            return skipped("echo_client without a registrar", "no unshare");
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("unshare failed") {
            return skipped("echo_client without a registrar", "unshare is not allowed");
        }
        assert!(!output.status.success() && said.contains("no registrar"), "{arguments:?}: {said}");
        assert!(took < busy() * Duration::from_secs(1), "{arguments:?} took {took:?}");
    }
}

/// A folder with a file of that many bytes that don't repeat soon.
fn files(name: &str, size: usize) -> (PathBuf, Vec<u8>) {
    let files = folder().join(name);
    fs::create_dir_all(&files).expect("folder");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..size)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    fs::write(files.join("file"), &bytes).expect("file");
    (files, bytes)
}

fn file_server(registrar: &Registrar, files: &Path, rate: u32, command: &mut Command) -> (u32, Process) {
    let mut program = Process::start(command.args([
        "-pool=Files",
        &format!("-directory={}", files.display()),
        &format!("-rate={rate}"),
        &registrar.switch,
    ]));
    let id = hex(&program.line_with("serving "));
    (id, program)
}

#[test]
fn a_download_survives_its_servers() {
    download("download", None);
}

/// The same where nobody speaks without a certificate.
#[test]
fn a_download_inside_tls_survives_its_servers() {
    let authority = folder().join("ca");
    for step in [
        &["init", "--scope", "here"][..],
        &["issue", "registrar", "--role", "registrar"],
        &["issue", "server", "--role", "element", "--pool", "Files"],
        &["issue", "client", "--role", "user", "--pool", "Files"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rspctl"));
        let output = command.args(["ca", "--dir"]).arg(&authority).args(step).output().expect("rspctl");
        assert!(output.status.success(), "{step:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    download("secured", Some(&authority));
}

/// A server is killed and another one frozen while a client downloads from them; each with its certificate from
/// `authority`.
fn download(name: &str, authority: Option<&Path>) {
    let certificate = |option: &str, whose: &str| {
        authority.map(|authority| format!("{option}={}", authority.join(whose).display()))
    };
    let options = certificate("--tls-dir", "registrar");
    let registrar = Registrar::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let (files, bytes) = files(name, 12 << 20);
    let mut servers: Vec<(u32, Process)> = (0..3)
        .map(|_| {
            let mut command = example("file_server");
            command.args(certificate("-tlsdir", "server"));
            file_server(&registrar, &files, 6 << 20, &mut command)
        })
        .collect();
    let to = files.join("copy");
    let mut client = Process::start(
        example("file_client")
            .args(certificate("-tlsdir", "client"))
            .args(["-pool=Files", "-timeout=60", &registrar.switch, "file"])
            .arg(&to),
    );
    let arrived = || fs::metadata(&to).map_or(0, |copy| copy.len());
    // The server that has an unfinished session is the one in use: kill it after a third of the file, and
    // freeze its successor after two thirds.
    for (part, signal) in [(4 << 20, libc::SIGKILL), (8 << 20, libc::SIGSTOP)] {
        let begin = Instant::now();
        while arrived() < part {
            assert!(begin.elapsed() < SOON, "the download stands at {}", arrived());
            std::thread::sleep(Duration::from_millis(5));
        }
        let at = servers.iter().position(|(_, server)| in_use(server)).expect("a server in use");
        servers[at].1.signal(signal);
        if signal == libc::SIGKILL {
            servers.remove(at);
        }
    }
    client.line_with("done ");
    let (text, status) = client.end();
    assert_eq!(status, 0, "{text}");
    assert!(fs::read(&to).expect("copy") == bytes, "the copy differs\n{text}");
    let failovers = text.lines().filter(|line| line.starts_with("failover ")).count();
    assert!(failovers >= 2, "{text}");
    served_everything(&text, bytes.len());
}

/// Whether the process has a connection with data to send: the kernel knows best.
fn in_use(server: &Process) -> bool {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{}/fd", server.id()))
        .expect("descriptors")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let listening: Vec<u16> = connections(&tables, &inodes, "0A").map(|(local, _)| local).collect();
    connections(&tables, &inodes, "01").any(|(local, _)| listening.contains(&local))
}

/// Local and remote ports of the connections in this state.
fn connections<'a>(
    tables: &'a [String],
    inodes: &'a [String],
    state: &'a str,
) -> impl Iterator<Item = (u16, u16)> + 'a {
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |field: &str| u16::from_str_radix(field.rsplit(':').next()?, 16).ok();
        let ours = fields.get(3) == Some(&state)
            && inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
        ours.then(|| Some((port(fields[1])?, port(fields[2])?))).flatten()
    })
}

/// The client's account has no gap and no overlap.
fn served_everything(text: &str, size: usize) {
    let mut position = 0;
    for line in text.lines().filter(|line| line.starts_with("served ")) {
        let field = |name: &str| -> usize {
            let value = line.split_whitespace().find_map(|field| field.strip_prefix(name)).expect(name);
            value.parse().expect("number")
        };
        assert_eq!(field("from="), position, "{text}");
        position = field("to=");
    }
    assert_eq!(position, size, "{text}");
}

#[test]
fn what_is_not_there_is_refused() {
    let registrar = Registrar::start(&[]);
    let (files, _) = files("refuse", 10);
    fs::write(files.join("empty"), "").expect("file");
    let _server = file_server(&registrar, &files, 0, &mut example("file_server"));
    for (name, expected) in [("nothing", 1), ("../refuse/file", 1), (".", 1), ("empty", 0), ("file", 0)] {
        let client = Process::start(
            example("file_client")
                .args(["-pool=Files", "-timeout=60", &registrar.switch, name])
                .arg(files.join("copy")),
        );
        let (text, status) = client.end();
        assert_eq!(status, expected, "{name}: {text}");
    }
}

#[test]
fn echo_is_clean_under_valgrind() {
    let registrar = Registrar::start(&[]);
    let (Some(mut server), Some(mut client)) =
        (example_under_valgrind("echo_server"), example_under_valgrind("echo_client"))
    else {
        return;
    };
    let (_, server) = echo_server(&registrar, "Clean", &mut server);
    let mut client = Process::start(client.args(["Clean", &registrar.switch]));
    for word in ["one", "two", "three"] {
        client.say(word);
        client.line_with("0x");
    }
    assert_eq!(client.end().1, 0);
    server.signal(libc::SIGTERM);
    let (text, status) = server.end();
    assert_eq!(status, 0, "{text}");
    if let Some(mut resolve) = example_under_valgrind("resolve") {
        assert_eq!(Process::start(resolve.args(["Clean", &registrar.switch])).end().1, 1);
    }
}

#[test]
fn a_download_is_clean_under_valgrind() {
    let registrar = Registrar::start(&[]);
    let (files, bytes) = files("clean", 3 << 20);
    let (Some(mut one), Some(mut client)) =
        (example_under_valgrind("file_server"), example_under_valgrind("file_client"))
    else {
        return;
    };
    let (_, one) = file_server(&registrar, &files, 0, &mut one);
    let to = files.join("copy");
    let client =
        Process::start(client.args(["-pool=Files", "-timeout=100", &registrar.switch, "file"]).arg(&to));
    let (text, status) = client.end();
    assert_eq!(status, 0, "{text}");
    assert!(fs::read(&to).expect("copy") == bytes, "the copy differs\n{text}");
    one.signal(libc::SIGTERM);
    let (text, status) = one.end();
    assert_eq!(status, 0, "{text}");
}
