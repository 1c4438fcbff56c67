//! The sockets of the DNS responder, which both programs have: datagrams and connections on their poll. Nothing here
//! waits.

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, listen, recvmsg, sendmsg,
    setsockopt,
};
use rserpool::dns::{Asker, Counts, Pools, Reply, Responder, Zone};
use rserpool::machine::Time;
use rserpool::runtime::guests::{Guests, Place};
use rserpool::transport::allow::Networks;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Addresses to listen at.
pub const MAX_ADDRESSES: usize = 8;
/// Connections at a time; beyond, of the host that has most of them the one goes that has been idle for longest.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be without a whole query, or without taking what it asked for.
const IDLE: Duration = Duration::from_secs(10);
/// The longest query; those of today have some hundred bytes.
const MAX_QUERY: usize = 4096;
/// Datagrams of one socket, connections that come, and queries of one connection, before others get a turn.
const BATCH: usize = 64;
const ACCEPTS: usize = 8;
const PIPELINED: usize = 8;
/// How long queries are read and answered in a turn of the loop: everything else waits for that.
const SLICE: Duration = Duration::from_millis(2);
/// Queries that wait for what a registrar says, and for how long; beyond, the oldest of the host that has most is forgotten.
const MAX_PARKED: usize = 256;
pub const PARKED: Duration = Duration::from_secs(2);
/// Tokens that a service needs.
pub const TOKENS: usize = 2 * MAX_ADDRESSES + MAX_CONNECTIONS;

/// A datagram's sender, and the address that it was sent to where that is not the socket's.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    from: SocketAddr,
    here: Option<(IpAddr, u32)>,
}

struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
    /// Has perhaps more to read.
    ready: bool,
}

struct Tcp {
    listener: TcpListener,
    local: SocketAddr,
    /// Perhaps somebody waits to be let in.
    ready: bool,
}

struct DnsConnection {
    stream: TcpStream,
    from: IpAddr,
    here: IpAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    deadline: Time,
    /// Its next query waits for a registrar's word, until then.
    parked: Option<Time>,
    /// It has perhaps more to answer, and waits for its turn.
    more: bool,
}

struct Parked {
    socket: usize,
    envelope: Envelope,
    query: Vec<u8>,
    until: Time,
    place: Place,
}

/// See the module.
pub struct Dns {
    registry: Registry,
    responder: Responder,
    allow: Networks,
    first: usize,
    udp: Vec<Udp>,
    tcp: Vec<Tcp>,
    /// Whose turn it is: the number of a token.
    next: usize,
    connections: Vec<Option<DnsConnection>>,
    /// In the order in which they came.
    parked: BTreeMap<u64, Parked>,
    /// The same by whose they are.
    waiting: Guests<u64>,
    last: u64,
    buffer: Vec<u8>,
}

impl Dns {
    /// Listens at each address over UDP and TCP, with tokens from `first` to `first` + [`TOKENS`].
    pub fn bind(
        registry: &Registry,
        first: usize,
        addresses: &[SocketAddr],
        zone: Zone,
        ttl: u32,
        allow: Networks,
    ) -> io::Result<Dns> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for &address in addresses {
            let (mut socket, mut listener) = bind_both(address)?;
            let token = first + 2 * udp.len();
            registry.register(&mut socket, Token(token), Interest::READABLE)?;
            registry.register(&mut listener, Token(token + 1), Interest::READABLE)?;
            let local = socket.local_addr()?;
            udp.push(Udp { socket, local, ready: true });
            tcp.push(Tcp { listener, local, ready: false });
        }
        Ok(Dns {
            registry: registry.try_clone()?,
            responder: Responder::new(zone, ttl),
            allow,
            first,
            udp,
            tcp,
            next: 0,
            connections: (0..MAX_CONNECTIONS).map(|_| None).collect(),
            parked: BTreeMap::new(),
            waiting: Guests::default(),
            last: 0,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.udp.iter().map(|udp| udp.local)
    }

    /// What was asked and answered.
    pub fn counts(&self) -> &Counts {
        self.responder.counts()
    }

    /// Connections at present.
    pub fn open(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    /// When to call [`Dns::turn`] even if nothing happens.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        if (0..TOKENS).any(|number| self.waits(number)) {
            return Some(now);
        }
        let deadlines = self.connections.iter().flatten().map(|connection| connection.deadline);
        let waiting = self.connections.iter().flatten().filter_map(|connection| connection.parked);
        deadlines.chain(waiting).chain(self.parked.first_key_value().map(|(_, parked)| parked.until)).min()
    }

