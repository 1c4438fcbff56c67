//! What the kernel keeps for sessions over SCTP, and hosts that are gone.
//!
//! Of a message whose end does not come the kernel keeps the beginning, and tells nobody; and all associations of the
//! machine share what SCTP may have (`net.sctp.sctp_mem`). One association can't take more than its receive buffer. When all
//! together keep too much that can't be received, those that never said anything go first, then who keeps most. Time alone
//! ends none: a slow peer may take as long as it likes.
//!
//! A host that answers nothing at any of its addresses is gone as soon as SCTP says so of the last one: the kernel itself
//! would go on asking for minutes.

#![expect(clippy::disallowed_methods, reason = "peers vanish in real time")]

use super::association::Kept;
use super::conn::Conn;
use crate::runtime::complaints::Occasionally;
use crate::transport::sctp_socket;
use parking_lot::Mutex;
use std::cmp::Reverse;
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
}

impl SessionHoards {
    /// Whether who looks has to know, since he would come too late.
    pub(crate) fn watch(&self, conn: &Arc<Conn>) -> bool {
        let mut state = self.0.lock();
        state.all.push(SessionHoard { conn: Arc::downgrade(conn), kept: 0, spoke: false });
        let first = state.next.is_none();
        state.next.get_or_insert_with(|| Instant::now() + LOOK);
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
        state.take_turns(|conn| conn.kept());
        if state.total > bound {
            state.drop_hoarders(bound / 4 * 3);
        }
        let pause = if state.total > bound / 2 { LOOK_CLOSER } else { LOOK };
        state.next = (!state.all.is_empty()).then(|| now + pause);
        state.next
    }
}

impl SessionHoardsState {
    fn take_turns(&mut self, kept: impl Fn(&Conn) -> Kept) {
        for _ in 0..LOOKS.min(self.all.len()) {
            if self.turn >= self.all.len() {
                self.turn = 0;
            }
            let Some(watched) = self.all.get_mut(self.turn) else { break };
            self.total -= std::mem::take(&mut watched.kept);
            match watched.conn.upgrade().map(|conn| (kept(&conn), conn)) {
                Some((Kept::Bytes(bytes, spoke), _)) => {
                    (watched.kept, watched.spoke) = (bytes, spoke);
                    self.total += bytes;
                    self.turn += 1;
                    continue;
                }
                Some((Kept::Gone, conn)) => {
                    log::info!("a session's peer answers nothing any more: its host is gone");
                    conn.abort();
                }
                None => {}
            }
            self.all.swap_remove(self.turn);
        }
    }

    /// Until they keep no more than `bound`.
    fn drop_hoarders(&mut self, bound: usize) {
        self.all.sort_unstable_by_key(|watched| (watched.spoke, Reverse(watched.kept)));
        let (mut total, mut dropped) = (self.total, 0);
        self.all.retain(|watched| {
            if total <= bound || watched.kept <= SMALL {
                return true;
            }
            total -= watched.kept;
            dropped += 1;
            if let Some(conn) = watched.conn.upgrade() {
                conn.abort();
            }
            false
        });
        self.total = total;
        static QUIET: Occasionally = Occasionally::new();
        if dropped > 0
            && let Some(more) = QUIET.now()
        {
            log::warn!(
                "the kernel keeps too much that can't be received of sessions over SCTP: {dropped} of them end{more}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        state.take_turns(|conn| {
            let (bytes, spoke) = kept[number(conn)];
            Kept::Bytes(bytes, spoke)
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
        state.take_turns(|_| Kept::Gone);
        assert_eq!((left(&state), state.total), (vec![], 0));
    }
}
