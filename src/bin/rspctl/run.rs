//! `rspctl run`: start a program so that names of pools mean pools to it, or its listening socket is an element.

use crate::out;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const LIBRARY: &str = "librserpool-preload.so";
/// What cargo calls it.
const LIBRARY_AS_BUILT: &str = "librserpool_preload.so";
/// How much of a program is looked at.
const MAX_LOOK: u64 = 256 << 20;
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const INSTEAD: &str = "use rspctl proxy on a loopback address instead";

/// Start a program with librserpool-preload.so: names below .pool mean pools to it; with --serve, what it listens on
/// is an element of a pool.
#[derive(Args)]
pub struct RunArgs {
    /// A pool that the program uses, as it is spelled (host names have no case); repeatable.
    #[arg(long, value_name = "POOL")]
    pool: Vec<OsString>,
    /// A name or address in the program's configuration that is to mean a pool; repeatable.
    #[arg(long, value_name = "HOST:PORT=POOL")]
    map: Vec<OsString>,
    /// Names below this are pools'. Default: pool.
    #[arg(long, value_name = "NAME")]
    suffix: Option<OsString>,
    /// The program listens on that port: register it, with the options of rspctl register; repeatable.
    #[arg(long, value_name = "POOL:PORT[,OPTION=VALUE]...")]
    serve: Vec<String>,
    /// The library. Default: beside rspctl, in ../lib, or where the loader finds it.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// A registrar; repeatable. Default: RSP_REGISTRAR, announcements, localhost:3863.
    #[arg(long, value_name = "HOST:PORT")]
    registrar: Vec<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Becomes the program. Exit status 1 if that can't work, 126 or 127 if it can't be started.
pub fn run(args: &RunArgs) -> ExitCode {
    out::status("run", start(args))
}

fn start(args: &RunArgs) -> Result<ExitCode, String> {
    let Some((name, arguments)) = args.command.split_first() else {
        return Err("a program is missing".into());
    };
    let program = find(name).ok_or_else(|| format!("{}: not found", name.to_string_lossy()))?;
    // A server alone needs nothing of us in it: then only its SIGTERM is not heard of.
    let is_user = args.serve.is_empty() || !args.pool.is_empty() || !args.map.is_empty();
    let mut command = Command::new(name);
    command.args(arguments);
    let why = unreachable(&program).map_err(|error| format!("{}: {error}", program.display()))?;
    let library = match (why, args.library.clone().map_or_else(library, Ok)) {
        (Some(why), _) if is_user => return Err(format!("{} {why}; {INSTEAD}", program.display())),
        (None, Err(error)) if is_user => return Err(error),
        (why, library) => library.ok().filter(|_| why.is_none()),
    };
    if let Some(library) = library {
        command.env("LD_PRELOAD", before(library.as_os_str(), std::env::var_os("LD_PRELOAD")));
        for (variable, values) in [("RSP_POOLS", &args.pool), ("RSP_MAP", &args.map)] {
            if !values.is_empty() {
                command.env(variable, values.join(OsStr::new(",")));
            }
        }
        if let Some(suffix) = &args.suffix {
            command.env("RSP_SUFFIX", suffix);
        }
        if !args.serve.is_empty() {
            command.env("RSP_SERVE", args.serve.join(";"));
        }
    }
    if !args.registrar.is_empty() {
        command.env("RSP_REGISTRAR", args.registrar.join(";"));
    }
    for serve in &args.serve {
        register(serve, args)?;
    }
    let error = command.exec();
    out::complain(format_args!("rspctl: run: {}: {error}", name.to_string_lossy()));
    Ok(if error.kind() == io::ErrorKind::NotFound { 127.into() } else { 126.into() })
}

/// Starts who keeps the registration, as a process of its own: it goes on when the program turns into a daemon, and
/// knows that it is there by its listening socket alone, whichever process has it.
fn register(serve: &str, args: &RunArgs) -> Result<(), String> {
    let mut parts = serve.split(',');
    let Some((pool, port)) = parts.next().unwrap_or_default().rsplit_once(':') else {
        return Err(format!("--serve={serve}: POOL:PORT is expected"));
    };
    let port: u16 = port.parse().map_err(|_| format!("--serve={serve}: {port} is no port"))?;
    let rspctl = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(rspctl);
    command.args(["register", pool, &format!("--while-listening={port}")]);
    command.args(parts.map(|option| format!("--{option}")));
    if !args.registrar.is_empty() {
        command.env("RSP_REGISTRAR", args.registrar.join(";"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    // It leaves a process behind and ends, so that the program has no child that it does not know.
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("--serve={serve}: see above")),
        Err(error) => Err(format!("--serve={serve}: {error}")),
    }
}

/// Ours first, and those of others behind it.
fn before(library: &OsStr, others: Option<OsString>) -> OsString {
    match others.filter(|others| !others.is_empty()) {
        Some(others) => [library, &others].join(OsStr::new(":")),
        None => library.to_owned(),
    }
}

fn library() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let folders = [beside.to_owned(), beside.join("../lib"), beside.join("../lib/x86_64-linux-gnu")];
    let places = folders.iter().flat_map(|folder| [folder.join(LIBRARY), folder.join(LIBRARY_AS_BUILT)]);
    match places.into_iter().find(|place| place.exists()) {
        Some(place) => Ok(fs::canonicalize(&place).unwrap_or(place)),
        None => Err(format!(
            "{LIBRARY} is neither beside {} nor in ../lib; --library says where it is",
            program.display()
        )),
    }
}

/// The file of a program, as execvp(3) finds it.
fn find(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_program)
}