    /// One of our tokens is ready; it is served when it is its turn.
    pub fn ready(&mut self, token: Token) {
        let Some(number) = token.0.checked_sub(self.first).filter(|number| *number < TOKENS) else { return };
        self.mark(number, true);
    }

    /// Whether it is for us to go on with a token, not for its socket.
    fn waits(&self, number: usize) -> bool {
        match number.checked_sub(2 * MAX_ADDRESSES) {
            Some(connection) => self.connections[connection].as_ref().is_some_and(|other| other.more),
            None if number.is_multiple_of(2) => self.udp.get(number / 2).is_some_and(|udp| udp.ready),
            None => self.tcp.get(number / 2).is_some_and(|tcp| tcp.ready),
        }
    }

    fn mark(&mut self, number: usize, ready: bool) {
        match number.checked_sub(2 * MAX_ADDRESSES) {
            Some(connection) => {
                if let Some(connection) = &mut self.connections[connection] {
                    connection.more = ready;
                }
            }
            None if number.is_multiple_of(2) => {
                if let Some(udp) = self.udp.get_mut(number / 2) {
                    udp.ready = ready;
                }
            }
            None => {
                if let Some(tcp) = self.tcp.get_mut(number / 2) {
                    tcp.ready = ready;
                }
            }
        }
    }

    /// Reads and answers for a slice, each socket in its turn, and ends what waited too long. If there are `news` of
    /// pools, who waited for those is answered.
    pub fn turn(&mut self, pools: &mut impl Pools, now: Time, news: bool) {
        if news {
            self.resume(pools, now);
        }
        let end = Instant::now() + SLICE;
        // Letting in is cheap, and who waits for it in vain waits for a second.
        for number in 0..self.tcp.len() {
            if self.tcp[number].ready {
                self.tcp[number].ready = !self.accept(now, number);
            }
        }
        let first = self.next;
        for number in (first..TOKENS).chain(0..first) {
            if !self.waits(number) {
                continue;
            }
            if Instant::now() >= end {
                self.next = number;
                break;
            }
            match number.checked_sub(2 * MAX_ADDRESSES) {
                Some(connection) => self.serve(pools, now, connection),
                None if number.is_multiple_of(2) => {
                    let done = self.read(pools, now, number / 2, end);
                    self.mark(number, !done);
                }
                // They have had their turn.
                None => continue,
            }
            self.next = (number + 1) % TOKENS;
        }
        while let Some((&first, parked)) = self.parked.first_key_value()
            && parked.until <= now
            && let Some(parked) = self.unpark(first)
        {
            // What is not known by now is said to be so.
            self.respond(pools, parked.socket, parked.envelope, &parked.query);
        }
        for number in 0..MAX_CONNECTIONS {
            let late = |connection: &DnsConnection| connection.parked.is_some_and(|until| until <= now);
            if self.connections[number].as_ref().is_some_and(late) {
                self.serve(pools, now, number);
            }
            let over = |connection: &DnsConnection| connection.deadline <= now || late(connection);
            if self.connections[number].as_ref().is_some_and(over) {
                self.connections[number] = None;
            }
        }
    }

    fn resume(&mut self, pools: &mut impl Pools, now: Time) {
        for number in self.parked.keys().copied().collect::<Vec<_>>() {
            let Some(parked) = self.parked.get_mut(&number) else { continue };
            let (socket, envelope, query) =
                (parked.socket, parked.envelope, std::mem::take(&mut parked.query));
            if self.respond(pools, socket, envelope, &query) {
                self.unpark(number);
            } else if let Some(parked) = self.parked.get_mut(&number) {
                parked.query = query;
            }
        }
        for number in 0..MAX_CONNECTIONS {
            if self.connections[number].as_ref().is_some_and(|connection| connection.parked.is_some()) {
                self.serve(pools, now, number);
            }
        }
    }

