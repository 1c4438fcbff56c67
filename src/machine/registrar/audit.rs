//! Finding out whether a peer has what we have: checksums and handle tables (RFC 5353 sections 3.2.3, 3.6).

use super::absent::Absent;
use super::chores::Chore;
use super::sync::Source;
use super::{Dialect, LinkId, Registrar};
use crate::handlespace::ElementRef;
use crate::machine::{LinkProtocol, Time};
use crate::wire::{Enrp, EnrpMessage, MAX_MESSAGE, PeId, PoolElement, PoolHandle, RegistrarId};
use std::time::Duration;

/// Our comparison of a peer's elements with what we know of them.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// While one runs: the number of the newest record when it began.
    since: Option<u64>,
    /// When its last part was asked for.
    progress: Time,
    /// Updates may have been lost: compare whatever the checksum says.
    needed: bool,
    /// The last one did not help, so the next one waits this long.
    pause: Duration,
    not_before: Time,
}

/// An audit without an answer for so long is begun anew.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause after an audit that did not help.
const AUDIT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Elements that are told of only, and not looked up or changed, of which so many are as much work as one elsewhere.
const TOLD_OF_A_UNIT: usize = 2;

/// Pools with some of their elements, as in a table response.
type PoolList = Vec<(PoolHandle, Vec<PoolElement>)>;

impl Audit {
    pub(super) fn stop(&mut self) {
        self.since = None;
    }

    pub(super) fn link_lost(&mut self) {
        self.since = None;
        self.needed = true;
        self.pause = Duration::ZERO;
        self.not_before = Time::default();
    }

    /// The whole table was read: nothing can be missing.
    pub(super) fn done_otherwise(&mut self) {
        self.needed = false;
    }
}

/// How far a peer has read our table.
#[derive(Debug)]
pub(super) struct TableCursor {
    own_only: bool,
    pub link: LinkId,
    after: Option<(PoolHandle, PeId)>,
    when: Time,
    /// The next part is still being looked for.
    seeking: bool,
}

/// A reading that pauses for longer starts anew.
const TABLE_PATIENCE: Duration = Duration::from_secs(5);

impl Registrar {
    /// Makes a peer read our elements: with a checksum that can't be right.
    pub(super) fn force_audit(&mut self, id: RegistrarId) {
        let mut body = self.presence(Some(id), false);
        if let Enrp::Presence { checksum, .. } = &mut body {
            let [a, b] = checksum.unwrap_or_else(|| self.space.checksum(self.id));
            *checksum = Some([!a, !b]);
        }
        self.send_enrp(id, body);
    }

    /// Compares a peer's checksum, which came in order with its updates, with ours.
    pub(super) fn compare(&mut self, id: RegistrarId, checksum: [u8; 2]) {
        if self.chores.change_homes() {
            return;
        }
        let held = self.space.sum(id);
        let now = self.now;
        let stamp = self.stamp;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let mut all = held;
        all.add(peer.absent.sum());
        if all.to_wire() != checksum && held.to_wire() == checksum {
            // What it had, too, it has given up since it heard whose that is, and nobody says so.
            peer.absent = Absent::default();
            all = held;
        }
        let mut equal = all.to_wire() == checksum;
        if !peer.wanted.is_empty() {
            let mut rest = all;
            rest.subtract(peer.wanted.sum());
            match rest.to_wire() == checksum {
                true if !equal => {
                    self.part(id, false);
                    return self.compare(id, checksum);
                }
                // One in 65535 names adds nothing to a checksum of 16 bits: only its table tells whether it has that.
                true => equal = false,
                false => {}
            }
        }
        peer.agrees = Some(equal);
        let audit = &mut peer.audit;
        if now - audit.progress > AUDIT_PATIENCE {
            audit.stop();
        }
        if audit.since.is_some() || peer.link.is_none() {
            return;
        }
        if equal && !audit.needed {
            audit.pause = Duration::ZERO;
            audit.not_before = Time::default();
            return;
        }
        if !audit.needed && now < audit.not_before {
            return;
        }
        audit.needed = false;
        audit.since = Some(stamp);
        audit.progress = now;
        // The next one is for free if this one helps.
        audit.pause = (audit.pause * 2).clamp(AUDIT_PAUSE.0, AUDIT_PAUSE.1);
        audit.not_before = now + audit.pause;
        peer.resynchronisations += 1;
        self.stats.resynchronisations += 1;
        self.send_enrp(id, Enrp::HandleTableRequest { own_only: true });
    }

    /// Somebody is refused an identifier for this peer's sake. Where we knew that we do not know what it has, its table is read
    /// soon, however often that was in vain.
    pub(super) fn look_again(&mut self, id: RegistrarId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.agrees != Some(false) || peer.audit.since.is_some() {
            return;
        }
        peer.audit.not_before = peer.audit.not_before.min(peer.audit.progress + AUDIT_PAUSE.0);
        if peer.audit.not_before <= now {
            self.send_presence(id, true);
        }
    }

