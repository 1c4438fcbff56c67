//! What status reports (CSP) and counters say of the sessions.

use super::Library;
use crate::runtime::csp::{self, SessionReport};
use crate::socket::descriptor::entry::{Entry, EntryRole};
use crate::socket::descriptor::table::Table;
use crate::socket::session::Session;
use std::sync::{Arc, Weak};

/// The sessions of all descriptors, as long as there are any.
pub(crate) struct SessionReporter(pub(crate) Weak<Table<Arc<Entry>>>);

impl csp::Sessions for SessionReporter {
    fn report(&self) -> Vec<SessionReport> {
        let Some(table) = self.0.upgrade() else { return Vec::new() };
        sessions(&table).map(|session| session.report()).collect()
    }
}

fn sessions(table: &Table<Arc<Entry>>) -> impl Iterator<Item = Arc<Session>> + '_ {
    let entries = table.numbers().into_iter().filter_map(|number| table.get(number));
    entries.flat_map(|entry| match entry.role() {
        EntryRole::Single(session) => vec![session],
        EntryRole::Many(many) => many.sessions(),
        EntryRole::Fresh { .. } | EntryRole::Listener(_) => Vec::new(),
    })
}

impl Library {
    /// What is counted where it goes on, and added to the process's counters when it is over: resolutions from the
    /// cache; bytes sent and received by sessions, which are asked one after the other.
    pub fn running_counts(&self) -> (u64, u64, u64) {
        let conns = sessions(&self.table).filter_map(|session| session.conn());
        let bytes = conns.map(|conn| conn.bytes()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (self.directory.cache_hits(), bytes.0, bytes.1)
    }
}
