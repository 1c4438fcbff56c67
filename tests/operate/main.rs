//! The registrar as a program that somebody operates: arguments, files, signals, what the service manager is
//! told. Over TCP, on loopback.
#![allow(clippy::disallowed_methods)]

#[path = "../common/busy.rs"]
mod busy;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/skip.rs"]
mod skip;

mod browser;
mod configuration;
mod cost;
mod doctor;
mod elements;
mod life;
mod names;
mod page;
mod prometheus;

use skip::skipped;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A file or folder of this test's own, not there yet.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("operate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    path
}

/// Waits for something that happens soon.
fn soon(what: &str, mut happens: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !happens() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    begin.elapsed()
}
