//! What a descriptor has whatever it is used for.

use crate::socket::channel::linger::Linger;
use crate::socket::channel::parameters::SessionParameters;
use crate::socket::readiness::Readiness;
use crate::socket::session::pool::PoolSide;
use crate::transport::allow::Networks;
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
    /// The element registered here.
    pub(crate) pool: Mutex<Option<Arc<PoolSide>>>,
}

impl Base {
    pub(crate) fn new(
        readiness: Arc<Readiness>,
        linger: Arc<Linger>,
        parameters: SessionParameters,
        allowed: Arc<Networks>,
    ) -> Base {
        Base { readiness, linger, parameters: Mutex::new(parameters), allowed, pool: Mutex::new(None) }
    }
}
