//! What has to go on when the caller is gone: the rest of a message that the kernel did not take at
//! once, the graceful end of a closed session, looking whether peers answer and what the kernel keeps for them. One thread, started when there is something to do.

#![expect(clippy::disallowed_methods, reason = "lingering ends in real time")]

use crate::socket::channel::conn::Conn;
use crate::socket::channel::hoards::SessionHoards;
use crate::socket::channel::silence::Silence;
use crate::socket::readiness::attendant::{Attendant, Duty, Post};
use crate::transport::stream;
use log::{debug, warn};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a closed session may take to deliver what was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same once the library is shut down.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// More closed sessions than this don't linger.
const MAX_CLOSING: usize = 4096;
/// What to wait for, of a backlog whose owner may drop the connection. A socket that a forked child has open as well
/// stays in the epoll instance when it is dropped: it says so once, not for ever.
const ROOM: EpollFlags = EpollFlags::EPOLLOUT.union(EpollFlags::EPOLLONESHOT);

/// The thread and its work.
#[derive(Debug, Default)]
pub(crate) struct Linger(Attendant<LingerDuty>);

#[derive(Debug)]
pub(crate) struct LingerDuty {
    post: Post,
    work: Mutex<Work>,
    silence: Silence,
    hoards: SessionHoards,
}

#[derive(Debug, Default)]
struct Work {
    items: BTreeMap<u64, LingerItem>,
    last: u64,
    closing: usize,
    stop: bool,
}

#[derive(Debug)]
enum LingerItem {
    /// Has a backlog; its owner may drop it. `again`: the owner left one since it was last looked at.
    Backlog { conn: Weak<Conn>, again: bool },
    /// Closed by its owner: gets rid of its backlog and reads until the peer ends as well, because
    /// closing a socket that has unread data destroys what is under way to the peer.
    Closing { conn: Arc<Conn>, until: Instant },
}

impl Linger {
    /// Sees to `conn`'s backlog.
    pub(crate) fn flush(&self, conn: &Arc<Conn>) {
        let _ = self.add(conn, LingerItem::Backlog { conn: Arc::downgrade(conn), again: true }, ROOM);
    }

    /// Something was sent on `conn`: sees to it that a peer whose host is gone is noticed.
    pub(crate) fn sent(&self, conn: &Arc<Conn>) {
        if conn.listened_to.load(Relaxed) || conn.patience().is_none() || conn.listened_to.swap(true, SeqCst)
        {
            return;
        }
        if let Ok(shared) = self.0.shared()
            && shared.silence.listen(conn)
        {
            shared.post.ring();
        }
    }

    /// `conn` is a session's from now on: of an association, sees to what the kernel keeps for it.
    pub(crate) fn watch(&self, conn: &Arc<Conn>) {
        if conn.is_association()
            && let Ok(shared) = self.0.shared()
            && shared.hoards.watch(conn)
        {
            shared.post.ring();
        }
    }

    /// Ends a session in order.
    pub(crate) fn close(&self, conn: Arc<Conn>) {
        let finished = conn.finish();
        if finished && (stream::pending(conn.as_fd()) == 0 || !conn.must_be_drained()) {
            return;
        }
        let item = LingerItem::Closing { conn: conn.clone(), until: Instant::now() + PATIENCE };
        let flags = interest(finished, false);
        if let Err(error) = self.add(&conn, item, flags) {
            debug!("a closed session can't linger: {error}");
        }
    }

    fn add(&self, conn: &Conn, item: LingerItem, flags: EpollFlags) -> io::Result<()> {
        let shared = self.0.shared()?;
        let mut work = shared.work.lock();
        let closing = matches!(item, LingerItem::Closing { .. });
        let known = conn.lingering.load(Relaxed);
        match work.items.get_mut(&known) {
            Some(LingerItem::Backlog { again, .. }) if !closing => {
                *again = true;
                return Ok(shared.post.epoll.modify(conn.as_fd(), &mut EpollEvent::new(flags, known))?);
            }
            // Its backlog is seen to.
            Some(LingerItem::Closing { .. }) => return Ok(()),
            _ => {}
        }
        if closing && work.closing >= MAX_CLOSING {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        work.last += 1;
        let token = work.last;
        // Already there for its backlog: from now on for this.
        let _ = shared.post.epoll.delete(conn.as_fd());
        work.drop_item(known);
        conn.lingering.store(0, Relaxed);
        shared.post.epoll.add(conn.as_fd(), EpollEvent::new(flags, token))?;
        conn.lingering.store(token, Relaxed);
        work.closing += usize::from(closing);
        work.items.insert(token, item);
        if work.items.len() % 64 == 0 {
            work.items.retain(|_, item| item.is_alive());
        }
        shared.post.ring();
        Ok(())
    }

    /// Lets closed sessions finish, not for long, and ends the thread.
    pub(crate) fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl LingerItem {
    fn is_alive(&self) -> bool {
        match self {
            LingerItem::Backlog { conn, .. } => conn.strong_count() > 0,
            LingerItem::Closing { .. } => true,
        }
    }
}

/// What to wait for, of a session that is closed.
fn interest(flushed: bool, ended: bool) -> EpollFlags {
    match (flushed, ended) {
        (true, _) => EpollFlags::EPOLLIN,
        (false, true) => EpollFlags::EPOLLOUT,
        // A peer that sends, and reads only when that is done, has to be listened to.
        (false, false) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
    }
}

impl Duty for LingerDuty {
    const NAME: &'static str = "rsp-linger";

    fn new(post: Post) -> LingerDuty {
        LingerDuty {
            post,
            work: Mutex::default(),
            silence: Silence::default(),
            hoards: SessionHoards::default(),
        }
    }

    fn post(&self) -> &Post {
        &self.post
    }

    fn stop(&self) {
        self.work.lock().stop = true;
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 32];
        let mut end: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let mut work = self.work.lock();
            if work.stop {
                let end = *end.get_or_insert(now + LAST_PATIENCE);
                if work.closing == 0 || now >= end {
                    return;
                }
            }
            let next = self.expire(&mut work, now).into_iter().chain(end);
            drop(work);
            let next = next.chain(self.silence.look()).chain(self.hoards.look()).min();
            let timeout = next.map_or(EpollTimeout::NONE, |next| {
                let left = next.saturating_duration_since(now).as_millis() + 1;
                EpollTimeout::try_from(left.min(60_000) as i32).unwrap_or(EpollTimeout::NONE)
            });
            match self.post.wait(&mut events, timeout) {
                Ok(tokens) => tokens.for_each(|token| self.serve(token)),
                // Nothing that was there is ours any more.
                Err(Errno::EBADF) => return std::mem::forget(std::mem::take(&mut *self.work.lock())),
                Err(error) => {
                    warn!("the lingering thread ends: {error}");
                    return;
                }
            }
        }
    }
}

