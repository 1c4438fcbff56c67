//! Component status reports: who we are, what we do, whom we talk to, as UDP datagrams to a monitor.

use super::address;
use super::names::Names;
use super::reactor::Waker;
use crate::machine::Time;
use crate::machine::registrar::Registrar;
use crate::transport::descriptors::{Held, lift};
use crate::transport::interfaces::interfaces;
use crate::wire::csp::{CSP_MAX_ASSOCIATIONS, CSP_PORT, CspAssociation, CspId, CspReport};
use crate::wire::scope::{Scope, usable};
use crate::wire::{PPID_ASAP, PPID_ENRP, PeId, Policy, RegistrarId};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// IP protocol number of SCTP, which is what rsplib always says.
const SCTP: u16 = 132;

/// What a process's reports say of one of its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// The element in use, by a user's session that has not failed.
    pub element: Option<PeId>,
    /// How long it has been in use.
    pub duration: Duration,
    /// Last payload protocol identifier used, host order.
    pub ppid: u32,
    /// The text set for it (`rsp_csp_setstatus`), else empty.
    pub status: String,
}

/// Who knows the process's sessions; asked by the event thread, so it must not block.
pub trait Sessions: Send + Sync {
    /// All of them, users' and elements'.
    fn report(&self) -> Vec<SessionReport>;
}

/// Who a process is and what it does, besides its sessions.
#[derive(Debug, Default)]
pub(super) struct Component {
    /// As set; an element's ID goes in where none is.
    identity: u64,
    /// Of the element registered last.
    load: Option<u32>,
    /// The home registrar, and since when.
    home: Option<(RegistrarId, Time)>,
}

impl Component {
    pub fn new(identity: u64) -> Component {
        Component { identity, ..Component::default() }
    }

    /// An element was registered, or its policy values changed.
    pub fn registered(&mut self, id: PeId, policy: &Policy) {
        self.load = None;
        policy.each_value(|name, value| {
            if name == "load" {
                self.load = Some(value);
            }
        });
        let known = CspId(self.identity);
        // No group either: all that is known of the process is that it has an element.
        if known.object() == 0 && [0, CspId::POOL_ELEMENT].contains(&known.group()) {
            self.identity = CspId::new(CspId::POOL_ELEMENT, u64::from(id.0)).0;
        }
    }

    pub fn home(&mut self, registrar: Option<RegistrarId>, now: Time) {
        self.home = registrar.map(|registrar| (registrar, now));
    }

    fn report(&self, now: Time, sessions: &[SessionReport]) -> CspReport {
        let status = match (self.home, sessions) {
            (None, _) => "Looking for Registrar ...".into(),
            (_, [SessionReport { status, .. }]) if !status.is_empty() => status.clone(),
            (_, [_]) => "1 Session".into(),
            _ => format!("{} Sessions", sessions.len()),
        };
        let association = |receiver, duration: Duration, ppid| CspAssociation {
            receiver,
            duration: Some(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1)),
            flags: 0,
            protocol: SCTP,
            ppid,
        };
        let registrar = self.home.map(|(id, since)| {
            association(CspId::new(CspId::REGISTRAR, u64::from(id.0)), now - since, PPID_ASAP)
        });
        let elements = sessions.iter().filter_map(|session| {
            let receiver = CspId::new(CspId::POOL_ELEMENT, u64::from(session.element?.0));
            Some(association(receiver, session.duration, session.ppid))
        });
        CspReport {
            last: false,
            sender: CspId(self.identity),
            timestamp: 0,
            interval: 0,
            location: location(&[SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))]).into_bytes(),
            status: status.into_bytes(),
            workload: self.load.map(CspReport::workload_of),
            associations: registrar.into_iter().chain(elements).take(CSP_MAX_ASSOCIATIONS).collect(),
        }
    }
}

/// A monitor that is given by name is looked up so often, in case it has moved.
const MOVED: Duration = Duration::from_secs(30);

/// Sends reports.
#[derive(Debug)]
pub struct Reporter {
    /// `None`: where the monitor is, is not known yet.
    socket: Option<Held<UdpSocket>>,
    /// The monitor, if it was given by name.
    names: Option<Names>,
    /// The last report was refused: the monitor may have moved.
    refused: bool,
    interval: Duration,
    /// Of the first report.
    first: Option<Time>,
    next: Time,
    sender: CspId,
}

impl Reporter {
    /// Reports go to `monitor` every `interval`, the first at once.
    pub fn new(monitor: SocketAddr, interval: Duration, now: Time) -> io::Result<Reporter> {
        let socket = Some(point_at(monitor)?);
        Ok(Reporter {
            socket,
            names: None,
            refused: false,
            interval,
            first: None,
            next: now,
            sender: CspId(0),
        })
    }

    /// The same for a monitor `host[:port]` that may be given by name: then it is looked up now, when it refuses a
    /// report, and from time to time, since one that has moved says nothing. Errors: its spelling.
    pub fn to(monitor: &str, interval: Duration, now: Time, waker: Arc<Waker>) -> io::Result<Reporter> {
        let names = match address::is_literal(monitor)? {
            true => return Reporter::new(address::parse_one(monitor, CSP_PORT)?, interval, now),
            false => Some(Names::new(vec![monitor.into()], CSP_PORT, waker).refreshed_every(MOVED)),
        };
        Ok(Reporter {
            socket: None,
            names,
            refused: false,
            interval,
            first: None,
            next: now,
            sender: CspId(0),
        })
    }

