//! Standard output, whose reader may go away: then there is nobody to tell, and that is no mistake.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Writes a line; `false` if nobody reads any more.
pub fn line(text: impl std::fmt::Display) -> bool {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                complain(format_args!("rspctl: standard output: {error}"));
            }
            false
        }
    }
}

/// Writes the whole answer of a subcommand. Who has read enough of it is no mistake.
pub fn all(text: &[u8]) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if anybody reads that.
pub fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What a subcommand ends with; a reason why it could not do its work is said.
pub fn status(subcommand: &str, result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|reason| {
        complain(format_args!("rspctl: {subcommand}: {reason}"));
        ExitCode::FAILURE
    })
}
