//! Running in the background: the program starts itself again, waits until that one is ready, and
//! leaves its process ID in a file.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Tells the program that it is the one in the background.
const VARIABLE: &str = "RSPREGISTRAR_IN_BACKGROUND";

/// Whether this is the process in the background.
pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process in the background and waits until it is ready or has failed; what it says until then
/// is passed on. Its last line is its process ID.
pub fn start(pid_file: &Path) -> io::Result<()> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "rspregistrar".into());
    let mut child = Command::new(std::env::current_exe()?)
        .arg0(name)
        .args(arguments)
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(said) = child.stdout.take() else { return Err(ErrorKind::BrokenPipe.into()) };
    let pid = child.id().to_string();
    for line in BufReader::new(said).lines() {
        let line = line?;
        if line == pid {
            return fs::write(pid_file, format!("{pid}\n"))
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", pid_file.display())));
        }
        println!("{line}");
    }
    Err(io::Error::other(format!("it ended: {}", child.wait()?)))
}

/// In the process in the background, when it is ready: says so and lets go of the terminal.
pub fn ready() -> io::Result<()> {
    println!("{}", std::process::id());
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    // Fails only if it leads a session already.
    let _ = nix::unistd::setsid();
    Ok(())
}
