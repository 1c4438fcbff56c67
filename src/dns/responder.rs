//! A query's answer.

use super::names::{SERVER, Subject, Zone, element_label};
use super::records::{Records, ReplyRoom};
use super::{Counts, Found, MAX_ELEMENTS, Pools};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, Transport};
use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use domain::base::name::{Label, Name, ToName};
use domain::base::{CharStr, Message, ParsedName, Serial, Ttl};
use domain::rdata::{A, Aaaa, Hinfo, Ns, Soa, Srv, Txt};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// Records of the additional section that are looked at for OPT.
const MOST_ADDITIONAL: u16 = 4;
/// How long "there is none" may be kept, seconds.
const NEGATIVE: u32 = 1;
/// For so long, ms, the second address family that somebody asks for belongs to the first one's selection.
const PAIR_TIME: u64 = 1000;
const PAIRS: usize = 256;

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// From where.
    pub from: IpAddr,
    /// Whether over TCP.
    pub tcp: bool,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Where it reached us: what the zone's name server is called with.
    pub here: &'a [IpAddr],
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// These bytes.
    Send(&'a [u8]),
    /// No answer: it is no query.
    Nothing,
    /// To be asked again when more is known.
    Later,
}

/// See the module.
#[derive(Debug)]
pub struct Responder {
    zone: Zone,
    ttl: Ttl,
    counts: Counts,
    memory: Vec<u8>,
    /// Who was told of which element for one address family lately.
    pairs: Vec<Pair>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    asker: u64,
    until: u64,
    element: PeId,
    v4: bool,
}

fn has_family(transport: &Transport, v4: bool) -> bool {
    transport.addresses().iter().any(|address| address.is_ipv4() == v4)
}

impl Responder {
    /// For a zone; answers may be kept for `ttl` seconds.
    pub fn new(zone: Zone, ttl: u32) -> Responder {
        Responder {
            zone,
            ttl: Ttl::from_secs(ttl),
            counts: Counts::default(),
            memory: Vec::new(),
            pairs: vec![Pair::default(); PAIRS],
        }
    }

