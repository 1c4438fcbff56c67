//! What the kernel keeps for sessions over SCTP, and hosts that are gone.
//!
//! Of a message whose end does not come the kernel keeps the beginning, and tells nobody; and all associations of the
//! machine share what SCTP may have (`net.sctp.sctp_mem`): what came, and what was sent and is not acknowledged. One
//! association can't take more than its two buffers. What the peer acknowledges at a pace at which it would have all of it
//! within ten seconds is on its way, and what can be received is the application's. When all together keep too much of the
//! rest, those that never said anything go first, then who keeps most. Time alone ends none: a slow peer may take as long
//! as it likes.
//!
//! A host that answers nothing at any of its addresses is gone when SCTP says so of the last one, and what it was sent again since
//! had its time to be answered: with several addresses SCTP may be that far after less time than a connection over TCP is
//! given. The kernel itself would go on asking for minutes.

#![expect(clippy::disallowed_methods, reason = "peers vanish in real time")]

use super::association::{Kept, KeptBytes};
use super::conn::Conn;
use crate::runtime::complaints::SESSIONS;
use crate::transport::{sctp_socket, stream};
use crate::wire::scope::host_of;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// How often some of them are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The same while they keep half of what they may.
const LOOK_CLOSER: Duration = Duration::from_millis(100);
/// Associations looked at at a time.
const LOOKS: usize = 1024;
/// Whoever keeps less is not dropped for the sake of the total.
const SMALL: usize = 4096;

/// How long an association's pace is looked at.
const PACE: Duration = Duration::from_secs(3);
/// Who would take longer than that for what is not acknowledged keeps it.
const DRAINED: Duration = Duration::from_secs(10);

/// Associations of this process's sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionHoards(Mutex<SessionHoardsState>);

#[derive(Debug, Default)]
struct SessionHoardsState {
    all: Vec<SessionHoard>,
    /// Which of them is looked at next.
    turn: usize,
    total: usize,
    next: Option<Instant>,
}

#[derive(Debug)]
struct SessionHoard {
    conn: Weak<Conn>,
    kept: usize,
    spoke: bool,
    pace: Pace,
    /// Since when it answers nothing at any address.
    silent: Option<Instant>,
}

/// Whether a peer acknowledges what it is sent.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// As of then.
    unacknowledged: usize,
    sent: u64,
    /// What the time before came to.
    slow: bool,
}

impl Pace {
    fn new(since: Instant) -> Pace {
        Pace { since, unacknowledged: 0, sent: 0, slow: false }
    }

    /// How much of what is not acknowledged now counts as kept.
    fn look(&mut self, now: Instant, bytes: &KeptBytes) -> usize {
        let (time, left) = (now - self.since, bytes.unacknowledged);
        if time >= PACE {
            let more = usize::try_from(bytes.sent - self.sent).unwrap_or(usize::MAX);
            let acknowledged = self.unacknowledged.saturating_add(more).saturating_sub(left);
            let slow = (acknowledged as f64) * DRAINED.as_secs_f64() < (left as f64) * time.as_secs_f64();
            *self = Pace { since: now, unacknowledged: left, sent: bytes.sent, slow };
        }
        if self.slow { left } else { 0 }
    }
}

impl SessionHoards {
    /// Whether who looks has to know, since he would come too late.
    pub(crate) fn watch(&self, conn: &Arc<Conn>) -> bool {
        let mut state = self.0.lock();
        let now = Instant::now();
        let pace = Pace::new(now);
        state.all.push(SessionHoard {
            conn: Arc::downgrade(conn),
            kept: 0,
            spoke: false,
            pace,
            silent: None,
        });
        let first = state.next.is_none();
        state.next.get_or_insert_with(|| now + LOOK);
        first
    }

