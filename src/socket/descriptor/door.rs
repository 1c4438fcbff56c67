//! Where sessions have to prove themselves before the application hears of them: a thread of its own makes the
//! handshakes, so that users come in however long the application takes for what it does.

#![expect(clippy::disallowed_methods, reason = "a listener without descriptors pauses in real time")]

use crate::runtime::complaints::SESSIONS;
use crate::socket::channel::conn::Conn;
use crate::socket::descriptor::base::Base;
use crate::socket::descriptor::endpoint::Endpoint;
use crate::socket::descriptor::strangers::{LISTENER, STRANGERS, Strangers};
use crate::socket::error::Result;
use crate::socket::readiness::attendant::{Attendant, Duty, Post};
use crate::socket::readiness::wait::Deadline;
use crate::socket::readiness::{Readiness, Reason};
use crate::transport::descriptors::eventfd;
use crate::transport::tls::Mode;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Sessions that wait for the application; further users wait in the kernel.
const MAX_ARRIVED: usize = 256;
/// New connections taken at once, so that those that are there get their turn.
const ACCEPTS: usize = 16;
/// How long it rests when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The door of one listening descriptor.
#[derive(Debug)]
pub(crate) struct Door {
    base: Arc<Base>,
    endpoint: Arc<Endpoint>,
    /// The listener and those before the door.
    outside: Readiness,
    state: Mutex<DoorState>,
}

#[derive(Debug, Default)]
struct DoorState {
    strangers: Strangers,
    arrived: VecDeque<Arc<Conn>>,
    /// Nobody is let in until then.
    paused: Option<Instant>,
    /// As long as so many wait for the application.
    full: bool,
}

impl Door {
    /// For a listener of which those who connect have to prove something; `None`: they need not.
    pub(crate) fn open(base: &Arc<Base>, endpoint: &Arc<Endpoint>) -> Result<Option<Arc<Door>>> {
        if base.security.mode() == Mode::Off || !matches!(**endpoint, Endpoint::Tcp(_)) {
            return Ok(None);
        }
        let outside = Readiness::new(Readiness::new_epoll()?, Arc::new(eventfd(1)?));
        outside.add(endpoint.as_fd(), LISTENER)?;
        let (base, endpoint, state) = (base.clone(), endpoint.clone(), Mutex::default());
        Ok(Some(Arc::new(Door { base, endpoint, outside, state })))
    }

    /// The next session for the application.
    pub(crate) fn take(&self) -> Option<Arc<Conn>> {
        let mut state = self.state.lock();
        let conn = state.arrived.pop_front();
        if state.full && state.arrived.len() < MAX_ARRIVED / 2 {
            state.full = false;
            let _ = self.outside.add(self.endpoint.as_fd(), LISTENER);
        }
        self.base.readiness.set(Reason::Arrived, !state.arrived.is_empty());
        conn
    }

    /// Lets in who proves himself; when to look again even if nothing happens.
    fn turn(&self) -> Deadline {
        let mut events = [EpollEvent::empty(); 32];
        let count = self.outside.wait(&mut events, Deadline::Now).unwrap_or(0);
        let mut state = self.state.lock();
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(&mut state),
                token if token > STRANGERS => {
                    if let Some(conn) = state.strangers.hear(&self.outside, token) {
                        self.outside.remove(conn.as_fd());
                        state.arrived.push_back(conn);
                    }
                }
                _ => {}
            }
        }
        if !state.full && state.arrived.len() >= MAX_ARRIVED {
            state.full = true;
            self.outside.remove(self.endpoint.as_fd());
        }
        self.base.readiness.set(Reason::Arrived, !state.arrived.is_empty());
        let next = state.strangers.expire(&self.outside);
        match state.paused {
            Some(until) if until <= Instant::now() => {
                state.paused = None;
                if !state.full {
                    let _ = self.outside.add(self.endpoint.as_fd(), LISTENER);
                }
                next
            }
            Some(until) => next.min(Deadline::At(until)),
            None => next,
        }
    }

    fn accept(&self, state: &mut DoorState) {
        let parameters = *self.base.parameters.lock();
        for _ in 0..ACCEPTS {
            match self.endpoint.accept(&parameters, || self.base.proof()) {
                Ok(Some((conn, peer))) => {
                    state.arrived.extend(state.strangers.meet(&self.base, &self.outside, conn, peer));
                }
                Ok(None) => return,
                Err(error) => {
                    // Connections that come are many hosts' doing; what lacks is this process's.
                    let line = format!("no new sessions for now: {error}");
                    SESSIONS.note(line.clone(), None, format_args!("{line}"));
                    state.paused = Some(Instant::now() + PAUSE);
                    self.outside.remove(self.endpoint.as_fd());
                    return;
                }
            }
        }
    }
}

/// The thread, and all doors of the process.
#[derive(Debug, Default)]
pub(crate) struct Doorkeeper(Attendant<DoorDuty>);

#[derive(Debug)]
pub(crate) struct DoorDuty {
    post: Post,
    doors: Mutex<Doors>,
}

#[derive(Debug, Default)]
struct Doors {
    all: BTreeMap<u64, (Weak<Door>, Deadline)>,
    last: u64,
    stop: bool,
}

impl Doorkeeper {
    /// Looks after `door` for as long as somebody else has it.
    pub(crate) fn keep(&self, door: &Arc<Door>) -> Result<()> {
        let shared = self.0.shared()?;
        let mut doors = shared.doors.lock();
        doors.all.retain(|_, (door, _)| door.strong_count() > 0);
        doors.last += 1;
        let token = doors.last;
        shared.post.epoll.add(door.outside.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        doors.all.insert(token, (Arc::downgrade(door), Deadline::Never));
        Ok(())
    }

    /// Ends the thread.
    pub(crate) fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Duty for DoorDuty {
    const NAME: &'static str = "rsp-door";

    fn new(post: Post) -> DoorDuty {
        DoorDuty { post, doors: Mutex::default() }
    }

    fn post(&self) -> &Post {
        &self.post
    }

    fn stop(&self) {
        self.doors.lock().stop = true;
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let doors = self.doors.lock();
            if doors.stop {
                return;
            }
            let next = doors.all.values().fold(Deadline::Never, |next, (_, at)| next.min(*at));
            drop(doors);
            let timeout = EpollTimeout::try_from(next.milliseconds()).unwrap_or(EpollTimeout::NONE);
            let mut turns: Vec<u64> = match self.post.wait(&mut events, timeout) {
                Ok(tokens) => tokens.collect(),
                // The program closed all files.
                Err(_) => return,
            };
            let doors = self.doors.lock();
            turns.extend(doors.all.iter().filter(|(_, (_, at))| at.passed()).map(|(token, _)| token));
            drop(doors);
            for token in turns {
                let door = self.doors.lock().all.get(&token).map(|(door, _)| door.upgrade());
                let next = match door {
                    Some(Some(door)) => door.turn(),
                    _ => {
                        self.doors.lock().all.remove(&token);
                        continue;
                    }
                };
                if let Some((_, at)) = self.doors.lock().all.get_mut(&token) {
                    *at = next;
                }
            }
        }
    }
}
