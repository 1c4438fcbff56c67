//! The C library as C programs see it: each `tests/c/*.c` is compiled against the headers, linked with
//! the shared library, run, and run again under valgrind. The exported symbols are the list in
//! `tests/abi/symbols.txt`.
#![allow(clippy::disallowed_methods)]

#[path = "common/skip.rs"]
mod skip;

use skip::skipped;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with the shared library under the names that linker and loader look for.
fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let built = std::env::current_exe().expect("own path").with_file_name("librserpool.so");
        assert!(built.exists(), "{} is missing", built.display());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lib-{}", std::process::id()));
        // Of an earlier process with our number.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        for name in ["librserpool.so", "librserpool.so.0"] {
            let link = folder.join(name);
            std::os::unix::fs::symlink(&built, &link).expect("link");
        }
        folder
    })
}

/// Output of a tool, or the line that says why there is none.
fn run_tool(what: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped(what, &format!("{}: {error}", command.get_program().to_string_lossy()));
            None
        }
    }
}

fn assert_success(what: &str, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    // The library would have caught it, and the program perhaps taken it for some other EIO.
    assert!(!err.contains("panicked at"), "{what}: a panic\n{err}");
}

/// What a program says of itself, past the harness's capture.
fn tell(output: &Output) {
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if let Some((what, why)) = line.strip_prefix("SKIPPED ").and_then(|line| line.split_once(": ")) {
            skipped(what, why);
        } else if line.contains("sessions in one process") {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// Header and library that a C test needs: what stands behind "needs" in its first line.
fn needs(source: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(source).expect("source");
    let (header, library) = text.lines().next()?.strip_prefix("/* needs ")?.split_once(' ')?;
    Some((header.to_owned(), library.to_owned()))
}

/// Whether the compiler finds a header.
fn has_header(header: &str) -> bool {
    let probe = library_folder().join("probe.c");
    fs::write(&probe, format!("#include {header}\n")).expect("probe");
    let mut compiler = Command::new("cc");
    let output = compiler.args(["-fsyntax-only"]).arg(probe).output();
    output.is_ok_and(|output| output.status.success())
}

/// Compiles a C test, once for all who run it at the same time; `None` (and a SKIPPED line) without a
/// compiler.
fn compile(name: &str) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let source = root().join(format!("tests/c/{name}.c"));
    let program = library_folder().join(name);
    if program.exists() {
        return Some(program);
    }
    let needs = needs(&source);
    if let Some((header, _)) = &needs
        && !has_header(header)
    {
        skipped(name, &format!("no {header}"));
        return None;
    }
    let mut compiler = Command::new("cc");
    compiler
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-pthread"])
        .arg(format!("-I{}", root().join("include").display()))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", library_folder().display()))
        .args(["-Wl,--as-needed", "-lrserpool", "-ldl"])
        .args(needs.map(|(_, library)| library))
        .arg(format!("-Wl,-rpath,{}", library_folder().display()));
    let output = run_tool(name, &mut compiler)?;
    assert_success(&format!("compiling {name}"), &output);
    Some(program)
}

/// How to run something in a network of its own, so that the registrars inside the programs don't find each
/// other, or that of somebody else: empty where that is not possible.
fn network_of_its_own() -> &'static [&'static str] {
    const RUN: &str = "ip link set lo up && exec \"$0\" \"$@\"";
    const WAYS: [&[&str]; 2] =
        [&["unshare", "--net", "sh", "-c", RUN], &["unshare", "--map-root-user", "--net", "sh", "-c", RUN]];
    static WAY: OnceLock<&[&str]> = OnceLock::new();
    WAY.get_or_init(|| {
        let works = |way: &&[&str]| {
            let output = Command::new(way[0]).args(&way[1..]).arg("true").output();
            output.is_ok_and(|output| output.status.success())
        };
        WAYS.into_iter().find(works).unwrap_or_else(|| {
            let _ = writeln!(std::io::stderr(), "no network namespaces: C tests share the machine's network");
            &[]
        })
    })
}

/// A command in a network of its own.
fn isolated<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let around = network_of_its_own().iter().map(std::ffi::OsString::from);
    let mut words = around.chain(words.into_iter().map(|word| word.as_ref().to_owned()));
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// The same for every run: nothing of the developer's environment, a registrar inside the process.
fn surroundings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RSP_") || name.starts_with("CSP_"))
    {
        command.env_remove(name);
    }
    command
        .env("RSP_REGISTRAR", "embedded")
        .env("RSP_TRANSPORT", "tcp")
        // Cargo's would come before the program's own, and `make` leaves a librserpool.so.0 there, perhaps an old one.
        .env("LD_LIBRARY_PATH", library_folder())
        .env("LIBRSERPOOL", library_folder().join("librserpool.so"))
}

fn run_plainly(name: &str) {
    let Some(program) = compile(name) else { return };
    let output = surroundings(&mut isolated([&program])).output().expect("run");
    assert_success(name, &output);
    tell(&output);
}

