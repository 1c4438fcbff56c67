//! What status reports (CSP) say of the sessions.

use crate::runtime::csp::{self, SessionReport};
use crate::socket::descriptor::entry::{Entry, EntryRole};
use crate::socket::descriptor::table::Table;
use std::sync::{Arc, Weak};

/// The sessions of all descriptors, as long as there are any.
pub(crate) struct SessionReporter(pub(crate) Weak<Table<Arc<Entry>>>);

impl csp::Sessions for SessionReporter {
    fn report(&self) -> Vec<SessionReport> {
        let Some(table) = self.0.upgrade() else { return Vec::new() };
        let entries = table.numbers().into_iter().filter_map(|number| table.get(number));
        let sessions = entries.flat_map(|entry| match entry.role() {
            EntryRole::Single(session) => vec![session],
            EntryRole::Many(many) => many.sessions(),
            EntryRole::Fresh { .. } | EntryRole::Listener(_) => Vec::new(),
        });
        sessions.map(|session| session.report()).collect()
    }
}
