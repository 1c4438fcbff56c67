//! Who makes room when all places are taken: those that never said anything, of the host that has most of them the oldest
//! first; then those that whoever knows what hangs on each link names ([`Input::Full`]). And who lets go when all links
//! together hold too much.

use super::{Input, Reactor};
use crate::machine::registrar::Leaver;
use crate::machine::{LinkDown, Time};
use crate::runtime::guests::Leaving;
use crate::wire::scope::host_of;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Who makes room is asked anew after so long; and where nobody does, not more often than that.
const LASTS: Duration = Duration::from_secs(1);
const IN_VAIN: Duration = Duration::from_millis(100);
/// A link that is younger may be about to say something.
const NEWBORN: Duration = Duration::from_secs(1);

/// Those who make room, where there are too many.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    leavers: VecDeque<Leaver>,
    /// When they were named.
    named: Time,
    /// When nobody was last.
    in_vain: Option<Time>,
}

impl Reactor {
    /// The answer to [`Input::Full`]: who makes room, those first who do so first.
    pub fn name_leavers(&mut self, leavers: Vec<Leaver>) {
        self.room.in_vain = leavers.is_empty().then_some(self.now);
        self.room.leavers = leavers.into();
        self.room.named = self.now;
    }

    /// Makes room for one that comes from there; `false`: there is none.
    pub(super) fn make_room<F>(&mut self, newcomer: Option<IpAddr>, handler: &mut F) -> bool
    where
        F: FnMut(&mut Reactor, Input<'_>),
    {
        if self.silence_leaves(newcomer, NEWBORN) || self.somebody_leaves(newcomer) {
            return true;
        }
        if self.room.in_vain.is_none_or(|when| self.now >= when + IN_VAIN) {
            // So that nobody is named who is gone already.
            self.report_changes(handler);
            handler(self, Input::Full);
            if self.somebody_leaves(newcomer) {
                return true;
            }
        }
        self.silence_leaves(newcomer, Duration::ZERO)
    }

    /// The same for one that we dial, as far as it is known who makes room.
    pub(super) fn make_room_for_ours(&mut self) -> bool {
        self.silence_leaves(None, NEWBORN)
            || self.somebody_leaves(None)
            || self.silence_leaves(None, Duration::ZERO)
    }

    /// Of those that never said anything, the oldest of the host that has most of them goes. Where that host has no more
    /// than the newcomer's would have, only one that had some time: else whoever comes often enough would keep others
    /// from their first word.
    fn silence_leaves(&mut self, newcomer: Option<IpAddr>, patience: Duration) -> bool {
        let Some(Leaving { guest: silent, is_of_more, is_own }) = self.links.silent.who_goes(newcomer) else {
            return false;
        };
        let since = self.links.slots.get(silent).map_or(self.now, |slot| slot.heard);
        if !is_of_more && !is_own && self.now - since < patience {
            return false;
        }
        self.counters.refused += 1;
        self.complain_about(silent, "full of silent ones", "it says nothing, and others need the place");
        self.drop_link(silent, LinkDown::Overflow);
        true
    }

    fn somebody_leaves(&mut self, newcomer: Option<IpAddr>) -> bool {
        let named = self.room.named;
        if self.now >= named + LASTS {
            self.room.leavers.clear();
        }
        let newcomer = newcomer.map(host_of);
        while let Some(leaver) = self.room.leavers.front().copied() {
            if leaver.settled && (newcomer.is_none() || leaver.host == newcomer) {
                return false;
            }
            self.room.leavers.pop_front();
            let index = self.links.find(leaver.link);
            // Who said something meanwhile may be of use by now.
            let idle = |index: &usize| self.links.slots.get(*index).is_some_and(|slot| slot.heard <= named);
            if let Some(index) = index.filter(idle) {
                self.counters.refused += 1;
                let why = "its host has most of all places, and others need one";
                self.complain_about(index, "full of one host's", why);
                self.drop_link(index, LinkDown::Overflow);
                return true;
            }
        }
        false
    }

    /// All links together hold too much: those go first that never said anything whole, then those that hold most.
    pub(super) fn drop_holders(&mut self) {
        let bound = self.limits.buffered / 4 * 3;
        let holders = self.links.slots.iter().filter(|(_, slot)| slot.held > 0 && slot.link.is_some());
        let mut all: Vec<(bool, Reverse<usize>, usize)> =
            holders.map(|(index, slot)| (slot.spoke, Reverse(slot.held), index)).collect();
        all.sort_unstable();
        for (_, _, index) in all {
            if self.links.held() <= bound {
                break;
            }
            self.counters.overflows += 1;
            self.complain_about(index, "memory", "too much is buffered in total, and most for such");
            self.drop_link(index, LinkDown::Overflow);
        }
    }
}
