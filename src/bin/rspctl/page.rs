//! The registrar's operator's page (`--http`), as a client: requests that end, with time limits.

use crate::resolve;
use clap::Args;
use rserpool::machine::trust::Roles;
use rserpool::runtime::address;
use rserpool::transport::stream;
use rserpool::transport::tls::{Engine, Judge, Purpose, TlsStream};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

/// Where a registrar's page is if nobody says: the packages' port.
const USUAL: &str = "127.0.0.1:8863";
const USUAL_TOKEN: &str = "/etc/rserpool/token";
const SECURE: &str = "https://";
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer taken.
const LONGEST: u64 = 64 << 20;

/// Which registrar.
#[derive(Args, Clone)]
pub struct Where {
    /// The registrar's page, its --http (or RSP_HTTP), after https:// over TLS [default: 127.0.0.1:8863]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
}

/// What those have to know who change something.
#[derive(Args, Clone)]
pub struct Token {
    /// File whose first line is the registrar's --httptoken (or RSP_HTTP_TOKEN_FILE) [default: /etc/rserpool/token]
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

impl Token {
    /// `None`: nobody named a file, the usual one is not there, and `optional`: our certificate may do.
    fn read(&self, optional: bool) -> Result<Option<String>, String> {
        let variable = std::env::var_os("RSP_HTTP_TOKEN_FILE").map(PathBuf::from);
        let named = self.token.clone().or(variable);
        let optional = optional && named.is_none();
        let path = named.unwrap_or_else(|| USUAL_TOKEN.into());
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.lines().next().unwrap_or_default().trim().to_string())),
            Err(_) if optional => Ok(None),
            Err(error) => Err(format!("--token={}: {error}", path.display())),
        }
    }
}

/// An answer's head is read.
struct Answer {
    status: u16,
    body: BufReader<Box<dyn Both>>,
}

/// A connection with the page, plain or inside TLS.
trait Both: Read + Write {}

impl<T: Read + Write> Both for T {}

/// Inside TLS; waits as long as a plain connection would.
struct Secured {
    socket: TcpStream,
    tls: TlsStream,
}

impl Secured {
    /// With whoever proves that it is a registrar of the scope.
    fn open(socket: TcpStream) -> Result<Secured, String> {
        let keeper = resolve::tls()?.open().map_err(|error| error.to_string())?;
        let keeper = keeper.ok_or("https needs a certificate: --tls-dir, or RSP_TLS_DIR")?;
        let scope = keeper.scope();
        let judge = Judge::new(move |names| {
            let roles = Roles::parse(names.iter().map(String::as_str));
            let is_one = roles.is_registrar(scope.as_deref());
            if is_one {
                Ok(())
            } else {
                Err(format!("it is no registrar of ours: its certificate says {roles}"))
            }
        });
        let engine = Engine::dialled(keeper.credentials(), Purpose::Page, Some(judge));
        let mut tls = TlsStream::new(engine.map_err(|failure| failure.to_string())?);
        while !tls.prove(socket.as_fd()).map_err(|failure| failure.to_string())? {
            wait(&socket, libc::POLLIN, PATIENCE).map_err(|error| error.to_string())?;
        }
        Ok(Secured { socket, tls })
    }
}

/// Until the socket is ready.
fn wait(socket: &TcpStream, events: i16, patience: Duration) -> io::Result<()> {
    let mut entries = [libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 }];
    match stream::poll(&mut entries, i32::try_from(patience.as_millis()).unwrap_or(i32::MAX)) {
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
    }
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.receive(self.socket.as_fd(), &mut [IoSliceMut::new(buffer)]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.socket, libc::POLLIN, 2 * PATIENCE)?;
                }
                other => return other,
            }
        }
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.tls.send(self.socket.as_fd(), &[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.socket, libc::POLLOUT, PATIENCE)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.tls.flush(self.socket.as_fd())? {
            wait(&self.socket, libc::POLLOUT, PATIENCE)?;
        }
        Ok(())
    }
}

impl Where {
    fn name(&self) -> String {
        let variable = || std::env::var("RSP_HTTP").ok().filter(|value| !value.is_empty());
        self.http.clone().or_else(variable).unwrap_or_else(|| USUAL.into())
    }

