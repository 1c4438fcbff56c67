//! Queries and answers as bytes, read back by the same crate; `dig` and others judge them in `tests/reach`.

use super::*;
use crate::wire::{Policy, Protocol, RegistrarId, TransportUse};
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;
use proptest::prelude::*;
use std::net::IpAddr;

/// Pools for tests: each answers its elements from the front, which then go to the back.
#[derive(Default)]
struct Turns {
    pools: Vec<(PoolHandle, Vec<PoolElement>)>,
    chosen: usize,
    /// Others may come.
    awaits: bool,
}

fn element(id: u32, policy: Policy, port: u16, addresses: &[&str]) -> PoolElement {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    PoolElement {
        id: PeId(id),
        home: RegistrarId(1),
        life: 1000,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, addresses),
        policy,
        asap: None,
    }
}

impl Turns {
    fn with(mut self, pool: &str, elements: Vec<PoolElement>) -> Turns {
        self.pools.push((PoolHandle::new(pool.as_bytes()).unwrap(), elements));
        self
    }

    fn elements(&self, pool: &PoolHandle) -> &[PoolElement] {
        self.pools.iter().find(|(handle, _)| handle == pool).map_or(&[], |(_, elements)| elements)
    }
}

impl Pools for Turns {
    fn find(&mut self, name: &[u8]) -> Found {
        match name {
            b"later" => return Found::Later,
            b"away" => return Found::Unavailable,
            _ => {}
        }
        let found = self.pools.iter().find(|(handle, _)| handle.as_bytes().eq_ignore_ascii_case(name));
        found.map_or(Found::Unknown, |(handle, _)| Found::Pool(handle.clone()))
    }

    fn choose(
        &mut self,
        pool: &PoolHandle,
        items: usize,
        usable: &dyn Fn(&Transport) -> bool,
    ) -> Vec<PoolElement> {
        let Some((_, elements)) = self.pools.iter_mut().find(|(handle, _)| handle == pool) else {
            return vec![];
        };
        let usable = |element: &&PoolElement| usable(&element.transport);
        let chosen: Vec<PoolElement> = elements.iter().filter(usable).take(items).cloned().collect();
        if let Some(first) = chosen.first() {
            self.chosen += 1;
            elements.retain(|element| element != first);
            elements.push(first.clone());
        }
        chosen
    }

    fn element(&self, pool: &PoolHandle, id: PeId) -> Option<PoolElement> {
        self.elements(pool).iter().find(|element| element.id == id).cloned()
    }

    fn size(&self, pool: &PoolHandle) -> usize {
        self.elements(pool).len()
    }

    fn is_complete(&self) -> bool {
        !self.awaits
    }
}

const V4: [&str; 1] = ["192.0.2.1"];

fn pools() -> Turns {
    let rr = Policy::RoundRobin;
    Turns::default()
        .with(
            "WebPool",
            vec![
                element(1, rr.clone(), 80, &["192.0.2.1", "2001:db8::1"]),
                element(2, rr.clone(), 81, &["192.0.2.2", "2001:db8::2"]),
            ],
        )
        .with("Old", vec![element(1, rr.clone(), 80, &V4), element(2, rr.clone(), 80, &["192.0.2.2"])])
        .with("Empty", vec![])
        .with("Many", (1..=5000).map(|id| element(id, rr.clone(), 80, &V4)).collect())
}

fn responder() -> Responder {
    Responder::new(Zone::default(), 0)
}

const HERE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];

fn asker(tcp: bool) -> Asker<'static> {
    Asker { from: HERE[0], tcp, now: 1_700_000_000_000, here: &HERE }
}

fn query(name: &str, rtype: Rtype, edns: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((Name::vec_from_str(name).unwrap(), rtype)).unwrap();
    let mut builder = builder.additional();
    if let Some(size) = edns {
        let with_size = builder.opt(|opt| {
            opt.set_udp_payload_size(size);
            Ok(())
        });
        with_size.unwrap();
    }
    builder.finish()
}

/// An answer in words: its code and flags, and a line for each record.
fn read(bytes: &[u8]) -> String {
    let message = Message::from_octets(bytes).expect("a message");
    let mut text = format!("{}", message.opt_rcode());
    let header = message.header();
    assert!(header.qr() && !header.ra());
    for (set, flag) in [(header.aa(), " aa"), (header.tc(), " tc"), (message.opt().is_some(), " edns")] {
        text += if set { flag } else { "" };
    }
    let (_, answers, authority, additional) = message.sections().expect("sections");
    for (mark, section) in [('=', answers), ('!', authority), ('+', additional)] {
        for record in section {
            let record = record.expect("a record");
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let record = record.into_record::<AllRecordData<_, _>>().expect("readable").expect("known");
            let (owner, ttl, data) = (record.owner(), record.ttl().as_secs(), record.data());
            text += &format!("\n{mark}{owner} {ttl} {} {data}", record.rtype());
        }
    }
    text
}

