//! Pools by their names in DNS: `rspregistrar --dns` and `rspctl dns`, judged by dig, forwarded by dnsmasq and unbound,
//! used by HAProxy and by a Go program with its own resolver.

use super::process::{Process, Registrar};
use super::skip::skipped;
use super::{LIMIT, line_of, rspctl, temporary};
use rserpool::machine::client::Registration;
use rserpool::runtime::{Directory, Runtime, Settings};
use rserpool::wire::{PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Whether a program is there; otherwise, says so.
fn has(program: &str, what: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        skipped(what, &format!("no {program}"));
    }
    found.status.success()
}

/// Registers elements without servers, as long as it lives.
struct Elements(Runtime);

impl Drop for Elements {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

impl Elements {
    fn new(registrar: SocketAddr) -> Elements {
        let mut settings = Settings { announce: None, ..Settings::default() };
        settings.protocols = rserpool::runtime::parse_transport("tcp").unwrap();
        settings.add_registrar(&registrar.to_string()).unwrap();
        Elements(Runtime::start(settings).unwrap())
    }

    fn add(&self, pool: &[u8], id: u32, policy: Policy, port: u16, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let element = PoolElement {
            id: PeId(id),
            home: RegistrarId(0),
            life: 60_000,
            transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, port, addresses),
            policy,
            asap: None,
        };
        let handle = PoolHandle::new(pool).unwrap();
        let registration = Registration { handle, element, interval: Duration::from_secs(20) };
        self.0.register(registration).unwrap().wait().unwrap();
    }

    fn remove(&self, pool: &[u8], id: u32) {
        self.0.deregister(&PoolHandle::new(pool).unwrap(), PeId(id)).unwrap().wait().unwrap();
    }
}

/// A responder, of either kind.
struct Names {
    address: SocketAddr,
    _process: Option<Process>,
}

impl Names {
    /// Once it knows what there is not: it has just been started, and elements may come back.
    fn of(registrar: &Registrar) -> Names {
        let names = Names { address: registrar.dns.expect("with --dns"), _process: None };
        soon("a registrar that knows all", || names.dig("nobody-yet.pool A").starts_with("NXDOMAIN"));
        names
    }

    fn control(registrar: SocketAddr, options: &[&str]) -> Names {
        let mut command = rspctl();
        command.args(["dns", "127.0.0.1:0"]).args(options).env("RSP_REGISTRAR", registrar.to_string());
        let mut process = Process::start(&mut command);
        let line = process.line_after("dns ");
        let address = line.split(' ').next().unwrap().parse().expect("address");
        Names { address, _process: Some(process) }
    }

    /// What dig says: the status, and below it the records with single spaces.
    fn dig(&self, words: &str) -> String {
        dig(self.address, words)
    }
}