/// The same with sessions over SCTP.
fn run_over_sctp(name: &str) {
    if !rserpool::transport::sctp::available() {
        return skipped(&format!("{name}::passes_over_sctp"), "kernel has no SCTP");
    }
    let Some(program) = compile(name) else { return };
    let mut command = isolated([&program]);
    let output = surroundings(&mut command).env("RSP_TRANSPORT", "auto").output().expect("run");
    assert_success(&format!("{name} over SCTP"), &output);
    tell(&output);
}

fn run_under_valgrind(name: &str) {
    let Some(program) = compile(name) else { return };
    // A forked child has its parent's memory, but no longer the threads that knew it: what the child
    // can't reach is no leak of ours; nor is what a program that closed all files made the library forget, or a
    // thread's hold on the library that was taken when nobody ends holds any more. Leaks are found by all the
    // other programs; here, bad accesses.
    let kinds =
        if ["guest", "standard", "endings"].contains(&name) { "none" } else { "definite,indirect,possible" };
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        return skipped(&format!("{name} under valgrind"), &error.to_string());
    }
    let mut valgrind = isolated(["valgrind"]);
    valgrind
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--track-fds=no"])
        .args([format!("--show-leak-kinds={kinds}"), format!("--errors-for-leak-kinds={kinds}")])
        .arg(format!("--suppressions={}", root().join("tests/c/valgrind.supp").display()))
        .arg("--child-silent-after-fork=yes")
        .arg(&program)
        .env("CHECK_SLOW", "1");
    let output = surroundings(&mut valgrind).output().expect("run");
    assert_success(&format!("{name} under valgrind"), &output);
}

/// Each program is run, and run again in the ways that stand behind its name.
macro_rules! c_tests {
    (@way $name:ident sctp) => {
        #[test]
        fn passes_over_sctp() {
            super::run_over_sctp(stringify!($name));
        }
    };
    (@way $name:ident valgrind) => {
        #[test]
        fn passes_under_valgrind() {
            super::run_under_valgrind(stringify!($name));
        }
    };
    ($($name:ident: $($way:ident)*;)*) => {$(
        mod $name {
            #[test]
            fn passes() {
                super::run_plainly(stringify!($name));
            }
            $(c_tests!(@way $name $way);)*
        }
    )*

        #[test]
        fn every_c_test_is_run() {
            let listed = [$(stringify!($name)),*];
            for entry in fs::read_dir(root().join("tests/c")).expect("folder") {
                let path = entry.expect("entry").path();
                if path.extension().is_some_and(|ending| ending == "c") {
                    let name = path.file_stem().expect("name").to_string_lossy().into_owned();
                    assert!(listed.contains(&name.as_str()), "{} is not in the list", path.display());
                }
            }
        }
    };
}

c_tests! {
    layout: sctp valgrind;
    tags: sctp valgrind;
    settings: sctp valgrind;
    uninitialised: sctp valgrind;
    descriptors: sctp valgrind;
    session: sctp valgrind;
    sendto: sctp valgrind;
    basic: sctp valgrind;
    legacy: sctp valgrind;
    guest: sctp valgrind;
    waiting: sctp valgrind;
    loading: sctp valgrind;
    errors: sctp valgrind;
    // The system calls that it breaks are TCP's.
    faults: valgrind;
    storm: sctp valgrind;
    // Thousands of sessions are for the real machine; one is like the next as far as memory goes.
    crowd: sctp;
    libevent: sctp valgrind;
    plain: sctp valgrind;
    // Not under valgrind, which stretches the moment that a new descriptor is below 3 before it is moved, so that
    // the program sees one there now and then.
    standard: sctp;
    endings: sctp valgrind;
    companion: sctp valgrind;
    namesake: sctp valgrind;
    why: valgrind;
}

#[test]
fn the_exported_symbols_are_the_list() {
    let library = library_folder().join("librserpool.so");
    let mut nm = Command::new("nm");
    let Some(output) = run_tool("exported symbols", nm.args(["-D", "--defined-only"]).arg(library)) else {
        return;
    };
    assert_success("nm", &output);
    let text = String::from_utf8(output.stdout).expect("text");
    let mut exported: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    let path = root().join("tests/abi/symbols.txt");
    if std::env::var_os("RSP_BLESS").is_some() {
        fs::write(&path, exported.join("\n") + "\n").expect("symbols.txt");
    }
    let list = fs::read_to_string(&path).expect("symbols.txt");
    let list: Vec<&str> = list.lines().collect();
    let gone: Vec<_> = list.iter().filter(|name| !exported.contains(name)).collect();
    let new: Vec<_> = exported.iter().filter(|name| !list.contains(name)).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:?}, new: {new:?}");
}

#[test]
fn the_library_has_its_soname() {
    let library = library_folder().join("librserpool.so");
    let Some(output) = run_tool("soname", Command::new("readelf").arg("-d").arg(library)) else { return };
    assert_success("readelf", &output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("[librserpool.so.0]"));
}
