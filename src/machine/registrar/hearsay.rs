//! Dials of addresses at which nobody was met: whoever names one does not make us dial it often.
//!
//! What one message costs others is bounded by what it names: each address (8 bytes of the message and more) is
//! dialled twice at most, and not again for a minute whoever names it.

use super::aged::Aged;
use crate::machine::{Target, Time};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Dials of a registrar that nobody has met, each time that it is named.
pub(super) const TRIES: u32 = 2;
/// How many of them are under way at the same time, how many of these may be of one host's naming, and how long the
/// others wait to have their turn.
pub(super) const AT_ONCE: (usize, usize) = (16, 12);
pub(super) const TURN: Duration = Duration::from_millis(100);

/// How often an address is dialled within a minute: somebody's of whom there is only hearsay, and one of somebody who
/// is known, but elsewhere.
const DIALS: (u32, u32) = (TRIES, 4);
const MINUTE: Duration = Duration::from_secs(60);
/// From where a datagram came is dialled as often as this.
const ANNOUNCED: Duration = Duration::from_secs(1);
/// Dials of one host: so many at once, and then one in this time, unless it answers as a registrar.
const OF_A_HOST: Rate = Rate { most: 8, pause: Duration::from_secs(1) };
/// Dials of what one host names, or what datagrams name.
const NAMED_BY_A_HOST: Rate = Rate { most: 512, pause: Duration::from_millis(125) };
/// Bound on addresses, hosts and namers that are remembered.
const REMEMBERED: usize = 4096;

/// So many at once, and then one in this time.
struct Rate {
    most: u32,
    pause: Duration,
}

/// What is left of a rate, as the time when all of it is.
#[derive(Debug, Clone, Copy, Default)]
struct Spent(Time);

impl Spent {
    fn may(self, now: Time, rate: &Rate) -> bool {
        self.0 <= now + rate.pause * (rate.most - 1)
    }

    fn take(&mut self, now: Time, rate: &Rate) {
        self.0 = self.0.max(now) + rate.pause;
    }

    fn give_back(&mut self, times: u32, rate: &Rate) {
        let back = (rate.pause * times).as_micros() as u64;
        self.0 = Time(self.0.0.saturating_sub(back));
    }
}

/// Dials of an address since a time.
#[derive(Debug, Clone, Copy)]
struct Dialled {
    since: Time,
    last: Time,
    times: u32,
}

/// How it is known where a registrar is.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// Which host told it last; `None`: a datagram, or nobody.
    pub by: Option<IpAddr>,
    /// From where a datagram of it came.
    pub announced: Option<IpAddr>,
    /// From where it came itself, or where it was dialled and was it.
    pub proved: Option<IpAddr>,
    /// It was dialled, and was it.
    pub answered: bool,
    /// Dials since it was named, if it was never met.
    pub dials: u32,
    /// How much of the namer's share the last dial took.
    taken: u32,
}

impl Naming {
    /// Somebody told where it is.
    pub(super) fn told(&mut self, by: Option<IpAddr>) {
        (self.by, self.announced, self.dials) = (by, None, 0);
    }

    /// A datagram came from there that says that it is it.
    pub(super) fn announced(&mut self, from: IpAddr) {
        self.told(None);
        self.announced = Some(from.to_canonical());
    }
}

/// What was dialled lately for what others said.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    addresses: Aged<SocketAddr, Dialled>,
    hosts: Aged<IpAddr, Spent>,
    namers: Aged<Option<IpAddr>, Spent>,
}

impl Hearsay {
    /// Which of a target's addresses may be dialled now; they count as dialled. Those that are `sure` always may.
    /// Otherwise whether some may be later.
    pub(super) fn choose(
        &mut self,
        now: Time,
        naming: &mut Naming,
        met: bool,
        target: &Target,
        sure: impl Fn(&SocketAddr) -> bool,
    ) -> Result<Target, bool> {
        let (mut addresses, mut later) = (Vec::new(), false);
        naming.taken = 0;
        for &at in &target.addresses {
            if sure(&at) {
                addresses.push(at);
                continue;
            }
            let ip = at.ip().to_canonical();
            let key = SocketAddr::new(ip, at.port());
            let known = self.addresses.get(&key).copied().filter(|known| now - known.since < MINUTE);
            let itself = naming.announced == Some(ip);
            let most = if met { DIALS.1 } else { DIALS.0 };
            if !itself && known.is_some_and(|known| known.times >= most) {
                continue;
            }
            let fresh = known.is_none_or(|known| !itself || now - known.last >= ANNOUNCED);
            let host = self.hosts.get(&ip).copied().unwrap_or_default();
            let namer = self.namers.get(&naming.by).copied().unwrap_or_default();
            if !fresh || !host.may(now, &OF_A_HOST) || !itself && !namer.may(now, &NAMED_BY_A_HOST) {
                later = true;
                continue;
            }
            let record = self.addresses.touch(key, REMEMBERED, Dialled { since: now, last: now, times: 0 });
            *record = Dialled {
                since: known.map_or(now, |known| known.since),
                last: now,
                times: known.map_or(0, |known| known.times) + 1,
            };
            self.hosts.touch(ip, REMEMBERED, Spent::default()).take(now, &OF_A_HOST);
            if !itself {
                self.namers.touch(naming.by, REMEMBERED, Spent::default()).take(now, &NAMED_BY_A_HOST);
                naming.taken += 1;
            }
            addresses.push(at);
        }
        match addresses.is_empty() {
            true => Err(later),
            false => Ok(Target { protocol: target.protocol, addresses }),
        }
    }