fn dig(server: SocketAddr, words: &str) -> String {
    let output = Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+tries=1", "+time=5"])
        .args(["+noall", "+comments", "+answer", "+authority", "+additional"])
        .args(words.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    let mut said = status.unwrap_or("no answer").to_owned();
    for line in text.lines().filter(|line| !line.starts_with(';') && !line.is_empty()) {
        said += "\n";
        said += &line.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for bad in ["malformed", "WARNING: Message", "Got bad"] {
        assert!(!text.contains(bad), "{text}");
    }
    said
}

/// The data of the records of one type.
fn data(said: &str, rtype: &str) -> Vec<String> {
    let parts = said.lines().skip(1).map(|line| line.splitn(5, ' ').collect::<Vec<_>>());
    parts.filter(|parts| parts.len() == 5 && parts[3] == rtype).map(|parts| parts[4].to_owned()).collect()
}

fn metrics_of(http: SocketAddr) -> String {
    let mut page = TcpStream::connect(http).unwrap();
    page.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    page.read_to_string(&mut text).unwrap();
    text
}

fn soon(what: &str, mut happens: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happens() {
        assert!(begin.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What must hold whoever answers.
fn speaks_well(names: &Names) {
    // By policy, in turn; case as asked; addresses of both families are of one element.
    let all: BTreeSet<String> = (0..4).flat_map(|_| data(&names.dig("WebPool.pool A"), "A")).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), ["192.0.2.1", "192.0.2.2"]);
    let said = names.dig("wEbpOOl.pOOl A");
    assert!(said.contains("wEbpOOl.pOOl. 0 IN A 192.0.2."), "{said}");
    let of_one = data(&names.dig("WebPool.pool A"), "A")[0].replace("192.0.2.", "2001:db8::");
    assert_eq!(data(&names.dig("WebPool.pool AAAA"), "AAAA"), [of_one]);

    let said = names.dig("_http._tcp.WebPool.pool SRV");
    let mut services = data(&said, "SRV");
    services.sort();
    assert_eq!(services, ["0 1 80 pe-00000001.WebPool.pool.", "0 1 81 pe-00000002.WebPool.pool."]);
    assert_eq!(data(&said, "A").len() + data(&said, "AAAA").len(), 4, "{said}");
    assert_eq!(data(&names.dig("_tcp.WebPool.pool SRV"), "SRV").len(), 2);
    assert_eq!(data(&names.dig("pe-00000002.WebPool.pool A"), "A"), ["192.0.2.2"]);
    let mut weights = data(&names.dig("_x._tcp.Weighted.pool SRV"), "SRV");
    weights.sort();
    assert_eq!(weights, ["0 10 1 pe-00000001.Weighted.pool.", "0 30 1 pe-00000002.Weighted.pool."]);

    // Nothing of the type, no such name, not our business; and how long to believe that.
    for (asked, status) in [
        ("Old.pool AAAA", "NOERROR"),
        ("_x._sctp.WebPool.pool SRV", "NOERROR"),
        ("WebPool.pool MX", "NOERROR"),
        ("nobody.pool A", "NXDOMAIN"),
        ("pe-00000009.WebPool.pool A", "NXDOMAIN"),
        ("_x._tcp.nobody.pool SRV", "NXDOMAIN"),
    ] {
        let said = names.dig(asked);
        assert!(
            said.starts_with(&format!("{status}\npool. 1 IN SOA ns-dns.pool. hostmaster.pool. ")),
            "{said}"
        );
        assert!(said.ends_with(" 3600 3600 3600 1"), "{said}");
    }
    assert_eq!(names.dig("example.com A"), "REFUSED");
    assert_eq!(names.dig("pool AXFR"), "REFUSED");
    assert_eq!(data(&names.dig("pool NS"), "NS"), ["ns-dns.pool."]);
    assert_eq!(data(&names.dig("pool NS"), "A"), ["127.0.0.1"]);
    assert_eq!(data(&names.dig("pool SOA"), "SOA").len(), 1);
    assert_eq!(names.dig("WebPool.pool ANY +notcp"), "NOERROR\nWebPool.pool. 0 IN HINFO \"RFC8482\" \"\"");
    assert_eq!(names.dig("WebPool.pool A +edns=1 +noednsnegotiation"), "BADVERS");
    assert_eq!(data(&names.dig("Old.pool A +noedns"), "A").len(), 1);
    assert_eq!(data(&names.dig("Old.pool A +tcp"), "A").len(), 1);

    // More than fits: a part and TC over UDP, all over TCP, which dig goes on with by itself.
    let part = data(&names.dig("_x._tcp.Many.pool SRV +ignore +bufsize=1232"), "SRV");
    assert!((5..60).contains(&part.len()), "{}", part.len());
    assert_eq!(data(&names.dig("_x._tcp.Many.pool SRV"), "SRV").len(), 60);

    // Handles that are no hosts' names.
    assert_eq!(data(&names.dig("x--00ff2e.pool A"), "A"), ["192.0.2.9"]);
    assert_eq!(data(&names.dig(r"two\032words.pool A"), "A"), ["192.0.2.9"]);
    assert_eq!(data(&names.dig("www.example.com.pool A"), "A"), ["192.0.2.9"]);
}

fn register_all(elements: &Elements) {
    let rr = || Policy::RoundRobin;
    elements.add(b"WebPool", 1, rr(), 80, &["192.0.2.1", "2001:db8::1"]);
    elements.add(b"WebPool", 2, rr(), 81, &["192.0.2.2", "2001:db8::2"]);
    elements.add(b"Old", 1, rr(), 80, &["192.0.2.1"]);
    elements.add(b"Weighted", 1, Policy::WeightedRandom { weight: 10 }, 1, &["192.0.2.1"]);
    elements.add(b"Weighted", 2, Policy::WeightedRandom { weight: 30 }, 1, &["192.0.2.2"]);
    (1..=60).for_each(|id| elements.add(b"Many", id, Policy::Random, 80, &["192.0.2.1"]));
    for handle in [&b"\0\xff."[..], b"two words", b"www.example.com"] {
        elements.add(handle, 1, rr(), 80, &["192.0.2.9"]);
    }
}

#[test]
fn pools_have_names() {
    if !has("dig", "dns::pools_have_names") {
        return;
    }
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let elements = Elements::new(registrar.asap);
    register_all(&elements);
    let own = Names::of(&registrar);
    speaks_well(&own);

    // A pool that has just become empty is a name still, without addresses.
    elements.remove(b"Old", 1);
    let said = own.dig("OLD.pool A");
    assert!(said.starts_with("NOERROR\npool. 1 IN SOA"), "{said}");

    // As many were told to users as were asked for.
    let metrics = metrics_of(registrar.http);
    let counted = |name: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(counted("rserpool_dns_queries_total{type=\"SRV\"}") >= 5.0);
    assert!(counted("rserpool_dns_answers_total{result=\"nxdomain\"}") >= 3.0);
    assert!(counted("rserpool_dns_truncated_total") >= 1.0);
    assert!(counted("rserpool_dns_connections_total") >= 2.0);
    assert_eq!(counted("rserpool_pool_selected_total{pool=\"WebPool\"}"), 6.0 + 2.0 * 2.0);
}

#[test]
fn a_pool_user_answers_from_what_is_pushed() {
    if !has("dig", "dns::a_pool_user_answers_from_what_is_pushed") {
        return;
    }
    let registrar = Registrar::start(&[]);
    let elements = Elements::new(registrar.asap);
    register_all(&elements);
    elements.add(b"Old", 2, Policy::RoundRobin, 80, &["192.0.2.2"]);
    let names = Names::control(registrar.asap, &[]);
    // Nobody has asked for these so far: the first answer waits for the registrar's.
    assert_eq!(data(&names.dig("Old.pool A"), "A").len(), 1);
    assert_eq!(data(&names.dig("Many.pool A +tcp"), "A"), ["192.0.2.1"]);
    elements.remove(b"Old", 2);
    soon("it is told", || (0..3).all(|_| data(&names.dig("Old.pool A"), "A") == ["192.0.2.1"]));
    speaks_well(&names);

    let named = Names::control(registrar.asap, &["WebPool", "Nobody"]);
    assert_eq!(data(&named.dig("webpool.POOL A"), "A").len(), 1, "named pools are known in any case");
    let said = named.dig("nobody.pool A");
    assert!(said.starts_with("NOERROR\npool. 1 IN SOA"), "a name without addresses: {said}");
    assert!(named.dig("Old.pool A").starts_with("NXDOMAIN"), "others are not");

    // Without a registrar, what was told last is kept, and what was never told is not "none".
    drop(registrar);
    assert_eq!(data(&names.dig("Old.pool A"), "A"), ["192.0.2.1"]);
    assert_eq!(names.dig("Unknown.pool A"), "SERVFAIL");
}

/// A registrar that was started again says nothing of pools whose elements had no time to come back.
#[test]
fn what_may_come_back_is_not_denied() {
    if !has("dig", "dns::what_may_come_back_is_not_denied") {
        return;
    }
    let begun = Instant::now();
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let mut said = String::new();
    soon("an answer that it is not there", || {
        said = dig(registrar.dns.unwrap(), "nobody.pool A");
        said != "SERVFAIL"
    });
    assert!(said.starts_with("NXDOMAIN\npool. 1 IN SOA"), "{said}");
    assert!(
        begun.elapsed() > Duration::from_millis(1400),
        "after {:?} none might have come",
        begun.elapsed()
    );
}

#[test]
fn strangers_get_nothing() {
    let registrar = Registrar::start(&["-dns=127.0.0.1:0", "-allow=127.0.0.1"]);
    let address = registrar.dns.unwrap();
    let query = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x04pool\0\0\x06\0\x01";
    let ask = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(query, address).unwrap();
        let mut answer = [0; 512];
        socket.recv_from(&mut answer).map(|(length, _)| length)
    };
    assert!(ask("127.0.0.1").unwrap() > query.len());
    assert!(ask("127.0.0.2").is_err(), "not from an allowed network");
}

/// Whatever is sent, others are answered; nothing is longer than ten times what asked for it, and connections are
/// bounded.
#[test]
fn hostile_queries_cost_little() {
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let address = registrar.dns.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let good = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x04pool\0\0\x06\0\x01";
    let mut state = 1u32;
    let mut buffer = [0; 4096];
    for _ in 0..300 {
        let mut query = good.to_vec();
        for _ in 0..3 {
            state = state.wrapping_mul(0x0001_9660d).wrapping_add(0x3c6e_f35f);
            let place = state as usize >> 8 & 31;
            match query.get_mut(place) {
                Some(byte) => *byte = (state >> 24) as u8,
                None => query.extend_from_slice(&state.to_be_bytes()),
            }
        }
        socket.send_to(&query, address).unwrap();
        socket.send_to(good, address).unwrap();
        // The good one's answer is the one with its identifier and all of its question.
        loop {
            let (length, _) = socket.recv_from(&mut buffer).expect("an answer to the good query");
            assert!(length <= 10 * query.len().max(good.len()));
            if buffer[..2] == good[..2] && buffer.get(12..good.len()) == Some(&good[12..]) {
                break;
            }
        }
    }
    let before = registrar.process.memory();
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[0, 60, 1]).unwrap();
        idle.push(stream);
    }
    let framed = [&[0, good.len() as u8][..], good].concat();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // Several queries at once, in pieces.
    let many = framed.repeat(3);
    for piece in many.chunks(5) {
        stream.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..3 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], good[..2]);
    }
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
    };
    soon("the oldest are closed", || {
        idle.iter_mut().filter_map(|s| closed(s).then_some(())).count() >= 200 - 64
    });
    assert!(registrar.process.memory() < before + 4096);
    // A query that is too long is none.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[0xff, 0xff, 0, 0]).unwrap();
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
}