    /// What was asked and answered so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The same, for who moves the bytes to count in.
    pub fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// The answer to one query.
    pub fn answer(&mut self, pools: &mut impl Pools, asker: &Asker<'_>, bytes: &[u8]) -> Reply<'_> {
        let memory = std::mem::take(&mut self.memory);
        match self.respond(pools, asker, bytes, memory) {
            Some(Some(answer)) => {
                self.memory = answer;
                Reply::Send(&self.memory)
            }
            Some(None) => Reply::Later,
            None => {
                self.counts.dropped += 1;
                Reply::Nothing
            }
        }
    }

    /// `None`: no query; `Some(None)`: later.
    fn respond(
        &mut self,
        pools: &mut impl Pools,
        asker: &Asker<'_>,
        bytes: &[u8],
        memory: Vec<u8>,
    ) -> Option<Option<Vec<u8>>> {
        let query = Message::from_slice(bytes).ok()?;
        // Whoever answers answers starts a loop.
        if query.header().qr() {
            return None;
        }
        let bare = |counts: &mut Counts, rcode: OptRcode| {
            counts.answer(rcode, false, false);
            Some(Some(header_only(query, rcode)))
        };
        if query.header().opcode() != Opcode::QUERY {
            return bare(&mut self.counts, OptRcode::NOTIMP);
        }
        let counts = query.header_counts();
        let question = match query.sole_question() {
            Ok(question) if counts.ancount() == 0 && counts.nscount() == 0 => question,
            _ => return bare(&mut self.counts, OptRcode::FORMERR),
        };
        let Some(edns) = edns(query) else { return bare(&mut self.counts, OptRcode::FORMERR) };
        let size = edns.map(|(size, _)| size);
        let room = if asker.tcp { ReplyRoom::tcp(size) } else { ReplyRoom::udp(bytes.len(), size) };
        let Some(mut records) = Records::begin(query, room, memory) else {
            return bare(&mut self.counts, OptRcode::SERVFAIL);
        };
        let (name, rtype) = (question.qname(), question.qtype());
        let labels: Vec<&[u8]> = name.iter().map(Label::as_slice).collect();
        let subject = self.zone.subject(&labels);
        let rcode = match subject {
            _ if edns.is_some_and(|(_, version)| version != 0) => Some(OptRcode::BADVERS),
            _ if question.qclass() != Class::IN => Some(OptRcode::REFUSED),
            _ if matches!(rtype, Rtype::AXFR | Rtype::IXFR | Rtype::OPT | Rtype::TSIG) => {
                Some(OptRcode::REFUSED)
            }
            None => Some(OptRcode::REFUSED),
            Some(_) => None,
        };
        let records = match (rcode, subject) {
            (None, Some(subject)) => {
                records.authoritative();
                let asked = Asked { asker, name: *name, labels: &labels, rtype };
                match self.of_subject(pools, &asked, subject, records) {
                    Some(records) => records,
                    None => return Some(None),
                }
            }
            (rcode, _) => {
                records.fail(rcode.unwrap_or(OptRcode::REFUSED));
                records
            }
        };
        self.counts.query(rtype, asker.tcp);
        let (rcode, answers, truncated) = records.state();
        self.counts.answer(rcode, answers, truncated);
        Some(Some(records.end()))
    }

    /// `None`: later.
    fn of_subject(
        &mut self,
        pools: &mut impl Pools,
        asked: &Asked<'_>,
        subject: Subject,
        mut records: Records,
    ) -> Option<Records> {
        let rtype = asked.rtype;
        let spelled = match &subject {
            Subject::Apex => {
                match rtype {
                    Rtype::SOA => _ = records.answer(self.zone.name(), self.negative(), self.soa(asked)),
                    Rtype::NS => {
                        if let Some(server) = self.server() {
                            records.answer(self.zone.name(), self.ttl, Ns::new(&server));
                            records = of_addresses(&server, self.ttl, asked.asker.here, records);
                        }
                    }
                    Rtype::ANY => self.any(asked, &mut records),
                    _ => {}
                }
                return Some(self.finish(asked, records));
            }
            Subject::Server => {
                self.addresses(asked, asked.asker.here, &mut records);
                return Some(self.finish(asked, records));
            }
            Subject::Nothing => {
                records.fail(OptRcode::NXDOMAIN);
                return Some(self.finish(asked, records));
            }
            Subject::Pool(pool) | Subject::Service { pool, .. } | Subject::Element { pool, .. } => pool,
        };
        let pool = match pools.find(spelled) {
            Found::Pool(pool) => pool,
            Found::Later => return None,
            Found::Unknown if pools.is_complete() => {
                records.fail(OptRcode::NXDOMAIN);
                return Some(self.finish(asked, records));
            }
            Found::Unknown | Found::Unavailable => {
                records.fail(OptRcode::SERVFAIL);
                return Some(records);
            }
        };
        match subject {
            Subject::Element { id, .. } => match pools.element(&pool, id) {
                Some(element) => self.addresses(asked, element.transport.addresses(), &mut records),
                None if pools.is_complete() => records.fail(OptRcode::NXDOMAIN),
                None => {
                    records.fail(OptRcode::SERVFAIL);
                    return Some(records);
                }
            },
            _ if rtype == Rtype::ANY => self.any(asked, &mut records),
            Subject::Service { protocol, labels, .. } if rtype == Rtype::SRV => {
                records = self.services(pools, &pool, asked, (Some(protocol), labels), records);
            }
            Subject::Pool(_) if rtype == Rtype::SRV => {
                records = self.services(pools, &pool, asked, (None, 0), records);
            }
            Subject::Pool(_) if rtype == Rtype::TXT => {
                if let Ok(text) =
                    Txt::<Vec<u8>>::build_from_slice(format!("{} elements", pools.size(&pool)).as_bytes())
                {
                    records.answer(asked.name, self.ttl, text);
                }
            }
            Subject::Pool(_) if matches!(rtype, Rtype::A | Rtype::AAAA) => {
                if let Some(element) = self.choose_one(pools, &pool, asked) {
                    self.addresses(asked, element.transport.addresses(), &mut records);
                }
            }
            _ => {}
        }
        Some(self.finish(asked, records))
    }

    /// One element that has an address of the family that is asked for. Who asks for both families, as most do,
    /// gets the same element for both, which counts once: else a pool of two in turn would show every asker the same
    /// one.
    fn choose_one(
        &mut self,
        pools: &mut impl Pools,
        pool: &PoolHandle,
        asked: &Asked<'_>,
    ) -> Option<PoolElement> {
        let (v4, now) = (asked.rtype == Rtype::A, asked.asker.now);
        let mut hasher = DefaultHasher::new();
        (asked.asker.from, pool).hash(&mut hasher);
        let asker = hasher.finish();
        let pair = &mut self.pairs[asker as usize % PAIRS];
        if pair.asker == asker && pair.v4 != v4 && now < pair.until {
            pair.until = 0;
            let element = pools.element(pool, pair.element);
            if let Some(element) = element.filter(|element| has_family(&element.transport, v4)) {
                return Some(element);
            }
        }
        let element = pools.choose(pool, 1, &|transport| has_family(transport, v4)).pop()?;
        *pair = Pair { asker, until: now + PAIR_TIME, element: element.id, v4 };
        Some(element)
    }

    fn addresses(&self, asked: &Asked<'_>, addresses: &[IpAddr], records: &mut Records) {
        for address in addresses {
            let fits = match (address, asked.rtype) {
                (IpAddr::V4(address), Rtype::A) => records.answer(asked.name, self.ttl, A::new(*address)),
                (IpAddr::V6(address), Rtype::AAAA) => {
                    records.answer(asked.name, self.ttl, Aaaa::new(*address))
                }
                _ => true,
            };
            if !fits {
                return;
            }
        }
    }

    /// The elements of a protocol as services. What the pool's policy prefers has the lower priority, or the
    /// higher weight.
    fn services(
        &self,
        pools: &mut impl Pools,
        pool: &PoolHandle,
        asked: &Asked<'_>,
        (protocol, labels): (Option<Protocol>, usize),
        mut records: Records,
    ) -> Records {
        let same = |transport: &Transport| match protocol {
            None => transport.port() != 0,
            Some(Protocol::Dccp { .. }) => matches!(transport.protocol(), Some(Protocol::Dccp { .. })),
            wanted => transport.port() != 0 && transport.protocol() == wanted,
        };
        let elements = pools.choose(pool, MAX_ELEMENTS, &same);
        let targets: Vec<Option<Name<Vec<u8>>>> =
            elements.iter().map(|element| target(element.id, &asked.labels[labels..])).collect();
        let preferences = preferences(&elements);
        let mut told = 0;
        for ((element, target), (priority, weight)) in elements.iter().zip(&targets).zip(preferences) {
            let Some(target) = target else { continue };
            let service = Srv::new(priority, weight, element.transport.port(), target);
            if !records.answer(asked.name, self.ttl, service) {
                break;
            }
            told += 1;
        }
        if told == elements.len() {
            for (element, target) in elements.iter().zip(targets.iter()) {
                let Some(target) = target else { continue };
                records = of_addresses(target, self.ttl, element.transport.addresses(), records);
            }
        }
        records
    }

    /// There may be more than anybody should be sent (RFC 8482).
    fn any(&self, asked: &Asked<'_>, records: &mut Records) {
        if let (Ok(cpu), Ok(os)) = (CharStr::from_octets(&b"RFC8482"[..]), CharStr::from_octets(&b""[..])) {
            records.answer(asked.name, self.ttl, Hinfo::new(cpu, os));
        }
    }

    /// Without answers, the zone's SOA says how long that may be kept.
    fn finish(&self, asked: &Asked<'_>, records: Records) -> Records {
        let (_, answers, truncated) = records.state();
        if answers || truncated {
            return records;
        }
        records.authority(self.zone.name(), self.negative(), self.soa(asked))
    }

    fn negative(&self) -> Ttl {
        self.ttl.max(Ttl::from_secs(NEGATIVE))
    }

    /// The zone's name server.
    fn server(&self) -> Option<Name<Vec<u8>>> {
        below(SERVER, self.zone.name().iter().map(Label::as_slice))
    }

    fn soa(&self, asked: &Asked<'_>) -> Soa<Name<Vec<u8>>> {
        let zone = || self.zone.name().clone();
        let server = self.server().unwrap_or_else(zone);
        let mailbox = below("hostmaster", self.zone.name().iter().map(Label::as_slice)).unwrap_or_else(zone);
        // Which element is chosen changes all the time.
        let serial = Serial((asked.asker.now / 1000) as u32);
        let hour = Ttl::from_secs(3600);
        Soa::new(server, mailbox, serial, hour, hour, hour, self.negative())
    }
}

/// A question in the zone.
struct Asked<'a> {
    asker: &'a Asker<'a>,
    name: ParsedName<&'a [u8]>,
    labels: &'a [&'a [u8]],
    rtype: Rtype,
}

