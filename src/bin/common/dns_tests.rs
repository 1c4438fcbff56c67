//! How questions share what a turn has for them.

use super::*;
use rserpool::dns::Found;
use rserpool::wire::{PeId, PoolElement, PoolHandle, Transport};

/// No pools, and that takes a millisecond to say.
struct Slow {
    asked: usize,
}

impl Pools for Slow {
    fn find(&mut self, _: &[u8]) -> Found {
        self.asked += 1;
        std::thread::sleep(Duration::from_millis(1));
        Found::Unknown
    }
    fn choose(&mut self, _: &PoolHandle, _: usize, _: &dyn Fn(&Transport) -> bool) -> Vec<PoolElement> {
        Vec::new()
    }
    fn element(&self, _: &PoolHandle, _: PeId) -> Option<PoolElement> {
        None
    }
    fn size(&self, _: &PoolHandle) -> usize {
        0
    }
}

/// Whoever calls `turn` has to wait for a slice, however many ask, and a flood of datagrams, or of one connection's
/// queries, does not keep others from theirs.
#[test]
fn a_flood_has_a_slice_of_each_turn_and_others_have_theirs() {
    const FLOOD: usize = 60;
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01x\x04pool\0\0\x01\0\x01";
    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
    let mut poll = mio::Poll::new().unwrap();
    let here = "127.0.0.1:0".parse().unwrap();
    let mut dns =
        Dns::bind(poll.registry(), 0, &[here], Zone::default(), 5, Networks::default()).expect("sockets");
    let to = dns.addresses().next().unwrap();
    let datagrams = std::net::UdpSocket::bind(here).unwrap();
    for _ in 0..FLOOD {
        datagrams.send_to(query, to).unwrap();
    }
    let mut greedy = std::net::TcpStream::connect(to).unwrap();
    greedy.write_all(&framed.repeat(FLOOD)).unwrap();
    let mut modest = std::net::TcpStream::connect(to).unwrap();
    modest.write_all(&framed).unwrap();
    modest.set_nonblocking(true).unwrap();
    let mut pools = Slow { asked: 0 };
    let mut answered = None;
    let mut events = mio::Events::with_capacity(16);
    let begin = Instant::now();
    while pools.asked <= 2 * FLOOD {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} answered", pools.asked);
        let wait = dns.poll_timeout(Time(0)) == Some(Time(0));
        poll.poll(&mut events, Some(if wait { Duration::ZERO } else { Duration::from_millis(100) })).unwrap();
        for event in &events {
            dns.ready(event.token());
        }
        let before = pools.asked;
        dns.turn(&mut pools, Time(0), false);
        // Two, and what a connection may ask before it is looked at the clock again.
        assert!(pools.asked - before <= 2 + PIPELINED, "{} in a turn", pools.asked - before);
        if answered.is_none() && modest.read(&mut [0; 512]).is_ok() {
            answered = Some(pools.asked);
        }
    }
    let answered = answered.expect("an answer");
    assert!(answered < FLOOD, "only after {answered} others");
}