    /// Follows a monitor that is given by name.
    fn follow(&mut self, now: Time) {
        let Some(names) = &mut self.names else { return };
        if names.take_answers()
            && let Some(&monitor) = names.addresses().flatten().next()
        {
            self.socket = point_at(monitor)
                .inspect_err(|error| log::warn!("no status reports to {monitor}: {error}"))
                .ok();
        }
        names.handle_timeout(now, self.refused);
    }

    /// When the next report is due.
    pub fn poll_timeout(&self) -> Time {
        self.next
    }

    /// Sends a report and plans the next one. Nothing is sent without an identity.
    pub fn report(&mut self, now: Time, report: CspReport) {
        self.next = now + self.interval;
        self.follow(now);
        self.sender = report.sender;
        if report.sender.object() == 0 {
            return;
        }
        let first = *self.first.get_or_insert(now);
        let timestamp = u64::try_from((now - first).as_micros()).unwrap_or(u64::MAX);
        let interval = u32::try_from(self.interval.as_micros()).unwrap_or(u32::MAX);
        let report = CspReport { timestamp, interval, ..report };
        // A monitor that is not there costs nothing.
        let Some(socket) = &self.socket else { return };
        let sent = socket.send(&report.encode());
        self.refused = sent.is_err();
        if let Err(error) = sent {
            log::debug!("status report: {error}");
        }
    }

    /// The report of a registrar.
    pub fn report_registrar(&mut self, now: Time, registrar: &Registrar, at: &[SocketAddr]) {
        let space = registrar.handlespace();
        let peers = registrar.peers();
        let (all, owned) = (space.len(), space.owned_count(registrar.id()));
        let status = format!("{all}[{owned}] PEs in {} Pool(s), {} Peer(s)", space.pool_count(), peers.len());
        let associations = peers.iter().map(|peer| CspAssociation {
            receiver: CspId::new(CspId::REGISTRAR, u64::from(peer.id.0)),
            duration: None,
            flags: 0,
            protocol: SCTP,
            ppid: PPID_ENRP,
        });
        self.report(
            now,
            CspReport {
                last: false,
                sender: CspId::new(CspId::REGISTRAR, u64::from(registrar.id().0)),
                timestamp: 0,
                interval: 0,
                location: location(at).into_bytes(),
                status: status.into_bytes(),
                workload: None,
                associations: associations.take(CSP_MAX_ASSOCIATIONS).collect(),
            },
        );
    }

    /// The report of a process that has elements or uses pools.
    pub(super) fn report_library(&mut self, now: Time, component: &Component, sessions: &[SessionReport]) {
        self.report(now, component.report(now, sessions));
    }

    /// The last report: we are going away.
    pub fn last(&mut self, now: Time) {
        let nothing = CspReport {
            last: true,
            sender: self.sender,
            timestamp: 0,
            interval: 0,
            location: Vec::new(),
            status: Vec::new(),
            workload: Some(0),
            associations: Vec::new(),
        };
        self.report(now, nothing);
    }
}

/// Host name and addresses that others can use; the first with its port, if there is one.
pub fn location(at: &[SocketAddr]) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let mut all = Vec::new();
    for local in at {
        if local.ip().is_unspecified() {
            let ips = interfaces().unwrap_or_default().into_iter().flat_map(|interface| interface.addresses);
            all.extend(ips.map(|ip| SocketAddr::new(ip, local.port())));
        } else {
            all.push(*local);
        }
    }
    let mut found = usable(&all, Scope::Global);
    if found.is_empty() {
        found = usable(&all, Scope::SiteLocal);
    }
    let Some((first, others)) = found.split_first() else { return format!("{host}: (local only)") };
    let others: String = others.iter().map(|address| format!(", {}", address.ip())).collect();
    match first.port() {
        0 => format!("{host}: {}{others}", first.ip()),
        _ => format!("{host}: {first}{others}"),
    }
}