fn ask_as(responder: &mut Responder, pools: &mut Turns, asker: &Asker<'_>, query: &[u8]) -> String {
    match responder.answer(pools, asker, query) {
        Reply::Send(bytes) => read(bytes),
        other => format!("{other:?}"),
    }
}

fn ask(name: &str, rtype: Rtype) -> String {
    ask_as(&mut responder(), &mut pools(), &asker(false), &query(name, rtype, Some(1232)))
}

const SOA: &str = "pool 1 SOA ns-dns.pool. hostmaster.pool. 1700000000 3600 3600 3600 1";

#[test]
fn a_pool_has_the_address_of_the_element_that_its_policy_chooses() {
    let (mut responder, mut pools) = (responder(), pools());
    let mut ask = |name: &str, rtype| {
        ask_as(&mut responder, &mut pools, &asker(false), &query(name, rtype, Some(1232)))
    };
    assert_eq!(ask("WebPool.pool", Rtype::A), "NOERROR aa edns\n=WebPool.pool 0 A 192.0.2.1");
    assert_eq!(
        ask("wEbpOOl.PooL", Rtype::A),
        "NOERROR aa edns\n=wEbpOOl.PooL 0 A 192.0.2.2",
        "case as asked"
    );
    // Who asks for both families is told of one element.
    assert_eq!(ask("WebPool.pool", Rtype::AAAA), "NOERROR aa edns\n=WebPool.pool 0 AAAA 2001:db8::2");
    assert_eq!(ask("WebPool.pool", Rtype::A), "NOERROR aa edns\n=WebPool.pool 0 A 192.0.2.1");
    assert_eq!(ask("WebPool.pool", Rtype::AAAA), "NOERROR aa edns\n=WebPool.pool 0 AAAA 2001:db8::1");
    assert_eq!(ask("WebPool.pool", Rtype::TXT), "NOERROR aa edns\n=WebPool.pool 0 TXT \"2 elements\"");
    assert_eq!(pools.chosen, 3);
}

#[test]
fn nothing_of_a_type_costs_nobody_a_turn() {
    let (mut responder, mut pools) = (responder(), pools());
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        let mut ask =
            |rtype| ask_as(&mut responder, &mut pools, &asker(false), &query("Old.pool", rtype, None));
        assert_eq!(ask(Rtype::AAAA), format!("NOERROR aa\n!{SOA}"));
        assert_eq!(ask(Rtype::A), format!("NOERROR aa\n=Old.pool 0 A {address}"));
    }
}