    pub(super) fn table_response(
        &mut self,
        link: LinkId,
        sender: RegistrarId,
        rejected: bool,
        more: bool,
        pools: Vec<(PoolHandle, Vec<PoolElement>)>,
    ) {
        let joining = self.is_joining_with(sender);
        let since = self.peers.get(sender).and_then(|peer| peer.audit.since);
        if !joining && since.is_none() {
            return;
        }
        if rejected {
            if joining {
                self.mentor_rejects(sender);
            } else if let Some(peer) = self.peers.get_mut(sender) {
                peer.audit.stop();
            }
            return;
        }
        let mut new = 0;
        for (handle, elements) in pools {
            for element in elements {
                new += u32::from(joining && self.is_told_first(&handle, element.id));
                self.accept(link, sender, &handle, element, Source::State);
            }
        }
        if joining && more && !self.mentor_helps(new) {
            return;
        }
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(sender) {
            peer.audit.progress = now;
        }
        if more {
            self.send_enrp(sender, Enrp::HandleTableRequest { own_only: !joining });
            if joining {
                self.mentor_continues();
            }
        } else if joining {
            self.mentor_done(sender);
        } else if let Some(since) = since {
            self.purge(sender, since);
        }
    }

    /// The end of an audit: what the peer did not mention is not its any more.
    fn purge(&mut self, owner: RegistrarId, since: u64) {
        if let Some(peer) = self.peers.get_mut(owner) {
            peer.audit.stop();
            peer.absent.purge(since);
            peer.wanted = Absent::default();
        }
        self.start(Chore::Purge { owner, since, after: None });
    }

    /// The next part of our table for a peer.
    pub(super) fn table_request(&mut self, link: LinkId, id: RegistrarId, own_only: bool) {
        self.stats.handle_table_requests += 1;
        if !self.is_serving() {
            let body = Enrp::HandleTableResponse { rejected: true, more: false, pools: Vec::new() };
            return self.send_enrp_over(link, id, body);
        }
        let now = self.now;
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.table.as_ref().is_some_and(|cursor| cursor.seeking && cursor.link == link) {
            // One at a time.
            return;
        }
        let cursor = peer.table.take().filter(|cursor| {
            cursor.own_only == own_only && cursor.link == link && now - cursor.when < TABLE_PATIENCE
        });
        let after = cursor.and_then(|cursor| cursor.after);
        peer.table = Some(TableCursor { own_only, link, after, when: now, seeking: true });
        self.start(Chore::Table { id, link });
    }

    /// Sends the next part of our table that has something for the peer, as far as there is one within so many
    /// elements; `true` if it must be looked for on.
    pub(super) fn table_part(&mut self, id: RegistrarId, link: LinkId, units: &mut usize) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get(id) else { return false };
        let Some(cursor) = peer.table.as_ref().filter(|cursor| cursor.seeking && cursor.link == link) else {
            return false;
        };
        let (dialect, own_only) = (peer.dialect, cursor.own_only);
        let protocol = self.links.get(&link).map_or(LinkProtocol::Sctp, |link| link.ends.protocol);
        let (most, room) = dialect.table_part(&self.config, protocol);
        let after = cursor.after.as_ref().map(|after| (&after.0, after.1));
        let mut elements: Box<dyn Iterator<Item = ElementRef<'_>>> = match own_only {
            true => self.space.owned_after(self.id, after),
            false => self.space.elements_after(after),
        };
        let (pools, last, more) = table_part(&mut elements, dialect, (most, room), units);
        drop(elements);
        let seeking = more && pools.is_empty();
        if let Some(peer) = self.peers.get_mut(id) {
            peer.table = match more {
                true => Some(TableCursor { own_only, link, after: last, when: now, seeking }),
                false => None,
            };
        }
        if !seeking {
            self.send_enrp_over(link, id, Enrp::HandleTableResponse { rejected: false, more, pools });
        }
        seeking
    }
}

/// Takes elements as long as they fit, at least one, from so many at most. Returns them, the name of the last one
/// that was looked at, and whether more follow.
fn table_part<'a>(
    elements: &mut dyn Iterator<Item = ElementRef<'a>>,
    dialect: Dialect,
    (most, room): (usize, usize),
    units: &mut usize,
) -> (PoolList, Option<(PoolHandle, PeId)>, bool) {
    let mut pools: PoolList = Vec::new();
    let (mut size, mut count) = (EnrpMessage::HEADER_LEN, 0);
    let mut last = None;
    for (number, element) in elements.enumerate() {
        if *units == 0 && last.is_some() {
            return (pools, last, true);
        }
        *units = units.saturating_sub(usize::from(number % TOLD_OF_A_UNIT == 0));
        let handle = element.handle();
        let record = element.to_element();
        if !dialect.can_hold(handle, &record) {
            last = Some((handle.clone(), record.id));
            continue;
        }
        let same_pool = pools.last().is_some_and(|(last, _)| last == handle);
        let length = record.encoded_len() + if same_pool { 0 } else { handle.encoded_len() };
        if count > 0 && (count == most || size + length > room) {
            return (pools, last, true);
        }
        size += length;
        count += 1;
        last = Some((handle.clone(), record.id));
        match pools.last_mut() {
            Some((_, elements)) if same_pool => elements.push(record),
            _ => pools.push((handle.clone(), vec![record])),
        }
    }
    debug_assert!(size <= MAX_MESSAGE);
    (pools, last, false)
}
