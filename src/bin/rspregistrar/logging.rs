//! Where log lines go: standard error or a file, which SIGHUP opens again (log rotation); how they look;
//! and which. All of it can change while the program runs.

use super::options::Options;
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);
static CURRENT: RwLock<Option<Logger>> = RwLock::new(None);

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

/// Whichever logger the options ask for at present.
struct Changing;

impl Changing {
    fn with<T>(&self, use_it: impl FnOnce(&Logger) -> T) -> Option<T> {
        CURRENT.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }
}

impl Log for Changing {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.with(|logger| logger.enabled(metadata)).unwrap_or(false)
    }
    fn log(&self, record: &Record<'_>) {
        self.with(|logger| logger.log(record));
    }
    fn flush(&self) {
        self.with(Log::flush);
    }
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    if truncate {
        File::create(path)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Starts logging as the options say: by default warnings.
pub fn start(options: &Options) -> Result<(), String> {
    apply(options, true)?;
    // Fails only if there is a logger already.
    let _ = log::set_logger(&Changing);
    Ok(())
}

/// Goes on logging as the options say now.
pub fn change(options: &Options) -> Result<(), String> {
    apply(options, false)
}

fn apply(options: &Options, truncate: bool) -> Result<(), String> {
    let mut builder = Builder::new();
    let level = match options.loglevel {
        _ if options.logquiet => LevelFilter::Off,
        level => level.unwrap_or(LevelFilter::Warn),
    };
    builder.filter_level(level).format_timestamp_millis();
    if let (None, false, Ok(filters)) = (options.loglevel, options.logquiet, std::env::var("RSP_LOG")) {
        builder.parse_filters(&filters);
    }
    match options.logformat.as_str() {
        "json" => _ = builder.format(|out, record| out.write_all(json(SystemTime::now(), record).as_bytes())),
        "journal" => _ = builder.format(|out, record| out.write_all(journal(record).as_bytes())),
        _ => {}
    }
    let path = options.logfile.as_ref().map(|path| ("logfile", path, truncate));
    if let Some((name, path, truncate)) =
        path.or(options.logappend.as_ref().map(|path| ("logappend", path, false)))
    {
        let wrong = |error: io::Error| format!("--{name}={}: {error}", path.display());
        let file = open(path, truncate).map_err(wrong)?;
        // Later, the working directory may be another.
        let path = std::path::absolute(path).map_err(wrong)?;
        *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, file));
        builder.target(Target::Pipe(Box::new(ToFile))).write_style(WriteStyle::Never);
    } else if options.logcolor == "off" {
        builder.write_style(WriteStyle::Never);
    }
    let logger = builder.build();
    log::set_max_level(logger.filter());
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
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

/// An object in one line: `time` in seconds of the Unix epoch, `level`, `target`, `message`.
fn json(now: SystemTime, record: &Record<'_>) -> String {
    let time = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let object = serde_json::json!({
        "time": time.as_millis() as f64 / 1000.0,
        "level": record.level().as_str().to_lowercase(),
        "target": record.target(),
        "message": record.args().to_string(),
    });
    format!("{object}\n")
}

/// As systemd takes it from standard error: a priority before each line (sd-daemon(3)), no time.
fn journal(record: &Record<'_>) -> String {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let text = record.args().to_string();
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn formats() {
        let arguments = format_args!("a \"b\"\nc");
        let mut record = Record::builder();
        let record = record.level(Level::Warn).target("t").args(arguments).build();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let line = json(now, &record);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({ "time": 1.5, "level": "warn", "target": "t", "message": "a \"b\"\nc" })
        );
        assert_eq!(journal(&record), "<4>a \"b\"\n<4>c\n");
    }
}
