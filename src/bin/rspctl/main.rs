//! `rspctl`: resolve, register, decode and measure from a shell.
#![allow(clippy::disallowed_methods)]

mod bench;
mod decode;
mod json;
mod register;
mod resolve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Reliable Server Pooling from a shell (RFC 5351-5356).
#[derive(Parser)]
#[command(name = "rspctl", version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Resolve(resolve::ResolveArgs),
    Register(register::RegisterArgs),
    /// Print messages given in hexadecimal, one line each.
    Decode(decode::DecodeArgs),
    /// Measure a registrar under load.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Resolve(args) => resolve::run(&args),
        Command::Register(args) => register::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Bench(command) => bench::run(&command),
    }
}
