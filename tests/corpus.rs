//! Every committed input of the fuzz targets that try what only the programs read. The others': `src/fuzz/tests.rs`.
#![cfg(feature = "registrar")]

#[path = "../fuzz/programs.rs"]
mod programs;
#[path = "common/replay.rs"]
mod replay;
// Where the program's files look for each other.
use programs::{dns_sockets, tls, usage};
use replay::replay;

#[test]
fn http() {
    replay("http", programs::http);
}

#[test]
fn options_and_their_file() {
    replay("options", programs::options);
}
