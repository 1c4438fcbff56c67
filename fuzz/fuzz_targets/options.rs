#![no_main]

#[allow(dead_code, reason = "the other target's, too")]
#[path = "../programs.rs"]
mod programs;
// Where the program's files look for each other.
use programs::{dns_sockets, tls, usage};

libfuzzer_sys::fuzz_target!(|data: &[u8]| programs::options(data));
