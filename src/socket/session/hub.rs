//! What the sessions of a one-to-many descriptor share: what is to be told of them, and who has something.

use crate::machine::session::Signs;
use crate::socket::readiness::wait::{now, passed};
use crate::socket::readiness::{Readiness, Reason};
use crate::socket::session::told::{Notification, SessionId, Undelivered};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Others wait for the rest of a message that stalls once in so long, however many do.
const REST: Duration = Duration::from_secs(1);
/// Messages kept for a program that does not receive.
const MOST_UNDELIVERED: usize = 1024;

/// The sessions' common descriptor, as they see it.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) readiness: Arc<Readiness>,
    state: Mutex<HubState>,
}

#[derive(Debug, Default)]
struct HubState {
    notices: VecDeque<Notification>,
    /// Messages that may not have arrived.
    undelivered: VecDeque<Undelivered>,
    /// Sessions with a cookie echo to deliver, in the order in which these came.
    echoes: VecDeque<SessionId>,
    /// Sessions with data read ahead, of which no socket tells. While there are any, the descriptor is readable, so each
    /// must be one that a receive serves: a session that is over is none of them.
    ahead: BTreeSet<SessionId>,
    /// When the rest of a message was waited for in vain last.
    stalled: Option<Instant>,
}

impl HubState {
    fn has_first(&self) -> bool {
        !self.notices.is_empty() || !self.undelivered.is_empty() || !self.echoes.is_empty()
    }
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

    /// A message is handed back; of more than [`MOST_UNDELIVERED`], the oldest are not.
    pub(crate) fn give_back(&self, back: Undelivered) {
        let mut state = self.state.lock();
        if state.undelivered.len() >= MOST_UNDELIVERED {
            state.undelivered.pop_front();
        }
        state.undelivered.push_back(back);
        self.settle(&state);
    }

    /// Whether a message is to be handed back.
    pub(crate) fn has_undelivered(&self) -> bool {
        !self.state.lock().undelivered.is_empty()
    }

    /// The next message to be handed back.
    pub(crate) fn take_undelivered(&self) -> Option<Undelivered> {
        let mut state = self.state.lock();
        let back = state.undelivered.pop_front();
        self.settle(&state);
        back
    }

    /// The session whose cookie echo is next.
    pub(crate) fn next_echo(&self) -> Option<SessionId> {
        self.state.lock().echoes.front().copied()
    }

    /// Who has data read ahead: what [`Reason::Buffered`] stands for. Who hears the beacon serves them.
    pub(crate) fn ahead(&self) -> Vec<SessionId> {
        self.state.lock().ahead.iter().copied().collect()
    }

    /// Whether that session has data read ahead.
    pub(crate) fn is_ahead(&self, id: SessionId) -> bool {
        self.state.lock().ahead.contains(&id)
    }

    /// Whether others may wait for the rest of a message.
    pub(super) fn is_patient(&self) -> bool {
        self.state.lock().stalled.is_none_or(|stalled| passed(stalled) >= REST)
    }

    /// The rest of a message did not come in time.
    pub(super) fn stalls(&self) {
        self.state.lock().stalled = Some(now());
    }

    /// Whether anything is told before data.
    pub(crate) fn has_first(&self) -> bool {
        self.state.lock().has_first()
    }

    fn settle(&self, state: &HubState) {
        self.readiness.set(Reason::Queue, state.has_first());
        self.readiness.set(Reason::Buffered, !state.ahead.is_empty());
    }
}
