//! What must hold between any two calls, for the simulator.

use super::announced::MAX_ANNOUNCED;
use super::stranger::MAX_STRANGERS;
use super::{Client, MAX_ELEMENTS, MAX_REQUESTS, MAX_SUBSCRIPTIONS};

impl Client {
    /// Checks all that can be checked from the inside: queues and tables are within their bounds, and
    /// fit each other. O(requests).
    pub fn invariants(&self) -> Result<(), String> {
        self.asks.check()?;
        let bounded = [
            // Beside requests: one registration, one subscription for each element and pool.
            ("asks", self.asks.len(), MAX_REQUESTS + MAX_ELEMENTS + 2 * MAX_SUBSCRIPTIONS),
            ("strangers", self.strangers.len(), MAX_STRANGERS),
            ("announced registrars", self.hunt.announced_len(), MAX_ANNOUNCED),
        ];
        for (what, length, bound) in bounded {
            if length > bound {
                return Err(format!("{length} {what}"));
            }
        }
        if self.retiring.is_some() && self.home.is_none() {
            return Err("an old home is kept without a new one".into());
        }
        Ok(())
    }
}
