//! Elements that are to be asked whose they are (`claims`), and whose turn it is to have them dialled.
//!
//! What was inherited and what somebody merely said have bounds and dials of their own, so that no talk keeps those
//! waiting whose registrar died. In each of these lanes the hosts take turns from which claims come: that of the dead
//! registrar, or of whoever said something. No host gets all dials, nor do a host's claims at one place get all of its, so
//! that nobody's targets that don't answer keep others waiting; and when a lane is full, the host that has most gives way.

use super::LinkId;
use super::dialect::Removal;
use crate::machine::Target;
use crate::wire::scope::host_of;
use crate::wire::{PeId, PoolElement, PoolHandle};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound::{self, Excluded, Unbounded};

/// Where a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Until its timer ends: this link may close by itself, or the element may register.
    Waiting(Option<LinkId>),
    /// Its process is to be dialled.
    Dialling(Target),
    /// Keep-alive sent over this link.
    Asked(LinkId),
}

/// Why we ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its registrar is dead and we took over: no answer, no element.
    Inherited,
    /// It has this link and is said to be another's, or to be gone and why: no answer, no claim.
    Contested(LinkId, Option<Removal>),
    /// Its registrar suggests that we take it.
    Suggested,
    /// Somebody can't reach an element of another registrar; the keep-alive has no H flag.
    Reported,
    /// Its registrar is silent, and another one says that it is gone, and why: no answer, no element. No H flag either.
    Gone(Removal),
}

#[derive(Debug)]
pub(super) struct Claim {
    pub handle: PoolHandle,
    pub element: PoolElement,
    pub why: Why,
    /// From which host it came.
    from: Option<IpAddr>,
    pub step: Step,
    /// It was dialled in vain once.
    pub redialled: bool,
}

/// What was inherited, and what was said.
const LANES: [LaneBound; 2] =
    [LaneBound { bytes: 448 << 20, dials: 192 }, LaneBound { bytes: 64 << 20, dials: 64 }];
/// Bytes of all claims.
pub(super) const MAX_BYTES: usize = LANES[0].bytes + LANES[1].bytes;
/// One host's claims may have so many times as many dials as are left for others.
const SHARE: usize = 3;
/// And of these so many at one target's host.
const AT_ONE_HOST: usize = 64;

/// How much of a lane there may be.
#[derive(Debug)]
struct LaneBound {
    bytes: usize,
    /// Dials at the same time.
    dials: usize,
}

/// Which lane a claim is in.
fn lane(why: Why) -> usize {
    usize::from(why != Why::Inherited)
}

/// What a claim takes.
fn size(handle: &PoolHandle, element: &PoolElement) -> usize {
    const RECORD: usize = 400;
    RECORD + handle.as_bytes().len() + element.encoded_len()
}

/// The claims that come from one host.
#[derive(Debug, Default)]
struct HostClaims {
    bytes: usize,
    claims: BTreeSet<u64>,
    /// Those that are to be dialled, by the target's host.
    waiting: BTreeSet<(Option<IpAddr>, u64)>,
    /// Dials under way, by the target's host.
    dials: BTreeMap<Option<IpAddr>, usize>,
    /// Where it was dialled last.
    turn: Option<IpAddr>,
}

impl HostClaims {
    fn dialling(&self) -> usize {
        self.dials.values().sum()
    }

    /// The claim that is to be dialled next: at another host than the last one, if there is one.
    fn next(&self) -> Option<(Option<IpAddr>, u64)> {
        self.next_from(Excluded((self.turn, u64::MAX))).or_else(|| self.next_from(Unbounded))
    }

    fn next_from(&self, mut from: Bound<(Option<IpAddr>, u64)>) -> Option<(Option<IpAddr>, u64)> {
        loop {
            let &(at, number) = self.waiting.range((from, Unbounded)).next()?;
            if self.dials.get(&at).is_none_or(|&dials| dials < AT_ONE_HOST) {
                return Some((at, number));
            }
            from = Excluded((at, u64::MAX));
        }
    }
}