/// Why a preloaded library does nothing for a program, if that is so.
fn unreachable(program: &Path) -> io::Result<Option<&'static str>> {
    let meta = fs::metadata(program)?;
    let capabilities = xattr(program);
    if meta.mode() & SET_USER_ID != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(Some("is set-user-ID, so that the loader ignores LD_PRELOAD"));
    }
    if meta.mode() & SET_GROUP_ID != 0 && meta.gid() != nix::unistd::getegid().as_raw() {
        return Ok(Some("is set-group-ID, so that the loader ignores LD_PRELOAD"));
    }
    if capabilities {
        return Ok(Some("has file capabilities, so that the loader ignores LD_PRELOAD"));
    }
    let mut bytes = Vec::new();
    File::open(program)?.take(MAX_LOOK).read_to_end(&mut bytes)?;
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let mut interpreter = words.next().map(OsStr::from_bytes).and_then(find);
        if interpreter.as_ref().is_some_and(|path| path.ends_with("env")) {
            interpreter = words.next().map(OsStr::from_bytes).and_then(find);
        }
        return match interpreter {
            Some(interpreter) if interpreter != program => unreachable(&interpreter),
            _ => Ok(None),
        };
    }
    Ok(kind(&bytes))
}

/// Whether a file has capabilities.
fn xattr(program: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(program.as_os_str().as_bytes()) else { return false };
    // SAFETY: two strings that end with zeroes; nothing is written where there is no room.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

/// What Go's linker puts into the data of every program, at a multiple of 16 bytes: these words, the size of a pointer, two
/// flags. Whoever looks for it, as we do, has the words among what can't be written.
const GO_MARK: &[u8] = b"\xff Go buildinf:";

/// One entry of an ELF program's header table.
struct Segment {
    kind: u32,
    flags: u32,
    /// Where it is in the file.
    at: std::ops::Range<usize>,
}

/// A 64-bit program's segments; those that its table says wrongly are left out.
fn segments(program: &[u8]) -> Vec<Segment> {
    fn number<const N: usize>(program: &[u8], at: Option<usize>) -> Option<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(program.get(at?..)?.get(..N)?);
        Some(u64::from_le_bytes(wide))
    }
    let long = |at| usize::try_from(number::<8>(program, at)?).ok();
    let word = |at| u32::try_from(number::<4>(program, at)?).ok();
    let half = |at| usize::try_from(number::<2>(program, at)?).ok();
    let (Some(start), Some(size), Some(count)) = (long(Some(32)), half(Some(54)), half(Some(56))) else {
        return Vec::new();
    };
    let segment = |entry: usize| {
        let field = |offset| start.checked_add(entry.checked_mul(size)?)?.checked_add(offset);
        let from = long(field(8))?;
        let to = from.checked_add(long(field(32))?)?;
        Some(Segment { kind: word(field(0))?, flags: word(field(4))?, at: from..to })
    };
    (0..count).filter_map(segment).collect()
}