    /// Looks at some of them; when the next look is due.
    pub(crate) fn look(&self) -> Option<Instant> {
        static BOUND: OnceLock<usize> = OnceLock::new();
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.next.is_none_or(|next| next > now) {
            return state.next;
        }
        let bound = *BOUND.get_or_init(sctp_socket::memory_share);
        state.take_turns(now, |conn| conn.kept());
        if state.total > bound {
            state.drop_hoarders(bound / 4 * 3);
        }
        let pause = if state.total > bound / 2 { LOOK_CLOSER } else { LOOK };
        state.next = (!state.all.is_empty()).then(|| now + pause);
        state.next
    }
}

impl SessionHoardsState {
    fn take_turns(&mut self, now: Instant, kept: impl Fn(&Conn) -> Kept) {
        for _ in 0..LOOKS.min(self.all.len()) {
            if self.turn >= self.all.len() {
                self.turn = 0;
            }
            let Some(watched) = self.all.get_mut(self.turn) else { break };
            self.total -= std::mem::take(&mut watched.kept);
            match watched.conn.upgrade().map(|conn| (kept(&conn), conn)) {
                Some((Kept::Bytes(bytes), _)) => {
                    watched.kept = bytes.stuck + watched.pace.look(now, &bytes);
                    watched.spoke = bytes.spoke;
                    watched.silent = None;
                    self.total += watched.kept;
                    self.turn += 1;
                    continue;
                }
                Some((Kept::Gone { again }, _)) if now - *watched.silent.get_or_insert(now) < again => {
                    self.turn += 1;
                    continue;
                }
                Some((Kept::Gone { .. }, conn)) => {
                    conn.host_is_gone();
                }
                None => {}
            }
            self.all.swap_remove(self.turn);
        }
    }