#[test]
fn services_have_ports_and_preferences() {
    assert_eq!(
        ask("_http._tcp.webpool.pool", Rtype::SRV),
        "NOERROR aa edns\n\
         =_http._tcp.webpool.pool 0 SRV 0 1 80 pe-00000001.webpool.pool\n\
         =_http._tcp.webpool.pool 0 SRV 0 1 81 pe-00000002.webpool.pool\n\
         +pe-00000001.webpool.pool 0 A 192.0.2.1\n+pe-00000001.webpool.pool 0 AAAA 2001:db8::1\n\
         +pe-00000002.webpool.pool 0 A 192.0.2.2\n+pe-00000002.webpool.pool 0 AAAA 2001:db8::2"
    );
    for name in ["_tcp.WebPool.pool", "WebPool.pool"] {
        assert_eq!(ask(name, Rtype::SRV).lines().filter(|line| line.starts_with('=')).count(), 2, "{name}");
    }
    assert_eq!(
        ask("_x._sctp.WebPool.pool", Rtype::SRV),
        format!("NOERROR aa edns\n!{SOA}"),
        "none over SCTP"
    );
    assert_eq!(ask("_http._tcp.WebPool.pool", Rtype::A), format!("NOERROR aa edns\n!{SOA}"));
    assert_eq!(
        ask("pe-00000002.WebPool.pool", Rtype::A),
        "NOERROR aa edns\n=pe-00000002.WebPool.pool 0 A 192.0.2.2"
    );
    assert_eq!(ask("pe-00000003.WebPool.pool", Rtype::A), format!("NXDOMAIN aa edns\n!{SOA}"));
    for (policies, preferences) in [
        (
            vec![Policy::WeightedRandom { weight: 10 }, Policy::WeightedRandom { weight: 0 }],
            vec!["0 10", "0 0"],
        ),
        (
            vec![
                Policy::WeightedRoundRobin { weight: u32::MAX },
                Policy::WeightedRoundRobin { weight: 1 << 31 },
            ],
            vec!["0 65535", "0 32768"],
        ),
        ([9, 9, 5].map(|priority| Policy::Priority { priority }).to_vec(), vec!["0 1", "0 1", "1 1"]),
        (vec![Policy::LeastUsed { load: 1 }, Policy::LeastUsed { load: 2 }], vec!["0 1", "1 1"]),
        (
            vec![Policy::RandomizedLeastUsed { load: 0 }, Policy::RandomizedLeastUsed { load: u32::MAX }],
            vec!["0 65535", "0 0"],
        ),
    ] {
        let elements = (1..).zip(policies).map(|(id, policy)| element(id, policy, 80, &V4)).collect();
        let mut pools = Turns::default().with("P", elements);
        let query = query("_a._tcp.P.pool", Rtype::SRV, Some(1232));
        let answer = ask_as(&mut responder(), &mut pools, &asker(true), &query);
        let records = answer.lines().filter(|line| line.starts_with('='));
        let told: Vec<String> =
            records.map(|line| line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(told, preferences);
    }
}

#[test]
fn what_may_yet_come_is_not_denied() {
    let mut pools = Turns { awaits: true, ..pools() };
    let mut ask = |name: &str, rtype| {
        ask_as(&mut responder(), &mut pools, &asker(false), &query(name, rtype, Some(1232)))
    };
    assert_eq!(ask("nobody.pool", Rtype::A), "SERVFAIL aa edns", "without a SOA nobody may keep it");
    assert_eq!(ask("pe-00000003.WebPool.pool", Rtype::A), "SERVFAIL aa edns");
    assert_eq!(ask("_x.pool", Rtype::A), format!("NXDOMAIN aa edns\n!{SOA}"), "that can't come");
    assert_eq!(ask("WebPool.pool", Rtype::MX), format!("NOERROR aa edns\n!{SOA}"), "it is there");
    assert!(ask("WebPool.pool", Rtype::A).starts_with("NOERROR aa edns\n="));
}

#[test]
fn what_there_is_not() {
    assert_eq!(ask("nobody.pool", Rtype::A), format!("NXDOMAIN aa edns\n!{SOA}"));
    assert_eq!(
        ask("Empty.pool", Rtype::A),
        format!("NOERROR aa edns\n!{SOA}"),
        "a pool without elements is there"
    );
    assert_eq!(ask("_http._tcp.Empty.pool", Rtype::SRV), format!("NOERROR aa edns\n!{SOA}"));
    assert_eq!(ask("_x.pool", Rtype::A), format!("NXDOMAIN aa edns\n!{SOA}"));
    assert_eq!(ask("WebPool.pool", Rtype::MX), format!("NOERROR aa edns\n!{SOA}"));
    assert_eq!(ask("away.pool", Rtype::A), "SERVFAIL aa edns", "not known is not: none");
    assert_eq!(ask("later.pool", Rtype::A), "Later");
    assert_eq!(ask("example.com", Rtype::A), "REFUSED edns");
    assert_eq!(ask("pool", Rtype::AXFR), "REFUSED edns");
}

#[test]
fn the_zone_itself() {
    assert_eq!(ask("pool", Rtype::SOA), format!("NOERROR aa edns\n={SOA}"));
    assert_eq!(
        ask("PooL", Rtype::NS),
        "NOERROR aa edns\n=PooL 0 NS ns-dns.PooL.\n+ns-dns.PooL 0 A 127.0.0.1"
    );
    assert_eq!(ask("ns-dns.pool", Rtype::A), "NOERROR aa edns\n=ns-dns.pool 0 A 127.0.0.1");
    assert_eq!(ask("ns-dns.pool", Rtype::AAAA), format!("NOERROR aa edns\n!{SOA}"));
    assert_eq!(ask("pool", Rtype::A), format!("NOERROR aa edns\n!{SOA}"));
    assert_eq!(ask("pool", Rtype::ANY), "NOERROR aa edns\n=pool 0 HINFO \"RFC8482\" \"\"");
    assert_eq!(ask("WebPool.pool", Rtype::ANY), "NOERROR aa edns\n=WebPool.pool 0 HINFO \"RFC8482\" \"\"");
    assert_eq!(ask("nobody.pool", Rtype::ANY), format!("NXDOMAIN aa edns\n!{SOA}"));
}

#[test]
fn what_has_no_room_is_left_out_and_said_over_udp() {
    let (mut responder, mut pools) = (responder(), pools());
    let name = "_http._tcp.Many.pool";
    for (edns, most) in [(None, 512), (Some(100), 512), (Some(700), 700), (Some(4096), MAX_UDP)] {
        let query = query(name, Rtype::SRV, edns);
        let Reply::Send(bytes) = responder.answer(&mut pools, &asker(false), &query) else {
            panic!("no answer")
        };
        let most = most.min(query.len() * MAX_FACTOR);
        assert!(bytes.len() <= most && bytes.len() + 60 > most, "{} of {most}", bytes.len());
        let answer = read(bytes);
        assert!(answer.starts_with(if edns.is_some() {
            "NOERROR aa tc edns\n="
        } else {
            "NOERROR aa tc\n="
        }));
        assert!(!answer.contains('+'), "no additional records where answers are missing");
    }
    let answer = ask_as(&mut responder, &mut pools, &asker(true), &query(name, Rtype::SRV, None));
    assert!(answer.starts_with("NOERROR aa\n="), "{}", &answer[..30]);
    assert_eq!(answer.lines().filter(|line| line.starts_with('=')).count(), MAX_ELEMENTS);
    assert_eq!(responder.counts().truncated, 4);
    // Additional records that have no room are not missed.
    let few = Turns::default().with("Few", (1..7).map(|id| element(id, Policy::Random, 80, &V4)).collect());
    let answer =
        ask_as(&mut responder, &mut { few }, &asker(false), &query("_http._tcp.Few.pool", Rtype::SRV, None));
    assert!(answer.starts_with("NOERROR aa\n="), "{answer}");
    let additional = answer.lines().filter(|line| line.starts_with('+')).count();
    assert!((1..6).contains(&additional), "{answer}");
}

#[test]
fn what_is_no_query() {
    let good = query("WebPool.pool", Rtype::A, Some(1232));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let mut responder = responder();
        let answer = ask_as(&mut responder, &mut pools(), &asker(false), &bytes);
        let counts = responder.counts();
        assert_eq!(
            counts.queries.iter().sum::<u64>(),
            u64::from(answer.starts_with("BADVERS") || answer.starts_with("REFUSED"))
        );
        answer
    };
    assert_eq!(changed(&|bytes| bytes[2] |= 0x80), "Nothing", "an answer is not answered");
    assert_eq!(changed(&|bytes| bytes.truncate(11)), "Nothing");
    assert_eq!(changed(&|bytes| bytes[2] |= Opcode::NOTIFY.to_int() << 3), "NOTIMP");
    assert_eq!(changed(&|bytes| bytes[5] = 2), "FORMERR", "two questions");
    assert_eq!(changed(&|bytes| bytes[4..6].fill(0xff)), "FORMERR", "65535 questions");
    assert_eq!(changed(&|bytes| bytes[5] = 0), "FORMERR");
    assert_eq!(changed(&|bytes| bytes[7] = 1), "FORMERR", "an answer in a query");
    assert_eq!(changed(&|bytes| bytes[11] = 9), "FORMERR");
    assert_eq!(changed(&|bytes| bytes.truncate(20)), "FORMERR");
    assert_eq!(changed(&|bytes| bytes[12] = 0xc0), "FORMERR", "a name that points at itself");
    let version = good.len() - 5;
    assert_eq!(changed(&|bytes| bytes[version] = 1), "BADVERS edns");
    let class = good.len() - 12;
    assert_eq!(changed(&|bytes| bytes[class] = Class::CH.to_int() as u8), "REFUSED edns");
    assert_eq!(
        changed(&|bytes| {
            bytes[11] = 2;
            bytes.extend_from_within(good.len() - 11..);
        }),
        "FORMERR",
        "OPT twice"
    );
}

