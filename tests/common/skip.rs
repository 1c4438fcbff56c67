//! What tests say that can't do their work here.

use std::io::Write;

/// Says that something did not run, and why, past the test harness's capture. `RSP_NO_SKIP=1` makes it a failure.
#[track_caller]
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED {what}: {why}");
    assert!(std::env::var_os("RSP_NO_SKIP").is_none(), "{line}");
    // In one piece: others write as well.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