    fn is_secure(&self) -> bool {
        self.name().starts_with(SECURE)
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Result<Answer, String> {
        let name = self.name();
        let wrong = |error: &dyn std::fmt::Display| format!("the registrar's page at {name}: {error}");
        let secure = self.is_secure();
        let name = name.trim_start_matches(SECURE).trim_start_matches("http://");
        if name.contains("://") {
            return Err(wrong(&"HOST:PORT is expected, or an URL with http:// or https://"));
        }
        // Of an URL, where it leads to: the path is ours.
        let name = name.split('/').next().unwrap_or_default();
        // A port alone is one of this host, as with the registrar's option.
        let text = match name.bytes().all(|byte| byte.is_ascii_digit()) {
            true => format!("127.0.0.1:{name}"),
            false => name.to_owned(),
        };
        let usual = if secure { 443 } else { 80 };
        let addresses = address::parse(&text, usual).map_err(|error| wrong(&error))?;
        let mut last = None;
        for to in addresses {
            match TcpStream::connect_timeout(&to, PATIENCE) {
                Ok(stream) => {
                    let timeouts = stream.set_read_timeout(Some(2 * PATIENCE));
                    timeouts
                        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
                        .map_err(|error| wrong(&error))?;
                    let host = if to.ip().is_loopback() {
                        format!("localhost:{}", to.port())
                    } else {
                        to.to_string()
                    };
                    let request = format!(
                        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{headers}Connection: close\r\n\r\n"
                    );
                    let mut stream: Box<dyn Both> = match secure {
                        true => Box::new(Secured::open(stream).map_err(|why| wrong(&why))?),
                        false => Box::new(stream),
                    };
                    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
                    sent.map_err(|error| wrong(&error))?;
                    return read_head(stream).map_err(|error| wrong(&error));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => wrong(&error),
            None => wrong(&"no address"),
        })
    }

    /// Something to read.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.read(self.ask("GET", path, "")?)
    }

    /// Something to change.
    pub fn post(&self, path: &str, token: &Token) -> Result<Value, String> {
        let secret = token.read(self.is_secure())?;
        let header = secret.map(|secret| format!("Authorization: Bearer {secret}\r\n"));
        self.read(self.ask("POST", path, &header.unwrap_or_default())?)
    }

    fn read(&self, answer: Answer) -> Result<Value, String> {
        let name = self.name();
        let mut body = String::new();
        let read = answer.body.take(LONGEST).read_to_string(&mut body);
        read.map_err(|error| format!("the registrar's page at {name}: {error}"))?;
        let value = serde_json::from_str::<Value>(&body);
        match (answer.status, value) {
            (200..=299, Ok(value)) => Ok(value),
            (200..=299, Err(error)) => Err(format!("{name} is no registrar's page: {error}")),
            (_, Ok(value)) if value["error"].is_string() => {
                Err(value["error"].as_str().unwrap_or_default().into())
            }
            (status, _) => Err(format!("{name}: {status}: {}", body.lines().next().unwrap_or_default())),
        }
    }

    /// The lines of an event stream, until `see` has seen enough. The stream is never silent for long.
    pub fn stream(&self, path: &str, mut see: impl FnMut(&str) -> bool) -> Result<(), String> {
        let answer = self.ask("GET", path, "Accept: text/event-stream\r\n")?;
        if answer.status != 200 {
            return self.read(answer).map(|_| ());
        }
        for line in answer.body.lines() {
            let line = line.map_err(|error| format!("the registrar's page at {}: {error}", self.name()))?;
            if !see(&line) {
                return Ok(());
            }
        }
        Err(format!("the registrar's page at {}: the stream ended", self.name()))
    }
}

fn read_head(stream: Box<dyn Both>) -> std::io::Result<Answer> {
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    (&mut body).take(1024).read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("it does not speak HTTP"))?;
    for _ in 0..100 {
        line.clear();
        if (&mut body).take(8192).read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Answer { status, body });
        }
    }
    Err(std::io::Error::other("too many headers"))
}

/// Bytes as a parameter has them.
pub fn escaped(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    bytes
        .iter()
        .map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_kinds_are_escaped() {
        assert_eq!(escaped(b"a b&\xff"), "a%20b%26%ff");
    }
}
