//! The running registrar: the server's turns, and between them signals, the page, reports, what the
//! service manager wants to know.

use super::configuration::{Configuration, Failure};
use super::dns::Handlespace;
use super::dns_sockets::{Dns, TOKENS};
use super::http::Http;
use super::page::Site;
use super::signals::Asked;
use super::tide::Tide;
use super::{allocator, daemon, logging};
use rserpool::machine::Time;
use rserpool::runtime::csp::Reporter;
use rserpool::runtime::registrar::{FIRST_TOKEN, Options as ServerOptions, Server};
use rserpool::transport::host;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

const DNS: usize = FIRST_TOKEN;
const HTTP: usize = DNS + TOKENS;
/// How long peers and clients may take to read our goodbye.
const GOODBYE: Duration = Duration::from_millis(600);
/// Between two looks at what the service manager is told.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// A configuration that was read again, with what had to be looked up for it.
struct Reloaded {
    configuration: Configuration,
    server: ServerOptions,
    reports: Option<(String, Duration)>,
    token: Option<Vec<u8>>,
}

impl Reloaded {
    fn load(arguments: &[OsString]) -> Result<Reloaded, String> {
        let configuration = Configuration::load(arguments).map_err(|failure| match failure {
            Failure::Wrong(wrong) => wrong,
            Failure::Usage(error) => error.to_string(),
        })?;
        let options = &configuration.options;
        let explain = |wrong| configuration.explain(wrong);
        options.http().map_err(explain)?;
        options.dns().map_err(explain)?;
        let server = options.server().map_err(explain)?;
        let reports = options.reports().map_err(explain)?;
        let token = options.token().map_err(explain)?;
        Ok(Reloaded { configuration, server, reports, token })
    }
}

struct Process<'a> {
    arguments: Vec<OsString>,
    configuration: Configuration,
    server: Server,
    asked: &'a Asked,
    http: Option<Http>,
    dns: Option<Dns>,
    reporter: Option<Reporter>,
    /// How often the service manager wants to hear from us, and when next.
    watchdog: Option<(Duration, Time)>,
    /// What the service manager was told last, and when to look again.
    status: (String, Time),
    tide: Tide,
    /// A configuration that is being read.
    reloading: Option<Receiver<Result<Reloaded, String>>>,
}

/// Runs the registrar until a signal says that it is enough.
pub fn run(arguments: Vec<OsString>, configuration: Configuration, asked: &Asked) -> Result<(), String> {
    let options = &configuration.options;
    let explain = |wrong: String| configuration.explain(wrong);
    let server_options = options.server().map_err(explain)?;
    let reports = options.reports().map_err(explain)?;
    let http = options.http().map_err(explain)?;
    let dns = options.dns().map_err(explain)?;
    logging::start(options).map_err(explain)?;
    for note in options.notes() {
        log::warn!("{}", explain(note));
    }
    host::raise_descriptor_limit();
    let server = Server::bind(server_options).map_err(|error| explain(options.named(&error)))?;
    let http = http.map(|address| {
        let wrong = |error| explain(options.named_http(address, &error));
        let site = Site {
            started: SystemTime::now(),
            max_metric_pools: options.maxmetricpools,
            reload: None,
            token: options.token().map_err(explain)?,
            dns: None,
        };
        Http::bind(&server, address, HTTP, site).map_err(wrong)
    });
    let http = http.transpose()?;
    let dns = dns.map(|(addresses, zone)| {
        let allow = server.allowed().clone();
        Dns::bind(server.registry(), DNS, &addresses, zone, options.dnsttl, allow).map_err(|error| {
            explain(format!("--dns={}: {error}", options.dns.as_deref().unwrap_or_default()))
        })
    });
    let dns = dns.transpose()?;
    let reporter =
        reports.map(|(to, interval)| Reporter::to(&to, interval, server.now(), server.waker())).transpose();
    let reporter = reporter.map_err(|error| format!("status reports: {error}"))?;
    asked.wake(server.waker());
    let status = (String::new(), server.now());
    let mut process = Process {
        arguments,
        configuration,
        server,
        asked,
        http,
        dns,
        reporter,
        watchdog: None,
        status,
        tide: Tide::default(),
        reloading: None,
    };
    process.greet().map_err(|error| error.to_string())?;
    process.serve().map_err(|error| error.to_string())?;
    process.leave();
    Ok(())
}

