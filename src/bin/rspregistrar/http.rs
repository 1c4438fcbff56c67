//! The operator's page's server: a few connections on the registrar's own poll. Nothing here waits, and a page
//! with very many elements is made in pieces, as fast as its reader takes them. Where the registrar has TLS, so has
//! the page, at the same port: the first byte tells.

use super::events::{self, Stream};
use super::page::{self, Answer, Page, Site};
use super::request::{self, Request};
use super::wire::{Begun, Wire};
use mio::net::TcpListener;
use mio::{Interest, Token};
use rserpool::machine::Time;
use rserpool::runtime::guests::Guests;
use rserpool::runtime::registrar::Server;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Connections at a time; beyond, the oldest that is no event stream goes, of the host that has most of them: first of those
/// that have not said yet what they want.
const MAX_CONNECTIONS: usize = 64;
/// Event streams among them; beyond, one is taken only for one of a host that has more of them than the newcomer's would
/// have then, so that there is room for others.
const MAX_STREAMS: usize = 16;
/// How long readers are let in and served, in a turn of the loop: everything else waits for that.
const SLICE: Duration = Duration::from_millis(2);
/// Connections that are let in, in a turn.
const ACCEPTS: usize = 8;
/// Bytes that are written to a reader, or read from one that has nothing to say, before others have their turn.
const PORTION: usize = 128 << 10;
/// From the connection to the end of the request, and without progress in sending the answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum State {
    Reading(Vec<u8>),
    Writing { out: Vec<u8>, written: usize, rest: Option<Page> },
    Streaming { out: Vec<u8>, written: usize, stream: Stream },
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    state: State,
    deadline: Time,
}

/// See the module.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    local: SocketAddr,
    first: usize,
    connections: Vec<Option<Connection>>,
    /// Perhaps somebody waits to be let in.
    knocking: bool,
    /// Connections that wait for their turn, not for their socket.
    ready: Vec<usize>,
    /// The hosts of those that had a turn lately, the last one last.
    served: VecDeque<IpAddr>,
    /// What the answers need to know beside the server.
    pub site: Site,
}

impl Http {
    /// Listens at `address`; uses tokens from `first` to `first` + 64.
    pub fn bind(server: &Server, address: SocketAddr, first: usize, site: Site) -> io::Result<Http> {
        let mut listener = TcpListener::bind(address)?;
        server.registry().register(&mut listener, Token(first), Interest::READABLE)?;
        let connections = (0..MAX_CONNECTIONS).map(|_| None).collect();
        let local = listener.local_addr()?;
        let (ready, served) = (Vec::new(), VecDeque::new());
        Ok(Http { listener, local, first, connections, knocking: false, ready, served, site })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// When to call [`Http::turn`] even if nothing happens.
    pub fn poll_timeout(&self, server: &Server) -> Option<Time> {
        if self.knocking || !self.ready.is_empty() {
            return Some(server.now());
        }
        self.connections.iter().flatten().map(|connection| connection.poll_timeout(server)).min()
    }

    /// One of our tokens is ready; it is served when it is its turn.
    pub fn ready(&mut self, token: Token) {
        match token.0.checked_sub(self.first) {
            Some(0) => self.knocking = true,
            Some(number) if number <= MAX_CONNECTIONS => self.queue(number - 1),
            _ => {}
        }
    }

    fn queue(&mut self, number: usize) {
        if !self.ready.contains(&number) {
            self.ready.push(number);
        }
    }

    /// Lets newcomers in, goes on with what waits for its turn, tells news, and ends what waited too long: a slice of
    /// all that.
    pub fn turn(&mut self, server: &mut Server) {
        let begin = Instant::now();
        let now = server.now();
        for number in 0..MAX_CONNECTIONS {
            let Some(connection) = &self.connections[number] else { continue };
            if connection.deadline <= now {
                self.connections[number] = None;
            } else if connection.is_stream() && connection.poll_timeout(server) <= now {
                self.queue(number);
            }
        }
        if self.knocking {
            self.knocking = !self.accept(server, begin);
        }
        // Once each: who has had his turn stands behind those who have not.
        let mut waiting = std::mem::take(&mut self.ready);
        while begin.elapsed() < SLICE
            && let Some(place) = self.whose_turn(&waiting)
        {
            self.serve(server, waiting.remove(place));
        }
        let served = std::mem::replace(&mut self.ready, waiting);
        served.into_iter().for_each(|number| self.queue(number));
    }

    /// Where the one stands whose host was served longest ago.
    fn whose_turn(&mut self, waiting: &[usize]) -> Option<usize> {
        let host = |number: usize| Some(self.connections.get(number)?.as_ref()?.wire.host());
        let last = |&(_, &number): &(usize, &usize)| {
            let host = host(number);
            self.served.iter().position(|served| Some(*served) == host).map_or(0, |place| place + 1)
        };
        let (place, &number) = waiting.iter().enumerate().min_by_key(last)?;
        if let Some(host) = host(number) {
            self.served.retain(|served| *served != host);
            self.served.push_back(host);
            if self.served.len() > MAX_CONNECTIONS {
                self.served.pop_front();
            }
        }
        Some(place)
    }

    /// Event streams that are open.
    pub fn streams(&self) -> usize {
        self.connections.iter().flatten().filter(|connection| connection.is_stream()).count()
    }

    /// Lets some in; whether there are no more.
    fn accept(&mut self, server: &Server, begin: Instant) -> bool {
        for _ in 0..ACCEPTS {
            // Those who are in have the rest of the slice.
            if begin.elapsed() >= SLICE / 2 {
                return false;
            }
            let (mut stream, peer) = match self.listener.accept() {
                Ok((_, peer)) if !server.allowed().contains(peer.ip()) => {
                    log::debug!("status page: {peer} is not from an allowed network");
                    continue;
                }
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::debug!("operator's page: {error}");
                    return true;
                }
            };
            let free = self.connections.iter().position(Option::is_none);
            let number = free.or_else(|| self.who_goes(peer.ip())).unwrap_or(0);
            let token = Token(self.first + 1 + number);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = server.registry().register(&mut stream, token, interest) {
                log::debug!("operator's page: {error}");
                return true;
            }
            let deadline = server.now() + PATIENCE;
            self.connections[number] = Some(Connection {
                wire: Wire::new(stream, peer),
                state: State::Reading(Vec::new()),
                deadline,
            });
            self.queue(number);
        }
        false
    }

