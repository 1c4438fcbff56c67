//! Component status reports: who we are, what we do, whom we talk to, as UDP datagrams to a monitor.

use crate::machine::Time;
use crate::machine::registrar::Registrar;
use crate::transport::interfaces::interfaces;
use crate::transport::scope::{Scope, usable};
use crate::wire::PPID_ENRP;
use crate::wire::csp::{CspAssociation, CspId, CspReport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// IP protocol number of SCTP, which is what rsplib always says.
const SCTP: u16 = 132;

/// Sends reports.
#[derive(Debug)]
pub struct Reporter {
    socket: UdpSocket,
    interval: Duration,
    /// Of the first report.
    first: Option<Time>,
    next: Time,
    sender: CspId,
}

impl Reporter {
    /// Reports go to `monitor` every `interval`, the first at once.
    pub fn new(monitor: SocketAddr, interval: Duration, now: Time) -> io::Result<Reporter> {
        let any = match monitor {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(monitor)?;
        Ok(Reporter { socket, interval, first: None, next: now, sender: CspId(0) })
    }

    /// When the next report is due.
    pub fn poll_timeout(&self) -> Time {
        self.next
    }

    /// Sends a report and plans the next one. Nothing is sent without an identity.
    pub fn report(&mut self, now: Time, report: CspReport) {
        self.next = now + self.interval;
        self.sender = report.sender;
        if report.sender.object() == 0 {
            return;
        }
        let first = *self.first.get_or_insert(now);
        let timestamp = u64::try_from((now - first).as_micros()).unwrap_or(u64::MAX);
        let interval = u32::try_from(self.interval.as_micros()).unwrap_or(u32::MAX);
        let report = CspReport { timestamp, interval, ..report };
        // A monitor that is not there costs nothing.
        if let Err(error) = self.socket.send(&report.encode()) {
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
                associations: associations.take(crate::wire::csp::CSP_MAX_ASSOCIATIONS).collect(),
            },
        );
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

/// Host name and addresses that others can use; the first with its port.
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
    format!("{host}: {first}{others}")
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
}
