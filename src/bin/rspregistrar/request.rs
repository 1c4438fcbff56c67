//! What somebody asks the operator's page.

use rserpool::wire::{PeId, PoolHandle};
use std::net::{IpAddr, SocketAddr};

/// Bytes of a request's head.
pub const MAX_REQUEST: usize = 8192;

/// A request with what we look at of it. Bodies are not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    query: Vec<(String, Vec<u8>)>,
    pub is_post: bool,
    /// Not just the head of the answer.
    pub with_body: bool,
    pub accept: String,
    host: String,
    /// Of `Authorization: Bearer`.
    pub token: Option<Vec<u8>>,
    pub last_event: Option<String>,
    /// Where the page that sends it is from, as a browser says.
    origin: Option<String>,
    /// Whether nobody on the way could read it or change it.
    pub is_private: bool,
    /// Whether it came with an operator's certificate.
    pub is_operators: bool,
}

/// The request, or the status to refuse it with. `None`: it is not complete.
pub fn parse(head: &[u8]) -> Option<Result<Request, &'static str>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) => return Some(Err("431 Request Header Fields Too Large")),
        Err(_) => return Some(Err("400 Bad Request")),
    }
    let (is_post, with_body) = match request.method {
        Some("GET") => (false, true),
        Some("HEAD") => (false, false),
        Some("POST") => (true, true),
        _ => return Some(Err("405 Method Not Allowed")),
    };
    let (path, query) =
        request.path.unwrap_or("/").split_once('?').unwrap_or((request.path.unwrap_or("/"), ""));
    let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (String::from_utf8_lossy(&decoded(name)).into_owned(), decoded(value))
    });
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value)
    };
    let text = |name: &str| header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    Some(Ok(Request {
        path: path.to_string(),
        query: query.collect(),
        is_post,
        with_body,
        accept: text("Accept").unwrap_or_default(),
        host: text("Host").unwrap_or_default(),
        token: header("Authorization").and_then(|value| value.strip_prefix(b"Bearer ")).map(<[u8]>::to_vec),
        last_event: text("Last-Event-ID"),
        origin: text("Origin"),
        ..Request::default()
    }))
}

/// `%XX` and `+` undone; what is no escape stays.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        match (first, rest) {
            (b'+', _) => out.push(b' '),
            (b'%', [a, b, after @ ..]) => match (hex(*a), hex(*b)) {
                (Some(a), Some(b)) => {
                    out.push(a << 4 | b);
                    bytes = after;
                }
                _ => out.push(b'%'),
            },
            (byte, _) => out.push(*byte),
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl Request {
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }

    /// A parameter as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// A number, put into a range.
    pub fn number(&self, name: &str, usual: usize, most: usize) -> usize {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(usual).clamp(1, most)
    }

    /// A pool handle, its bytes as they are.
    pub fn handle(&self, name: &str) -> Option<PoolHandle> {
        self.bytes(name).and_then(PoolHandle::new)
    }

    /// An identifier, decimal or 0xHEX.
    pub fn id(&self, name: &str) -> Option<PeId> {
        let text = self.text(name)?;
        let id = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        id.ok().map(PeId)
    }

    /// The same with how it came.
    pub fn came(self, is_private: bool, is_operators: bool) -> Request {
        Request { is_private, is_operators, ..self }
    }

    /// Whether a browser sends it for another site's page, to which it would lend the operator's certificate.
    pub fn is_foreign(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            !host.is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
        })
    }

    /// Whether the name that the reader knows us by is one of this host, where we can be reached from this host
    /// only: against names of foreign sites that lead here (DNS rebinding).
    pub fn is_for(&self, local: SocketAddr) -> bool {
        let host = self.host.rsplit_once(':').map_or(&self.host[..], |(host, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { &self.host }
        });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        !local.ip().is_loopback()
            || host.is_empty()
            || host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(head: &[u8]) -> Request {
        parse(head).unwrap().unwrap()
    }

    #[test]
    fn requests_are_taken_apart() {
        let request =
            get(b"GET /api/pools?q=a%20b+c&limit=7&x HTTP/1.1\r\nHost: a\r\nACCEPT: text/plain\r\n\r\n");
        assert_eq!((&request.path[..], request.is_post, request.with_body), ("/api/pools", false, true));
        assert_eq!((request.text("q"), request.number("limit", 5, 6)), (Some("a b c"), 6));
        assert_eq!((request.text("x"), request.text("y")), (Some(""), None));
        assert_eq!(request.accept, "text/plain");
        let head = get(b"HEAD / HTTP/1.0\r\n\r\n");
        assert!(!head.with_body && !head.is_post);
        assert_eq!(parse(b"GET / HT"), None);
        assert_eq!(parse(b"PUT / HTTP/1.1\r\n\r\n"), Some(Err("405 Method Not Allowed")));
        assert_eq!(parse(&[0; 10]), Some(Err("400 Bad Request")));
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'x'; MAX_REQUEST]].concat();
        assert_eq!(parse(&endless), Some(Err("431 Request Header Fields Too Large")));
    }

    #[test]
    fn parameters_of_any_bytes() {
        let head =
            b"POST /api/drain?pool=%ff%00%zz%&id=0x1F HTTP/1.1\r\nAuthorization: Bearer s\xc3\xa9\r\n\r\n";
        let request = get(head);
        assert!(request.is_post);
        assert_eq!(request.handle("pool").unwrap().as_bytes(), b"\xff\0%zz%");
        assert_eq!(request.id("id"), Some(PeId(0x1f)));
        assert_eq!(request.token, Some(b"s\xc3\xa9".to_vec()));
        assert_eq!(request.handle("none"), None);
    }

    #[test]
    fn a_certificate_is_not_lent_to_other_sites() {
        for (origin, foreign) in [
            ("", false),
            ("Origin: https://a:1\r\n", false),
            ("Origin: https://a\r\n", true),
            ("Origin: https://evil.example\r\n", true),
            ("Origin: null\r\n", true),
        ] {
            let request = get(format!("POST /api/drain HTTP/1.1\r\nHost: a:1\r\n{origin}\r\n").as_bytes());
            assert_eq!(request.is_foreign(), foreign, "{origin}");
        }
    }

    #[test]
    fn foreign_names_do_not_lead_to_localhost() {
        let here = "127.0.0.1:80".parse().unwrap();
        for (host, good) in [
            ("localhost:80", true),
            ("127.0.0.1:80", true),
            ("[::1]:80", true),
            ("", true),
            ("evil.example:80", false),
            ("10.0.0.1", false),
        ] {
            let request = Request { host: host.into(), ..Request::default() };
            assert_eq!(request.is_for(here), good, "{host}");
            assert!(request.is_for("10.0.0.1:80".parse().unwrap()));
        }
    }
}
