//! `rspctl proxy`: a proxy pool user (RFC 5351 section 3.5 calls such programs legacy clients' way in): TCP and
//! UNIX connections in, to an element of a pool each.
//!
//! | file | what |
//! |---|---|
//! | `options` | command line and configuration |
//! | `relay` | one direction of a connection, as a pure state machine |
//! | `engine` | the loop: accepts, chooses, connects, relays, hears of losses |
//! | `pipe` | splice(2), for connections with much to say |
//! | `stream` | sockets of either kind |
//! | `header` | the PROXY protocol |
//! | `stats` | metrics |

mod engine;
mod header;
mod options;
mod pipe;
mod relay;
mod stats;
mod stream;

pub use options::ProxyArgs;

use crate::out;
use engine::Engine;
use rserpool::runtime::{Directory, address};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the subcommand. Exit status 0 after a signal; 1 when it could not start.
pub fn run(args: &ProxyArgs) -> ExitCode {
    out::status("proxy", serve(args).map(|()| ExitCode::SUCCESS))
}

fn serve(args: &ProxyArgs) -> Result<(), String> {
    let inherited = stream::Inherited::from_environment().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let wanted = args.read()?;
    rserpool::transport::host::raise_descriptor_limit();
    let http = args.http.as_ref().map(|text| {
        let at = |error: std::io::Error| format!("--http={text}: {error}");
        let listener = TcpListener::bind(address::parse_one(text, 80).map_err(at)?).map_err(at)?;
        let address = listener.local_addr().map_err(at)?;
        Ok::<_, String>((listener, address))
    });
    let http = http.transpose()?;
    let runtime = crate::resolve::start(&args.registrar)?;
    let stats = Arc::new(stats::Stats::default());
    let mut engine =
        Engine::new(args, runtime.clone(), stats.clone(), inherited).map_err(|error| error.to_string())?;
    engine.serve(wanted)?;
    if let Some((listener, address)) = http {
        crate::scrape::serve(listener, stats::Page(stats)).map_err(|error| error.to_string())?;
        out::line(format_args!("HTTP {address}"));
    }
    let ended = engine.run().map_err(|error| error.to_string());
    drop(engine);
    runtime.shutdown();
    ended
}