    /// A registrar was met that is at this address: it was no hearsay.
    pub(super) fn was_true(&mut self, naming: &mut Naming, at: SocketAddr) {
        let ip = at.ip().to_canonical();
        if let Some(known) = self.addresses.remove(&SocketAddr::new(ip, at.port()))
            && let Some(mut host) = self.hosts.remove(&ip)
        {
            host.give_back(known.times, &OF_A_HOST);
            *self.hosts.touch(ip, REMEMBERED, Spent::default()) = host;
        }
        if let Some(mut namer) = self.namers.get(&naming.by).copied() {
            namer.give_back(std::mem::take(&mut naming.taken), &NAMED_BY_A_HOST);
            *self.namers.touch(naming.by, REMEMBERED, Spent::default()) = namer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::LinkProtocol;

    fn target(texts: &[&str]) -> Target {
        let addresses = texts.iter().map(|text| text.parse().expect("an address")).collect();
        Target { protocol: LinkProtocol::Tcp, addresses }
    }

    #[test]
    fn an_address_is_dialled_twice_a_minute_and_a_host_once_a_second() {
        let (mut hearsay, mut naming) = (Hearsay::default(), Naming::default());
        let start = Time(1_000_000);
        let one = target(&["192.0.2.1:25"]);
        let mut dial = |hearsay: &mut Hearsay, now, target: &Target| {
            hearsay.choose(now, &mut naming, false, target, |_| false)
        };
        assert_eq!(dial(&mut hearsay, start, &one), Ok(one.clone()));
        assert_eq!(dial(&mut hearsay, start, &one), Ok(one.clone()));
        assert_eq!(dial(&mut hearsay, start, &one), Err(false));
        // Written otherwise, it is the same one.
        assert_eq!(dial(&mut hearsay, start + MINUTE / 2, &target(&["[::ffff:192.0.2.1]:25"])), Err(false));
        assert_eq!(dial(&mut hearsay, start + MINUTE, &one), Ok(one.clone()));
        // Other ports of the host.
        let now = start + 2 * MINUTE;
        let at = |port: u32| target(&[&format!("192.0.2.1:{port}")]);
        let free = (1000..1100).filter(|&port| dial(&mut hearsay, now, &at(port)).is_ok()).count();
        assert_eq!(free, 8);
        assert_eq!(dial(&mut hearsay, now, &at(2000)), Err(true));
        assert!(dial(&mut hearsay, now + Duration::from_secs(1), &at(2000)).is_ok());
        assert_eq!(dial(&mut hearsay, now + Duration::from_secs(1), &at(2001)), Err(true));
    }

    #[test]
    fn what_is_true_costs_nothing() {
        let (mut hearsay, mut naming) = (Hearsay::default(), Naming::default());
        for port in 1000..2000 {
            let at = target(&[&format!("192.0.2.1:{port}")]);
            assert!(hearsay.choose(Time(1), &mut naming, false, &at, |_| false).is_ok(), "{port}");
            hearsay.was_true(&mut naming, at.addresses[0]);
        }
    }

    #[test]
    fn what_one_host_names_leaves_others_theirs() {
        let mut hearsay = Hearsay::default();
        let mut named = |by: &str, number: u32| {
            let mut naming = Naming { by: by.parse().ok(), ..Naming::default() };
            let at = SocketAddr::new(IpAddr::from((number + 0x0a00_0000).to_be_bytes()), 25);
            let target = Target { protocol: LinkProtocol::Tcp, addresses: vec![at] };
            hearsay.choose(Time(1), &mut naming, false, &target, |_| false).is_ok()
        };
        assert_eq!((0..2000).filter(|&number| named("192.0.2.1", number)).count(), 512);
        assert_eq!((3000..3100).filter(|&number| named("192.0.2.2", number)).count(), 100);
    }
}