/// A query with a question and, where it says so, EDNS with room for answers and as much padding (RFC 7830).
fn query(name: &str, rtype: u16, edns: Option<(u16, u16)>) -> Vec<u8> {
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    [rtype, 1].iter().for_each(|number| query.extend_from_slice(&number.to_be_bytes()));
    if let Some((room, padding)) = edns {
        query.push(0);
        [41, room, 0, 0, padding + 4, 12, padding]
            .iter()
            .for_each(|n: &u16| query.extend_from_slice(&n.to_be_bytes()));
        query.resize(query.len() + usize::from(padding), 0);
    }
    query
}

/// How many answers there are, and whether some were left out.
fn answers(message: &[u8]) -> (u16, bool) {
    (u16::from_be_bytes([message[6], message[7]]), message[2] & 2 != 0)
}

fn asks_tcp(stream: &mut TcpStream, query: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Who asks in another's name sends him ten times as much at most; over TCP, where nobody can do so, there is all.
#[test]
fn nobody_is_flooded_in_anothers_name() {
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let elements = Elements::new(registrar.asap);
    (1..=60).for_each(|id| elements.add(b"Many", id, Policy::Random, 80, &["192.0.2.1", "2001:db8::1"]));
    let control = Names::control(registrar.asap, &["Many"]);
    for address in [registrar.dns.unwrap(), control.address] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buffer = [0; 65536];
        // Known there, too.
        let whole = query("_x._tcp.Many.pool", 33, None);
        soon("it knows all", || answers(&asks_tcp(&mut connect(address), &whole).unwrap()).0 == 60);
        for edns in [None, Some((512, 0)), Some((1232, 0)), Some((65535, 0)), Some((65535, 200))] {
            for (name, rtype) in [
                ("_x._tcp.Many.pool", 33),
                ("_tcp.Many.pool", 255),
                ("Many.pool", 255),
                ("Many.pool", 16),
                ("Many.pool", 28),
                ("pool", 2),
            ] {
                let query = query(name, rtype, edns);
                socket.send_to(&query, address).unwrap();
                let (length, _) = socket.recv_from(&mut buffer).unwrap();
                let room = edns.map_or(512, |(room, _)| usize::from(room.clamp(512, 1232)));
                assert!(
                    length <= room.min(10 * query.len()),
                    "{name} {rtype}: {length} for {}, {edns:?}",
                    query.len()
                );
                if rtype == 33 {
                    let (some, truncated) = answers(&buffer[..length]);
                    assert!(some < 60 && truncated, "{some} of 60 over UDP");
                    assert_eq!(answers(&asks_tcp(&mut connect(address), &query).unwrap()), (60, false));
                }
            }
        }
    }
}

