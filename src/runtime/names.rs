//! Hosts that are given by name. Names are looked up on a thread of their own, since a name server may take its
//! time, and again as long as nobody answers where they led to: hosts move.

use super::reactor::Waker;
use super::{address, thread};
use crate::machine::Time;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Between two times that names are looked up: while they are needed, and else if some are unknown.
const AGAIN: Duration = Duration::from_secs(2);
const UNKNOWN: Duration = Duration::from_secs(30);

type LookedUp = (usize, io::Result<Vec<SocketAddr>>);

#[derive(Debug)]
struct Host {
    /// As it was written.
    text: String,
    /// Where it was last time.
    addresses: Vec<SocketAddr>,
    /// Whether it was said that it is nowhere.
    complained: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Names {
    hosts: Vec<Host>,
    default_port: u16,
    /// Looked up when and not answered, if so.
    asked: Option<Time>,
    /// How many answers are missing.
    missing: usize,
    looked_up: Option<Time>,
    answers: (Sender<LookedUp>, Receiver<LookedUp>),
    waker: Arc<Waker>,
    /// So often, also those that are known and not needed.
    refresh: Option<Duration>,
}

impl Names {
    pub fn new(texts: Vec<String>, default_port: u16, waker: Arc<Waker>) -> Names {
        let host = |text| Host { text, addresses: Vec::new(), complained: false };
        Names {
            hosts: texts.into_iter().map(host).collect(),
            default_port,
            asked: None,
            missing: 0,
            looked_up: None,
            answers: unbounded(),
            waker,
            refresh: None,
        }
    }

    /// The same, of hosts of which nobody can tell that they have moved.
    pub fn refreshed_every(self, interval: Duration) -> Names {
        Names { refresh: Some(interval), ..self }
    }

    /// Other hosts than before. Those that were known already stay where they are.
    pub fn set(&mut self, texts: Vec<String>) {
        if self.hosts.iter().map(|host| &host.text).eq(&texts) {
            return;
        }
        let mut known = std::mem::take(&mut self.hosts);
        let host = |text: String| match known.iter().position(|host| host.text == text) {
            Some(at) => known.swap_remove(at),
            None => Host { text, addresses: Vec::new(), complained: false },
        };
        self.hosts = texts.into_iter().map(host).collect();
        // Answers that are on their way are about the hosts of before.
        self.answers = unbounded();
        (self.asked, self.missing, self.looked_up) = (None, 0, None);
    }

    /// Whether there is nobody to look up.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// When names are to be looked up; `needed`: nobody answers where they led to.
    pub fn poll_timeout(&self, needed: bool) -> Option<Time> {
        if self.hosts.is_empty() || self.asked.is_some() {
            return None;
        }
        let Some(last) = self.looked_up else { return Some(Time(0)) };
        match (needed, self.hosts.iter().any(|host| host.addresses.is_empty())) {
            (true, _) => Some(last + AGAIN),
            (false, true) => Some(last + UNKNOWN),
            (false, false) => self.refresh.map(|interval| last + interval),
        }
    }

    /// Looks names up if it is time for that.
    pub fn handle_timeout(&mut self, now: Time, needed: bool) {
        if self.poll_timeout(needed).is_none_or(|due| now < due) {
            return;
        }
        let texts: Vec<String> = self.hosts.iter().map(|host| host.text.clone()).collect();
        let (answers, waker, port) = (self.answers.0.clone(), self.waker.clone(), self.default_port);
        let count = texts.len();
        let spawned = thread::spawn("rsp-names", move || {
            for (index, text) in texts.iter().enumerate() {
                let _ = answers.send((index, address::parse_list(text, port)));
                let _ = waker.wake();
            }
        });
        self.looked_up = Some(now);
        match spawned {
            Ok(_) => {
                self.asked = Some(now);
                self.missing = count;
            }
            Err(error) => log::warn!("names can't be looked up for now: {error}"),
        }
    }

