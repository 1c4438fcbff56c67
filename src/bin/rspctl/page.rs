//! The registrar's operator's page (`--http`), as a client: requests that end, with time limits.

use clap::Args;
use rserpool::runtime::address;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where a registrar's page is if nobody says: the packages' port.
const USUAL: &str = "127.0.0.1:8863";
const USUAL_TOKEN: &str = "/etc/rserpool/token";
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer taken.
const LONGEST: u64 = 64 << 20;

/// Which registrar.
#[derive(Args, Clone)]
pub struct Where {
    /// The registrar's page, its --http (or RSP_HTTP) [default: 127.0.0.1:8863]
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
    fn read(&self) -> Result<String, String> {
        let variable = std::env::var_os("RSP_HTTP_TOKEN_FILE").map(PathBuf::from);
        let path = self.token.clone().or(variable).unwrap_or_else(|| USUAL_TOKEN.into());
        let text =
            std::fs::read_to_string(&path).map_err(|error| format!("--token={}: {error}", path.display()))?;
        Ok(text.lines().next().unwrap_or_default().trim().to_string())
    }
}

/// An answer's head is read.
struct Answer {
    status: u16,
    body: BufReader<TcpStream>,
}

impl Where {
    fn name(&self) -> String {
        let variable = || std::env::var("RSP_HTTP").ok().filter(|value| !value.is_empty());
        self.http.clone().or_else(variable).unwrap_or_else(|| USUAL.into())
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Result<Answer, String> {
        let name = self.name();
        let wrong = |error: &dyn std::fmt::Display| format!("the registrar's page at {name}: {error}");
        // A port alone is one of this host, as with the registrar's option.
        let text = match name.bytes().all(|byte| byte.is_ascii_digit()) {
            true => format!("127.0.0.1:{name}"),
            false => name.clone(),
        };
        let addresses = address::parse(&text, 80).map_err(|error| wrong(&error))?;
        let mut last = None;
        for to in addresses {
            match TcpStream::connect_timeout(&to, PATIENCE) {
                Ok(mut stream) => {
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
                    stream.write_all(request.as_bytes()).map_err(|error| wrong(&error))?;
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
        let secret = token.read()?;
        self.read(self.ask("POST", path, &format!("Authorization: Bearer {secret}\r\n"))?)
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

fn read_head(stream: TcpStream) -> std::io::Result<Answer> {
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
