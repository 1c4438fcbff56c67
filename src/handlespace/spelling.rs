//! Pools whose names have come through something that has no case: hosts' names, DNS.

use super::{Handlespace, PoolRef};

/// How many handles are looked at before a name counts as one that nobody can tell.
const MOST_STEPS: usize = 64;

/// What a name without case stands for.
#[derive(Debug, Clone, Copy)]
pub enum Spelled<'a> {
    /// That pool: its handle is exactly the name, or the only one that is in some case.
    One(PoolRef<'a>),
    /// No pool.
    None,
    /// There are several, and none is spelled exactly so.
    Several,
}

impl Handlespace {
    /// The pool whose handle is `name`, or else the only one whose handle differs from it in the case of ASCII
    /// letters. Costs up to 64 look-ups in the tree of handles, mostly one or two.
    pub fn pool_spelled(&self, name: &[u8]) -> Spelled<'_> {
        if let Some(pool) = self.pool_named(name) {
            return Spelled::One(pool);
        }
        // Handles in order; what can't be a spelling of the name is jumped over. In ASCII, A is before a.
        let mut found = None;
        let mut from = Some(name.to_ascii_uppercase());
        for _ in 0..MOST_STEPS {
            let Some(at) = from.take() else { break };
            let Some(pool) = self.pool_from(&at) else { break };
            let handle = pool.handle().as_bytes();
            if handle.eq_ignore_ascii_case(name) && found.replace(pool).is_some() {
                return Spelled::Several;
            }
            from = next_spelling(name, handle);
            if from.is_none() {
                return found.map_or(Spelled::None, Spelled::One);
            }
        }
        match (from, found) {
            // Not looked at to the end.
            (Some(_), _) => Spelled::Several,
            (None, Some(pool)) => Spelled::One(pool),
            (None, None) => Spelled::None,
        }
    }
}

/// The first spelling of `name` after `handle`, in order of bytes.
fn next_spelling(name: &[u8], handle: &[u8]) -> Option<Vec<u8>> {
    let upper = name.to_ascii_uppercase();
    let lower = name.to_ascii_lowercase();
    let same = name.iter().zip(handle).take_while(|(one, two)| one.eq_ignore_ascii_case(two)).count();
    // From the place on where they differ, the first spelling; before it, as the handle has it. At the place, or
    // else at the last one before it that can, a larger letter than the handle's.
    let at = |place: usize| {
        let larger = match handle.get(place) {
            // The handle ends here: whatever follows is larger.
            None => upper.get(place).copied(),
            Some(byte) => {
                let spellings = [*upper.get(place)?, *lower.get(place)?];
                spellings.into_iter().find(|spelled| spelled > byte)
            }
        };
        Some([&handle[..place], &[larger?], &upper[place + 1..]].concat())
    };
    (0..=same).rev().find_map(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse,
    };
    use proptest::prelude::*;

    fn space(handles: &[String]) -> Handlespace {
        let mut space = Handlespace::new(1);
        for handle in handles {
            let element = PoolElement {
                id: PeId(1),
                home: RegistrarId(1),
                life: 1000,
                transport: Transport::new(
                    Protocol::Tcp,
                    TransportUse::DataOnly,
                    1,
                    vec![[127, 0, 0, 1].into()],
                ),
                policy: Policy::RoundRobin,
                asap: None,
            };
            space.register(&PoolHandle::new(handle.as_bytes()).unwrap(), &element).unwrap();
        }
        space
    }

    fn shown(spelled: Spelled<'_>) -> String {
        match spelled {
            Spelled::One(pool) => pool.handle().to_string(),
            Spelled::None => "none".into(),
            Spelled::Several => "several".into(),
        }
    }

    #[test]
    fn names_without_case() {
        let pools = space(&["WebPool", "webpool2", "Echo", "ECHO", "x"].map(String::from));
        for (name, pool) in [
            ("webpool", "WebPool"),
            ("WEBPOOL", "WebPool"),
            ("wEbPoOl2", "webpool2"),
            ("Echo", "Echo"),
            ("ECHO", "ECHO"),
            ("echo", "several"),
            ("X", "x"),
            ("webpoo", "none"),
            ("webpool22", "none"),
            ("", "none"),
            ("~", "none"),
        ] {
            assert_eq!(shown(pools.pool_spelled(name.as_bytes())), pool, "{name}");
        }
    }

    #[test]
    fn the_price_of_a_name_is_bounded() {
        // Every spelling of many letters but those of the last one.
        let spelled = |number: usize| {
            (0..10).map(|bit| if number >> bit & 1 == 1 { 'a' } else { 'A' }).collect::<String>() + "z"
        };
        let handles: Vec<String> = (0..1024).map(spelled).collect();
        assert_eq!(shown(space(&handles).pool_spelled(b"aaaaaaaaaay")), "several");
    }

    proptest! {
        /// The same as looking at all of them.
        #[test]
        fn jumping_misses_nobody(
            handles in proptest::collection::vec("[aAbB1.]{1,4}", 0..12),
            name in "[aAbB1.]{1,4}",
        ) {
            let same = |handle: &&String| handle.eq_ignore_ascii_case(&name);
            let mut all: Vec<&String> = handles.iter().filter(same).collect();
            all.sort();
            all.dedup();
            let expected = match all[..] {
                _ if all.contains(&&name) => name.clone(),
                [] => "none".into(),
                [one] => one.clone(),
                _ => "several".into(),
            };
            prop_assert_eq!(shown(space(&handles).pool_spelled(name.as_bytes())), expected);
        }
    }
}
