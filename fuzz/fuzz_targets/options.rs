#![no_main]

#[allow(dead_code, reason = "what only the program needs")]
#[path = "../../src/bin/rspregistrar/configuration.rs"]
mod configuration;
#[allow(dead_code, reason = "what only the program needs")]
#[path = "../../src/bin/common/dns.rs"]
mod dns_sockets;
#[allow(dead_code, reason = "what only the program needs")]
#[path = "../../src/bin/rspregistrar/options.rs"]
mod options;
#[allow(dead_code, reason = "the other target's, too")]
#[path = "../programs.rs"]
mod programs;
#[allow(dead_code, reason = "what only the program needs")]
#[path = "../../src/bin/rspregistrar/request.rs"]
mod request;
#[path = "../../src/bin/common/tls.rs"]
mod tls;
#[path = "../../src/bin/common/usage.rs"]
mod usage;

libfuzzer_sys::fuzz_target!(|data: &[u8]| programs::options(data));
