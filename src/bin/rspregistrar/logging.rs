//! Where log lines go: standard error or a file, which SIGHUP opens again (log rotation).

use super::options::Options;
use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);

struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *FILE.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((_, file)) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    if truncate {
        File::create(path)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Starts logging as the options say: by default warnings.
pub fn start(options: &Options) -> io::Result<()> {
    let mut builder = Builder::new();
    let level = match options.loglevel {
        _ if options.logquiet => LevelFilter::Off,
        level => level.unwrap_or(LevelFilter::Warn),
    };
    builder.filter_level(level).format_timestamp_millis();
    if let (None, false, Ok(filters)) = (options.loglevel, options.logquiet, std::env::var("RSP_LOG")) {
        builder.parse_filters(&filters);
    }
    let path = options.logfile.as_ref().map(|path| (path, true));
    if let Some((path, truncate)) = path.or(options.logappend.as_ref().map(|path| (path, false))) {
        let file = open(path, truncate)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        // Later, the working directory may be another.
        let path = std::path::absolute(path)?;
        *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, file));
        builder.target(Target::Pipe(Box::new(ToFile))).write_style(WriteStyle::Never);
    } else if options.logcolor == "off" {
        builder.write_style(WriteStyle::Never);
    }
    builder.init();
    Ok(())
}

/// Opens the log file again, wherever its name leads now.
pub fn reopen() {
    let mut current = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, file)) = &mut *current {
        match open(path, false) {
            Ok(new) => *file = new,
            // Into the old one.
            Err(error) => _ = writeln!(file, "can't open {} again: {error}", path.display()),
        }
    }
}
