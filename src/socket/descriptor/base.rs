//! What a descriptor has whatever it is used for.

use crate::machine::trust::Roles;
use crate::runtime::SessionSecurity;
use crate::socket::channel::carrier::Proof;
use crate::socket::channel::linger::Linger;
use crate::socket::channel::parameters::SessionParameters;
use crate::socket::readiness::Readiness;
use crate::socket::session::pool::PoolSide;
use crate::transport::allow::Networks;
use crate::transport::tls::{Judge, Mode};
use parking_lot::Mutex;
use std::sync::Arc;

/// A descriptor's readiness, and what its sessions are to have.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) linger: Arc<Linger>,
    pub(crate) parameters: Mutex<SessionParameters>,
    /// From where sessions are taken.
    pub(crate) allowed: Arc<Networks>,
    /// What sessions over TCP prove themselves by.
    pub(crate) security: Arc<SessionSecurity>,
    /// The element registered here.
    pub(crate) pool: Mutex<Option<Arc<PoolSide>>>,
}

impl Base {
    pub(crate) fn new(
        readiness: Arc<Readiness>,
        linger: Arc<Linger>,
        parameters: SessionParameters,
        allowed: Arc<Networks>,
        security: Arc<SessionSecurity>,
    ) -> Base {
        let (parameters, pool) = (Mutex::new(parameters), Mutex::new(None));
        Base { readiness, linger, parameters, allowed, security, pool }
    }

    /// What who connects has to prove; `None`: nothing.
    pub(crate) fn proof(&self) -> Option<Proof> {
        if self.security.mode() == Mode::Off {
            return None;
        }
        let pool = self.pool.lock().as_ref().map(|pool| pool.handle.clone());
        let judge = Judge::new(move |names| {
            let roles = Roles::parse(names.iter().map(String::as_str));
            match &pool {
                Some(pool) if roles.may_use(pool.as_bytes()) => Ok(()),
                None if roles.may_use_some() => Ok(()),
                Some(pool) => Err(format!("it is no user of pool {pool:?}: its certificate names {roles}")),
                None => Err(format!("it is no user: its certificate names {roles}")),
            }
        });
        Some(Proof { security: self.security.clone(), judge })
    }
}
