//! Running in the background: the program starts itself again, waits until that one is ready, and
//! the one in the background keeps its process ID in a locked file.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Tells the program that it is the one in the background.
const VARIABLE: &str = "RSPREGISTRAR_IN_BACKGROUND";

/// Whether this is the process in the background.
pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process in the background and waits until it is ready or has failed; what it says until then
/// is passed on. Its last line is its process ID. Where this fails, there is no such process.
pub fn start() -> io::Result<()> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "rspregistrar".into());
    let mut child = Command::new(std::env::current_exe()?)
        .arg0(name)
        .args(arguments)
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = child.id().to_string();
    let mut ready = || {
        let Some(said) = child.stdout.take() else { return Ok(false) };
        for line in BufReader::new(said).lines() {
            let line = line?;
            if line == pid {
                return Ok(true);
            }
            // Nobody may be there to read it.
            let _ = writeln!(io::stdout(), "{line}");
        }
        Ok(false)
    };
    match ready() {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    }
    let status = child.wait()?;
    Err(io::Error::other(format!("the process in the background ended: {status}")))
}

/// In the process in the background, when it is ready: says so and lets go of the terminal.
pub fn ready() -> io::Result<()> {
    writeln!(io::stdout(), "{}", std::process::id())?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    // Fails only if it leads a session already.
    let _ = nix::unistd::setsid();
    Ok(())
}

/// Whose lock is held until the process ends.
static PID_FILE: OnceLock<(PathBuf, Flock<File>)> = OnceLock::new();

/// Takes the file for this process. Errors: another process has it, or it can't be written.
pub fn take_pid_file(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    loop {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o644).open(&path)?;
        let mut file = match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let whose = match text.trim() {
                    "" => "another registrar has it".to_string(),
                    id => format!("process {id} has it"),
                };
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, whose));
            }
            Err((_, error)) => return Err(error.into()),
        };
        // Its owner may have removed it before we had the lock.
        let ours = file.metadata()?;
        let there = std::fs::metadata(&path);
        if !there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            continue;
        }
        file.set_len(0)?;
        let written = writeln!(file, "{}", std::process::id());
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written?;
        let _ = PID_FILE.set((path, file));
        return Ok(());
    }
}

/// At the end, while it is still locked.
pub fn remove_pid_file() {
    if let Some((path, _)) = PID_FILE.get() {
        let _ = std::fs::remove_file(path);
    }
}