/// A query of 4096 bytes is one, a longer one is none; a connection without a whole query is closed after ten seconds, however
/// many bytes of one it gets, and one that asks stays.
#[test]
fn queries_and_connections_have_their_bounds() {
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let address = registrar.dns.unwrap();
    let bare = query("pool", 6, Some((1232, 0))).len() as u16;
    let (longest, longer) =
        (query("pool", 6, Some((1232, 4096 - bare))), query("pool", 6, Some((1232, 4097 - bare))));
    assert_eq!((longest.len(), longer.len()), (4096, 4097));
    let short = query("pool", 6, None);
    assert_eq!(answers(&asks_tcp(&mut connect(address), &longest).unwrap()).0, 1);
    assert!(asks_tcp(&mut connect(address), &longer).is_err());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 65536];
    for (sent, echoed) in [(&longest, true), (&longer, false)] {
        // Answers come in order: the short one's is the last.
        let (mut sent, mut last) = (sent.clone(), short.clone());
        (sent[1], last[1]) = (1, 2);
        socket.send_to(&sent, address).unwrap();
        socket.send_to(&last, address).unwrap();
        socket.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[1], if echoed { 1 } else { 2 }, "{} bytes over UDP", sent.len());
        if echoed {
            socket.recv_from(&mut buffer).unwrap();
        }
    }

    let begun = Instant::now();
    let [mut silent, mut dripping, mut asking] = [(); 3].map(|()| connect(address));
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let _ = dripping.write_all(&[1, 0]);
    soon("who asks nothing is closed", || {
        let _ = dripping.write_all(&[0]);
        assert_eq!(answers(&asks_tcp(&mut asking, &short).expect("who asks stays")).0, 1);
        thread::sleep(Duration::from_millis(100));
        closed(&mut silent) && closed(&mut dripping)
    });
    assert!(begun.elapsed() >= Duration::from_secs(9), "too early: {:?}", begun.elapsed());
    assert_eq!(answers(&asks_tcp(&mut asking, &short).unwrap()).0, 1);
}