    /// The numbers of the event streams of the host that has most of them.
    fn most_streams(&self) -> Vec<usize> {
        let mut hosts: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for (number, connection) in self.connections.iter().enumerate() {
            if let Some(connection) = connection.as_ref().filter(|connection| connection.is_stream()) {
                hosts.entry(connection.wire.host()).or_default().push(number);
            }
        }
        hosts.into_values().max_by_key(Vec::len).unwrap_or_default()
    }

    /// Who makes room for a connection from there.
    fn who_goes(&self, newcomer: IpAddr) -> Option<usize> {
        let open = self.connections.iter().enumerate();
        let open = open.filter_map(|(number, connection)| Some((number, connection.as_ref()?)));
        let mut open: Vec<_> = open.filter(|(_, connection)| !connection.is_stream()).collect();
        open.sort_by_key(|(_, connection)| (!connection.is_asking(), connection.deadline));
        let mut guests = Guests::default();
        for (number, connection) in open {
            guests.add(Some(connection.wire.host()), number);
        }
        guests.who_goes(Some(newcomer)).map(|leaving| leaving.guest)
    }

    /// Whether there is room for one more event stream of a host, or one of another host's makes room for it.
    fn has_room(&self, host: IpAddr) -> bool {
        let theirs =
            self.connections.iter().flatten().filter(|other| other.is_stream() && other.wire.host() == host);
        self.streams() < MAX_STREAMS || self.most_streams().len() > theirs.count() + 1
    }

    fn serve(&mut self, server: &mut Server, number: usize) {
        let streams = self.streams();
        let Some(host) = self.connections.get(number).and_then(Option::as_ref).map(|one| one.wire.host())
        else {
            return;
        };
        let has_room = self.has_room(host);
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        match connection.go_on(server, &self.site, self.local, (streams, has_room)) {
            Ok(Progress::Waits) => {}
            Ok(Progress::More) => self.queue(number),
            Ok(Progress::Done) | Err(_) => self.connections[number] = None,
        }
        if self.streams() > MAX_STREAMS
            && let Some(&number) = self.most_streams().first()
        {
            self.connections[number] = None;
        }
    }
}

enum Progress {
    /// For its socket.
    Waits,
    /// For its turn.
    More,
    Done,
}

