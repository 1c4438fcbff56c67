//! The callers' side of the event thread.

use super::cache::Cache;
use super::counters::{COUNTERS, count};
use super::csp::Sessions;
use super::directory::{Answer, Directory, Replier};
use super::embedded::Embedded;
use super::library;
use super::reactor::Clock;
use super::settings::is_available;
use super::shared::{Command, Resolved, Shared, Watched};
use super::thread::spawn;
use super::why::{self, Failed};
use super::{Follower, Pool, Reachable, SessionSecurity, Settings, Watcher};
use crate::machine::LinkProtocol;
use crate::machine::cache::Question;
use crate::machine::client::{Registration, RequestError};
use crate::transport::host;
use crate::transport::tls::Mode;
use crate::wire::{PeId, PoolElement, PoolHandle, RegistrarId};
use crossbeam_channel::unbounded;
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock, Weak};
use std::time::Duration;

/// Requests not yet taken by the event thread; beyond: [`RequestError::Busy`].
const MAX_COMMANDS: usize = 65_536;
/// How long deregistrations may take when everything ends.
const GOODBYE: Duration = Duration::from_secs(3);

/// The library's side of the event thread. Cheap to clone, every method may be called from any thread.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// Keeps a watch alive (and with it the subscription to the pool); ends it when dropped.
struct Watch {
    shared: Arc<Shared>,
    watched: Watched,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.shared.is_ours() {
            self.shared.command(Command::Unwatch(self.watched.clone()));
        }
    }
}

impl Shared {
    /// Whether the event thread is there: it neither was ended nor stayed behind in the parent process.
    fn is_ours(&self) -> bool {
        self.forks == host::forks() && !self.ended.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), RequestError> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(RequestError::Shutdown),
        }
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok()
            && !self.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
            && !self.ended.swap(true, Ordering::Relaxed)
        {
            log::error!("the event thread can't be called: {error}");
        }
    }

    /// Asks the event thread.
    fn ask<T>(&self, command: impl FnOnce(Replier<T>) -> Command) -> Result<Answer<T>, RequestError> {
        let (reply, answer) = Answer::pending(self.patience);
        self.tell(command(reply))?;
        Ok(answer)
    }

    /// Tells the event thread.
    fn tell(&self, command: Command) -> Result<(), RequestError> {
        self.check()?;
        if self.commands.len() >= MAX_COMMANDS {
            return Err(RequestError::Busy);
        }
        self.command(command);
        Ok(())
    }
}

/// Says once that the kernel lacks a protocol that is allowed. Never true.
fn is_missed(protocol: LinkProtocol) -> bool {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| log::info!("this kernel has no {protocol:?} (no module, or it may not be loaded)"));
    false
}

impl Runtime {
    /// Starts the event thread, named `rserpool`, with all signals blocked.
    ///
    /// Errors: `InvalidInput` if TLS is wanted and the certificates can't be used; what the system says when
    /// descriptors, memory or threads are short. That the kernel has
    /// no SCTP is none, even if nothing else is allowed: no registrar is found then.
    pub fn start(settings: Settings) -> io::Result<Runtime> {
        let forks = host::forks();
        let mut settings = settings;
        settings.protocols.retain(|protocol| is_available(*protocol) || is_missed(*protocol));
        let keeper = settings.tls.open()?;
        if keeper.is_some() && settings.tls.mode() == Mode::Require {
            super::security::without_sctp(&mut settings.protocols);
        }
        let security = keeper.as_ref().map(|keeper| keeper.sessions().clone()).unwrap_or_default();
        let clock = Clock::start();
        let (reactor, waker) = library::reactor(clock, &mut settings, keeper.as_ref())?;
        let protocols = settings.protocols.clone();
        settings.registrars.retain(|target| protocols.contains(&target.protocol));
        let embedded = match settings.embedded_registrar {
            true => Some(Embedded::start(&settings.tls)?),
            false => None,
        };
        if let Some(embedded) = &embedded {
            settings.registrars.insert(0, embedded.target());
        }
        let trials = settings.request_max_trials.saturating_mul(settings.connect_max_trials).max(1);
        let trial = settings.connect_timeout + settings.request_timeout + settings.response_timeout;
        let patience = trial.saturating_mul(trials.saturating_mul(2)) + Duration::from_secs(15);

        let (commands, inbox) = unbounded();
        let shared = Arc::new(Shared {
            cache: Cache::new(host::seed()),
            clock,
            commands,
            waker,
            woken: AtomicBool::new(false),
            home: AtomicU64::new(0),
            home_at: Mutex::new(None),
            sessions: OnceLock::new(),
            watches: AtomicU64::new(0),
            tried: Arc::default(),
            protocols,
            security,
            patience,
            thread: Mutex::new(None),
            embedded: Mutex::new(embedded),
            ended: AtomicBool::new(false),
            forks,
        });
        let looping = library::LibraryThread::new(reactor, settings, keeper, inbox, Arc::downgrade(&shared));
        *shared.thread.lock() = Some(spawn("rserpool", move || looping.run())?);
        Ok(Runtime { shared })
    }

