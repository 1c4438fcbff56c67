//! DNS from pools (RFC 1035, RFC 2782): one zone below which every pool has its name. Pure: queries in, answers out; who the
//! elements are is asked of a [`Pools`].
//!
//! | file | what |
//! |---|---|
//! | `names` | [`Zone`], and what a name below it stands for |
//! | `responder` | [`Responder`]: a query's answer |
//! | `records` | what an answer is made of: sizes, truncation, EDNS |
//! | `counts` | [`Counts`], for metrics |
//!
//! The bytes are the `domain` crate's business: it reads a query in place.

mod counts;
mod names;
mod records;
mod responder;
#[cfg(test)]
mod tests;

pub use counts::{Counts, TYPES};
pub use names::Zone;
pub use responder::{Asker, Reply, Responder};

use crate::wire::{PeId, PoolElement, PoolHandle, Transport};

/// The port.
pub const DNS_PORT: u16 = 53;
/// An answer over UDP is at most so many times as long as its query.
pub const MAX_FACTOR: usize = 10;
/// No answer over UDP is longer than this, whatever the asker says it takes: nothing is cut into fragments.
pub const MAX_UDP: usize = 1232;
/// Elements in one answer.
pub const MAX_ELEMENTS: usize = 400;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A pool, which may be empty.
    Pool(PoolHandle),
    /// Nothing.
    Unknown,
    /// It is being found out; ask again.
    Later,
    /// Nobody can tell at present.
    Unavailable,
}

/// Where the elements are from.
pub trait Pools {
    /// The pool of that name: the handle that is spelled so, or else the only one that differs from it in the case
    /// of ASCII letters.
    fn find(&mut self, name: &[u8]) -> Found;

    /// Up to `items` elements chosen by the pool's policy among those that are `usable`, best first. They count as
    /// used.
    fn choose(
        &mut self,
        pool: &PoolHandle,
        items: usize,
        usable: &dyn Fn(&Transport) -> bool,
    ) -> Vec<PoolElement>;

    /// An element of the pool.
    fn element(&self, pool: &PoolHandle, id: PeId) -> Option<PoolElement>;

    /// How many elements the pool has.
    fn size(&self, pool: &PoolHandle) -> usize;

    /// Whether there is not what is not known: else a negative answer (RFC 2308) would be one too many, and kept.
    fn is_complete(&self) -> bool {
        true
    }
}
