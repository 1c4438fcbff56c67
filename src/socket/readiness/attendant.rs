//! A thread of the library's own for what goes on without a caller: started with its first work, woken by a bell, gone
//! with the library.

use crate::runtime::thread;
use crate::transport::descriptors::{self, Held};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The bell's token; those of the work are others.
const BELL: u64 = 0;

/// What the thread waits at, and others wake it by.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) epoll: Held<Epoll>,
    bell: Held<EventFd>,
}

impl Post {
    fn new() -> io::Result<Post> {
        let (epoll, bell) = (descriptors::epoll()?, descriptors::eventfd(0)?);
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Post { epoll, bell })
    }

    /// Has the thread look again.
    pub(crate) fn ring(&self) {
        let _ = self.bell.write(1);
    }

    /// The tokens of the work that something happened to. EBADF: the program closed all files, and their numbers may
    /// be its own files' by now.
    pub(crate) fn wait<'a>(
        &self,
        events: &'a mut [EpollEvent],
        timeout: EpollTimeout,
    ) -> Result<impl Iterator<Item = u64> + use<'a>, Errno> {
        let count = match self.epoll.wait(events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        if count == 0 && !descriptors::is_watched(self.epoll.0.as_raw_fd(), self.bell.as_raw_fd()) {
            return Err(Errno::EBADF);
        }
        let events = &events[..count];
        if events.iter().any(|event| event.data() == BELL) {
            let _ = self.bell.read();
        }
        Ok(events.iter().map(EpollEvent::data).filter(|&token| token != BELL))
    }
}

/// What the thread shares with those who give it work.
pub(crate) trait Duty: Debug + Send + Sync + 'static {
    /// The thread's name.
    const NAME: &'static str;

    fn new(post: Post) -> Self;

    fn post(&self) -> &Post;

    /// The thread's body.
    fn run(&self);

    /// [`Duty::run`] is to return soon.
    fn stop(&self);
}

/// The thread, if there is one.
#[derive(Debug)]
pub(crate) struct Attendant<D>(Mutex<AttendantStage<D>>);

#[derive(Debug)]
enum AttendantStage<D> {
    Idle,
    Running(Arc<D>, JoinHandle<()>),
    /// Calls that outlast the library find nobody to do anything for them, and start nobody.
    Over,
}

impl<D> Default for Attendant<D> {
    fn default() -> Attendant<D> {
        Attendant(Mutex::new(AttendantStage::Idle))
    }
}

fn start<D: Duty>() -> io::Result<(Arc<D>, JoinHandle<()>)> {
    let shared = Arc::new(D::new(Post::new()?));
    let at_work = shared.clone();
    let thread = thread::spawn(D::NAME, move || at_work.run())?;
    Ok((shared, thread))
}

impl<D: Duty> Attendant<D> {
    /// What is shared with the thread, which is started if need be.
    pub(crate) fn shared(&self) -> io::Result<Arc<D>> {
        let mut stage = self.0.lock();
        match &*stage {
            AttendantStage::Running(shared, _) => Ok(shared.clone()),
            AttendantStage::Idle => {
                let (shared, thread) =
                    start::<D>().inspect_err(|error| log::warn!("no thread {}: {error}", D::NAME))?;
                *stage = AttendantStage::Running(shared.clone(), thread);
                Ok(shared)
            }
            AttendantStage::Over => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends the thread, and waits for that.
    pub(crate) fn shutdown(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), AttendantStage::Over);
        if let AttendantStage::Running(shared, thread) = before {
            shared.stop();
            shared.post().ring();
            let _ = thread.join();
        }
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> Option<Arc<D>> {
        match &*self.0.lock() {
            AttendantStage::Running(shared, _) => Some(shared.clone()),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.0.lock(), AttendantStage::Over)
    }
}
