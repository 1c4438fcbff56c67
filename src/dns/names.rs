//! Names below the zone: `WebPool.pool`, `_http._tcp.WebPool.pool`, `pe-0000002a.WebPool.pool`, `ns-dns.pool`.

use crate::wire::{PeId, Protocol};
use domain::base::Name;
use domain::base::name::ToLabelIter;
use std::str::FromStr;

/// The zone's name server: its one name that is no pool's.
pub(super) const SERVER: &str = "ns-dns";
/// Before a handle's bytes in hexadecimal digits.
const HEXADECIMAL: &[u8] = b"x--";
/// Before an element's identifier.
const ELEMENT: &[u8] = b"pe-";

/// The zone below which the pools are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(Name<Vec<u8>>);

impl Default for Zone {
    fn default() -> Zone {
        Zone(Name::vec_from_str("pool").expect("a name"))
    }
}

impl FromStr for Zone {
    type Err = String;

    /// A domain name, with or without a full stop at its end; not the root.
    fn from_str(text: &str) -> Result<Zone, String> {
        match Name::vec_from_str(text) {
            Ok(name) if name.is_root() => Err("the root is no zone for pools".into()),
            // What goes before it needs room as well.
            Ok(name) if name.len() <= 128 => Ok(Zone(name)),
            Ok(_) => Err("a zone's name has at most 128 bytes".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.fmt_with_dot())
    }
}

/// What a name in the zone is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The zone itself.
    Apex,
    /// Its name server.
    Server,
    /// A pool, as it is spelled.
    Pool(Vec<u8>),
    /// A service of a pool (RFC 2782), and how many labels stand before the pool's: its elements of that protocol.
    Service { pool: Vec<u8>, protocol: Protocol, labels: usize },
    /// One element.
    Element { pool: Vec<u8>, id: PeId },
    /// What can't be.
    Nothing,
}

impl Zone {
    pub(super) fn name(&self) -> &Name<Vec<u8>> {
        &self.0
    }

    /// What a name of these labels stands for; `None`: it is in another zone.
    pub(super) fn subject(&self, labels: &[&[u8]]) -> Option<Subject> {
        let ours = self.0.iter_labels();
        let own: Vec<&[u8]> = ours.map(|label| label.as_slice()).collect();
        let below = labels.len().checked_sub(own.len())?;
        let same = labels[below..].iter().zip(&own).all(|(one, two)| one.eq_ignore_ascii_case(two));
        same.then(|| subject(&labels[..below]))
    }
}

fn subject(labels: &[&[u8]]) -> Subject {
    match labels {
        [] => Subject::Apex,
        [only] if only.eq_ignore_ascii_case(SERVER.as_bytes()) => Subject::Server,
        [b"_", ..] => Subject::Nothing,
        [service, protocol, pool @ ..] if service.starts_with(b"_") && protocol.starts_with(b"_") => {
            of_service(protocol, pool, 2)
        }
        [protocol, pool @ ..] if protocol.starts_with(b"_") => of_service(protocol, pool, 1),
        [element, pool @ ..] if !pool.is_empty() && element_id(element).is_some() => {
            match (handle(pool), element_id(element)) {
                (Some(pool), Some(id)) => Subject::Element { pool, id },
                _ => Subject::Nothing,
            }
        }
        pool => handle(pool).map_or(Subject::Nothing, Subject::Pool),
    }
}

fn of_service(protocol: &[u8], pool: &[&[u8]], labels: usize) -> Subject {
    let known = [
        ("_tcp", Protocol::Tcp),
        ("_sctp", Protocol::Sctp),
        ("_udp", Protocol::Udp),
        ("_udplite", Protocol::UdpLite),
        ("_dccp", Protocol::Dccp { service_code: 0 }),
    ];
    let protocol = known.iter().find(|(name, _)| protocol.eq_ignore_ascii_case(name.as_bytes()));
    match (protocol, handle(pool)) {
        (Some(&(_, protocol)), Some(pool)) => Subject::Service { pool, protocol, labels },
        _ => Subject::Nothing,
    }
}

/// `pe-0000002a`.
fn element_id(label: &[u8]) -> Option<PeId> {
    let (begin, digits) = label.split_at_checked(ELEMENT.len())?;
    if !begin.eq_ignore_ascii_case(ELEMENT) || digits.len() != 8 {
        return None;
    }
    Some(PeId(digits.iter().try_fold(0, |id, &digit| Some(id << 4 | char::from(digit).to_digit(16)?))?))
}

/// An element's label.
pub(super) fn element_label(id: PeId) -> String {
    format!("pe-{:08x}", id.0)
}

/// The handle that some labels spell: themselves, with full stops between them; or after `x--` its bytes in
/// hexadecimal digits, which may go on in further labels.
fn handle(labels: &[&[u8]]) -> Option<Vec<u8>> {
    let first = labels.first()?;
    let Some((begin, digits)) = first.split_at_checked(HEXADECIMAL.len()) else {
        return Some(labels.join(&b'.'));
    };
    if !begin.eq_ignore_ascii_case(HEXADECIMAL) {
        return Some(labels.join(&b'.'));
    }
    let digits = digits.iter().chain(labels[1..].iter().copied().flatten());
    let digits: Option<Vec<u8>> = digits
        .map(|&digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    (rest.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Option<Subject> {
        let mut labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
        labels.push(b"");
        "Pool.".parse::<Zone>().unwrap().subject(&labels)
    }

    fn pool(name: &str) -> Option<Subject> {
        Some(Subject::Pool(name.as_bytes().to_vec()))
    }

    #[test]
    fn what_names_stand_for() {
        assert_eq!(read("pOOl"), Some(Subject::Apex));
        assert_eq!(read("NS-dns.pool"), Some(Subject::Server));
        assert_eq!(read("WebPool.pool"), pool("WebPool"));
        assert_eq!(read("www.example.com.pool"), pool("www.example.com"));
        assert_eq!(read("a.ns-dns.pool"), pool("a.ns-dns"));
        assert_eq!(read("x--00fF.POOL"), Some(Subject::Pool(vec![0, 0xff])));
        assert_eq!(read("X--6162.6364.pool"), pool("abcd"));
        assert_eq!(read("x-61.pool"), pool("x-61"));
        for nothing in
            ["x--.pool", "x--616.pool", "x--6g.pool", "_.pool", "_http.a.pool", "_tcp.pool", "_a._b.c.pool"]
        {
            assert_eq!(read(nothing), Some(Subject::Nothing), "{nothing}");
        }
        let service =
            |labels| Some(Subject::Service { pool: b"Web.1".to_vec(), protocol: Protocol::Tcp, labels });
        assert_eq!(read("_http._TCP.Web.1.pool"), service(2));
        assert_eq!(read("_tcp.Web.1.pool"), service(1));
        let element = Some(Subject::Element { pool: b"Web".to_vec(), id: PeId(0x2a) });
        assert_eq!(read(&format!("{}.Web.pool", element_label(PeId(0x2a)))), element);
        assert_eq!(read("PE-0000002A.Web.pool"), element);
        assert_eq!(read("pe-0000002a.pool"), pool("pe-0000002a"));
        for elsewhere in ["com", "pool.example", "webpool", ""] {
            assert_eq!(read(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn zones() {
        assert_eq!("rsp.Example.".parse::<Zone>().unwrap().to_string(), "rsp.Example.");
        for bad in [".", "", "a..b", &"x".repeat(64), &"abcdefg.".repeat(20)] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
    }
}
