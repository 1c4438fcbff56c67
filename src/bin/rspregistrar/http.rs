//! The status page's server: a few short-lived connections on the registrar's own poll. Nothing here
//! waits, and a page with very many elements is made in pieces, as fast as its reader takes them.

use super::page::{self, Asked, Page};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use rserpool::machine::Time;
use rserpool::runtime::registrar::Server;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections at a time; beyond, the oldest goes.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const MAX_REQUEST: usize = 8192;
/// How long pages are made before others are served.
const SLICE: Duration = Duration::from_millis(5);
/// From the connection to the end of the request, and without progress in sending the answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum State {
    Reading(Vec<u8>),
    Writing { out: Vec<u8>, written: usize, rest: Option<Page> },
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    state: State,
    deadline: Time,
}

/// See the module.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    first: usize,
    connections: Vec<Option<Connection>>,
    /// Connections that wait for their turn, not for their socket.
    ready: Vec<usize>,
}

impl Http {
    /// Listens at `address`; uses tokens from `first` to `first` + 64.
    pub fn bind(server: &Server, address: SocketAddr, first: usize) -> io::Result<Http> {
        let mut listener = TcpListener::bind(address)?;
        server.registry().register(&mut listener, Token(first), Interest::READABLE)?;
        let connections = (0..MAX_CONNECTIONS).map(|_| None).collect();
        Ok(Http { listener, first, connections, ready: Vec::new() })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// When to call [`Http::turn`] even if nothing happens.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        self.connections.iter().flatten().map(|connection| connection.deadline).min()
    }

    /// One of our tokens is ready.
    pub fn ready(&mut self, server: &Server, token: Token) {
        match token.0.checked_sub(self.first) {
            Some(0) => self.accept(server),
            Some(number) if self.is_page(number - 1) => self.queue(number - 1),
            Some(number) => self.serve(server, number - 1),
            None => {}
        }
    }

    /// Whether a connection gets something long, which is made when it is its turn.
    fn is_page(&self, number: usize) -> bool {
        let connection = self.connections.get(number).and_then(Option::as_ref);
        connection.is_some_and(|connection| matches!(connection.state, State::Writing { rest: Some(_), .. }))
    }

    fn queue(&mut self, number: usize) {
        if !self.ready.contains(&number) {
            self.ready.push(number);
        }
    }

    /// Goes on with what waits for its turn, and ends what waited too long.
    pub fn turn(&mut self, server: &Server) {
        let begin = Instant::now();
        let mut waiting = std::mem::take(&mut self.ready).into_iter();
        while begin.elapsed() < SLICE
            && let Some(number) = waiting.next()
        {
            self.serve(server, number);
        }
        // Those who have had their turn stand behind those who have not.
        let served = std::mem::replace(&mut self.ready, waiting.collect());
        served.into_iter().for_each(|number| self.queue(number));
        let now = server.now();
        for connection in &mut self.connections {
            if connection.as_ref().is_some_and(|connection| connection.deadline <= now) {
                *connection = None;
            }
        }
    }

    fn accept(&mut self, server: &Server) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return log::debug!("status page: {error}"),
            };
            let free = self.connections.iter().position(Option::is_none);
            let oldest = || {
                let age = |number: &usize| self.connections[*number].as_ref().map(|c| c.deadline);
                (0..MAX_CONNECTIONS).min_by_key(age).unwrap_or(0)
            };
            let number = free.unwrap_or_else(oldest);
            let token = Token(self.first + 1 + number);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = server.registry().register(&mut stream, token, interest) {
                return log::debug!("status page: {error}");
            }
            let deadline = server.now() + PATIENCE;
            self.connections[number] =
                Some(Connection { stream, state: State::Reading(Vec::new()), deadline });
            self.serve(server, number);
        }
    }

    fn serve(&mut self, server: &Server, number: usize) {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        match connection.go_on(server) {
            Ok(Progress::Waits) => {}
            Ok(Progress::More) => self.queue(number),
            Ok(Progress::Done) | Err(_) => self.connections[number] = None,
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
    fn go_on(&mut self, server: &Server) -> io::Result<Progress> {
        if let State::Reading(head) = &mut self.state {
            let Some(answer) = read_request(&mut self.stream, head)? else { return Ok(Progress::Waits) };
            let (out, rest) = page::answer(server, answer);
            let is_long = rest.is_some();
            self.state = State::Writing { out, written: 0, rest };
            if is_long {
                return Ok(Progress::More);
            }
        }
        let State::Writing { out, written, rest } = &mut self.state else { return Ok(Progress::Waits) };
        while *written < out.len() {
            match self.stream.write(&out[*written..]) {
                Ok(count) => {
                    *written += count;
                    self.deadline = server.now() + PATIENCE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(page) = rest else {
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
            return Ok(Progress::Done);
        };
        out.clear();
        *written = 0;
        if page.next_piece(server, out) {
            *rest = None;
        }
        Ok(Progress::More)
    }
}

fn read_request(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let mut buffer = [0; 2048];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(asked) = parse(head) {
            return Ok(Some(asked));
        }
    }
}

fn parse(head: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) => return Some(Err("431 Request Header Fields Too Large")),
        Err(_) => return Some(Err("400 Bad Request")),
    }
    let path = request.path.unwrap_or("/").split('?').next().unwrap_or("/").to_string();
    Some(match request.method {
        Some("GET") => Ok((path, true)),
        Some("HEAD") => Ok((path, false)),
        _ => Err("405 Method Not Allowed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_apart() {
        assert_eq!(
            parse(b"GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some(Ok(("/healthz".into(), true)))
        );
        assert_eq!(parse(b"HEAD / HTTP/1.0\r\n\r\n"), Some(Ok(("/".into(), false))));
        assert_eq!(parse(b"GET / HT"), None);
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), Some(Err("405 Method Not Allowed")));
        assert_eq!(parse(&[0; 10]), Some(Err("400 Bad Request")));
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'x'; MAX_REQUEST]].concat();
        assert_eq!(parse(&endless), Some(Err("431 Request Header Fields Too Large")));
    }
}