    /// Protocols this process can really use (SCTP only where the kernel has it).
    pub fn protocols(&self) -> &[LinkProtocol] {
        &self.shared.protocols
    }

    /// What sessions prove themselves by.
    pub fn security(&self) -> &Arc<SessionSecurity> {
        &self.shared.security
    }

    /// The home registrar, 0 while its ID is not known; `None` while there is none.
    pub fn home(&self) -> Option<RegistrarId> {
        let home = self.shared.home.load(Ordering::Relaxed);
        (home != 0).then_some(RegistrarId(home as u32))
    }

    /// The home registrar in words: where it is, and its ID if that is known. `None` while there is none.
    pub fn answered_by(&self) -> Option<String> {
        let home = self.home()?;
        let at = self.shared.home_at.lock().map(|address| address.to_string()).unwrap_or_default();
        Some(if home.0 == 0 { at } else { format!("{home} at {at}") })
    }

    /// Where status reports learn of the process's sessions; to be said once. It must not keep this
    /// runtime alive.
    pub fn set_sessions(&self, sessions: Box<dyn Sessions>) {
        if self.shared.sessions.set(sessions).is_err() {
            log::error!("the sessions to report were set before");
        }
    }
}

/// Keeps a pool followed; ends that when dropped.
struct Attendance {
    shared: Arc<Shared>,
    handle: PoolHandle,
    number: u64,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if self.shared.is_ours() {
            self.shared.command(Command::Leave { handle: self.handle.clone(), number: self.number });
        }
    }
}

impl Runtime {
    /// Follows a pool: subscribes to it and keeps what is pushed, until the answer is dropped. `told` hears of
    /// each change after the pool has it.
    pub fn follow_pool(&self, handle: &PoolHandle, told: Option<Arc<dyn Follower>>) -> Arc<Pool> {
        let number = self.shared.watches.fetch_add(1, Ordering::Relaxed);
        let pool = Pool::new(self.shared.clock, host::seed(), handle.clone(), told);
        if self.shared.is_ours() {
            let (handle, follower) = (handle.clone(), pool.follower());
            self.shared.command(Command::Attend { handle, number, follower });
        }
        let shared = self.shared.clone();
        pool.keep(Box::new(Attendance { shared, handle: handle.clone(), number }));
        pool
    }

    /// Ends without a word to anybody: registrars find the links closed and take the elements for lost, so that
    /// their users leave them. For elements that can't be used any more; those that end in order do
    /// [`Directory::deregister`].
    pub fn abandon(&self) {
        if self.shared.is_ours() {
            self.shared.command(Command::Abandon);
            self.shared.ended.store(true, Ordering::Relaxed);
            if let Some(thread) = self.shared.thread.lock().take()
                && thread.join().is_err()
            {
                log::error!("the event thread panicked");
            }
        }
    }
}

impl Directory for Runtime {
    fn register(&self, registration: Registration) -> Result<Answer<RegistrarId>, RequestError> {
        let what = format!("registration of {} in pool {:?}", registration.element.id, registration.handle);
        let answer = self.shared.ask(|reply| Command::Register { registration, reply })?;
        Ok(answer.about(what, self.shared.tried.clone()))
    }

    fn follow(&self, handle: &PoolHandle, id: PeId, at: Weak<dyn Reachable>, advertise: Option<String>) {
        // Refused only with the registration that comes behind it, or because nobody registers any more.
        let _ = self.shared.tell(Command::Follow { handle: handle.clone(), id, at, advertise });
    }