impl Connection {
    fn is_stream(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    fn is_asking(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    fn poll_timeout(&self, server: &Server) -> Time {
        match &self.state {
            State::Streaming { stream, .. } => self.deadline.min(stream.poll_timeout(server)),
            _ => self.deadline,
        }
    }

    fn go_on(
        &mut self,
        server: &mut Server,
        site: &Site,
        local: SocketAddr,
        (streams, has_room): (usize, bool),
    ) -> io::Result<Progress> {
        if let State::Reading(head) = &mut self.state {
            let is_private = match self.wire.begin(server)? {
                Begun::NotYet => return Ok(Progress::Waits),
                Begun::Private => true,
                Begun::Open => false,
            };
            let Some(request) = read_request(&mut self.wire, head)? else { return Ok(Progress::Waits) };
            let is_operators = self.wire.is_operators();
            let request = match request.map(|request| request.came(is_private, is_operators)) {
                Ok(_) if !is_private && self.wire.wants_tls(server) => Err(page::WANTS_TLS),
                Ok(request) if !request.is_for(local) => Err("421 Misdirected Request"),
                Ok(request) if request.path == "/events" && request.with_body && !has_room => {
                    Err(page::TOO_MANY_STREAMS)
                }
                other => other,
            };
            match page::answer(server, site, streams, request) {
                Answer::Whole(out) => self.state = State::Writing { out, written: 0, rest: None },
                Answer::Long(out, page) => {
                    self.state = State::Writing { out, written: 0, rest: Some(page) };
                    return Ok(Progress::More);
                }
                Answer::Stream(out, stream) => self.state = State::Streaming { out, written: 0, stream },
            }
        }
        if self.is_stream() {
            return self.stream_on(server);
        }
        let State::Writing { out, written, rest } = &mut self.state else { return Ok(Progress::Waits) };
        match write_on(&mut self.wire, out, written, || self.deadline = server.now() + PATIENCE)? {
            Progress::Done => {}
            other => return Ok(other),
        }
        let Some(page) = rest else {
            self.wire.finish();
            return Ok(Progress::Done);
        };
        out.clear();
        *written = 0;
        if page.next_piece(server, out) {
            *rest = None;
        }
        // It is for us to go on, not for the reader.
        self.deadline = server.now() + PATIENCE;
        Ok(Progress::More)
    }

    /// News for an event stream; its reader says nothing more but that it goes.
    fn stream_on(&mut self, server: &Server) -> io::Result<Progress> {
        let mut nothing = [0; 2048];
        let mut read = 0;
        let mut chatters = false;
        while !chatters {
            match self.wire.read(&mut nothing) {
                Ok(0) => return Ok(Progress::Done),
                Ok(count) => {
                    read += count;
                    chatters = read >= PORTION;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let State::Streaming { out, written, stream } = &mut self.state else { return Ok(Progress::Waits) };
        stream.go_on(server, out);
        if out.len() - *written > events::MAX_UNREAD {
            return Ok(Progress::Done);
        }
        let progress = write_on(&mut self.wire, out, written, || {})?;
        if matches!(progress, Progress::Done) {
            out.clear();
            *written = 0;
            // Longer than the longest silence: while something is unread, no progress ends it.
            self.deadline = server.now() + PATIENCE;
        }
        Ok(if chatters || matches!(progress, Progress::More) { Progress::More } else { Progress::Waits })
    }
}

/// Writes what the socket takes, up to a portion; done: that was all.
fn write_on(
    wire: &mut Wire,
    out: &[u8],
    written: &mut usize,
    mut progress: impl FnMut(),
) -> io::Result<Progress> {
    let end = out.len().min(*written + PORTION);
    while *written < end {
        match wire.write(&out[*written..end]) {
            Ok(count) => {
                *written += count;
                progress();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waits),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match wire.flush()? {
        false => Progress::Waits,
        true if *written < out.len() => Progress::More,
        true => Progress::Done,
    })
}

/// What was asked for, or the status to refuse it with. `None`: the request is not complete.
fn read_request(wire: &mut Wire, head: &mut Vec<u8>) -> io::Result<Option<Result<Request, &'static str>>> {
    let mut buffer = [0; 2048];
    loop {
        match wire.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(request) = request::parse(head) {
            return Ok(Some(request));
        }
    }
}