#[test]
fn what_was_asked_is_repeated() {
    let mut responder = responder();
    let query = query("wEbPooL.pOol", Rtype::A, Some(1232));
    let Reply::Send(bytes) = responder.answer(&mut pools(), &asker(false), &query) else {
        panic!("no answer")
    };
    assert_eq!(bytes[..2], query[..2]);
    assert_eq!(bytes[12..30], query[12..30], "the question byte for byte");
    let message = Message::from_octets(bytes).unwrap();
    assert!(message.header().rd() && message.header().rcode() == Rcode::NOERROR);
    assert_eq!(message.opt_rcode(), OptRcode::NOERROR);
    assert_eq!(responder.counts().queries[0], 1);
    assert_eq!(responder.counts().answers()[0], ("answer", 1));
}

proptest! {
    /// Whatever comes, an answer is bounded by its query.
    #[test]
    fn no_answer_is_longer_than_stated(
        labels in proptest::collection::vec("(_http|_tcp|many|webpool|pool|[a-z]{1,20})", 1..6),
        rtype in any::<u8>(),
        edns in proptest::option::of(any::<u16>()),
    ) {
        let query = query(&format!("{}.pool", labels.join(".")), Rtype::from_int(rtype.into()), edns);
        let mut responder = responder();
        if let Reply::Send(bytes) = responder.answer(&mut pools(), &asker(false), &query) {
            prop_assert!(bytes.len() <= MAX_UDP.min(query.len() * MAX_FACTOR));
            prop_assert!(edns.is_some_and(|size| size > 512) || bytes.len() <= 512);
            read(bytes);
        }
    }
}
