//! What the sessions of a one-to-many descriptor share: what is to be told of them, and who has something.

use crate::machine::session::Signs;
use crate::socket::readiness::{Readiness, Reason};
use crate::socket::session::told::{Notification, SessionId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The sessions' common descriptor, as they see it.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) readiness: Arc<Readiness>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    notices: VecDeque<Notification>,
    /// Sessions with a cookie echo to deliver, in the order in which these came.
    echoes: VecDeque<SessionId>,
    /// Sessions with data read ahead.
    ahead: BTreeSet<SessionId>,
}

impl Hub {
    pub(crate) fn new(readiness: Arc<Readiness>) -> Hub {
        Hub { readiness, state: Mutex::default() }
    }

    /// What a session shows. One that failed says so by its transport.
    pub(super) fn show(&self, id: SessionId, signs: Signs) {
        let mut state = self.state.lock();
        match (signs.first, state.echoes.contains(&id)) {
            (true, false) => state.echoes.push_back(id),
            (false, true) => state.echoes.retain(|&other| other != id),
            _ => {}
        }
        if signs.ahead {
            state.ahead.insert(id);
        } else {
            state.ahead.remove(&id);
        }
        self.settle(&state);
    }

    /// A notification for the descriptor's owner.
    pub(crate) fn notify(&self, notices: impl IntoIterator<Item = Notification>) {
        let mut state = self.state.lock();
        state.notices.extend(notices);
        self.settle(&state);
    }

    /// Whether a notification waits.
    pub(crate) fn has_notice(&self) -> bool {
        !self.state.lock().notices.is_empty()
    }

    /// The next notification.
    pub(crate) fn take_notice(&self) -> Option<Notification> {
        let mut state = self.state.lock();
        let notice = state.notices.pop_front();
        self.settle(&state);
        notice
    }

    /// The session whose cookie echo is next.
    pub(crate) fn next_echo(&self) -> Option<SessionId> {
        self.state.lock().echoes.front().copied()
    }

    /// Whether anything is told before data.
    pub(crate) fn has_first(&self) -> bool {
        let state = self.state.lock();
        !state.notices.is_empty() || !state.echoes.is_empty()
    }

    fn settle(&self, state: &State) {
        let queued = !state.notices.is_empty() || !state.echoes.is_empty();
        self.readiness.set(Reason::Queue, queued);
        self.readiness.set(Reason::Buffered, !state.ahead.is_empty());
    }
}
