//! Elements and resolutions without descriptors: basic mode (`rsp_getaddrinfo`, `rsp_pe_registration`, ..).

use super::{Library, random_id};
use crate::machine::client::{self, RequestError};
use crate::wire::{PeId, Policy, PoolElement, PoolHandle, RegistrarId, Transport};
use std::result::Result;
use std::time::Duration;

/// A pool element that a program serves by itself.
#[derive(Debug, Clone)]
pub struct OwnElement {
    /// Pool handle.
    pub handle: PoolHandle,
    /// Its identifier; `None`: a random one.
    pub id: Option<PeId>,
    /// Where it is reached.
    pub transport: Transport,
    /// Policy and values.
    pub policy: Policy,
    /// Registration life in milliseconds (RFC 5354 section 3.8).
    pub life: u32,
}

impl Library {
    /// Resolves a handle to up to `items` elements, chosen by the pool's policy, from what is known for at most
    /// `stale`.
    pub fn resolve(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
    ) -> Result<Vec<PoolElement>, RequestError> {
        if self.is_forked() {
            return Err(RequestError::Shutdown);
        }
        self.directory().resolve(handle, items, stale)
    }

    /// Registers an element and keeps it registered; `wait` for the registrar's answer. Without an answer, or if
    /// refused, it is tried again, so it has an identifier in any case.
    pub fn register_element(&self, own: OwnElement, wait: bool) -> (PeId, Result<(), RequestError>) {
        let OwnElement { handle, id, transport, policy, life } = own;
        let id = id.unwrap_or_else(random_id);
        let element = PoolElement { id, home: RegistrarId(0), life, transport, policy, asap: None };
        // A third of its life, so that two losses do no harm.
        let interval = Duration::from_millis(u64::from((life / 3).max(1)));
        let answer = self.directory().register(client::Registration { handle, element, interval });
        let result = answer.and_then(|answer| if wait { answer.wait().map(|_| ()) } else { Ok(()) });
        (id, result)
    }

    /// Takes such an element out of its pool; `wait` for the registrar's answer.
    pub fn deregister_element(&self, handle: &PoolHandle, id: PeId, wait: bool) -> Result<(), RequestError> {
        let answer = self.directory().deregister(handle, id)?;
        if !wait {
            return Ok(());
        }
        match answer.wait() {
            // Whatever the registrar thinks of it, it is not ours any more.
            Ok(()) | Err(RequestError::Rejected(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reports an element that does not answer: to the registrar, and it is not chosen again until it is heard of
    /// anew.
    pub fn report_unreachable(&self, handle: &PoolHandle, id: PeId) {
        self.directory().report_unreachable(handle, id);
    }
}