/// A socket for reports to `monitor`.
fn point_at(monitor: SocketAddr) -> io::Result<Held<UdpSocket>> {
    let any = match monitor {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = lift(UdpSocket::bind((any, 0))?)?;
    socket.set_nonblocking(true)?;
    socket.connect(monitor)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::registrar::Config;
    use crate::wire::RegistrarId;

    #[test]
    fn a_registrar_reports_until_it_ends() {
        let monitor = UdpSocket::bind("127.0.0.1:0").unwrap();
        monitor.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let receive = || {
            let mut bytes = [0; 2000];
            let length = monitor.recv(&mut bytes).unwrap();
            CspReport::decode(&bytes[..length]).unwrap()
        };
        let start = Time(5);
        let interval = Duration::from_millis(700);
        let mut reporter = Reporter::new(monitor.local_addr().unwrap(), interval, start).unwrap();
        assert_eq!(reporter.poll_timeout(), start);
        let registrar = Registrar::new(Config { id: RegistrarId(7), ..Config::default() }, 1, start);
        let at = ["10.1.2.3:3863".parse().unwrap(), "10.1.2.4:3863".parse().unwrap()];
        reporter.report_registrar(start, &registrar, &at);
        let report = receive();
        assert_eq!(report.sender, CspId::new(CspId::REGISTRAR, 7));
        assert_eq!((report.timestamp, report.interval, report.last), (0, 700_000, false));
        assert_eq!(report.status, b"0[0] PEs in 0 Pool(s), 0 Peer(s)");
        let location = String::from_utf8(report.location).unwrap();
        assert!(location.ends_with(": 10.1.2.3:3863, 10.1.2.4"), "{location}");
        assert_eq!(reporter.poll_timeout(), start + interval);
        reporter.last(start + interval);
        let report = receive();
        assert!(report.last && report.status.is_empty());
        assert_eq!((report.timestamp, report.workload), (700_000, Some(0)));
    }

    #[test]
    fn a_monitor_by_name_is_looked_up_and_gets_the_next_report() {
        let monitor = UdpSocket::bind("127.0.0.1:0").unwrap();
        monitor.set_nonblocking(true).unwrap();
        let text = format!("{}:{}", own_name(), monitor.local_addr().unwrap().port());
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(&poll, mio::Token(0)).unwrap());
        let interval = Duration::from_millis(250);
        assert!(Reporter::to("somewhere:x", interval, Time(1), waker.clone()).is_err());
        let mut reporter = Reporter::to(&text, interval, Time(1), waker).unwrap();
        let registrar = Registrar::new(Config { id: RegistrarId(7), ..Config::default() }, 1, Time(1));
        let (mut now, mut bytes) = (Time(1), [0; 2000]);
        let came = (0..1000).any(|_| {
            reporter.report_registrar(now, &registrar, &[]);
            now = now + interval;
            std::thread::sleep(Duration::from_millis(10));
            monitor.recv(&mut bytes).is_ok()
        });
        assert!(came, "{text}");
    }

    /// A name that only a look-up knows to be 127.0.0.1: where /etc/hosts has none, the address as inet_aton(3) takes it.
    fn own_name() -> String {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let line = hosts.lines().find(|line| line.starts_with("127.0.0.1"));
        let mut names = line.into_iter().flat_map(|line| line.split_whitespace().skip(1));
        names.find(|name| *name != "localhost").unwrap_or("127.1").into()
    }

    #[test]
    fn a_process_reports_whom_it_talks_to() {
        let session = |element, status: &str| SessionReport {
            element,
            duration: Duration::from_millis(3),
            ppid: 33,
            status: status.into(),
        };
        let now = Time(1_000_000);
        let mut user = Component::new(CspId::new(CspId::POOL_USER, 0xabc).0);
        let report = user.report(now, &[]);
        assert_eq!(report.status, b"Looking for Registrar ...");
        assert!(report.associations.is_empty() && report.workload.is_none());
        user.home(Some(RegistrarId(7)), Time(400_000));
        assert_eq!(user.report(now, &[]).status, b"0 Sessions");
        assert_eq!(user.report(now, &[session(Some(PeId(9)), "")]).status, b"1 Session");
        let report = user.report(now, &[session(Some(PeId(9)), "busy")]);
        assert_eq!((report.sender, &report.status[..]), (CspId(3 << 56 | 0xabc), &b"busy"[..]));
        let association = |receiver, duration, ppid| CspAssociation {
            receiver: CspId(receiver),
            duration: Some(duration),
            flags: 0,
            protocol: 132,
            ppid,
        };
        let registrar = association(1 << 56 | 7, 600_000, 11);
        assert_eq!(report.associations, [registrar.clone(), association(2 << 56 | 9, 3000, 33)]);
        // A session that has failed, or is an element's own, is counted and no more.
        let report = user.report(now, &[session(None, "busy"), session(None, "")]);
        assert_eq!(report.status, b"2 Sessions");
        assert_eq!(report.associations, [registrar]);
    }

    #[test]
    fn an_element_lends_its_identity_and_load() {
        let mut nameless = Component::new(CspId::new(CspId::POOL_ELEMENT, 0).0);
        assert_eq!(nameless.report(Time(1), &[]).sender.object(), 0);
        nameless.registered(PeId(0x1234), &Policy::LeastUsed { load: u32::MAX / 2 });
        let report = nameless.report(Time(1), &[]);
        assert_eq!(report.sender, CspId::new(CspId::POOL_ELEMENT, 0x1234));
        assert_eq!(report.workload, Some(32767));
        nameless.registered(PeId(0x5678), &Policy::RoundRobin);
        let report = nameless.report(Time(1), &[]);
        assert_eq!((report.sender.object(), report.workload), (0x1234, None));
        let mut user = Component::new(CspId::new(CspId::POOL_USER, 0).0);
        user.registered(PeId(1), &Policy::Random);
        assert_eq!(user.report(Time(1), &[]).sender.object(), 0, "a user's identity is its own");
    }
}