impl LingerDuty {
    /// Drops what took too long; when the next one will have.
    fn expire(&self, work: &mut Work, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut late = Vec::new();
        for (&token, item) in &work.items {
            if let LingerItem::Closing { until, .. } = item {
                if *until <= now {
                    late.push(token);
                } else {
                    next = Some(next.map_or(*until, |next: Instant| next.min(*until)));
                }
            }
        }
        for token in late {
            if let Some(LingerItem::Closing { conn, .. }) = work.items.get(&token) {
                let _ = self.post.epoll.delete(conn.as_fd());
            }
            work.drop_item(token);
        }
        next
    }

    fn serve(&self, token: u64) {
        let mut work = self.work.lock();
        let (conn, closing) = match work.items.get_mut(&token) {
            Some(LingerItem::Backlog { conn, again }) => {
                *again = false;
                (conn.upgrade(), false)
            }
            Some(LingerItem::Closing { conn, .. }) => (Some(conn.clone()), true),
            None => return,
        };
        let Some(conn) = conn else { return work.drop_item(token) };
        drop(work);
        let flushed = conn.flush();
        let broken = flushed.is_err();
        let flushed = flushed.unwrap_or(true);
        let drained = match closing {
            _ if broken => None,
            true => drain(&conn),
            false => Some(false),
        };
        let mut work = self.work.lock();
        let again = match work.items.get(&token) {
            Some(LingerItem::Backlog { again, .. }) => *again && !broken,
            Some(LingerItem::Closing { .. }) => false,
            // Somebody else's by now: the owner closed it.
            None => return,
        };
        let next = match drained {
            _ if !closing => Some(ROOM).filter(|_| !flushed || again),
            None => None,
            Some(ended) => Some(interest(flushed, ended)).filter(|_| !(flushed && ended)),
        };
        match next {
            Some(flags) => _ = self.post.epoll.modify(conn.as_fd(), &mut EpollEvent::new(flags, token)),
            None => {
                let _ = self.post.epoll.delete(conn.as_fd());
                conn.lingering.store(0, Relaxed);
                work.drop_item(token);
            }
        }
    }
}

impl Work {
    fn drop_item(&mut self, token: u64) {
        if let Some(LingerItem::Closing { .. }) = self.items.remove(&token) {
            self.closing -= 1;
        }
    }
}

/// Throws away what the peer still sends, some of it; whether it ended. `None`: the connection broke.
fn drain(conn: &Conn) -> Option<bool> {
    let mut bytes = [0; 16 << 10];
    for _ in 0..16 {
        match stream::receive(conn.as_fd(), &mut [IoSliceMut::new(&mut bytes)]) {
            Ok(0) => return Some(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::channel::sender::Outgoing;
    use crate::socket::readiness::wait::Patience;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_comes_after_the_end_starts_nothing() {
        let (one, _other) = UnixStream::pair().unwrap();
        let conn = Arc::new(Conn::mapping(OwnedFd::from(one).into(), false));
        let linger = Linger::default();
        linger.flush(&conn);
        assert!(linger.0.running().is_some());
        linger.shutdown();
        // A call that the end of the library overtook.
        linger.flush(&conn);
        assert!(linger.0.is_over());
        linger.shutdown();
    }

    /// However often a sender leaves a backlog to a peer that does not read.
    #[test]
    fn a_backlog_is_seen_to_once() {
        let (one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let conn = Arc::new(Conn::mapping(OwnedFd::from(one).into(), false));
        let linger = Linger::default();
        let data = vec![7; 60_000];
        let send = || conn.send(&Outgoing::control(&data), &Patience::none());
        while !conn.backlogged() {
            send().unwrap();
        }
        for _ in 0..1000 {
            linger.flush(&conn);
        }
        let items = || linger.0.running().map_or(0, |shared| shared.work.lock().items.len());
        assert_eq!(items(), 1);
        // The peer reads again.
        other.set_nonblocking(true).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while conn.backlogged() || items() > 0 {
            assert!(Instant::now() < end);
            let _ = other.read(&mut [0; 1 << 16]);
        }
        linger.shutdown();
    }
}