    /// Takes the answers that came; whether any host is elsewhere now. One that is nowhere stays where it was.
    pub fn take_answers(&mut self) -> bool {
        let mut changed = false;
        while let Ok((index, result)) = self.answers.1.try_recv() {
            self.missing = self.missing.saturating_sub(1);
            if self.missing == 0 {
                self.asked = None;
            }
            let Some(host) = self.hosts.get_mut(index) else { continue };
            match result {
                Ok(addresses) if addresses != host.addresses => {
                    log::info!("\"{}\" is at {addresses:?}", host.text);
                    host.addresses = addresses;
                    host.complained = false;
                    changed = true;
                }
                Ok(_) => host.complained = false,
                Err(error) if !std::mem::replace(&mut host.complained, true) => {
                    log::warn!("{error}; will try again");
                }
                Err(_) => {}
            }
        }
        changed
    }

    /// Where each host is, of those that are known.
    pub fn addresses(&self) -> impl Iterator<Item = &[SocketAddr]> {
        self.hosts.iter().map(|host| &host.addresses[..]).filter(|addresses| !addresses.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Poll, Token};
    use std::time::Instant;

    fn names(texts: &[&str]) -> (Poll, Names) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(&poll, Token(0)).unwrap());
        (poll, Names::new(texts.iter().map(|text| text.to_string()).collect(), 7, waker))
    }

    fn look_up(names: &mut Names, now: Time) -> bool {
        names.handle_timeout(now, true);
        let end = Instant::now() + Duration::from_secs(30);
        let mut changed = false;
        while names.asked.is_some() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            changed |= names.take_answers();
        }
        changed
    }

    #[test]
    fn names_are_found_and_looked_up_again_while_they_are_needed() {
        let (_poll, mut names) = names(&["localhost:9", "no-such-host.invalid"]);
        assert_eq!(names.poll_timeout(false), Some(Time(0)));
        assert!(look_up(&mut names, Time(1)));
        let found: Vec<&[SocketAddr]> = names.addresses().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], ["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()]);
        assert_eq!(names.poll_timeout(true), Some(Time(1) + AGAIN));
        assert_eq!(names.poll_timeout(false), Some(Time(1) + UNKNOWN));
        assert!(!look_up(&mut names, Time(1) + AGAIN), "nothing has moved");
        assert_eq!(names.addresses().count(), 1);
    }

    #[test]
    fn other_hosts_are_looked_up_and_the_same_ones_stay() {
        let (_poll, mut names) = names(&["localhost:9"]);
        look_up(&mut names, Time(1));
        names.set(vec!["localhost:9".into()]);
        assert_eq!(names.poll_timeout(false), None, "nothing has changed");
        names.set(vec!["no-such-host.invalid".into(), "localhost:9".into()]);
        assert_eq!(names.addresses().count(), 1, "known before it is looked up again");
        assert_eq!(names.poll_timeout(false), Some(Time(0)));
        names.set(Vec::new());
        assert_eq!((names.poll_timeout(true), names.addresses().count()), (None, 0));
    }

    /// The thread that looks up belongs to nobody: who asked meanwhile for other hosts is not answered for those.
    #[test]
    fn a_name_that_is_nowhere_is_no_news_twice() {
        let (_poll, mut names) = names(&["no-such-host.invalid"]);
        assert!(!look_up(&mut names, Time(1)) && names.hosts[0].complained);
        assert!(!look_up(&mut names, Time(1) + AGAIN));
        assert_eq!(names.addresses().count(), 0);
        assert_eq!(names.poll_timeout(false), Some(Time(1) + AGAIN + UNKNOWN));
    }

    #[test]
    fn known_names_are_left_alone_while_somebody_answers() {
        let (_poll, mut names) = names(&["localhost"]);
        look_up(&mut names, Time(1));
        assert_eq!(names.poll_timeout(false), None);
    }
}