/// One of the two kinds of claims.
#[derive(Debug, Default)]
struct Lane {
    bytes: usize,
    /// Dials under way.
    dialling: usize,
    hosts: BTreeMap<Option<IpAddr>, HostClaims>,
    by_bytes: BTreeSet<(usize, Option<IpAddr>)>,
    /// The hosts from which something is to be dialled.
    ready: BTreeSet<Option<IpAddr>>,
    /// Whose turn it was last.
    turn: Option<IpAddr>,
}

impl Lane {
    /// Changes what a host has.
    fn change(&mut self, from: Option<IpAddr>, change: impl FnOnce(&mut HostClaims)) {
        let kept = self.hosts.entry(from).or_default();
        let before = (kept.bytes, kept.dialling());
        change(kept);
        let after = (kept.bytes, kept.dialling());
        match kept.waiting.is_empty() {
            true => self.ready.remove(&from),
            false => self.ready.insert(from),
        };
        if kept.claims.is_empty() && kept.dials.is_empty() {
            self.hosts.remove(&from);
        }
        if before.0 != after.0 {
            self.by_bytes.remove(&(before.0, from));
            if after.0 > 0 {
                self.by_bytes.insert((after.0, from));
            }
        }
        self.bytes = self.bytes - before.0 + after.0;
        self.dialling = self.dialling - before.1 + after.1;
    }

    /// The host whose turn it is, and its claim that is to be dialled next. One that has its share of the dials is passed
    /// over; of those there are few.
    fn next(&self, most: usize) -> Option<(Option<IpAddr>, Option<IpAddr>, u64)> {
        let left = most.checked_sub(self.dialling).filter(|&left| left > 0)?;
        let after = self.ready.range((Excluded(self.turn), Unbounded));
        after.chain(self.ready.iter()).find_map(|&from| {
            let kept = self.hosts.get(&from).filter(|kept| kept.dialling() < SHARE * left)?;
            let (at, number) = kept.next()?;
            Some((from, at, number))
        })
    }
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_number: BTreeMap<u64, Claim>,
    by_name: BTreeMap<(PoolHandle, PeId), u64>,
    by_link: BTreeMap<LinkId, BTreeSet<u64>>,
    by_target: BTreeMap<Target, BTreeSet<u64>>,
    lanes: [Lane; 2],
    /// Targets that are dialled, and in whose turn; or that were, and whose claims are being dealt with.
    busy: BTreeMap<Target, Option<(usize, Option<IpAddr>)>>,
    numbers: u64,
}

/// The host of a target.
fn place(target: &Target) -> Option<IpAddr> {
    target.addresses.first().map(|address| host_of(address.ip()))
}

fn unlist(list: &mut BTreeSet<u64>, number: u64) -> bool {
    list.remove(&number);
    list.is_empty()
}

impl Claims {
    /// Bytes of all claims.
    pub(super) fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// The number of the last claim.
    pub(super) fn last(&self) -> u64 {
        self.numbers
    }

