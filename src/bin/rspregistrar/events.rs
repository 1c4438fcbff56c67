//! `/events`: what happens, as server-sent events. A reader gets a snapshot first, or if it was there before
//! and not too long ago, what it missed; then news, put together for a quarter of a second.

use super::api;
use rserpool::machine::Time;
use rserpool::runtime::registrar::Server;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// News are put together for so long.
const PAUSE: Duration = Duration::from_millis(250);
/// Without news, a comment says that the stream lives.
const ALIVE: Duration = Duration::from_secs(5);
/// Who leaves so much unread is cut off; it comes back to a snapshot.
pub const MAX_UNREAD: usize = 256 << 10;

/// One reader's place.
#[derive(Debug)]
pub struct Stream {
    /// The last happening that it was told.
    told: u64,
    /// When news may be told.
    next: Time,
    /// When a comment is due.
    comment: Time,
}

/// The head of the answer.
pub const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
     Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n";

impl Stream {
    /// Begins with a snapshot, or behind the event that the reader saw last.
    pub fn begin(
        server: &Server,
        last_event: Option<&str>,
        started: SystemTime,
        out: &mut Vec<u8>,
    ) -> Stream {
        let machine = server.machine();
        let last = machine.last_happening();
        let now = server.now();
        // Not all at the same time, if we end.
        let retry = 2000 + fastrand::u32(..2000);
        out.extend_from_slice(format!("retry: {retry}\n\n").as_bytes());
        let seen = last_event.and_then(|event| seen(event, &machine.id().to_string()));
        let told = match seen.filter(|seen| *seen <= last && last - seen <= api::MAX_HAPPENINGS as u64) {
            Some(seen) => seen,
            None => {
                let (happenings, _) = api::happenings_after(server, last.saturating_sub(100));
                let status = api::status(server, started);
                let data = json!({ "status": status, "happenings": happenings });
                event(server, "snapshot", &data, out);
                last
            }
        };
        Stream { told, next: now, comment: now + ALIVE }
    }

    /// When to call [`Stream::go_on`].
    pub fn poll_timeout(&self, server: &Server) -> Time {
        match server.machine().last_happening() > self.told {
            true => self.next.min(self.comment),
            false => self.comment,
        }
    }

    /// Adds what is due.
    pub fn go_on(&mut self, server: &Server, out: &mut Vec<u8>) {
        let now = server.now();
        let last = server.machine().last_happening();
        if last > self.told && self.next <= now {
            let (happenings, left_out) = api::happenings_after(server, self.told);
            let space = server.machine().handlespace();
            let data = json!({
                "happenings": happenings,
                "left_out": left_out,
                "pool_count": space.pool_count(),
                "element_count": space.len(),
            });
            event(server, "change", &data, out);
            self.told = last;
            self.next = now + PAUSE;
            self.comment = now + ALIVE;
        } else if self.comment <= now {
            out.extend_from_slice(b": alive\n\n");
            self.comment = now + ALIVE;
        }
    }
}

/// The number in an event's identifier, if the event is of this registrar's present life.
fn seen(event: &str, registrar: &str) -> Option<u64> {
    event.strip_prefix(registrar)?.strip_prefix('-')?.parse().ok()
}

fn event(server: &Server, name: &str, data: &serde_json::Value, out: &mut Vec<u8>) {
    let machine = server.machine();
    let id = format!("{}-{}", machine.id(), machine.last_happening());
    out.extend_from_slice(format!("id: {id}\nevent: {name}\ndata: {data}\n\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_another_life_is_not_ours() {
        assert_eq!(seen("0x12345678-17", "0x12345678"), Some(17));
        assert_eq!(seen("0x12345679-17", "0x12345678"), None);
        assert_eq!(seen("0x12345678-x", "0x12345678"), None);
        assert_eq!(seen("", "0x12345678"), None);
    }
}
