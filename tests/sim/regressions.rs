//! Seeds that once failed, each named after what was wrong.

use super::run;

/// Seeds and what they found.
const FOUND: &[(u64, &str)] = &[];

#[test]
fn seeds_that_once_failed() {
    for (seed, what) in FOUND {
        println!("{seed:#x}: {what}");
        run(*seed);
    }
}
