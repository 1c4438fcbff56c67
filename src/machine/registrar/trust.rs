//! What the roles of a peer let it do (RFC 5352 section 9, RFC 5353 section 6). Over a link without
//! certificates there are none to ask, and everybody may do everything.

use super::{LinkId, Registrar};
use crate::machine::trust::Roles;
use crate::machine::{LinkEnds, Service};
use crate::wire::PoolHandle;

impl Registrar {
    /// Whether a link that came up is let in at all: registrars speak ENRP only with registrars of their
    /// scope. Elsewhere each act is looked at.
    pub(super) fn admits(&mut self, ends: &LinkEnds) -> bool {
        let Some(roles) = &ends.roles else { return true };
        let scope = self.config.scope.as_deref();
        if ends.service == Service::Asap || roles.is_registrar(scope) {
            return true;
        }
        let about = format!(
            "{} is no registrar of {}: its certificate says {roles}",
            ends.peer.first().map_or("a peer".into(), |peer| peer.ip().to_string()),
            scope.unwrap_or("this scope")
        );
        self.complain("no registrar", || about);
        false
    }

    /// Whether the peer may have elements in the pool.
    pub(super) fn may_serve(&mut self, link: LinkId, handle: &PoolHandle) -> bool {
        self.permits(link, "may not serve", handle.as_bytes(), Roles::may_serve)
    }

    /// Whether the peer may ask for the pool's elements, or report them.
    pub(super) fn may_resolve(&mut self, link: LinkId, handle: &[u8]) -> bool {
        self.permits(link, "may not use", handle, Roles::may_resolve)
    }

    fn permits(
        &mut self,
        link: LinkId,
        what: &'static str,
        handle: &[u8],
        act: fn(&Roles, &[u8]) -> bool,
    ) -> bool {
        let Some(roles) = self.links.get(&link).and_then(|state| state.ends.roles.as_ref()) else {
            return true;
        };
        if act(roles, handle) {
            return true;
        }
        self.stats.messages_rejected += 1;
        let (roles, from) = (roles.clone(), self.end_of(link));
        self.complain(what, || {
            let handle = PoolHandle::new(handle).map(|handle| handle.to_string()).unwrap_or_default();
            format!("the peer at {from} {what} pool \"{handle}\": its certificate says {roles}")
        });
        false
    }
}
