use super::*;
use crate::machine::registrar::Leaver;
use crate::machine::{LinkEnds, LinkProtocol, Target};
use crate::transport::dials::STAGGER;
use std::io::{Read, Write};
use std::net::TcpStream;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(LinkId, Vec<u8>),
    Up(LinkId, LinkEnds),
    Down(LinkId, LinkDown),
    Congested(LinkId),
    Drained(LinkId),
}

struct World {
    reactor: Reactor,
    seen: VecDeque<Seen>,
    /// Answer each message with so many bytes.
    answer: usize,
    /// Who makes room, each time that it is asked.
    leavers: VecDeque<Vec<Leaver>>,
}

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![7; length];
    bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    bytes
}

impl World {
    fn new(limits: Limits) -> World {
        let reactor = Reactor::new(Clock::start(), limits).unwrap();
        World { reactor, seen: VecDeque::new(), answer: 0, leavers: VecDeque::new() }
    }

    fn turn(&mut self, patience: Duration) {
        let World { reactor, seen, answer, leavers } = self;
        let until = reactor.clock.now() + patience;
        let turned = reactor.turn(Some(until), &mut |reactor, input| match input {
            Input::Message { link, bytes } => {
                seen.push_back(Seen::Message(link, bytes.to_vec()));
                if *answer > 0 {
                    reactor.execute::<()>(Output::Send { link, bytes: message(*answer) });
                }
            }
            Input::Link { link, change } => seen.push_back(match change {
                LinkChange::Up(ends) => Seen::Up(link, ends),
                LinkChange::Down(why) => Seen::Down(link, why),
                LinkChange::Congested => Seen::Congested(link),
                LinkChange::Drained => Seen::Drained(link),
            }),
            Input::Full => reactor.name_leavers(leavers.pop_front().unwrap_or_default()),
            other => panic!("{other:?}"),
        });
        turned.unwrap();
    }

    /// Turns until something was seen; at most ten seconds.
    fn next(&mut self) -> Seen {
        let end = self.reactor.clock.now() + Duration::from_secs(10);
        loop {
            if let Some(seen) = self.seen.pop_front() {
                return seen;
            }
            assert!(self.reactor.clock.now() < end, "nothing happened for 10 s");
            self.turn(Duration::from_millis(100));
        }
    }

    fn listen(&mut self) -> SocketAddr {
        self.reactor.listen(Service::Asap, localhost(), Admission::Plain).unwrap()
    }

    /// A client, and the link's number here.
    fn client(&mut self, to: SocketAddr) -> (TcpStream, LinkId) {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        match self.next() {
            Seen::Up(link, ends) => {
                assert_eq!(ends.peer, [stream.local_addr().unwrap()]);
                (stream, link)
            }
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, link: LinkId, addresses: Vec<SocketAddr>) {
        let target = Target { protocol: LinkProtocol::Tcp, addresses };
        self.reactor.execute::<()>(Output::Open { link, service: Service::Asap, target });
    }
}

#[test]
fn messages_come_and_answers_go() {
    let mut world = World::new(Limits::default());
    world.answer = 12;
    let to = world.listen();
    let (mut stream, link) = world.client(to);
    assert!(link.is_incoming());
    stream.write_all(&message(8).repeat(3)).unwrap();
    for _ in 0..3 {
        assert_eq!(world.next(), Seen::Message(link, message(8)));
    }
    let mut answers = [0; 36];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers.to_vec(), message(12).repeat(3));
    drop(stream);
    assert_eq!(world.next(), Seen::Down(link, LinkDown::Closed));
    assert_eq!(world.reactor.link_count(), 0);
    assert_eq!(world.reactor.counters().messages, 3);
}

#[test]
fn more_than_a_budget_before_the_end_is_all_read() {
    let mut world = World::new(Limits::default());
    let to = world.listen();
    let (mut stream, link) = world.client(to);
    let count = READ_BUDGET * 5 + 1;
    stream.write_all(&message(4).repeat(count)).unwrap();
    drop(stream);
    for _ in 0..count {
        assert_eq!(world.next(), Seen::Message(link, message(4)));
    }
    assert_eq!(world.next(), Seen::Down(link, LinkDown::Closed));
}