    /// Datagrams of one socket, until then; whether there are no more.
    fn read(&mut self, pools: &mut impl Pools, now: Time, number: usize, end: Instant) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = false;
        for count in 0..BATCH {
            if count > 0 && Instant::now() >= end {
                break;
            }
            let Udp { socket, local, .. } = &self.udp[number];
            let (length, envelope) = match receive(socket, *local, &mut buffer) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    done = true;
                    break;
                }
                // What the network says of an earlier answer.
                Err(_) => continue,
            };
            let query = &buffer[..length];
            if !self.allow.contains(envelope.from.ip()) {
                self.responder.counts_mut().not_allowed += 1;
            } else if length <= MAX_QUERY && !self.respond(pools, number, envelope, query) {
                self.park(number, envelope, query.to_vec(), now + PARKED);
            }
        }
        self.buffer = buffer;
        done
    }

    fn park(&mut self, socket: usize, envelope: Envelope, query: Vec<u8>, until: Time) {
        let from = Some(envelope.from.ip());
        if self.parked.len() >= MAX_PARKED
            && let Some(leaving) = self.waiting.who_goes(from)
        {
            self.unpark(leaving.guest);
        }
        self.last += 1;
        let place = self.waiting.add(from, self.last);
        self.parked.insert(self.last, Parked { socket, envelope, query, until, place });
    }

    fn unpark(&mut self, number: u64) -> Option<Parked> {
        let parked = self.parked.remove(&number)?;
        self.waiting.remove(parked.place);
        Some(parked)
    }

    /// Answers a datagram; `false`: later.
    fn respond(&mut self, pools: &mut impl Pools, number: usize, envelope: Envelope, query: &[u8]) -> bool {
        let Udp { socket, local, .. } = &self.udp[number];
        let here = [envelope.here.map_or(local.ip(), |(here, _)| here)];
        let asker =
            Asker { from: envelope.from.ip().to_canonical(), tcp: false, now: wall_clock(), here: &here };
        match self.responder.answer(pools, &asker, query) {
            // Who can't be reached asks again.
            Reply::Send(answer) => _ = send(socket, envelope, answer),
            Reply::Nothing => {}
            Reply::Later => return false,
        }
        true
    }

    /// Lets some in; whether there are no more.
    fn accept(&mut self, now: Time, listener: usize) -> bool {
        let Tcp { listener, local, .. } = &self.tcp[listener];
        let local = *local;
        let mut accepted = Vec::new();
        let mut done = false;
        for _ in 0..ACCEPTS {
            match listener.accept() {
                Ok((_, from)) if !self.allow.contains(from.ip()) => {
                    self.responder.counts_mut().not_allowed += 1;
                }
                Ok((stream, from)) => accepted.push((stream, from)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::debug!("DNS: {error}");
                    }
                    done = true;
                    break;
                }
            }
        }
        for (mut stream, from) in accepted {
            let free = self.connections.iter().position(Option::is_none);
            let number = free.unwrap_or_else(|| {
                self.responder.counts_mut().connections_dropped += 1;
                self.who_goes(from.ip()).unwrap_or(0)
            });
            // Closed before the new one may get its descriptor.
            self.connections[number] = None;
            let token = Token(self.first + 2 * MAX_ADDRESSES + number);
            if self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
                continue;
            }
            self.responder.counts_mut().connections += 1;
            let here = stream.local_addr().map_or(local.ip(), |local| local.ip().to_canonical());
            self.connections[number] = Some(DnsConnection {
                stream,
                from: from.ip().to_canonical(),
                here,
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
                deadline: now + IDLE,
                parked: None,
                more: true,
            });
        }
        done
    }

    /// Who makes room for a connection from there.
    fn who_goes(&self, newcomer: IpAddr) -> Option<usize> {
        let open = self.connections.iter().enumerate();
        let mut open: Vec<_> =
            open.filter_map(|(number, connection)| Some((number, connection.as_ref()?))).collect();
        open.sort_by_key(|(_, connection)| connection.deadline);
        let mut guests = Guests::default();
        for (number, connection) in open {
            guests.add(Some(connection.from), number);
        }
        guests.who_goes(Some(newcomer)).map(|leaving| leaving.guest)
    }

    fn serve(&mut self, pools: &mut impl Pools, now: Time, number: usize) {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        if connection.go_on(&mut self.responder, pools, now).is_err() {
            self.connections[number] = None;
        }
    }
}