    fn deregister(&self, handle: &PoolHandle, id: PeId) -> Result<Answer<()>, RequestError> {
        let what = format!("deregistration of {id} from pool {handle:?}");
        let answer = self.shared.ask(|reply| Command::Deregister { handle: handle.clone(), id, reply })?;
        Ok(answer.about(what, self.shared.tried.clone()))
    }

    fn resolve_while(
        &self,
        handle: &PoolHandle,
        items: usize,
        stale: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<PoolElement>, RequestError> {
        let shared = &*self.shared;
        shared.check()?;
        let items = items.max(1);
        if !stale.is_zero()
            && let Some(found) = shared.cache.fresh(shared.clock.about_now(), handle, items, stale)
        {
            return Ok(found);
        }
        count(&COUNTERS.cache_misses);
        let Question { items: number, share } = Question::of(items, stale);
        let command = |reply| Command::Resolve { handle: handle.clone(), items: number, share, reply };
        let answer = shared.ask(command)?.wait_while(wanted).inspect_err(|error| {
            why::note(Some(error), format_args!("pool {handle:?}: {}", Failed(error, &shared.tried)));
        });
        let Resolved { mut elements, entry } = answer?;
        if share {
            return Ok(entry.select(items));
        }
        elements.truncate(items);
        Ok(elements)
    }

    fn acquaint(&self, handle: &PoolHandle) {
        if self.shared.is_ours() && self.shared.cache.any(handle, 1).is_empty() {
            let command =
                |reply| Command::Resolve { handle: handle.clone(), items: None, share: true, reply };
            // Nobody waits for the answer, which goes into the cache; under such a load it can be done without.
            let _ = self.shared.ask(command);
        }
    }

    fn purge(&self, handle: &PoolHandle) {
        self.shared.cache.forget(handle);
    }

    fn report_unreachable(&self, handle: &PoolHandle, id: PeId) {
        if self.shared.is_ours() {
            why::note(None, format_args!("element {id} of pool {handle:?} does not answer"));
            count(&COUNTERS.reports);
            self.shared.cache.remove(handle, id);
            // A report that is lost under such a load changes nothing.
            let _ = self.shared.tell(Command::Unreachable { handle: handle.clone(), id });
        }
    }

    fn cache_hits(&self) -> u64 {
        self.shared.cache.hits()
    }

    fn watch(&self, handle: &PoolHandle, id: PeId, watcher: Arc<dyn Watcher>) -> Box<dyn Any + Send + Sync> {
        let number = self.shared.watches.fetch_add(1, Ordering::Relaxed);
        let watched = Watched { handle: handle.clone(), id, number };
        if self.shared.is_ours() {
            self.shared.command(Command::Watch(watched.clone(), watcher));
        }
        Box::new(Watch { shared: self.shared.clone(), watched })
    }

    fn cached(&self, handle: &PoolHandle, items: usize) -> Vec<PoolElement> {
        match self.shared.is_ours() {
            true => self.shared.cache.any(handle, items),
            false => Vec::new(),
        }
    }

    fn is_alive(&self) -> bool {
        let thread = self.shared.thread.lock();
        self.shared.is_ours() && thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn is_robbed(&self) -> bool {
        if self.shared.waker.is_sound() {
            return false;
        }
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.waker.abandon();
        if let Some(embedded) = &*self.shared.embedded.lock() {
            embedded.abandon();
        }
        true
    }

    fn shutdown(&self) {
        self.shared.shutdown();
    }
}

impl Shared {
    fn shutdown(&self) {
        if self.forks != host::forks() {
            // The thread is the parent's; joining it would wait for ever, letting go of its handle would
            // free what only the parent may free.
            if let Some(mut thread) = self.thread.try_lock() {
                std::mem::forget(thread.take());
            }
            if let Some(mut embedded) = self.embedded.try_lock() {
                std::mem::forget(embedded.take());
            }
            return;
        }
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            self.command(Command::Shutdown { patience: GOODBYE });
            self.ended.store(true, Ordering::Relaxed);
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                log::error!("the event thread panicked");
            }
        }
        drop(self.embedded.lock().take());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown();
    }
}