/// However many ask for what only a registrar knows that says nothing, 256 of them wait; and who asks for what is known
/// is answered.
#[test]
fn those_who_wait_are_bounded() {
    let registrar = Registrar::start(&[]);
    let elements = Elements::new(registrar.asap);
    elements.add(b"Known", 1, Policy::RoundRobin, 80, &["192.0.2.1"]);
    let names = Names::control(registrar.asap, &[]);
    let known = query("Known.pool", 1, None);
    soon("the pool is known", || answers(&asks_tcp(&mut connect(names.address), &known).unwrap()).0 == 1);
    registrar.process.signal(libc::SIGSTOP);
    let [asking, attacking] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    asking.set_read_timeout(Some(LIMIT)).unwrap();
    attacking.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 512];
    for turn in 0.. {
        assert!(turn < 5, "1000 queries take longer than they wait");
        let unknown = query(&format!("Unknown{turn}.pool"), 1, None);
        let begun = Instant::now();
        for number in 0..1000 {
            attacking.send_to(&unknown, names.address).unwrap();
            if number % 50 == 49 {
                asking.send_to(&known, names.address).unwrap();
                let (length, _) =
                    asking.recv_from(&mut buffer).expect("who asks for what is known is answered");
                assert_eq!(answers(&buffer[..length]).0, 1);
            }
        }
        let in_time = begun.elapsed() < Duration::from_millis(1900);
        let mut waited = 0;
        while begun.elapsed() < Duration::from_secs(3) || waited == 0 {
            assert!(begun.elapsed() < LIMIT, "nobody is told that nothing is known");
            match attacking.recv_from(&mut buffer) {
                Ok(_) => waited += 1,
                Err(_) if waited > 0 => break,
                Err(_) => {}
            }
        }
        if in_time {
            assert!(waited <= 256, "{waited} waited");
            break;
        }
    }
    registrar.process.signal(libc::SIGCONT);
}

