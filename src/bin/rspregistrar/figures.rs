//! The figures of a registrar and its scope that the page, `rspctl` and the metrics show: read here, so that they can't
//! differ.

use rserpool::machine::registrar::PeerView;
use rserpool::runtime::registrar::Server;

/// As they are now.
pub struct Figures {
    /// Whether the ASAP service has started.
    pub serving: bool,
    /// Of the operation scope.
    pub pools: usize,
    pub elements: usize,
    /// Elements whose home registrar we are.
    pub owned: usize,
    /// Pools that became empty within the last hour and still are.
    pub emptied: usize,
    /// Connections.
    pub links: usize,
    /// The other registrars.
    pub peers: Vec<PeerView>,
    /// What is bounded, how much of it there is, and how much there can be.
    pub bounds: Vec<(&'static str, usize, usize)>,
}

impl Figures {
    /// Of a registrar.
    pub fn read(server: &Server) -> Figures {
        let (machine, links) = (server.machine(), server.link_stats());
        let space = machine.handlespace();
        let mut bounds = machine.bounds();
        bounds.push(("links", links.open, links.most));
        bounds.push(("bytes of queues and half messages", links.held, links.most_held));
        bounds.push(("bytes that the kernel keeps for associations", links.kernel, links.most_kernel));
        Figures {
            serving: machine.is_serving(),
            pools: space.pool_count(),
            elements: space.len(),
            owned: space.owned_count(machine.id()),
            emptied: machine.emptied_pools(server.now()).count(),
            links: links.open,
            peers: machine.peers(),
            bounds,
        }
    }
}

/// Whether another registrar is heard, over a link.
pub fn is_up(peer: &PeerView) -> bool {
    peer.state == "alive"
}