/// Size and version; `None`: there are two, or what should be there can't be read.
fn edns(query: &Message<[u8]>) -> Option<Option<(u16, u8)>> {
    let mut found = None;
    if query.header_counts().arcount() > MOST_ADDITIONAL {
        return None;
    }
    for record in query.additional().ok()? {
        let record = record.ok()?;
        if record.rtype() == Rtype::OPT {
            let version = (record.ttl().as_secs() >> 16) as u8;
            if found.replace((record.class().to_int(), version)).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

/// An answer without a question: to what could not be read.
fn header_only(query: &Message<[u8]>, rcode: OptRcode) -> Vec<u8> {
    let mut bytes = query.as_slice()[..12].to_vec();
    // QR, the operation and RD as they were; no other flag, no records.
    bytes[2] = bytes[2] & 0x79 | 0x80;
    bytes[3] = rcode.rcode().to_int();
    bytes[4..].fill(0);
    bytes
}

/// A name from a label and those behind it.
fn below<'a>(label: &'a str, behind: impl Iterator<Item = &'a [u8]>) -> Option<Name<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(64);
    for label in std::iter::once(label.as_bytes()).chain(behind) {
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend_from_slice(label);
    }
    Name::from_octets(bytes).ok()
}

/// An element's name, the pool spelled as it was asked for. `None`: it would be too long.
fn target(id: PeId, pool: &[&[u8]]) -> Option<Name<Vec<u8>>> {
    below(&element_label(id), pool.iter().copied())
}

fn of_addresses(owner: &impl ToName, ttl: Ttl, addresses: &[IpAddr], mut records: Records) -> Records {
    for address in addresses {
        records = match address {
            IpAddr::V4(address) => records.additional(owner, ttl, A::new(*address)),
            IpAddr::V6(address) => records.additional(owner, ttl, Aaaa::new(*address)),
        };
    }
    records
}

/// Priority and weight of each element of an answer, best first: weights where the policy draws, else who is equal
/// has the same priority.
fn preferences(elements: &[PoolElement]) -> Vec<(u16, u16)> {
    let spare = |load: &u32| u32::MAX - load;
    let weight = |element: &PoolElement| match &element.policy {
        Policy::RoundRobin | Policy::Random => Some(1),
        Policy::WeightedRoundRobin { weight }
        | Policy::WeightedRandom { weight }
        | Policy::WeightedRandomDpf { weight, .. } => Some(*weight),
        Policy::RandomizedLeastUsed { load }
        | Policy::RandomizedPriorityLeastUsed { load, .. }
        | Policy::RandomizedLeastUsedDegradation { load, .. }
        | Policy::RandomizedPriorityLeastUsedDegradation { load, .. } => Some(spare(load)),
        _ => None,
    };
    let largest = elements.iter().filter_map(weight).max().unwrap_or(0).max(u32::from(u16::MAX));
    let mut rank = 0u16;
    let mut before = None;
    let preference = |element: &PoolElement| match weight(element) {
        Some(weight) => {
            let scaled = u64::from(weight) * u64::from(u16::MAX);
            (0, scaled.div_ceil(u64::from(largest)) as u16)
        }
        None => {
            rank +=
                u16::from(before.replace(element.policy.clone()).is_some_and(|last| last != element.policy));
            (rank, 1)
        }
    };
    elements.iter().map(preference).collect()
}
