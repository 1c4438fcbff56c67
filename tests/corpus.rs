//! Every committed input of the fuzz targets that try what only the programs read. The others': `src/fuzz/tests.rs`.
#![cfg(feature = "registrar")]

#[path = "../fuzz/programs.rs"]
mod programs;
// Where the program's files look for each other.
use programs::{dns_sockets, tls, usage};
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("no corpus of {target} in {}: {error}", directory.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        // Says which input it was, should the run below panic.
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
    println!("{target}: {count} inputs");
}

#[test]
fn http() {
    replay("http", programs::http);
}

#[test]
fn options_and_their_file() {
    replay("options", programs::options);
}
