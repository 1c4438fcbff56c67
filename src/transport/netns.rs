//! For tests: a network of one's own.

use nix::sched::{CloneFlags, unshare};
use std::process::Command;

#[path = "../../tests/common/skip.rs"]
mod skip;

/// Says that a test did not run, and why. Its name is that of its thread.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    skip::skipped(std::thread::current().name().unwrap_or("a test"), why);
}

/// Runs `test` on a thread of its own in a new network namespace, empty but for a loopback interface
/// that is up. `test` gets a function that runs `ip` with the given words. Says SKIPPED where the
/// process may not make namespaces.
pub(crate) fn in_namespace(test: impl FnOnce(&dyn Fn(&str)) + Send) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::scope(|threads| {
        let run = move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                skipped(&format!("no network namespace without root ({error})"));
                return;
            }
            let ip = |words: &str| {
                let output = Command::new("ip").args(words.split(' ')).output().expect("ip (iproute2)");
                assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
            };
            ip("link set lo up");
            test(&ip);
        };
        let thread = std::thread::Builder::new().name(name).spawn_scoped(threads, run).expect("a thread");
        let result = thread.join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}
