//! Log lines, only if the program asked for them: `RSP_LOG`, or a `-log..` switch.
//!
//! Where rsplib's logging library is part of the process, our lines go where its lines go
//! ([`super::legacy::companion`]).

use super::legacy::companion::{self, CompanionLog};
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::{Mutex, RwLock};
use std::ffi::{CStr, OsStr};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// What the switches said so far.
struct Wishes {
    level: LevelFilter,
    color: bool,
    file: Option<PathBuf>,
}

/// rsplib's level 1 (errors) and colours.
static WISHES: Mutex<Wishes> = Mutex::new(Wishes { level: LevelFilter::Error, color: true, file: None });

/// The crate's logger for good, whose inside the switches replace.
struct Replaceable(RwLock<Option<Logger>>);

static LOGGER: Replaceable = Replaceable(RwLock::new(None));

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().as_ref().is_some_and(|logger| logger.enabled(metadata))
    }
    fn log(&self, record: &Record<'_>) {
        if let Some(logger) = &*self.0.read() {
            logger.log(record);
        }
    }
    fn flush(&self) {}
}

fn install(logger: Logger) {
    // A Rust program may have its own logger; then that one is right and ours is not used.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(logger.filter());
    *LOGGER.0.write() = Some(logger);
}

/// `RSP_LOG`: a level, or `env_logger` directives.
pub(super) fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(directives) = std::env::var("RSP_LOG") {
            let mut builder = Builder::new();
            install(builder.parse_filters(&directives).format_timestamp_micros().build());
        }
    });
}

/// One `-log..` switch. Whether it made sense.
pub(super) fn apply_argument(argument: &CStr) -> bool {
    let mut wishes = WISHES.lock();
    let Some(opened) = apply_wish(&mut wishes, argument.to_bytes()) else {
        eprintln!("ERROR: Invalid logging parameter {}", argument.to_string_lossy());
        return false;
    };
    let companion = companion::companion();
    if let Some(companion) = companion {
        companion.apply_argument(argument);
    }
    if let Some(Err(error)) = opened {
        eprintln!("{}: {error}", argument.to_string_lossy());
        return false;
    }
    let style = if wishes.color { WriteStyle::Auto } else { WriteStyle::Never };
    let mut builder = Builder::new();
    builder.filter_module("rserpool", wishes.level).write_style(style).format_timestamp_micros();
    match &wishes.file {
        _ if companion.is_some() => _ = builder.target(Target::Pipe(Box::new(CompanionLog))),
        Some(path) => match append(path) {
            Ok(file) => _ = builder.target(Target::Pipe(Box::new(file))),
            Err(_) => return false,
        },
        None => {}
    }
    install(builder.build());
    true
}

/// Changes the wishes; `None`: no such switch. For a file, whether it could be opened.
fn apply_wish(wishes: &mut Wishes, argument: &[u8]) -> Option<Option<io::Result<()>>> {
    let text = |prefix: &str| argument.strip_prefix(prefix.as_bytes());
    if argument == b"-logquiet" {
        wishes.level = LevelFilter::Off;
    } else if let Some(level) = text("-loglevel=") {
        wishes.level = level_of(level);
    } else if let Some(color) = text("-logcolor=") {
        wishes.color = color != b"off";
    } else if let Some(file) = text("-logfile=") {
        return Some(Some(to_file(wishes, file, true)));
    } else {
        let file = text("-logappend=")?;
        return Some(Some(to_file(wishes, file, false)));
    }
    Some(None)
}

fn to_file(wishes: &mut Wishes, name: &[u8], truncate: bool) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(name));
    OpenOptions::new().create(true).write(true).truncate(truncate).append(!truncate).open(path)?;
    wishes.file = Some(path.to_owned());
    Ok(())
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    // A clone's number is above those of standard input, output and error.
    OpenOptions::new().create(true).append(true).open(path)?.try_clone()
}

/// rsplib's levels: 1 error, 2 warning, 3 note, 4 action, 5 to 9 verbose; text counts as 0.
fn level_of(text: &[u8]) -> LevelFilter {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
    match number.unwrap_or(0) {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes() -> Wishes {
        Wishes { level: LevelFilter::Error, color: true, file: None }
    }

    #[test]
    fn levels_are_rsplibs() {
        for (text, level) in [
            ("0", LevelFilter::Off),
            ("1", LevelFilter::Error),
            ("4", LevelFilter::Debug),
            ("9", LevelFilter::Trace),
            ("99", LevelFilter::Trace),
            ("text", LevelFilter::Off),
        ] {
            assert_eq!(level_of(text.as_bytes()), level, "{text}");
        }
    }

    #[test]
    fn switches_are_understood() {
        let mut wishes = wishes();
        assert!(apply_wish(&mut wishes, b"-loglevel=3").is_some());
        assert_eq!(wishes.level, LevelFilter::Info);
        assert!(apply_wish(&mut wishes, b"-logquiet").is_some());
        assert_eq!(wishes.level, LevelFilter::Off);
        assert!(apply_wish(&mut wishes, b"-logcolor=off").is_some());
        assert!(!wishes.color);
        assert!(apply_wish(&mut wishes, b"-logcolor=Off").is_some());
        assert!(wishes.color);
        assert!(apply_wish(&mut wishes, b"-logwhatever").is_none());
        assert!(apply_wish(&mut wishes, b"-logfile=/no/such/folder/log").unwrap().unwrap().is_err());
        assert!(wishes.file.is_none());
    }
}