fn is_go(data: &[u8]) -> bool {
    data.chunks_exact(16)
        .any(|line| line.strip_prefix(GO_MARK).is_some_and(|rest| matches!(rest, [0 | 4 | 8, 0..=3])))
}

/// The same of a program's bytes.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    if !bytes.starts_with(b"\x7fELF") {
        return Some("is no program that the loader knows");
    }
    if bytes.get(4) != Some(&2) {
        return Some("is a 32-bit program");
    }
    let segments = segments(bytes);
    let is_data = |one: &&Segment| one.kind == libc::PT_LOAD && one.flags & libc::PF_W != 0;
    // Segments begin at multiples of 16 where they are loaded, and at the same remainder in the file.
    let mut data = segments.iter().filter(is_data);
    if data.any(|one| bytes.get(one.at.start & !15..one.at.end.min(bytes.len())).is_some_and(is_go)) {
        return Some("is a Go program, which makes its system calls itself");
    }
    match segments.iter().find(|one| one.kind == libc::PT_INTERP) {
        None => Some("is statically linked, so that there is no loader to preload anything"),
        Some(loader) => {
            let is_musl = bytes.get(loader.at.clone())?.windows(7).any(|window| window == b"ld-musl");
            is_musl.then_some("uses musl, and this library glibc")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keep_their_place() {
        assert_eq!(before(OsStr::new("/a.so"), None), "/a.so");
        assert_eq!(before(OsStr::new("/a.so"), Some("".into())), "/a.so");
        assert_eq!(before(OsStr::new("/a.so"), Some("/b.so:/c.so".into())), "/a.so:/b.so:/c.so");
    }

    #[test]
    fn programs_are_looked_at_first() {
        let this = std::env::current_exe().unwrap();
        assert_eq!(unreachable(&this).unwrap(), None);
        assert_eq!(unreachable(Path::new("/bin/sh")).unwrap(), None);
        assert!(kind(b"MZ").unwrap().contains("no program"));
        let mut bytes = fs::read(&this).unwrap();
        let mark = [GO_MARK, &[8, 2]].concat();
        let mut places = segments(&bytes).into_iter().filter(|one| one.kind == libc::PT_LOAD);
        let (code, data) = (places.next().unwrap(), places.find(|one| one.flags & libc::PF_W != 0).unwrap());
        let write = |bytes: &mut Vec<u8>, place: &Segment| {
            let at = place.at.start.next_multiple_of(16);
            bytes[at + 64..][..16].copy_from_slice(&mark);
        };
        write(&mut bytes, &code);
        assert_eq!(kind(&bytes), None, "who looks for the mark has it too");
        write(&mut bytes, &data);
        assert!(kind(&bytes).unwrap().contains("Go"));
        bytes[4] = 1;
        assert!(kind(&bytes).unwrap().contains("32-bit"));
        let mut static_program = vec![0; 64];
        static_program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert!(kind(&static_program).unwrap().contains("statically"));
        assert_eq!(find(OsStr::new("sh")).unwrap().file_name(), Some(OsStr::new("sh")));
        assert_eq!(find(OsStr::new("no such program")), None);
    }
}