    /// Until they keep no more than `bound`.
    fn drop_hoarders(&mut self, bound: usize) {
        self.all.sort_unstable_by_key(|watched| (watched.spoke, Reverse(watched.kept)));
        let mut total = self.total;
        let mut dropped: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        self.all.retain(|watched| {
            if total <= bound || watched.kept <= SMALL {
                return true;
            }
            total -= watched.kept;
            if let Some(conn) = watched.conn.upgrade() {
                *dropped.entry(stream::peer(conn.as_fd()).map(|peer| host_of(peer.ip()))).or_default() += 1;
                conn.abort();
            }
            false
        });
        self.total = total;
        let all: usize = dropped.values().sum();
        for (host, count) in dropped {
            let with = host.map_or(String::new(), |host| format!(", {count} of them with {host}"));
            SESSIONS.note(
                "the kernel keeps too much for sessions over SCTP",
                host,
                format_args!(
                    "the kernel keeps too much for sessions over SCTP that can't be received or is not acknowledged: \
                    {all} end{with}"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::complaints::written;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn conn() -> (Arc<Conn>, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        (Arc::new(Conn::mapping(OwnedFd::from(socket).into(), false)), peer)
    }

    #[test]
    fn who_never_spoke_and_keeps_most_goes_first() {
        let conns: Vec<_> = (0..5).map(|_| conn()).collect();
        let hoards = SessionHoards::default();
        assert!(hoards.watch(&conns[0].0));
        assert_eq!(conns[1..].iter().filter(|(conn, _)| hoards.watch(conn)).count(), 0);
        let kept = [(50_000, true), (10_000, false), (20_000, false), (4000, false), (60_000, true)];
        let number = |conn: &Conn| conns.iter().position(|(other, _)| std::ptr::eq(&**other, conn)).unwrap();
        let mut state = hoards.0.lock();
        let now = Instant::now();
        state.take_turns(now, |conn| {
            let (stuck, spoke) = kept[number(conn)];
            Kept::Bytes(KeptBytes { stuck, spoke, ..KeptBytes::default() })
        });
        assert_eq!(state.total, 144_000);
        let left = |state: &SessionHoardsState| {
            let mut left: Vec<_> = state
                .all
                .iter()
                .filter_map(|watched| watched.conn.upgrade())
                .map(|conn| number(&conn))
                .collect();
            left.sort_unstable();
            left
        };
        state.drop_hoarders(130_000);
        assert_eq!((left(&state), state.total), (vec![0, 1, 3, 4], 124_000));
        state.drop_hoarders(70_000);
        assert_eq!((left(&state), state.total), (vec![0, 3], 54_000));
        // Of those that are gone, by themselves or not, nothing is counted any more.
        state.take_turns(now, |_| Kept::Gone { again: Duration::ZERO });
        assert_eq!((left(&state), state.total), (vec![], 0));
    }

    #[test]
    fn what_is_sent_again_last_has_its_time() {
        let (conn, _end) = conn();
        let hoards = SessionHoards::default();
        hoards.watch(&conn);
        let (mut state, begin) = (hoards.0.lock(), Instant::now());
        let gone = Kept::Gone { again: Duration::from_secs(5) };
        let mut is_left = |seconds: u64, kept: Kept| {
            state.take_turns(begin + Duration::from_secs(seconds), |_| kept);
            !state.all.is_empty()
        };
        assert!([1, 5].into_iter().all(|second| is_left(second, gone)));
        // It answers once, and is as good as before.
        assert!(is_left(6, Kept::Bytes(KeptBytes::default())));
        assert!([7, 11].into_iter().all(|second| is_left(second, gone)));
        assert!(!is_left(12, gone));
    }

    #[test]
    fn what_is_acknowledged_soon_is_not_kept() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let mut look = |seconds: u64, unacknowledged: usize, sent: u64| {
            let bytes = KeptBytes { unacknowledged, sent, ..KeptBytes::default() };
            pace.look(begin + Duration::from_secs(seconds), &bytes)
        };
        // A buffer that is full, since more is sent as fast as it is acknowledged.
        assert_eq!(look(1, 200_000, 200_000), 0);
        assert_eq!([look(3, 200_000, 300_000), look(6, 200_000, 400_000)], [0, 0]);
        // What is acknowledged without more being sent.
        assert_eq!(look(9, 100_000, 400_000), 0);
        // Nothing is acknowledged any more, however much more is sent: it takes a while to be sure.
        assert_eq!([look(10, 130_000, 430_000), look(11, 150_000, 450_000)], [0, 0]);
        assert_eq!([look(12, 200_000, 500_000), look(13, 200_000, 500_000)], [200_000; 2]);
        // A little of it, so that it would take a minute.
        assert_eq!([look(15, 190_000, 500_000), look(18, 190_000, 510_000)], [190_000; 2]);
        // It reads again.
        assert_eq!([look(21, 50_000, 510_000), look(24, 0, 510_000), look(27, 0, 510_000)], [0; 3]);
    }

    /// The line says whose, and there are few of them however many hosts vanish.
    #[test]
    fn thousands_of_vanished_users_cost_few_lines() {
        let lines = || written::lines(" answers nothing any more");
        let before = lines().len();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let hoards = SessionHoards::default();
        for round in 0..50_u8 {
            // Fifty users each of a hundred hosts, in the end.
            let (conns, ends): (Vec<_>, Vec<_>) = (1..=100)
                .map(|host| {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.bind(&SocketAddr::from(([127, 77, 0, host], 0)).into()).unwrap();
                    socket.connect(&to.into()).unwrap();
                    let (accepted, _) = listener.accept().unwrap();
                    (Arc::new(Conn::mapping(OwnedFd::from(accepted).into(), true)), socket)
                })
                .unzip();
            for conn in &conns {
                hoards.watch(conn);
            }
            hoards.0.lock().take_turns(Instant::now(), |_| Kept::Gone { again: Duration::ZERO });
            assert!(hoards.0.lock().all.is_empty(), "{round}");
            drop(ends);
        }
        let lines = &lines()[before..];
        println!("{}", lines.join("\n"));
        assert!((2..=18).contains(&lines.len()), "{} lines", lines.len());
        assert!(lines.iter().any(|line| line.contains(" at 127.77.0.1:")), "{lines:?}");
    }
}
