//! Whether a server serves: what is asked, and how much of an answer counts.

use super::place;
use rserpool::transport::diag::{self, Accepted};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a server is looked at that has not accepted yet, or a command that has not ended.
const GLANCE: Duration = Duration::from_millis(10);
/// The longest answer that is looked at.
const MAX_ANSWER: usize = 64 << 10;

/// What a server is asked. Each begins with a connection, except a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It accepts connections: of a server on this machine, that its process takes them from the kernel.
    Accepts,
    /// It answers a GET for the path with a status from 200 to 399.
    Http(String),
    /// It sends `expect` after it got `send`.
    Talks { send: Vec<u8>, expect: Vec<u8> },
    /// A shell command ends with status 0; it finds RSP_SERVER_HOST and RSP_SERVER_PORT.
    Command(String),
}

impl Check {
    /// Asks whoever answers at one of the addresses, once; which one that was. The error says what is wrong with the
    /// server.
    pub fn run(&self, addresses: &[SocketAddr], patience: Duration) -> io::Result<SocketAddr> {
        let until = Instant::now() + patience;
        if let (Check::Command(command), Some(&first)) = (self, addresses.first()) {
            return run_command(command, first, until).map(|()| first);
        }
        let mut stream = place::connect(addresses, until)?;
        let server = stream.peer_addr()?;
        match self {
            Check::Http(path) => {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: rspctl\r\nConnection: close\r\n\r\n"
                );
                http_answer(&mut stream, request.as_bytes(), until)
            }
            Check::Talks { send, expect } => talk(&mut stream, send, expect, until),
            _ => wait_accepted(&stream, until),
        }
        .map(|()| server)
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("{what} in time"))
}

/// The kernel accepts for a process that hangs; the process does not.
fn wait_accepted(stream: &TcpStream, until: Instant) -> io::Result<()> {
    let (own, peer) = (stream.local_addr()?, stream.peer_addr()?);
    loop {
        match diag::accepted(own, peer) {
            Ok(Accepted::NotYet) => {}
            // Where the kernel can't be asked, that it is connected is all that is known.
            Ok(Accepted::Yes | Accepted::Unknown) | Err(_) => return Ok(()),
        }
        if Instant::now() >= until {
            return Err(late("its process does not accept"));
        }
        std::thread::sleep(GLANCE);
    }
}

/// Reads until `enough`, the end, or too late; that nothing came is an error.
fn read_until(stream: &mut TcpStream, until: Instant, enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !enough(&answer) && answer.len() < MAX_ANSWER {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if answer.is_empty() { Err(late("no answer")) } else { Ok(answer) }
}

fn send(stream: &mut TcpStream, bytes: &[u8], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now()).max(GLANCE);
    stream.set_write_timeout(Some(left))?;
    stream.write_all(bytes)
}

fn http_answer(stream: &mut TcpStream, request: &[u8], until: Instant) -> io::Result<()> {
    send(stream, request, until)?;
    let answer = read_until(stream, until, |answer| answer.contains(&b'\n'))?;
    let line = answer.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).trim_end().to_owned();
    let status = line.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..400) => Ok(()),
        Some(_) => Err(io::Error::other(format!("it answers \"{line}\""))),
        None => Err(io::Error::other(format!("no HTTP: \"{}\"", line.chars().take(80).collect::<String>()))),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn talk(stream: &mut TcpStream, question: &[u8], expect: &[u8], until: Instant) -> io::Result<()> {
    send(stream, question, until)?;
    let answer = read_until(stream, until, |answer| contains(answer, expect))?;
    if contains(&answer, expect) {
        return Ok(());
    }
    let shown: Vec<u8> = answer.iter().copied().take(80).collect();
    Err(io::Error::other(format!("it answers \"{}\"", shown.escape_ascii())))
}

