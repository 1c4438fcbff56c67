//! What an operator has decided about an element, carried by its registration life: so it goes wherever the
//! element goes, to all registrars, to whoever takes over, and to users that choose by themselves.
//!
//! A life is an element's own word, in milliseconds. The upper quarter of what its 32 bits can say, 12 to 25
//! days, is not (what an element says of that kind is shortened): bits 31 and 30 are 0 and 1, then come the
//! marks, and 27 bits of the life itself, which is unending if it does not fit.

/// The marks of one element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// It gets no new users.
    pub drained: bool,
    /// Its policy values are the operator's, whatever it says itself.
    pub policy: bool,
    /// Not an element's state but a wish of an operator elsewhere, for its home registrar.
    pub request: bool,
}

const MARKED: u32 = 0x4000_0000;
const PREFIX: u32 = 0xc000_0000;
const DRAINED: u32 = 0x2000_0000;
const POLICY: u32 = 0x1000_0000;
const REQUEST: u32 = 0x0800_0000;
const LIFE: u32 = 0x07ff_ffff;

/// Whether an element with this life gets no new users.
pub fn is_drained(life: u32) -> bool {
    life & (PREFIX | DRAINED) == MARKED | DRAINED
}

/// The marks in a life.
pub fn marks(life: u32) -> Marks {
    let has = |bit| life & PREFIX == MARKED && life & bit != 0;
    Marks { drained: has(DRAINED), policy: has(POLICY), request: has(REQUEST) }
}

/// The life alone, milliseconds; all ones: no end.
pub fn life(marked: u32) -> u32 {
    match marked & PREFIX {
        MARKED if marked & LIFE == LIFE => u32::MAX,
        MARKED => marked & LIFE,
        _ => marked,
    }
}

/// What an element says of its life, without what would look like marks.
pub fn unmarked(said: u32) -> u32 {
    if said & PREFIX == MARKED { MARKED - 1 } else { said }
}

/// A life with other marks.
pub fn with_marks(marked: u32, marks: Marks) -> u32 {
    let alone = life(marked);
    if marks == Marks::default() {
        return alone;
    }
    let bits = [(marks.drained, DRAINED), (marks.policy, POLICY), (marks.request, REQUEST)];
    let bits = bits.into_iter().filter(|(set, _)| *set).fold(MARKED, |all, (_, bit)| all | bit);
    bits | alone.min(LIFE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_lives_with_them() {
        for said in [0, 1, 90_000, LIFE - 1, LIFE, MARKED - 1, MARKED, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let plain = unmarked(said);
            assert_eq!(marks(plain), Marks::default(), "{said:#x}");
            for bits in 0..8 {
                let all = Marks { drained: bits & 1 != 0, policy: bits & 2 != 0, request: bits & 4 != 0 };
                let marked = with_marks(plain, all);
                assert_eq!(marks(marked), all, "{said:#x} {bits}");
                assert_eq!(is_drained(marked), all.drained);
                let kept = if plain < LIFE || all == Marks::default() { plain } else { u32::MAX };
                assert_eq!(life(marked), kept, "{said:#x} {bits}");
            }
        }
    }
}