/// A forwarder in front: what it is, and how it is started for a port and a responder.
fn forwards(what: &str, command: &mut Command, port: u16, check: impl Fn(SocketAddr)) {
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begin = Instant::now();
    while !dig(address, "+tcp Old.pool A").starts_with("NOERROR") {
        assert!(begin.elapsed() < LIMIT && child.try_wait().unwrap().is_none(), "{what} does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    check(address);
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> u16 {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn others_forward_to_it() {
    if !has("dig", "dns::others_forward_to_it") {
        return;
    }
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let elements = Elements::new(registrar.asap);
    register_all(&elements);
    let to = Names::of(&registrar).address.port();
    let check = |address: SocketAddr| {
        let all: BTreeSet<String> = (0..6).flat_map(|_| data(&dig(address, "WebPool.pool A"), "A")).collect();
        assert_eq!(all.len(), 2, "nobody keeps answers: {all:?}");
        assert_eq!(data(&dig(address, "_x._tcp.Many.pool SRV"), "SRV").len(), 60, "over TCP on the way");
        assert!(dig(address, "nobody.pool A").starts_with("NXDOMAIN"));
        assert!(dig(address, "Old.pool AAAA").starts_with("NOERROR\n"));
    };
    if has("dnsmasq", "dns::others_forward_to_it dnsmasq") {
        let port = free_port();
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
        ]);
        command.args(["--conf-file=/dev/null", "--listen-address=127.0.0.1", "--pid-file="]);
        command.args([format!("--port={port}"), format!("--server=/pool/127.0.0.1#{to}")]);
        forwards("dnsmasq", &mut command, port, check);
    }
    if has("unbound", "dns::others_forward_to_it unbound") {
        let (port, file) = (free_port(), temporary("unbound.conf"));
        let text = format!(
            "server:\n  interface: 127.0.0.1\n  port: {port}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n\
             \x20 pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  domain-insecure: \"pool\"\n\
             \x20 use-caps-for-id: yes\n  module-config: \"iterator\"\n\
             stub-zone:\n  name: \"pool\"\n  stub-addr: 127.0.0.1@{to}\n"
        );
        std::fs::write(&file, text).unwrap();
        forwards("unbound", Command::new("unbound").arg("-c").arg(&file), port, check);
    }
}

/// A server that says its name, as an element.
fn server(elements: &Elements, pool: &[u8], id: u32, name: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    elements.add(pool, id, Policy::RoundRobin, listener.local_addr().unwrap().port(), &["127.0.0.1"]);
    thread::spawn(move || {
        for stream in listener.incoming() {
            _ = stream.and_then(|mut stream| writeln!(stream, "{name}"));
        }
    });
}

#[test]
fn haproxy_takes_its_servers_from_it() {
    if !has("haproxy", "dns::haproxy_takes_its_servers_from_it") {
        return;
    }
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let elements = Elements::new(registrar.asap);
    server(&elements, b"Echo", 1, "one");
    let (port, file) = (free_port(), temporary("haproxy.cfg"));
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 10s\n  timeout server 10s\n\
         resolvers pools\n  nameserver rsp {}\n  accepted_payload_size 1232\n  hold valid 100ms\n  hold obsolete 0s\n  timeout resolve 100ms\n\
         listen echo\n  bind 127.0.0.1:{port}\n  server-template e 4 _echo._tcp.Echo.pool resolvers pools init-addr none\n",
        registrar.dns.unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let mut haproxy =
        Command::new("haproxy").arg("-db").arg("-f").arg(&file).stderr(Stdio::null()).spawn().unwrap();
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Some(line_of(&mut stream)).filter(|name| !name.is_empty())
    };
    soon("it finds the first", || ask().is_some_and(|name| name == "one"));
    server(&elements, b"Echo", 2, "two");
    let both = || (0..4).filter_map(|_| ask()).collect::<BTreeSet<String>>().len() == 2;
    soon("it finds the second", both);
    elements.remove(b"Echo", 1);
    soon("it leaves the first", || (0..4).all(|_| ask().is_some_and(|name| name == "two")));
    let _ = haproxy.kill();
    let _ = haproxy.wait();
}

#[test]
fn a_go_program_finds_pools() {
    if !["go", "dig"].iter().all(|tool| has(tool, "dns::a_go_program_finds_pools")) {
        return;
    }
    let registrar = Registrar::start(&["-dns=127.0.0.1:0"]);
    let elements = Elements::new(registrar.asap);
    register_all(&elements);
    soon("a registrar that knows all", || {
        dig(registrar.dns.unwrap(), "nobody.pool A").starts_with("NXDOMAIN")
    });
    let folder = temporary("go");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("find.go"), include_str!("find.go")).unwrap();
    let output = Command::new("go")
        .args(["run", "find.go", &registrar.dns.unwrap().to_string()])
        .current_dir(&folder)
        .envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")])
        .env("GOCACHE", temporary("go-cache"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "2 addresses\n_http._tcp.WebPool.pool. 80 81\nno such host: true\n");
    let _ = std::fs::remove_dir_all(temporary("go-cache"));
}
