//! Keeps one server in its pool while it serves.

use super::check::Check;
use super::place::Place;
use super::policy;
use crate::out;
use rserpool::machine::client::Registration;
use rserpool::runtime::{Answer, Directory, Runtime, Settings};
use rserpool::transport::diag;
use rserpool::wire::{PeId, Protocol, Transport, TransportUse};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often signals are looked for, and the least between two checks.
const STEP: Duration = Duration::from_millis(20);
/// A load that changed by less than a hundredth is not worth a message.
const NOTABLE: u32 = u32::MAX / 100;
/// At most so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// How a server is checked.
#[derive(Debug, Clone)]
pub struct Health {
    pub check: Check,
    pub interval: Duration,
    pub timeout: Duration,
    /// Good checks in a row after which it enters the pool.
    pub rise: u32,
    /// Bad ones after which it leaves.
    pub fall: u32,
}

/// See the module.
pub struct Keeper {
    pub settings: Settings,
    pub registration: Registration,
    pub server: Place,
    /// Where it answered last.
    pub at: Option<SocketAddr>,
    /// Where users connect, if that is not where it answers.
    pub users: Option<Place>,
    pub health: Health,
    /// Connections that are full load, of a policy that has a load.
    pub full: Option<u32>,
    /// Whether the element is where the server answers or is advertised; otherwise its addresses are given.
    pub follows: bool,
    /// Its own, so that its end says that this element is lost, and no other.
    pub runtime: Option<Runtime>,
}

