//! Wait sets: many descriptors waited for at once, at what the same costs with bare sockets.

use super::Library;
use crate::socket::descriptor::entry::EntryRole;
use crate::socket::error::{Result, SocketError};
use crate::socket::readiness::wait::Deadline;
use crate::socket::readiness::waitset::{Interest, Ready, WaitSet};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

impl Library {
    /// A new wait set; [`Library::close`] ends it. [`SocketError::System`]: no descriptor or no memory is left.
    pub fn wait_set(&self) -> Result<RawFd> {
        self.check_process()?;
        let set = WaitSet::new()?;
        let number = set.number();
        self.wait_sets.set(number as usize, Some(Arc::new(set))).map_err(|()| SocketError::NoNumber)?;
        Ok(number)
    }

    fn set_of(&self, number: RawFd) -> Result<Arc<WaitSet>> {
        self.check_process()?;
        usize::try_from(number).ok().and_then(|number| self.wait_sets.get(number)).ok_or(SocketError::Closed)
    }

    /// Has a set wait for a descriptor to become readable or writable, or no longer for either. A session is waited for
    /// by its socket; any other descriptor as poll(2) sees it, which knows nothing of writability. A descriptor
    /// is in one set at a time: the last one. [`SocketError::Closed`]: no set, no descriptor.
    pub fn wait_for(&self, set: RawFd, sd: RawFd, readable: bool, writable: bool) -> Result<()> {
        let (set, entry) = (self.set_of(set)?, self.entry(sd)?);
        let interest = Interest { readable, writable };
        let out = !readable && !writable;
        if let EntryRole::Single(session) = entry.role() {
            // From before it was a session.
            set.ignore(entry.readiness().as_fd());
            return session.watch((!out).then_some((&set, interest)));
        }
        match readable {
            true => set.watch(entry.readiness().as_fd(), sd, Interest { readable, writable: false }),
            false => {
                set.ignore(entry.readiness().as_fd());
                Ok(())
            }
        }
    }

    /// Waits until something is the matter with members of a set, and says of up to `most` (64 at a time) what; how
    /// many that are, 0 when time is over. `None`: for ever. [`SocketError::Closed`]: no set;
    /// [`SocketError::Invalid`]: `most` is 0; [`SocketError::Interrupted`].
    pub fn wait(
        &self,
        set: RawFd,
        most: usize,
        timeout: Option<Duration>,
        mut found: impl FnMut(RawFd, bool, bool),
    ) -> Result<usize> {
        let set = self.set_of(set)?;
        let deadline = timeout.map_or(Deadline::Never, Deadline::In);
        set.wait(most, deadline, |Ready { sd, readable, writable }| found(sd, readable, writable))
    }
}
