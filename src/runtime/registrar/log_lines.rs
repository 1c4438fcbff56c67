//! What happened to elements and other registrars, in lines of the log.

use crate::machine::registrar::What;
use crate::wire::{PoolHandle, RegistrarId, show};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

/// What happened in words that say nothing of whom, and to which thing it did.
pub(super) fn cause(what: &What) -> (&'static str, u64) {
    let name = |named: (Option<&PoolHandle>, u32)| {
        let mut hasher = DefaultHasher::new();
        named.hash(&mut hasher);
        hasher.finish()
    };
    let (cause, named) = match what {
        What::Registered { handle, id, .. } => ("an element was registered", (Some(handle), id.0)),
        What::Removed { handle, id, .. } => ("an element was removed", (Some(handle), id.0)),
        What::Refused { handle, id, .. } => ("a request was refused", (Some(handle), id.0)),
        What::Reported { handle, id, .. } => ("an element was reported", (Some(handle), id.0)),
        What::Moved { handle, id, .. } => ("an element has another registrar", (Some(handle), id.0)),
        What::Operated { handle, id, .. } => ("an operator changed an element", (Some(handle), id.0)),
        What::PeerFound { id, .. } => ("a registrar is there", (None, id.0)),
        What::PeerDead { id, .. } => ("a registrar is dead", (None, id.0)),
        What::TakingOver { target, .. } => ("a takeover began", (None, target.0)),
        What::TakenOver { target, .. } => ("a takeover was done", (None, target.0)),
        What::Serving => ("service began", (None, 0)),
    };
    (cause, name(named))
}

/// What happened to an element or a registrar, in a line. `more`: what of this kind got none.
pub(super) fn tell(what: &What, ourselves: RegistrarId, more: impl std::fmt::Display) {
    let at = |address: &Option<SocketAddr>| show::at(*address);
    let by = |from: &Option<SocketAddr>| from.map_or(String::new(), |address| format!(" by {address}"));
    match what {
        // The words by which scripts find it in rsplib's log, as with `Serving`.
        What::Registered { handle, id, home, address, size } if *home == ourselves => {
            log::info!("Successfully registered {handle}/{id}{}, {size} in its pool{more}", at(address));
        }
        What::Registered { handle, id, home, address, size } => {
            log::info!("Registrar {home} has {handle}/{id}{}, {size} in its pool{more}", at(address));
        }
        What::Removed { handle, id, reason, address, left, .. } => {
            log::info!(
                "Removed {handle}/{id}: {reason}; it was{}, {left} left in its pool{more}",
                at(address)
            );
        }
        What::Refused { handle, id, cause, from } => {
            log::info!("Refused {handle}/{id}{}: {cause:?}{more}", by(from));
        }
        What::Reported { handle, id, address, from } => {
            log::info!("Reported as unreachable{}: {handle}/{id}{}{more}", by(from), at(address));
        }
        What::Moved { handle, id, address, from, to, to_address } => {
            log::info!(
                "{handle}/{id}{} has registrar {to}{} instead of {from}{more}",
                at(address),
                at(to_address)
            );
        }
        What::Operated { handle, id, address, action } => {
            log::info!("{handle}/{id}{}: {action}{more}", at(address))
        }
        What::PeerFound { id, address } => log::info!("registrar {id}{} is there{more}", at(address)),
        What::PeerDead { id, address } => log::warn!("registrar {id}{} is dead{more}", at(address)),
        What::TakingOver { target, address } => {
            log::info!("taking over from registrar {target}{}{more}", at(address));
        }
        What::TakenOver { target, address, by, by_address, elements } => log::info!(
            "registrar {by}{} took over {elements} elements from registrar {target}{}{more}",
            at(by_address),
            at(address)
        ),
        What::Serving => log::info!("The registrar is ready and serves"),
    }
}