impl DnsConnection {
    /// Reads, answers and writes what can be, a few queries at a time; an error: it is over.
    fn go_on(&mut self, responder: &mut Responder, pools: &mut impl Pools, now: Time) -> io::Result<()> {
        let mut answered = 0;
        loop {
            self.more = false;
            if !self.write(now)? {
                return Ok(());
            }
            if answered == PIPELINED {
                self.more = true;
                return Ok(());
            }
            // One answer at a time: nothing is kept for who does not read.
            while self.output.is_empty()
                && let Some((length, rest)) = self.input.split_first_chunk::<2>()
                && let length = usize::from(u16::from_be_bytes(*length))
                && rest.len() >= length
            {
                let asker = Asker { from: self.from, tcp: true, now: wall_clock(), here: &[self.here] };
                match responder.answer(pools, &asker, &rest[..length]) {
                    Reply::Send(answer) => {
                        self.output.extend_from_slice(&(answer.len() as u16).to_be_bytes());
                        self.output.extend_from_slice(answer);
                    }
                    Reply::Nothing => return Err(ErrorKind::InvalidData.into()),
                    Reply::Later => {
                        self.parked.get_or_insert(now + PARKED);
                        return Ok(());
                    }
                }
                self.parked = None;
                answered += 1;
                self.input.drain(..2 + length);
                self.deadline = now + IDLE;
            }
            if self.output.is_empty() && !self.read()? {
                return Ok(());
            }
        }
    }

    /// More of the next query; `false`: there is none at present.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                let length = self.input.first_chunk().map_or(0, |length| u16::from_be_bytes(*length));
                match usize::from(length) <= MAX_QUERY {
                    true => Ok(true),
                    false => Err(ErrorKind::InvalidData.into()),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether everything is written.
    fn write(&mut self, now: Time) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.deadline = now + IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }
}

/// Milliseconds since 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The same port for both; where any will do, another that is free for both.
fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let socket = UdpSocket::bind(address)?;
        let local = socket.local_addr()?;
        match TcpListener::bind(local) {
            Ok(listener) => {
                // As many as the kernel lets wait for a turn of the loop.
                listen(&listener, Backlog::MAXALLOWABLE)?;
                if local.ip().is_unspecified() {
                    // An answer must come from the address that was asked.
                    match local.is_ipv4() {
                        true => setsockopt(&socket, Ipv4PacketInfo, &true)?,
                        false => {
                            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
                        }
                    }
                }
                return Ok((socket, listener));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && address.port() == 0 && tries < 16 => {
                tries += 1
            }
            Err(error) => return Err(error),
        }
    }
}

/// A datagram; `None`: one from nowhere.
fn receive(
    socket: &UdpSocket,
    local: SocketAddr,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Envelope)>> {
    if !local.ip().is_unspecified() {
        let (length, from) = socket.recv_from(buffer)?;
        return Ok(Some((length, Envelope { from, here: None })));
    }
    let mut control = cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let from = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
    });
    let mut here = None;
    for info in message.cmsgs()? {
        match info {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                here = Some((address.into(), u32::try_from(info.ipi_ifindex).unwrap_or(0)));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                here = Some((address.to_canonical(), info.ipi6_ifindex));
            }
            _ => {}
        }
    }
    Ok(from.map(|from| (message.bytes, Envelope { from, here })))
}

fn send(socket: &UdpSocket, envelope: Envelope, answer: &[u8]) -> io::Result<()> {
    let Some((here, interface)) = envelope.here else {
        return socket.send_to(answer, envelope.from).map(|_| ());
    };
    let parts = [IoSlice::new(answer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let to = SockaddrStorage::from(envelope.from);
    let descriptor = socket.as_raw_fd();
    match (envelope.from, here) {
        (SocketAddr::V4(_), IpAddr::V4(here)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(here).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(descriptor, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
        }
        (SocketAddr::V6(from), here) => {
            let here = match here {
                IpAddr::V4(here) => here.to_ipv6_mapped(),
                IpAddr::V6(here) => here,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: here.octets() },
                // Only where the address alone does not say it.
                ipi6_ifindex: if is_link_local(&from) { interface } else { 0 },
            };
            sendmsg(descriptor, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
        }
        (SocketAddr::V4(_), IpAddr::V6(_)) => {}
    }
    Ok(())
}

fn is_link_local(address: &SocketAddrV6) -> bool {
    address.ip().segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