impl Process<'_> {
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
            lines += &format!("HTTP {}\n", http.address());
        }
        if let Some(dns) = &self.dns {
            let addresses: Vec<String> = dns.addresses().map(|address| address.to_string()).collect();
            lines += &format!("DNS {}\n", addresses.join(", "));
        }
        let id = self.server.machine().id();
        let from = self.configuration.file.as_ref().map(|path| format!(", options from {}", path.display()));
        log::info!(
            "rspregistrar {}: registrar {id}{}: {}",
            env!("CARGO_PKG_VERSION"),
            from.unwrap_or_default(),
            lines.trim_end().replace('\n', "; ")
        );
        // Requests are taken from here on, and answered when the handlespace is whole.
        lines += &format!("registrar {id} is ready\n");
        self.say(&lines);
        match daemon::is_background() {
            true => daemon::ready(),
            false => Ok(()),
        }
    }

    fn say(&self, text: &str) {
        if !self.configuration.options.quiet {
            // Nobody may be there to read it.
            let mut out = io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// The handlespace is whole and requests are answered.
    fn serving(&mut self) {
        let status = self.status_line();
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status.0 = status;
        if let Some(interval) = sd_notify::watchdog_enabled() {
            self.watchdog = Some((interval / 2, self.server.now()));
        }
    }

    fn status_line(&self) -> String {
        let machine = self.server.machine();
        let space = machine.handlespace();
        let state = if machine.is_serving() { "serving" } else { "starting" };
        let (pools, elements, peers) = (space.pool_count(), space.len(), machine.peers().len());
        format!("{state}: {pools} pools, {elements} elements, {peers} other registrars")
    }

    /// Until a signal says that it is enough.
    fn serve(&mut self) -> io::Result<()> {
        let mut tokens = Vec::new();
        let mut is_serving = false;
        while !self.asked.end() {
            let page = self.http.as_ref().and_then(|http| http.poll_timeout(&self.server));
            let report = self.reporter.as_ref().map(Reporter::poll_timeout);
            let watchdog = self.watchdog.map(|(_, next)| next);
            let status = is_serving.then_some(self.status.1);
            let names = self.dns.as_ref().and_then(|dns| dns.poll_timeout(self.server.now()));
            let until = [page, report, watchdog, status, names].into_iter().flatten().min();
            self.server.turn(until, &mut tokens)?;
            allocator::tidies_up_a_little();
            for token in tokens.drain(..) {
                if let Some(dns) = &mut self.dns {
                    dns.ready(token);
                }
                if let Some(http) = &mut self.http {
                    http.ready(token);
                }
            }
            if self.asked.reload() {
                logging::reopen();
                self.server.reload_tls();
                self.reload();
            }
            if self.asked.status() {
                log::warn!("asked by a signal: {}", self.status_line());
            }
            let reloaded = self.reloading.as_ref().and_then(|reloading| reloading.try_recv().ok());
            if let Some(reloaded) = reloaded {
                self.reloading = None;
                self.reloaded(reloaded);
            }
            if !is_serving && self.server.machine().is_serving() {
                is_serving = true;
                self.serving();
            }
            self.tick();
        }
        Ok(())
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        let now = self.server.now();
        if let Some(dns) = &mut self.dns {
            dns.turn(&mut Handlespace(&mut self.server), now, false);
        }
        if let Some(http) = &mut self.http {
            http.site.dns = self.dns.as_ref().map(|dns| (dns.counts().clone(), dns.open()));
            http.turn(&mut self.server);
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
        if self.status.1 <= now {
            let status = self.status_line();
            if status != self.status.0 {
                let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
            }
            self.status = (status, now + STATUS_INTERVAL);
        }
        if self.tide.next() <= now {
            let kept = self.kept();
            self.tide.look(now, kept);
        }
    }

    /// Bytes that are kept, more or less: what is accounted for, and so much for each element and connection.
    fn kept(&self) -> usize {
        const ELEMENT: usize = 512;
        const CONNECTION: usize = 4096;
        let (machine, links) = (self.server.machine(), self.server.link_stats());
        let accounted: usize = machine.accounts().iter().map(|account| account.bytes).sum();
        let space = machine.handlespace();
        accounted + space.bytes() + space.len() * ELEMENT + links.open * CONNECTION + links.held
    }

    /// Reads the configuration again, elsewhere: names have to be looked up.
    fn reload(&mut self) {
        if self.reloading.is_some() {
            return;
        }
        let mut told = vec![NotifyState::Reloading];
        told.extend(NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&told);
        let (send, receive) = channel();
        let (arguments, waker) = (self.arguments.clone(), self.server.waker());
        let started = std::thread::Builder::new().name("reload".into()).spawn(move || {
            let _ = send.send(Reloaded::load(&arguments));
            let _ = waker.wake();
        });
        match started {
            Ok(_) => self.reloading = Some(receive),
            Err(error) => self.reloaded(Err(error.to_string())),
        }
    }

    /// Takes what can be taken, and says what can't. After a mistake, everything stays as it was.
    fn reloaded(&mut self, result: Result<Reloaded, String>) {
        if let Some(http) = &mut self.http {
            http.site.reload = Some((SystemTime::now(), result.is_ok()));
        }
        let said = match result.and_then(|reloaded| self.take(reloaded)) {
            Ok(said) => {
                log::info!("reload: {said}");
                said
            }
            Err(wrong) => {
                log::error!("reload: {}; everything stays as it was", wrong.trim_end());
                format!("reload failed: {}", wrong.lines().next().unwrap_or_default())
            }
        };
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&said)]);
        self.status = (said, self.server.now() + STATUS_INTERVAL);
    }

    fn take(&mut self, reloaded: Reloaded) -> Result<String, String> {
        let Reloaded { configuration, server, reports, token } = reloaded;
        let options = &configuration.options;
        // What can fail comes first.
        let (now, waker) = (self.server.now(), self.server.waker());
        let reporter = reports.map(|(to, interval)| Reporter::to(&to, interval, now, waker)).transpose();
        let reporter = reporter.map_err(|error| format!("status reports: {error}"))?;
        logging::change(options).map_err(|wrong| configuration.explain(wrong))?;
        let changes = self.configuration.compare(&configuration);
        for note in options.notes() {
            log::warn!("{}", configuration.explain(note));
        }
        if changes.taken.iter().any(|name| name.starts_with("csp")) {
            self.reporter = reporter;
        }
        if !changes.taken.is_empty() {
            self.server.reconfigure(server);
        }
        if let Some(http) = &mut self.http {
            http.site.max_metric_pools = configuration.options.maxmetricpools;
            http.site.token = token;
        }
        self.configuration.options = configuration.options;
        if !changes.need_restart.is_empty() {
            log::warn!("reload: only a restart takes {}", changes.need_restart.join(", "));
        }
        Ok(match (changes.taken.is_empty(), changes.need_restart.is_empty()) {
            (true, true) => "nothing has changed".into(),
            (false, true) => format!("taken: {}", changes.taken.join(", ")),
            (true, false) => format!("needs a restart: {}", changes.need_restart.join(", ")),
            (false, false) => format!(
                "taken: {}; needs a restart: {}",
                changes.taken.join(", "),
                changes.need_restart.join(", ")
            ),
        })
    }

    fn leave(mut self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        let id = self.server.machine().id();
        if let Some(reporter) = &mut self.reporter {
            reporter.last(self.server.now());
        }
        log::info!("registrar {id} ends: {}", self.status_line());
        self.say(&format!("registrar {id} ends\n"));
        (self.http, self.dns) = (None, None);
        self.server.shutdown(GOODBYE);
    }
}
