//! Who has to go where places are short, told apart by their hosts: whoever takes many places gives one up for somebody
//! who takes few.

use crate::wire::scope::host_of;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Whose they are; `None`: of those of whom that is not known.
type Whose = Option<IpAddr>;

/// A guest's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    host: Whose,
    number: u64,
}

/// Somebody at a place, and whether it is one of the newcomer's own host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving<K> {
    pub guest: K,
    pub is_own: bool,
    /// Whether its host has more than the newcomer's would have with the newcomer.
    pub is_of_more: bool,
}

/// Those who have a place. Everything takes a time that grows with the logarithm of how many they are.
#[derive(Debug)]
pub struct Guests<K> {
    /// Of each host those who came first first.
    hosts: HashMap<Whose, BTreeMap<u64, K>>,
    /// The hosts, those with most first; of two with as many, whose oldest is older.
    ranks: BTreeSet<(Reverse<usize>, u64, Whose)>,
    count: usize,
    last: u64,
}

impl<K> Default for Guests<K> {
    fn default() -> Guests<K> {
        Guests { hosts: HashMap::new(), ranks: BTreeSet::new(), count: 0, last: 0 }
    }
}

impl<K: Copy> Guests<K> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One more, from there.
    pub fn add(&mut self, from: Option<IpAddr>, guest: K) -> Place {
        self.last += 1;
        let place = Place { host: from.map(host_of), number: self.last };
        self.change(place.host, |guests| {
            guests.insert(place.number, guest);
        });
        self.count += 1;
        place
    }

    /// The one at a place is gone.
    pub fn remove(&mut self, place: Place) {
        let mut removed = false;
        self.change(place.host, |guests| removed = guests.remove(&place.number).is_some());
        self.count -= usize::from(removed);
    }

    /// Who has to go for a newcomer from there: the oldest of the host that has most, the newcomer counted with its own.
    pub fn who_goes(&self, newcomer: Option<IpAddr>) -> Option<Leaving<K>> {
        let host = newcomer.map(host_of);
        let own = self.hosts.get(&host).filter(|_| host.is_some());
        let with_it = own.map_or(0, BTreeMap::len) + 1;
        let (Reverse(most), _, rich) = self.ranks.first()?;
        match own {
            Some(own) if host == *rich || with_it > *most => {
                let (_, &guest) = own.first_key_value()?;
                Some(Leaving { guest, is_own: true, is_of_more: false })
            }
            _ => {
                let (_, &guest) = self.hosts.get(rich)?.first_key_value()?;
                Some(Leaving { guest, is_own: false, is_of_more: *most > with_it })
            }
        }
    }

    /// The oldest of the host that has fewest.
    pub fn of_the_fewest(&self) -> Option<K> {
        let (fewest, ..) = self.ranks.last()?;
        let (_, _, host) = self.ranks.range((*fewest, 0, None)..).next()?;
        self.hosts.get(host)?.first_key_value().map(|(_, &guest)| guest)
    }

    fn change(&mut self, host: Whose, change: impl FnOnce(&mut BTreeMap<u64, K>)) {
        let guests = self.hosts.entry(host).or_default();
        self.ranks.remove(&rank(host, guests));
        change(guests);
        if guests.is_empty() {
            self.hosts.remove(&host);
        } else {
            self.ranks.insert(rank(host, guests));
        }
    }
}

fn rank<K>(host: Whose, guests: &BTreeMap<u64, K>) -> (Reverse<usize>, u64, Whose) {
    (Reverse(guests.len()), guests.keys().next().copied().unwrap_or(0), host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> Option<IpAddr> {
        Some(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn one_of_the_host_that_has_most_goes() {
        let mut guests = Guests::default();
        assert_eq!(guests.who_goes(host(1)), None);
        let places: Vec<Place> =
            [(1, "a"), (2, "b"), (2, "c"), (3, "d")].map(|(by, guest)| guests.add(host(by), guest)).into();
        let goes = |guests: &Guests<_>, by| {
            guests.who_goes(by).map(|leaving| (leaving.guest, leaving.is_own, leaving.is_of_more))
        };
        assert_eq!(goes(&guests, host(9)), Some(("b", false, true)));
        assert_eq!(goes(&guests, None), Some(("b", false, true)));
        // With the newcomer its own host has as many.
        assert_eq!(goes(&guests, host(1)), Some(("b", false, false)));
        guests.remove(places[1]);
        assert_eq!(goes(&guests, host(9)), Some(("a", false, false)), "of as many, the oldest's");
        assert_eq!(goes(&guests, host(3)), Some(("d", true, false)), "it would have most");
        assert_eq!(guests.of_the_fewest(), Some("a"), "of as few, the oldest's");
        guests.remove(places[1]);
        assert_eq!(guests.len(), 3);
        for place in places {
            guests.remove(place);
        }
        assert!(guests.is_empty() && guests.hosts.is_empty() && guests.ranks.is_empty());
    }

    /// An IPv6 network is a host.
    #[test]
    fn addresses_of_one_network_are_one() {
        let mut guests = Guests::default();
        guests.add(host(7), 0);
        for number in 1..=2_u16 {
            let address: std::net::Ipv6Addr = [0x2001, 0xdb8, 0, 1, 0, 0, 0, number].into();
            guests.add(Some(address.into()), number);
        }
        assert_eq!(guests.who_goes(host(8)).map(|leaving| leaving.guest), Some(1));
    }
}