impl Keeper {
    /// Until `stop`; then the element leaves in order.
    pub fn run(mut self, stop: &AtomicBool) {
        let (mut good, mut bad) = (0u32, 0u32);
        let mut told = None;
        let mut loaded = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if self.at.is_none() || bad > 0 {
                self.server.look_up();
            }
            let result = self.server_answers();
            match &result {
                Ok(_) => (good, bad) = (good.saturating_add(1), 0),
                Err(_) => (good, bad) = (0, bad.saturating_add(1)),
            }
            let registered = self.runtime.is_some() && told == Some(true);
            match result {
                Ok(_) if !registered && good >= self.health.rise && self.enter(stop) => told = Some(true),
                Err(error) if told != Some(false) && (bad >= self.health.fall || told.is_none()) => {
                    self.leave(&error.to_string(), told == Some(true));
                    told = Some(false);
                }
                _ => {}
            }
            if told == Some(true) && loaded.elapsed() >= LOAD_INTERVAL {
                loaded = Instant::now();
                self.report_load();
            }
            // In doubt, it is asked again soon.
            let doubtful = told == Some(true) && bad > 0;
            let interval = if doubtful { self.health.interval / 10 } else { self.health.interval };
            pause(interval.saturating_sub(begun.elapsed()).max(STEP), stop);
        }
        self.end(told == Some(true));
    }

    /// Checks the server, and notes where it is.
    fn server_answers(&mut self) -> io::Result<()> {
        let addresses = self.server.beginning_with(self.at);
        let at = self.health.check.run(&addresses, self.health.timeout)?;
        if let Some(users) = &mut self.users
            && users.addresses().is_empty()
        {
            users.look_up();
        }
        let moved = self.at.replace(at).is_some_and(|before| before != at);
        let own = [at];
        let users = self
            .users
            .as_ref()
            .map_or(&own[..], |users| &users.addresses()[..users.addresses().len().min(1)]);
        let Some(first) = users.first() else {
            return Err(io::Error::other("where its users are to connect is not known"));
        };
        // What listens for everybody is reached where whoever made this keeper says.
        if self.follows {
            let ips = users.iter().map(SocketAddr::ip).collect();
            let transport = Transport::new(Protocol::Tcp, TransportUse::DataOnly, first.port(), ips);
            self.registration.element.transport = transport;
            if moved && let Some(runtime) = &self.runtime {
                out::line(format_args!("{} in \"{}\": now at {at}", self.id(), self.registration.handle));
                drop(runtime.register(self.registration.clone()));
            }
        }
        Ok(())
    }

    /// Where it answered, or was to.
    fn place(&self) -> String {
        match self.at {
            Some(at) => at.to_string(),
            None => self.server.to_string(),
        }
    }

    fn id(&self) -> PeId {
        self.registration.element.id
    }

    fn enter(&mut self, stop: &AtomicBool) -> bool {
        let (id, handle, server) = (self.id(), self.registration.handle.clone(), self.place());
        if self.runtime.is_none() {
            match Runtime::start(self.settings.clone()) {
                Ok(runtime) => self.runtime = Some(runtime),
                Err(error) => {
                    out::complain(format_args!(
                        "rspctl: register: {id} in \"{handle}\": {error}; trying again"
                    ));
                    return false;
                }
            }
        }
        self.count_load();
        let Some(runtime) = &self.runtime else { return false };
        let wanted = || !stop.load(Ordering::Relaxed);
        match runtime.register(self.registration.clone()).and_then(|answer| answer.wait_while(&wanted)) {
            Ok(home) => {
                // A registrar tells its identifier with the first keep-alive at the latest.
                let home = if home.0 == 0 { String::new() } else { format!(", home registrar {home}") };
                out::line(format_args!("{id} in \"{handle}\": {server} answers{home}"));
                true
            }
            Err(error) => {
                out::complain(format_args!("rspctl: register: {id} in \"{handle}\": {error}; trying again"));
                false
            }
        }
    }

    /// The server is of no use: so that its users leave it, the element is lost.
    fn leave(&mut self, why: &str, was_in: bool) {
        if was_in && let Some(runtime) = self.runtime.take() {
            runtime.abandon();
        }
        let (id, handle, server) = (self.id(), &self.registration.handle, self.place());
        out::line(format_args!("{id} not in \"{handle}\": {server}: {why}"));
    }

    /// Nothing is wrong with the server: its users stay until they have what they want.
    fn end(&mut self, was_in: bool) {
        let (id, handle, server) = (self.id(), self.registration.handle.clone(), self.place());
        if let Some(runtime) = self.runtime.take() {
            if was_in {
                let _ = runtime.deregister(&handle, id).and_then(Answer::wait);
            }
            runtime.shutdown();
        }
        out::line(format_args!("{id} not in \"{handle}\": {server}: ending"));
    }

    /// Puts the load of now into the registration; whether that is worth a message.
    fn count_load(&mut self) -> bool {
        let Some(full) = self.full else { return false };
        let Some(at) = self.at else { return false };
        let Ok(connections) = diag::connections(at.port()) else { return false };
        let Some(load) = policy::load_mut(&mut self.registration.element.policy) else { return false };
        let now = load_of(connections, full);
        let notable = now.abs_diff(*load) >= NOTABLE;
        *load = now;
        notable
    }

    fn report_load(&mut self) {
        let before = self.registration.element.policy.clone();
        if !self.count_load() {
            self.registration.element.policy = before;
        } else if let Some(runtime) = &self.runtime {
            // It is registered as it is, should this fail.
            drop(runtime.register(self.registration.clone()));
        }
    }
}

/// As a fraction of 2^32 - 1.
fn load_of(connections: usize, full: u32) -> u32 {
    let load = connections as u128 * u128::from(u32::MAX) / u128::from(full.max(1));
    u32::try_from(load).unwrap_or(u32::MAX)
}

/// Sleeps, at most 20 ms past a signal.
fn pause(interval: Duration, stop: &AtomicBool) {
    let until = Instant::now() + interval;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(STEP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads() {
        assert_eq!((load_of(0, 100), load_of(100, 100), load_of(1000, 100)), (0, u32::MAX, u32::MAX));
        assert_eq!(load_of(50, 100), u32::MAX / 2);
    }
}
