//! /metrics (OpenMetrics) and /healthz of what runs for long: the proxy, the DNS responder.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// How long somebody may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_REQUEST: usize = 8192;

/// What is asked for.
pub trait Scraped: Send + 'static {
    /// As OpenMetrics.
    fn metrics(&self) -> String;

    /// Why it is of no use at present, if so.
    fn ill(&self) -> Option<String>;
}

/// Answers one after the other, each within a few seconds.
pub fn serve(listener: TcpListener, page: impl Scraped) -> io::Result<()> {
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // Whoever asks badly or goes away misses his answer.
                Ok(stream) => _ = answer(stream, &page),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(())
}

fn answer(mut stream: TcpStream, page: &impl Scraped) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let begun = std::time::Instant::now();
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let path = loop {
        let count = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) if request.method == Some("GET") => {
                break request.path.unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
            }
            Ok(httparse::Status::Partial)
                if count > 0 && head.len() < MAX_REQUEST && begun.elapsed() < PATIENCE => {}
            _ => {
                return stream.write_all(
                    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
            }
        }
    };
    let (status, kind, body) = match path.as_str() {
        "/metrics" => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", page.metrics())
        }
        "/healthz" => match page.ill() {
            None => ("200 OK", "text/plain", "ok\n".to_owned()),
            Some(why) => ("503 Service Unavailable", "text/plain", format!("{why}\n")),
        },
        _ => ("404 Not Found", "text/plain", "/metrics, /healthz\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