#[test]
fn who_never_said_anything_makes_room() {
    let mut world = World::new(Limits { links: 4, ..Limits::default() });
    let to = world.listen();
    let (mut useful, useful_link) = world.client(to);
    useful.write_all(&message(8)).unwrap();
    assert_eq!(world.next(), Seen::Message(useful_link, message(8)));
    let silent: Vec<_> = (0..3).map(|_| world.client(to)).collect();
    // All places are taken, and those who come get one, one after the other.
    for (_, link) in &silent {
        let mut next = TcpStream::connect(to).unwrap();
        assert_eq!(world.next(), Seen::Down(*link, LinkDown::Overflow));
        let Seen::Up(up, _) = world.next() else { panic!("no link") };
        next.write_all(&message(4)).unwrap();
        assert_eq!(world.next(), Seen::Message(up, message(4)));
        std::mem::forget(next);
    }
    // Nobody who has said something is dropped for somebody who has not.
    let mut late = TcpStream::connect(to).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    world.turn(Duration::from_millis(50));
    assert_eq!(late.read(&mut [0]).unwrap_or(0), 0);
    useful.write_all(&message(12)).unwrap();
    assert_eq!(world.next(), Seen::Message(useful_link, message(12)));
}

/// A connection from another address of this host, which is up in the end.
fn connect_from(world: &mut World, from: &str, to: SocketAddr) -> (TcpStream, LinkId) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    loop {
        match world.next() {
            Seen::Up(link, _) => return (socket.into(), link),
            Seen::Down(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Many of one host that say nothing make room among themselves, and not the one of another host that came first and
/// takes its time.
#[test]
fn silent_ones_of_one_host_do_not_put_out_anothers() {
    let mut world = World::new(Limits { links: 8, ..Limits::default() });
    let to = world.listen();
    let (mut first, first_link) = connect_from(&mut world, "127.0.0.2", to);
    let mut silent: Vec<_> = (0..30).map(|_| connect_from(&mut world, "127.0.0.66", to)).collect();
    let (mut second, second_link) = connect_from(&mut world, "127.0.0.3", to);
    silent.extend((0..30).map(|_| connect_from(&mut world, "127.0.0.66", to)));
    for (stream, link) in [(&mut first, first_link), (&mut second, second_link)] {
        stream.write_all(&message(8)).unwrap();
        assert_eq!(world.next(), Seen::Message(link, message(8)));
    }
}

/// Where others that are of no use have a word behind them, one that just came is not put out before its first.
#[test]
fn who_just_came_has_time_for_its_first_word() {
    let mut world = World::new(Limits { links: 4, ..Limits::default() });
    let to = world.listen();
    let mut talkers: Vec<_> = (0..3).map(|_| connect_from(&mut world, "127.0.0.66", to)).collect();
    for (stream, link) in &mut talkers {
        stream.write_all(&message(8)).unwrap();
        assert_eq!(world.next(), Seen::Message(*link, message(8)));
    }
    let (mut young, young_link) = connect_from(&mut world, "127.0.0.2", to);
    world.turn(Duration::from_millis(20));
    let host = Some("127.0.0.66".parse().unwrap());
    world.leavers.push_back(vec![Leaver { link: talkers[0].1, host, settled: false }]);
    let _next = connect_from(&mut world, "127.0.0.66", to);
    young.write_all(&message(8)).unwrap();
    assert_eq!(world.next(), Seen::Message(young_link, message(8)));
}

/// All have said something: whoever knows of what use they are says who makes room.
#[test]
fn who_is_of_no_use_makes_room() {
    let mut world = World::new(Limits { links: 4, ..Limits::default() });
    let to = world.listen();
    let mut all: Vec<_> = (0..4).map(|_| world.client(to)).collect();
    for (stream, link) in &mut all {
        stream.write_all(&message(8)).unwrap();
        assert_eq!(world.next(), Seen::Message(*link, message(8)));
    }
    let host = Some("127.0.0.1".parse().unwrap());
    let leaver = |at: usize, settled| Leaver { link: all[at].1, host, settled };
    world.turn(Duration::from_millis(20));
    // One of them is gone already when it is its turn.
    let gone = Leaver { link: LinkId(LinkId::INCOMING | 77), ..leaver(0, false) };
    world.leavers.push_back(vec![gone, leaver(1, false)]);
    let mut next = TcpStream::connect(to).unwrap();
    assert_eq!(world.next(), Seen::Down(all[1].1, LinkDown::Overflow));
    let Seen::Up(up, _) = world.next() else { panic!("no link") };
    next.write_all(&message(4)).unwrap();
    assert_eq!(world.next(), Seen::Message(up, message(4)));
    // Nobody of use leaves for somebody of the same host, and where nobody leaves, the next one has to.
    world.leavers.push_back(vec![leaver(2, true)]);
    let mut late = TcpStream::connect(to).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    world.turn(Duration::from_millis(50));
    assert_eq!(late.read(&mut [0]).unwrap_or(0), 0);
    // For one that we dial ourselves it is the same.
    let other = std::net::TcpListener::bind(localhost()).unwrap();
    let link = LinkId(1);
    world.reactor.name_leavers(vec![leaver(3, false)]);
    world.open(link, vec![other.local_addr().unwrap()]);
    assert_eq!(world.next(), Seen::Down(all[3].1, LinkDown::Overflow));
    assert!(matches!(world.next(), Seen::Up(up, _) if up == link));
}

/// Beginnings of messages fill what all may hold: who has one that is short, and has said something before, stays.
#[test]
fn who_holds_most_and_never_said_anything_lets_go() {
    const HALF: usize = 60_000;
    let mut world = World::new(Limits { buffered: 10 * HALF, ..Limits::default() });
    let to = world.listen();
    let (mut useful, useful_link) = world.client(to);
    useful.write_all(&message(8)).unwrap();
    assert_eq!(world.next(), Seen::Message(useful_link, message(8)));
    let mut hoarders = Vec::new();
    for _ in 0..9 {
        let (mut stream, link) = world.client(to);
        stream.write_all(&message(65_000)[..HALF]).unwrap();
        hoarders.push((stream, link));
    }
    while world.reactor.links_held().0 < 8 * HALF {
        world.turn(Duration::from_millis(10));
    }
    // Something of use, in two parts, the first of which is too much for all.
    let long = message(65_000);
    useful.write_all(&long[..64_000]).unwrap();
    let mut more = TcpStream::connect(to).unwrap();
    more.write_all(&message(65_000)[..HALF]).unwrap();
    let mut dropped = 0;
    while dropped < 2 {
        match world.next() {
            Seen::Down(link, LinkDown::Overflow) => {
                assert_ne!(link, useful_link);
                dropped += 1;
            }
            Seen::Up(..) => {}
            other => panic!("{other:?}"),
        }
    }
    useful.write_all(&long[64_000..]).unwrap();
    loop {
        match world.next() {
            Seen::Message(link, bytes) => {
                assert_eq!((link, bytes), (useful_link, long));
                break;
            }
            Seen::Down(link, _) => assert_ne!(link, useful_link),
            Seen::Up(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flood_does_not_starve_others() {
    let mut world = World::new(Limits::default());
    let to = world.listen();
    let (mut flood, flooding) = world.client(to);
    let (mut other, quiet) = world.client(to);
    flood.write_all(&message(4).repeat(10_000)).unwrap();
    other.write_all(&message(8)).unwrap();
    let mut before = 0;
    loop {
        match world.next() {
            Seen::Message(link, _) if link == quiet => break,
            Seen::Message(link, _) => before += usize::from(link == flooding),
            other => panic!("{other:?}"),
        }
    }
    assert!(before <= 4 * READ_BUDGET, "{before} messages of the flood came first");
}

#[test]
fn dialling_tries_one_address_after_the_other() {
    let mut world = World::new(Limits::default());
    let to = world.listen();
    let dead = std::net::TcpListener::bind(localhost()).unwrap().local_addr().unwrap();
    let link = LinkId(1);
    world.open(link, vec![dead, to]);
    world.reactor.execute::<()>(Output::Send { link, bytes: message(8) });
    let (mut up, mut accepted, mut message_came) = (false, None, false);
    while !(up && message_came) {
        match world.next() {
            Seen::Up(id, ends) if id == link => {
                assert_eq!(ends.peer, [to]);
                up = true;
            }
            Seen::Up(id, _) => accepted = Some(id),
            Seen::Message(id, bytes) => {
                assert_eq!((Some(id), bytes), (accepted, message(8)));
                message_came = true;
            }
            other => panic!("{other:?}"),
        }
    }
    // Closing sends what was queued, and is not reported to the one who asked for it.
    world.reactor.execute::<()>(Output::Send { link, bytes: message(4) });
    world.reactor.execute::<()>(Output::Close { link });
    let accepted = accepted.unwrap();
    assert_eq!(world.next(), Seen::Message(accepted, message(4)));
    assert_eq!(world.next(), Seen::Down(accepted, LinkDown::Closed));
    assert_eq!(world.reactor.link_count(), 0);
}

#[test]
fn nobody_there_is_refused_but_not_at_once() {
    let mut world = World::new(Limits::default());
    let dead = std::net::TcpListener::bind(localhost()).unwrap().local_addr().unwrap();
    world.open(LinkId(3), vec![dead]);
    world.open(LinkId(4), vec![]);
    assert!(world.seen.is_empty());
    let mut seen = [world.next(), world.next()];
    seen.sort_by_key(|seen| format!("{seen:?}"));
    let refused = |number| Seen::Down(LinkId(number), LinkDown::Refused);
    assert_eq!(seen, [refused(3), refused(4)]);
}

/// A listener whose backlog is full answers nothing.
fn deaf() -> (SocketAddr, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&localhost().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (address, (TcpStream::connect(address).unwrap(), socket))
}

/// RFC 8305: a host of several addresses is reached over one that answers, a moment later.
#[test]
fn silent_addresses_hold_up_nobody() {
    let mut world = World::new(Limits::default());
    let ((one, _one), (other, _other), to) = (deaf(), deaf(), world.listen());
    let begun = std::time::Instant::now();
    world.open(LinkId(5), vec![one, other, to]);
    let ends = loop {
        match world.next() {
            Seen::Up(LinkId(5), ends) => break ends,
            Seen::Up(..) => {}
            other => panic!("{other:?}"),
        }
    };
    let (took, moments) = (begun.elapsed(), 2 * STAGGER);
    assert!(ends.peer == [to] && took >= moments && took < moments + Duration::from_secs(2), "{took:?}");
    assert_eq!(world.reactor.link_count(), 2, "with the accepted end");
}

#[test]
fn a_silent_address_is_given_up() {
    let limits = Limits { dial: Duration::from_millis(50), ..Limits::default() };
    let mut world = World::new(limits);
    let (deaf, _listener) = deaf();
    world.open(LinkId(9), vec![deaf, deaf]);
    assert_eq!(world.next(), Seen::Down(LinkId(9), LinkDown::Refused));
}

#[test]
fn who_does_not_read_is_not_read_from_and_loses_nothing() {
    let mut world = World::new(Limits { queue: 1 << 20, ..Limits::default() });
    world.answer = 65_532;
    let to = world.listen();
    let (stream, link) = world.client(to);
    let count = 400;
    let writer = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || stream.write_all(&message(4).repeat(count)).unwrap()
    });
    let mut messages = 0;
    loop {
        match world.next() {
            Seen::Congested(id) => break assert_eq!(id, link),
            Seen::Message(..) => messages += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(messages < count);
    writer.join().unwrap();
    let reader = std::thread::spawn(move || {
        let mut stream = stream;
        let mut bytes = vec![0; count * 65_532];
        stream.read_exact(&mut bytes).map(|()| bytes.len())
    });
    while !reader.is_finished() {
        world.turn(Duration::from_millis(10));
    }
    assert_eq!(reader.join().unwrap().unwrap(), count * 65_532);
    assert!(world.seen.iter().any(|seen| *seen == Seen::Drained(link)));
}

#[test]
fn pushes_to_who_does_not_read_end_at_the_bound() {
    let mut world = World::new(Limits { queue: 1 << 20, ..Limits::default() });
    let to = world.listen();
    let (_stream, link) = world.client(to);
    let mut sent = 0u64;
    let why = loop {
        if let Some(Seen::Down(id, why)) = world.seen.pop_front() {
            break (id, why);
        }
        world.reactor.execute::<()>(Output::Send { link, bytes: message(65_532) });
        sent += 65_532;
        world.turn(Duration::ZERO);
        assert!(sent < 1 << 30, "no bound");
    };
    assert_eq!(why, (link, LinkDown::Overflow));
    assert_eq!(world.reactor.links_held().0, 0);
}

#[test]
fn half_a_message_then_silence_is_dropped_and_garbage_at_once() {
    let mut world = World::new(Limits { partial: Duration::from_millis(200), ..Limits::default() });
    let to = world.listen();
    let (mut half, half_link) = world.client(to);
    let (mut slow, slow_link) = world.client(to);
    half.write_all(&message(65_532)[..30_000]).unwrap();
    // Whole messages, each ending with the beginning of the next: that is no half message.
    for round in 0..6 {
        slow.write_all(&message(8).repeat(2)[if round == 0 { 0..12 } else { 4..12 }]).unwrap();
        loop {
            match world.next() {
                Seen::Message(link, _) => break assert_eq!(link, slow_link),
                Seen::Down(link, why) => assert_eq!((link, why), (half_link, LinkDown::Garbage)),
                other => panic!("{other:?}"),
            }
        }
    }
    while world.reactor.counters().half_messages == 0 {
        world.turn(Duration::from_millis(20));
    }
    let (mut bad, bad_link) = world.client_after(to, &[half_link, slow_link]);
    bad.write_all(&[1, 0, 0, 3]).unwrap();
    while world.reactor.counters().garbage == 0 {
        world.turn(Duration::from_millis(20));
    }
    assert!(world.seen.contains(&Seen::Down(bad_link, LinkDown::Garbage)));
}

#[test]
fn the_number_of_links_is_bounded() {
    let mut world = World::new(Limits { links: 2, ..Limits::default() });
    let to = world.listen();
    let (mut first, first_link) = world.client(to);
    let (mut second, second_link) = world.client(to);
    // Both are of use, so that neither makes room.
    first.write_all(&message(4)).unwrap();
    assert_eq!(world.next(), Seen::Message(first_link, message(4)));
    second.write_all(&message(4)).unwrap();
    assert_eq!(world.next(), Seen::Message(second_link, message(4)));
    let mut third = TcpStream::connect(to).unwrap();
    third.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while world.reactor.counters().refused == 0 {
        world.turn(Duration::from_millis(20));
    }
    assert_eq!(third.read(&mut [0; 4]).unwrap(), 0, "closed at once");
    drop(second);
    assert_eq!(world.next(), Seen::Down(second_link, LinkDown::Closed));
    world.client(to);
}

#[test]
fn the_waker_ends_a_turn() {
    let mut reactor = Reactor::new(Clock::start(), Limits::default()).unwrap();
    let waker = reactor.waker();
    let thread = std::thread::spawn(move || waker.wake().unwrap());
    let mut woken = false;
    while !woken {
        reactor.turn(None, &mut |_, input| woken |= matches!(input, Input::Woken)).unwrap();
    }
    thread.join().unwrap();
}

impl World {
    /// A client, while links may go down beside it.
    fn client_after(&mut self, to: SocketAddr, old: &[LinkId]) -> (TcpStream, LinkId) {
        let stream = TcpStream::connect(to).unwrap();
        loop {
            match self.next() {
                Seen::Up(link, _) => return (stream, link),
                Seen::Down(link, _) => assert!(old.contains(&link)),
                Seen::Message(link, _) => assert!(old.contains(&link)),
                other => panic!("{other:?}"),
            }
        }
    }
}
