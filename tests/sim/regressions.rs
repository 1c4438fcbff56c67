//! Seeds that once failed, each named after what was wrong. What was put in by hand to see whether the world
//! notices is marked so; see `docs/simulation.md`.

use super::run;

/// Seeds and what they found.
const FOUND: &[(u64, &str)] = &[
    (0x3, "by hand: elements of a dead registrar are taken over and not asked"),
    (0x3, "by hand: nobody begins to take over"),
    (0x3, "by hand: the checksum keeps what was removed"),
    (0x6, "by hand: a fourth link while the home registrar is silent"),
    (0x9, "by hand: the checksum for rsplib's registrars misses what was taken over"),
    (0x7a, "by hand: checksums that differ lead to nothing"),
    (0x83, "by hand: what a registrar does not list any more is kept"),
    (0x1ee915, "the world went on and on where nothing is ever due"),
    (0x1072f6, "an element that two registrars had was one of those that add nothing to a checksum"),
    (
        0xf581c,
        "the bound left out that a dead registrar's address, with its successor behind it, is dialled for seconds",
    ),
    (
        0xc6336,
        "an answer to a keep-alive without the H flag was taken for one to the question whose an element is",
    ),
    (0xc688d, "the bound left out that a registrar may die as it is about to give an element up"),
    (0xcddd6, "the same"),
    (0x985e7, "what a link that was left brought late took an element to it, and with its end away"),
];

/// Seeds of mixed faults and strangers without TLS, and what they found.
const FOUND_WITHOUT_TLS: &[(u64, &str)] = &[
    (53, "an element that was refused did not come back when its home said that its identifier was free"),
    (106, "the same"),
    (131, "the same"),
    (9, "the check asked for an element that a stranger's registrar had first"),
    (67, "the check took a stranger's element for one that had left"),
    (
        1086,
        "a stranger that registered over two links in turn had it forgotten who waited for the identifier",
    ),
    (
        2211,
        "audits in vain, of what a stranger said in a registrar's name, kept a registrar from finding out that it does not have an element",
    ),
    (11499, "the check took two registrars for acquainted, at one of which a stranger has the other's name"),
    (3958, "the check took a process that was refused from the beginning for one that knows its home"),
    (84, "the check took a registrar for dead, for which a stranger passed"),
];

#[test]
fn seeds_that_once_failed() {
    let mut last = None;
    for &(seed, what) in FOUND {
        println!("{seed:#x}: {what}");
        if last.replace(seed) != Some(seed) {
            run(seed);
        }
    }
    for &(seed, what) in FOUND_WITHOUT_TLS {
        println!("{seed}: {what}");
        super::strangers::mixed_faults_without_tls(seed);
    }
}