/// Ends with its command.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_command(command: &str, server: SocketAddr, until: Instant) -> io::Result<()> {
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("RSP_SERVER_HOST", server.ip().to_string())
        .env("RSP_SERVER_PORT", server.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut child = Running(child);
    loop {
        if let Some(status) = child.0.try_wait()? {
            return match status.success() {
                true => Ok(()),
                false => Err(io::Error::other(format!("the check command: {status}"))),
            };
        }
        if Instant::now() >= until {
            return Err(late("the check command does not end"));
        }
        std::thread::sleep(GLANCE);
    }
}

/// Bytes of an argument: `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` stand for what they do in C.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, taken) = match (byte, behind) {
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [b'0', ..]) => (0, 1),
            (b'\\', [b'\\', ..]) => (b'\\', 1),
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok();
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (value.ok_or("two hexadecimal digits follow \\x")?, 3)
            }
            (b'\\', _) => return Err("a backslash is written \\\\".into()),
            _ => (byte, 0),
        };
        bytes.push(byte);
        rest = &behind[taken..];
    }
    Ok(bytes)
}

/// [`unescape`] for the command line.
pub fn unescape_argument(text: &str) -> Result<super::Bytes, String> {
    unescape(text).map(super::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;
    use std::thread;

    /// For what does not come.
    const IMPATIENCE: Duration = Duration::from_millis(300);
    /// For what comes, on a busy machine, too.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that answers each connection with that, after it got something.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut got = [0; 512];
                let _ = stream.read(&mut got);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    fn says_within(check: &Check, server: SocketAddr, patience: Duration) -> String {
        check.run(&[server], patience).map_or_else(|error| error.to_string(), |_| "good".into())
    }

    fn says(check: &Check, server: SocketAddr) -> String {
        says_within(check, server, PATIENCE)
    }

    /// What is said when time is over.
    fn late(check: &Check, server: SocketAddr) -> String {
        says_within(check, server, IMPATIENCE)
    }

    #[test]
    fn a_process_that_does_not_accept_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(late(&Check::Accepts, address), "its process does not accept in time");
        assert_eq!(says(&Check::Accepts, server(b"")), "good");
        // Bound, so that the port is nobody else's, and nobody listens.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let nobody = socket.local_addr().unwrap().as_socket().unwrap();
        assert!(says(&Check::Accepts, nobody).contains("refused"));
    }

    #[test]
    fn http() {
        let check = Check::Http("/healthz".into());
        assert_eq!(says(&check, server(b"HTTP/1.1 204 No Content\r\n\r\n")), "good");
        assert_eq!(says(&check, server(b"HTTP/1.1 503 Away\r\n\r\n")), "it answers \"HTTP/1.1 503 Away\"");
        assert_eq!(says(&check, server(b"SSH-2.0\r\n")), "no HTTP: \"SSH-2.0\"");
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(late(&check, silent.local_addr().unwrap()), "no answer in time");
    }

    #[test]
    fn send_and_expect() {
        let check = Check::Talks { send: unescape(r"PING\r\n").unwrap(), expect: b"+PONG".to_vec() };
        assert_eq!(check, Check::Talks { send: b"PING\r\n".to_vec(), expect: b"+PONG".to_vec() });
        assert_eq!(says(&check, server(b"+PONG\r\n")), "good");
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(late(&check, silent.local_addr().unwrap()), "no answer in time");
        assert_eq!(says(&check, server(b"-LOADING\r\n")), "it answers \"-LOADING\\r\\n\"");
        assert_eq!(unescape(r"\x00\\").unwrap(), b"\0\\");
        assert!(unescape(r"\q").is_err() && unescape(r"\xg0").is_err());
    }

    #[test]
    fn commands() {
        let at = "127.0.0.1:7".parse().unwrap();
        assert_eq!(says(&Check::Command("test $RSP_SERVER_PORT = 7".into()), at), "good");
        assert_eq!(says(&Check::Command("exit 3".into()), at), "the check command: exit status: 3");
        assert_eq!(late(&Check::Command("sleep 9".into()), at), "the check command does not end in time");
    }
}
