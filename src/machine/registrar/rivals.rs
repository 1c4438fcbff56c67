//! Who waits for an identifier that somebody else has.

use super::dialect::client_may_be_rsplibs;
use super::{LinkId, Registrar, reach};
use crate::wire::{Asap, PeId, PoolHandle};
use std::net::IpAddr;

/// Elements whose identifier somebody waits for, and the longest handle of their pools.
pub(super) const MAX_RIVALS: usize = 1024;
const MAX_HANDLE: usize = 1024;
/// Those who wait for one of them.
const MOST: usize = 4;

/// Who waits for one identifier: of each host one, so that nobody makes us forget others by asking from many links.
#[derive(Debug, Default)]
pub(super) struct Contenders(Vec<(Option<IpAddr>, LinkId)>);

impl Contenders {
    /// The newest of its host; of more hosts than are kept the one that asked longest ago goes.
    fn add(&mut self, host: Option<IpAddr>, link: LinkId) {
        self.0.retain(|&(other, _)| other != host);
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push((host, link));
    }
}

impl Registrar {
    /// Somebody else has the identifier. When it is free, this one hears of it.
    pub(super) fn note_rival(&mut self, link: LinkId, handle: &PoolHandle, id: PeId) {
        if handle.as_bytes().len() <= MAX_HANDLE
            && let Some(state) = self.links.get(&link)
        {
            let host = reach::host(&state.ends);
            self.rivals.touch((handle.clone(), id), MAX_RIVALS, Contenders::default()).add(host, link);
        }
    }

    /// An element left: whoever wanted its place may have it, and says so itself. One of rsplib's expects no response to
    /// what it did not ask, and answers a keep-alive; one of ours then sees that it is to register.
    pub(super) fn tell_rivals(&mut self, handle: &PoolHandle, id: PeId) {
        if self.rivals.is_empty() {
            return;
        }
        let Some(Contenders(waiting)) = self.rivals.remove(&(handle.clone(), id)) else { return };
        for (_, link) in waiting {
            let Some(state) = self.links.get(&link) else { continue };
            let handle = handle.clone();
            let told = match client_may_be_rsplibs(&self.config, &state.ends) {
                true => Asap::EndpointKeepAlive { home: false, registrar: self.id, handle, id: Some(id) },
                false => Asap::DeregistrationResponse { handle, id, error: None },
            };
            self.send_asap(link, &told);
        }
    }
}
