//! Numbers for system descriptors: mapped ones, in calls that take those as well.

use super::Library;
use crate::socket::error::{Result, SocketError};
use std::os::fd::RawFd;

impl Library {
    pub(super) fn alias(&self, sd: RawFd) -> Option<RawFd> {
        self.aliases.read().get(&sd).copied()
    }

    /// Gives a system descriptor a number here: `to`, or its own, which it may have already.
    /// [`SocketError::Misused`]: `system` is none, or one of ours; [`SocketError::NoNumber`]: the number is taken.
    pub fn map(&self, system: RawFd, to: Option<RawFd>) -> Result<RawFd> {
        self.check_process()?;
        let number = to.unwrap_or(system);
        if system < 0 || number < 0 || self.entry(system).is_ok() {
            return Err(SocketError::Misused);
        }
        let mut aliases = self.aliases.write();
        if to.is_none() && aliases.get(&number) == Some(&system) {
            return Ok(number);
        }
        if self.entry(number).is_ok() || aliases.contains_key(&number) {
            return Err(SocketError::NoNumber);
        }
        aliases.insert(number, system);
        Ok(number)
    }

    /// Forgets a mapped number; the system descriptor stays open. [`SocketError::Closed`]: not mapped.
    pub fn unmap(&self, sd: RawFd) -> Result<()> {
        self.check_process()?;
        self.aliases.write().remove(&sd).map(|_| ()).ok_or(SocketError::Closed)
    }

    /// The system descriptor behind a mapped number; `None` if `sd` is an RSerPool descriptor;
    /// [`SocketError::Closed`] if neither.
    pub fn mapped(&self, sd: RawFd) -> Result<Option<RawFd>> {
        match self.entry(sd) {
            Ok(_) => Ok(None),
            Err(error) => self.alias(sd).map(Some).ok_or(error),
        }
    }
}
