//! Noticing that a TCP peer's host is gone while something is on its way to it. A peer that acknowledges is alive,
//! however long it does not read; that is why TCP_USER_TIMEOUT, which ends a connection whose window stays closed,
//! does not serve. (Without anything on its way, the kernel's keep-alive probes ask.)

#![expect(clippy::disallowed_methods, reason = "peers are silent in real time")]

use super::conn::Conn;
use crate::transport::stream;
use parking_lot::Mutex;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A connection is looked at so many times within its patience.
const LOOKS: u32 = 8;
/// The least and the most time between looks.
const LEAST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

/// Connections with something on its way.
#[derive(Debug, Default)]
pub(crate) struct Silence(Mutex<SilenceState>);

#[derive(Debug, Default)]
struct SilenceState {
    all: Vec<Listened>,
    /// When somebody looks next.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Listened {
    conn: Weak<Conn>,
    next: Instant,
    /// Since when nothing was answered.
    since: Option<Instant>,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing is on its way.
    Quiet,
    Alive,
    Silent(Instant),
}

fn interval(patience: Duration) -> Duration {
    (patience / LOOKS).clamp(LEAST, MOST)
}

impl Silence {
    /// Something is on its way on `conn`; whether who looks has to know, since he would come too late.
    pub(crate) fn listen(&self, conn: &Arc<Conn>) -> bool {
        let Some(patience) = conn.patience() else { return false };
        let next = Instant::now() + interval(patience);
        let mut state = self.0.lock();
        state.all.push(Listened { conn: Arc::downgrade(conn), next, since: None });
        let sooner = state.next.is_none_or(|before| next < before);
        if sooner {
            state.next = Some(next);
        }
        sooner
    }

    /// Looks at whose turn it is, and breaks connections with hosts that are gone; when the next look is due: however
    /// many connections there are, not sooner than [`LEAST`] after this one.
    pub(crate) fn look(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.next.is_none_or(|next| next > now) {
            return state.next;
        }
        state.all.retain_mut(|listened| {
            let Some(conn) = listened.conn.upgrade() else { return false };
            if listened.next > now {
                return true;
            }
            let patience = conn.patience().unwrap_or(MOST);
            listened.next = now + interval(patience);
            // Who sends from here on has it looked at again.
            conn.listened_to.store(false, SeqCst);
            match judge(&conn, listened.since, now) {
                Verdict::Quiet => return false,
                Verdict::Alive => listened.since = None,
                Verdict::Silent(since) if now - since >= patience => {
                    conn.host_is_gone();
                    return false;
                }
                Verdict::Silent(since) => listened.since = Some(since),
            }
            // Somebody who sent meanwhile has put it here once more.
            !conn.listened_to.swap(true, SeqCst)
        });
        let next = state.all.iter().map(|listened| listened.next).min();
        state.next = next.map(|next| next.max(now + LEAST));
        state.next
    }
}

fn judge(conn: &Conn, since: Option<Instant>, now: Instant) -> Verdict {
    match stream::owed(conn.as_fd()) {
        Ok(owed) if !owed.outstanding => Verdict::Quiet,
        Ok(owed) if owed.unanswered => {
            let heard = now.checked_sub(owed.heard).unwrap_or(now);
            Verdict::Silent(since.unwrap_or(now).max(heard))
        }
        Ok(_) => Verdict::Alive,
        // It is over, which its owner sees for himself.
        Err(_) => Verdict::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::channel::parameters::DEFAULT_PARAMETERS;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// However many connections send, who looks is called for the first of them.
    #[test]
    fn many_connections_are_looked_at_in_one_round() {
        let silence = Silence::default();
        assert_eq!(silence.look(), None);
        let conns: Vec<_> = (0..50)
            .map(|_| {
                let (socket, peer) = UnixStream::pair().unwrap();
                let conn = Arc::new(Conn::mapping(OwnedFd::from(socket).into(), false));
                conn.tune(&DEFAULT_PARAMETERS);
                (conn, peer)
            })
            .collect();
        let called = conns.iter().filter(|(conn, _)| silence.listen(conn)).count();
        assert_eq!(called, 1);
        // Nobody's turn has come.
        let first = silence.look().unwrap();
        assert_eq!(silence.0.lock().all.len(), conns.len());
        assert_eq!(silence.look(), Some(first));
        // All of them are gone before it comes: nothing is left to look at.
        drop(conns);
        silence.0.lock().next = Some(Instant::now());
        assert_eq!(silence.look(), None);
        assert!(silence.0.lock().all.is_empty());
    }
}