    /// Dials under way.
    pub(super) fn dialling(&self) -> usize {
        self.lanes.iter().map(|lane| lane.dialling).sum()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Claim> {
        self.by_number.get(&number)
    }

    pub(super) fn number(&self, handle: &PoolHandle, id: PeId) -> Option<u64> {
        self.by_name.get(&(handle.clone(), id)).copied()
    }

    pub(super) fn has(&self, handle: &PoolHandle, id: PeId) -> bool {
        self.number(handle, id).is_some()
    }

    pub(super) fn is_asked(&self, number: u64, link: LinkId) -> bool {
        self.get(number).is_some_and(|claim| claim.step == Step::Asked(link))
    }

    /// The first claim that is to be asked at a target; the next one after another.
    pub(super) fn first_at(&self, target: &Target) -> Option<u64> {
        self.next_at(target, 0)
    }

    pub(super) fn next_at(&self, target: &Target, after: u64) -> Option<u64> {
        self.by_target.get(target)?.range(after + 1..).next().copied()
    }

    /// The first claim that was asked, or waits, over a link.
    pub(super) fn first_over(&self, link: LinkId) -> Option<u64> {
        self.by_link.get(&link)?.first().copied()
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self, handle: &PoolHandle, element: &PoolElement, why: Why) -> bool {
        let lane = lane(why);
        self.lanes[lane].bytes + size(handle, element) <= LANES[lane].bytes
    }

    /// Which claim gives way to a new one from this host: the last one of the host that has most, unless that is its own.
    pub(super) fn who_gives_way(&self, from: Option<IpAddr>, why: Why) -> Option<u64> {
        let lane = &self.lanes[lane(why)];
        let &(most, host) = lane.by_bytes.last()?;
        let own = lane.hosts.get(&from).map_or(0, |kept| kept.bytes);
        (own < most).then(|| lane.hosts.get(&host)?.claims.last().copied()).flatten()
    }

    /// A new claim, for which there is room.
    pub(super) fn add(
        &mut self,
        handle: PoolHandle,
        element: PoolElement,
        why: Why,
        from: Option<IpAddr>,
    ) -> u64 {
        self.numbers += 1;
        let (number, size) = (self.numbers, size(&handle, &element));
        self.by_name.insert((handle.clone(), element.id), number);
        self.lanes[lane(why)].change(from, |kept| {
            kept.bytes += size;
            kept.claims.insert(number);
        });
        let claim = Claim { handle, element, why, from, step: Step::Waiting(None), redialled: false };
        self.by_number.insert(number, claim);
        number
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Claim> {
        self.leave_step(number);
        let claim = self.by_number.remove(&number)?;
        let size = size(&claim.handle, &claim.element);
        self.lanes[lane(claim.why)].change(claim.from, |kept| {
            kept.bytes -= size;
            kept.claims.remove(&number);
        });
        self.by_name.remove(&(claim.handle.clone(), claim.element.id));
        Some(claim)
    }

    fn leave_step(&mut self, number: u64) {
        let Some(claim) = self.by_number.get(&number) else { return };
        match &claim.step {
            Step::Waiting(None) => {}
            Step::Waiting(Some(link)) | Step::Asked(link) => {
                let link = *link;
                if self.by_link.get_mut(&link).is_some_and(|list| unlist(list, number)) {
                    self.by_link.remove(&link);
                }
            }
            Step::Dialling(target) => {
                let at = place(target);
                self.lanes[lane(claim.why)].change(claim.from, |kept| {
                    kept.waiting.remove(&(at, number));
                });
                if self.by_target.get_mut(target).is_some_and(|list| unlist(list, number)) {
                    self.by_target.remove(target);
                }
            }
        }
    }

    pub(super) fn set_step(&mut self, number: u64, step: Step) {
        self.leave_step(number);
        match &step {
            Step::Waiting(None) => {}
            Step::Waiting(Some(link)) | Step::Asked(link) => {
                self.by_link.entry(*link).or_default().insert(number);
            }
            Step::Dialling(target) => {
                self.by_target.entry(target.clone()).or_default().insert(number);
            }
        }
        if let Some(claim) = self.by_number.get_mut(&number) {
            claim.step = step;
        }
        self.queue(number);
    }

    /// It was dialled in vain, and is again later.
    pub(super) fn set_redialled(&mut self, number: u64) {
        if let Some(claim) = self.by_number.get_mut(&number) {
            claim.redialled = true;
        }
        self.set_step(number, Step::Waiting(None));
    }

    /// Has a claim dialled when its turn comes.
    pub(super) fn queue(&mut self, number: u64) {
        let Some(claim) = self.by_number.get(&number) else { return };
        if let Step::Dialling(target) = &claim.step {
            let at = place(target);
            self.lanes[lane(claim.why)].change(claim.from, |kept| {
                kept.waiting.insert((at, number));
            });
        }
    }

    /// The next target to be dialled, if one may be, looking at so many claims at most.
    pub(super) fn next_dial(&mut self, looks: &mut usize) -> Option<Target> {
        while *looks > 0 {
            let next = |number: usize| Some((number, self.lanes[number].next(LANES[number].dials)?));
            let (number, (from, at, claim)) = next(0).or_else(|| next(1))?;
            *looks -= 1;
            let target = match self.by_number.get(&claim).map(|claim| &claim.step) {
                // Otherwise it is asked with the others there, or queued again.
                Some(Step::Dialling(target)) if !self.busy.contains_key(target) => Some(target.clone()),
                _ => None,
            };
            let lane = &mut self.lanes[number];
            lane.turn = from;
            lane.change(from, |kept| {
                kept.waiting.remove(&(at, claim));
                if target.is_some() {
                    kept.turn = at;
                    *kept.dials.entry(at).or_default() += 1;
                }
            });
            if let Some(target) = target {
                self.busy.insert(target.clone(), Some((number, from)));
                return Some(target);
            }
        }
        None
    }

    /// A dial is over: its claims are dealt with next.
    pub(super) fn dialled(&mut self, target: &Target) {
        let Some((lane, from)) = self.busy.get_mut(target).and_then(Option::take) else { return };
        let at = place(target);
        self.lanes[lane].change(from, |kept| {
            if let Some(dials) = kept.dials.get_mut(&at) {
                *dials -= 1;
                if *dials == 0 {
                    kept.dials.remove(&at);
                }
            }
        });
    }

    /// The claims at a target that was dialled were dealt with: for others it may be dialled again.
    pub(super) fn dealt_with(&mut self, target: &Target) {
        self.busy.remove(target);
    }

    /// `again`: whether those at a target are being queued again.
    pub(super) fn check(&self, again: impl Fn(&Target) -> bool) -> Result<(), String> {
        let linked: usize = self.by_link.values().map(BTreeSet::len).sum();
        let aimed: usize = self.by_target.values().map(BTreeSet::len).sum();
        let on_link = |claim: &&Claim| matches!(claim.step, Step::Asked(_) | Step::Waiting(Some(_)));
        let asked = self.by_number.values().filter(on_link).count();
        let dialling =
            self.by_number.values().filter(|claim| matches!(claim.step, Step::Dialling(_))).count();
        let names = self.by_name.len();
        if names != self.by_number.len() || linked != asked || aimed != dialling {
            return Err(format!(
                "claims: {} of {names} names, {linked} linked of {asked}, {aimed} aimed of {dialling}",
                self.by_number.len()
            ));
        }
        for (number, claim) in &self.by_number {
            if let Step::Dialling(target) = &claim.step {
                let kept = self.lanes[lane(claim.why)].hosts.get(&claim.from);
                let waits = kept.is_some_and(|kept| kept.waiting.contains(&(place(target), *number)));
                if !waits && !self.busy.contains_key(target) && !again(target) {
                    return Err(format!("claim {number} is never dialled"));
                }
            }
        }
        for (number, (lane, bounds)) in self.lanes.iter().zip(&LANES).enumerate() {
            self.check_lane(number, lane, bounds)?;
        }
        Ok(())
    }

    fn check_lane(&self, number: usize, lane: &Lane, bounds: &LaneBound) -> Result<(), String> {
        let mut fresh: BTreeMap<Option<IpAddr>, (usize, usize)> = BTreeMap::new();
        for claim in self.by_number.values().filter(|claim| self::lane(claim.why) == number) {
            let (bytes, claims) = fresh.entry(claim.from).or_default();
            *bytes += size(&claim.handle, &claim.element);
            *claims += 1;
        }
        let kept = lane.hosts.iter().filter(|(_, kept)| !kept.claims.is_empty());
        let kept: BTreeMap<Option<IpAddr>, (usize, usize)> =
            kept.map(|(&host, kept)| (host, (kept.bytes, kept.claims.len()))).collect();
        let sorted: BTreeSet<(usize, Option<IpAddr>)> =
            fresh.iter().map(|(&host, &(bytes, _))| (bytes, host)).collect();
        let bytes: usize = fresh.values().map(|(bytes, _)| bytes).sum();
        let waits = lane.hosts.iter().filter(|(_, kept)| !kept.waiting.is_empty());
        let ready: BTreeSet<Option<IpAddr>> = waits.map(|(&host, _)| host).collect();
        let dials: usize = lane.hosts.values().map(HostClaims::dialling).sum();
        let busy = self.busy.values().flatten().filter(|(lane, _)| *lane == number).count();
        if (kept, &sorted, bytes, &ready) != (fresh, &lane.by_bytes, lane.bytes, &lane.ready)
            || bytes > bounds.bytes
            || (dials, busy) != (lane.dialling, lane.dialling)
            || dials > bounds.dials
        {
            return Err(format!(
                "claims of lane {number}: {bytes} bytes of {} counted, {dials} and {busy} dials of {}",
                lane.bytes, lane.dialling
            ));
        }
        Ok(())
    }
}
