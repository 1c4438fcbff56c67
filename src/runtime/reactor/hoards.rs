//! What the kernel keeps for associations, where no event tells of it.
//!
//! TCP hands out whatever it has, and each connection's buffers are its own. SCTP hands out messages: of one whose end
//! does not come, the kernel keeps the beginning, and says nothing; and all associations of the machine share what SCTP
//! may have (`net.sctp.sctp_mem`). When that is full nobody can send any more, and nobody is told when there is room
//! again. So each association has bounded buffers (`transport/sctp.rs`), is asked from time to time what is in
//! them (SO_MEMINFO), goes when what it began does not end, and whoever hoards most goes when all together have too
//! much. What could not be sent is tried again. Whose host is gone goes, too.

use super::{Reactor, ReactorTimer};
use crate::machine::{LinkDown, LinkId};
use crate::transport::Link;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often some of the associations are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The same while they have half of what they may have.
const LOOK_CLOSER: Duration = Duration::from_millis(100);
/// Associations looked at at a time.
const LOOKS: usize = 1024;
/// Whoever has less is not dropped for the sake of the total.
const SMALL: usize = 4096;
/// What the kernel had no room for is tried again after that.
const AGAIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hoards {
    /// Slots with associations; some of them are gone.
    all: Vec<(usize, LinkId)>,
    /// Which of them is looked at next.
    next: usize,
    /// A timer for the next look is running.
    watching: bool,
    /// What the kernel keeps for all of them, as last looked at.
    total: usize,
    /// Those with something that the kernel did not take.
    waiting: BTreeSet<(usize, LinkId)>,
}

impl Hoards {
    /// An association is gone.
    pub fn forget(&mut self, kernel: usize) {
        self.total -= kernel;
    }

    /// Bytes that the kernel keeps for all associations, as last looked at.
    pub fn total(&self) -> usize {
        self.total
    }
}

impl Reactor {
    pub(super) fn watch_kernel_memory(&mut self, slot: usize, link: LinkId) {
        self.links.hoards.all.push((slot, link));
        if !std::mem::replace(&mut self.links.hoards.watching, true) {
            self.arm(LOOK, ReactorTimer::Hoards);
        }
    }

    pub(super) fn look_at_hoards(&mut self) {
        for _ in 0..LOOKS.min(self.links.hoards.all.len()) {
            let hoards = &mut self.links.hoards;
            hoards.next = if hoards.next < hoards.all.len() { hoards.next } else { 0 };
            let Some(&(slot, link)) = hoards.all.get(hoards.next) else { break };
            if self.look_at_hoard(slot, link) {
                self.links.hoards.next += 1;
            } else {
                let next = self.links.hoards.next;
                self.links.hoards.all.swap_remove(next);
            }
        }
        let bound = self.limits.kernel;
        if self.links.hoards.total > bound {
            self.drop_hoarders(bound * 3 / 4);
        }
        self.links.hoards.watching = !self.links.hoards.all.is_empty();
        if self.links.hoards.watching {
            let much = self.links.hoards.total > bound / 2;
            self.arm(if much { LOOK_CLOSER } else { LOOK }, ReactorTimer::Hoards);
        }
    }

    /// Whether there still is such an association.
    fn look_at_hoard(&mut self, index: usize, id: LinkId) -> bool {
        let (now, patience) = (self.now, self.limits.partial);
        let Some(slot) = self.links.get_as(index, id) else { return false };
        let Some((came, sent)) = slot.link.as_ref().and_then(Link::kernel_memory) else {
            return true;
        };
        let before = std::mem::replace(&mut slot.kernel, came + sent);
        // Of one that is not read from, what waits is no half message.
        let stuck = came > 0 && !slot.is_left_alone();
        slot.stuck_since = stuck.then(|| slot.stuck_since.unwrap_or(now));
        let over = slot.stuck_since.is_some_and(|since| now - since >= patience);
        let gone = matches!(&slot.link, Some(Link::Sctp(link)) if link.is_unreachable());
        self.links.hoards.total = self.links.hoards.total - before + came + sent;
        if gone {
            log::debug!("{id:?}: answers no heartbeats");
            self.drop_link(index, LinkDown::Broken);
            return false;
        }
        if over {
            self.counters.half_messages += 1;
            self.complain_about(index, "half", "a message began and did not end in time");
            self.drop_link(index, LinkDown::Garbage);
        }
        !over
    }

    /// Drops those for whom the kernel keeps most until it is no more than `bound`; first those that never said anything.
    fn drop_hoarders(&mut self, bound: usize) {
        let links = &mut self.links;
        let mut all: Vec<(bool, Reverse<usize>, usize)> = Vec::new();
        for &(index, id) in &links.hoards.all {
            if let Some(slot) = links.slots.get(index).filter(|slot| slot.id == id && slot.kernel > SMALL) {
                all.push((slot.spoke, Reverse(slot.kernel), index));
            }
        }
        all.sort_unstable();
        for (_, _, index) in all {
            if self.links.hoards.total <= bound {
                break;
            }
            self.counters.overflows += 1;
            self.complain_about(
                index,
                "kernel memory",
                "the kernel keeps too much for all associations, and most for such",
            );
            self.drop_link(index, LinkDown::Overflow);
        }
    }

    /// The kernel did not take something of an association's: it may be that nothing will tell when it would.
    pub(super) fn try_again_soon(&mut self, index: usize, id: LinkId) {
        let slot = self.links.get_as(index, id);
        if !slot.is_some_and(|slot| matches!(slot.link, Some(Link::Sctp(_)))) {
            return;
        }
        if self.links.hoards.waiting.is_empty() {
            self.arm(AGAIN, ReactorTimer::Again);
        }
        self.links.hoards.waiting.insert((index, id));
    }

    pub(super) fn try_again(&mut self) {
        for (index, id) in std::mem::take(&mut self.links.hoards.waiting) {
            if self.links.get_as(index, id).is_some() {
                self.flush_slot(index);
            }
        }
    }
}
