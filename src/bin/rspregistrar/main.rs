//! `rspregistrar`: a registrar process. Options, signals, status page around the library's
//! [`Server`]; one thread, one poll.
#![allow(clippy::disallowed_methods)]

mod daemon;
mod http;
mod logging;
mod metrics;
mod options;
mod page;

use clap::Parser;
use http::Http;
use mio::{Interest, Token};
use options::{Options, with_two_dashes};
use rserpool::machine::Time;
use rserpool::runtime::address;
use rserpool::runtime::csp::Reporter;
use rserpool::runtime::registrar::{FIRST_TOKEN, Server};
use rserpool::transport::host;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

const SIGNALS: Token = Token(FIRST_TOKEN);
const HTTP: usize = FIRST_TOKEN + 1;
/// How long peers and clients may take to read our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = match Options::try_parse_from(std::env::args().map(with_two_dashes)) {
        Ok(options) => options,
        Err(error) => {
            // rsplib's registrar ends with 1.
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            return code.into();
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rspregistrar: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
    let server_options = options.server().map_err(invalid)?;
    let reports = options.reports().map_err(invalid)?;
    let http = options.http.as_ref().map(|text| address::parse_one(text, 80)).transpose()?;
    if let (Some(pid_file), false) = (&options.daemonpidfile, daemon::is_background()) {
        return daemon::start(pid_file);
    }
    logging::start(options)?;

    host::raise_descriptor_limit();
    let server = Server::bind(server_options)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    server.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    let http = http.map(|address| Http::bind(&server, address, HTTP)).transpose()?;
    let reporter = reports.map(|(to, interval)| Reporter::new(to, interval, server.now())).transpose()?;
    let mut process = Process { server, signals, http, reporter, watchdog: None, quiet: options.quiet };
    process.greet()?;
    process.serve()?;
    process.leave();
    Ok(())
}

struct Process {
    server: Server,
    signals: Signals,
    http: Option<Http>,
    reporter: Option<Reporter>,
    /// How often the service manager wants to hear from us, and when next.
    watchdog: Option<(Duration, Time)>,
    quiet: bool,
}

impl Process {
    /// Says where we are. Whoever started us can connect from here on.
    fn greet(&self) -> io::Result<()> {
        let mut lines = String::new();
        let (asap, enrp) = self.server.sctp_ports();
        let services =
            [("ASAP", self.server.asap_addresses(), asap), ("ENRP", self.server.enrp_addresses(), enrp)];
        for (name, addresses, sctp) in services {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            if !addresses.is_empty() {
                lines += &format!("{name} tcp {}\n", addresses.join(", "));
            }
            if let Some(port) = sctp {
                lines += &format!("{name} sctp port {port}\n");
            }
        }
        if let Some(http) = &self.http {
            lines += &format!("HTTP {}\n", http.address()?);
        }
        // Requests are taken from here on, and answered when the handlespace is whole.
        lines += &format!("registrar {} is ready\n", self.server.machine().id());
        self.say(&lines);
        match daemon::is_background() {
            true => daemon::ready(),
            false => Ok(()),
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            // Nobody may be there to read it.
            let mut out = io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// The handlespace is whole and requests are answered.
    fn serving(&mut self) {
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        if let Some(interval) = sd_notify::watchdog_enabled() {
            self.watchdog = Some((interval / 2, self.server.now()));
        }
    }

    /// Until a signal says that it is enough.
    fn serve(&mut self) -> io::Result<()> {
        let mut tokens = Vec::new();
        let mut is_serving = false;
        loop {
            let now = self.server.now();
            let page = self.http.as_ref().and_then(|http| http.poll_timeout(now));
            let report = self.reporter.as_ref().map(Reporter::poll_timeout);
            let watchdog = self.watchdog.map(|(_, next)| next);
            let until = [page, report, watchdog].into_iter().flatten().min();
            self.server.turn(until, &mut tokens)?;
            for token in tokens.drain(..) {
                match (token, &mut self.http) {
                    (SIGNALS, _) => {
                        for signal in self.signals.pending() {
                            match signal {
                                SIGHUP => logging::reopen(),
                                _ => return Ok(()),
                            }
                        }
                    }
                    (token, Some(http)) => http.ready(&self.server, token),
                    _ => {}
                }
            }
            if !is_serving && self.server.machine().is_serving() {
                is_serving = true;
                self.serving();
            }
            self.tick();
        }
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        let now = self.server.now();
        if let Some(http) = &mut self.http {
            http.turn(&self.server);
        }
        if let Some(reporter) = &mut self.reporter
            && reporter.poll_timeout() <= now
        {
            reporter.report_registrar(now, self.server.machine(), self.server.asap_addresses());
        }
        if let Some((interval, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now + *interval;
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }

    fn leave(mut self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        let id = self.server.machine().id();
        if let Some(reporter) = &mut self.reporter {
            reporter.last(self.server.now());
        }
        self.say(&format!("registrar {id} ends\n"));
        self.http = None;
        self.server.shutdown(GOODBYE);
    }
}
