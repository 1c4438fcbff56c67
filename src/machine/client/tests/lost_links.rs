//! A client against scripted registrars over links that break, refuse, hang: whatever happens, every
//! request is answered exactly once, and with a registrar that works it is answered well.

use super::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A registrar that knows no elements but those registered with it.
#[derive(Default)]
struct Scripted {
    listens: bool,
    /// Reads, but does not answer (SIGSTOP).
    hangs: bool,
    elements: BTreeSet<(PoolHandle, PeId)>,
}

impl Scripted {
    fn answer(&mut self, message: Asap) -> Option<Asap> {
        match message {
            Asap::Registration { handle, element } => {
                self.elements.insert((handle.clone(), element.id));
                Some(Asap::RegistrationResponse { rejected: false, handle, id: element.id, error: None })
            }
            Asap::Deregistration { handle, id } => {
                self.elements.remove(&(handle.clone(), id));
                Some(Asap::DeregistrationResponse { handle, id, error: None })
            }
            Asap::HandleResolution { subscribe, handle, .. } => {
                let elements =
                    self.elements.iter().filter(|known| known.0 == handle).map(|known| element(known.1.0));
                Some(Asap::HandleResolutionResponse {
                    subscribed: subscribe,
                    policy: Some(Policy::RoundRobin),
                    elements: elements.collect(),
                    error: None,
                    total: None,
                    lost: vec![],
                    deregistered: vec![],
                    handle,
                })
            }
            _ => None,
        }
    }
}

struct World {
    client: Client,
    now: Time,
    rng: fastrand::Rng,
    registrars: BTreeMap<SocketAddr, Scripted>,
    /// Links and where they go; `false`: still dialling.
    links: BTreeMap<LinkId, (SocketAddr, bool)>,
    /// To happen at the client, in time order.
    mail: VecDeque<(Time, LinkId, Result<Asap, LinkChange>)>,
    answers: BTreeMap<u64, Result<(), RequestError>>,
    transcript: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let all = [A, B, C];
        let registrars = all.map(|at| (address(at), Scripted { listens: true, ..Scripted::default() }));
        World {
            client: Client::new(config(&all), seed, Time(0)),
            now: Time(0),
            rng: fastrand::Rng::with_seed(seed),
            registrars: registrars.into(),
            links: BTreeMap::new(),
            mail: VecDeque::new(),
            answers: BTreeMap::new(),
            transcript: Vec::new(),
        }
    }

    fn post(&mut self, link: LinkId, what: Result<Asap, LinkChange>) {
        let last =
            self.mail.iter().filter(|mail| mail.1 == link).map(|mail| mail.0).max().unwrap_or(self.now);
        let at = last.max(self.now) + Duration::from_micros(self.rng.u64(50..3_000));
        let place = self.mail.iter().position(|mail| mail.0 > at).unwrap_or(self.mail.len());
        self.mail.insert(place, (at, link, what));
    }

    /// Carries out the client's effects.
    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            self.transcript.push(format!("{:?} {output:?}", self.now));
            match output {
                Output::Open { link, target, .. } => {
                    let at = target.addresses[0];
                    self.links.insert(link, (at, false));
                    assert!(self.links.len() <= 3, "{:?}", self.links);
                    let change = if self.registrars[&at].listens {
                        LinkChange::Up(ends(&at.to_string()))
                    } else {
                        LinkChange::Down(LinkDown::Refused)
                    };
                    self.post(link, Err(change));
                }
                Output::Close { link } => self.cut(link),
                Output::Send { link, bytes } => self.deliver(link, &bytes),
                Output::Event(event) => self.note(event),
                Output::Announce { .. } | Output::Measure { .. } => panic!("a client does not do that"),
            }
        }
    }

    fn deliver(&mut self, link: LinkId, mut bytes: &[u8]) {
        while let Some(length) = first_message(bytes).expect("a stream of messages") {
            let message = Asap::decode(&bytes[..length]).expect("a message").message;
            bytes = &bytes[length..];
            let Some(&(at, true)) = self.links.get(&link) else { continue };
            let registrar = self.registrars.get_mut(&at).unwrap();
            if !registrar.hangs
                && let Some(answer) = registrar.answer(message)
            {
                self.post(link, Ok(answer));
            }
        }
    }

    fn note(&mut self, event: Event) {
        let (request, result) = match event {
            Event::Resolved { requests, result, .. } => (requests[0], result.map(drop)),
            Event::Registered { request, result } => (request, result.map(drop)),
            Event::Deregistered { request, result } => (request, result),
            _ => return,
        };
        assert!(self.answers.insert(request.0, result).is_none(), "{request:?} is answered twice");
    }

    /// The link is gone without a word.
    fn cut(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.mail.retain(|mail| mail.1 != link);
    }

    /// What comes next: mail or a timer, not after `until`.
    fn step(&mut self, until: Time) -> bool {
        let mail = self.mail.front().map(|mail| mail.0);
        let due = self.client.poll_timeout();
        let Some(next) = mail.into_iter().chain(due).min().filter(|&next| next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if mail == Some(next) {
            let (_, link, what) = self.mail.pop_front().unwrap();
            match what {
                Ok(message) => self.client.handle_message(self.now, link, &message.encode()),
                Err(change) => {
                    match &change {
                        LinkChange::Up(_) => self.links.get_mut(&link).unwrap().1 = true,
                        _ => self.cut(link),
                    }
                    self.client.handle_link(self.now, link, change);
                }
            }
        } else {
            self.client.handle_timeout(self.now);
        }
        self.drain();
        true
    }

    fn run(&mut self, until: Time) {
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 200_000, "busy at {:?}", self.now);
        }
    }

    /// One fault or repair; registrar `spared` stays well.
    fn disturb(&mut self, spared: Option<SocketAddr>) {
        let addresses: Vec<SocketAddr> = self.registrars.keys().copied().collect();
        let at = addresses[self.rng.usize(..addresses.len())];
        let what = self.rng.u8(..5);
        if Some(at) == spared && what != 0 {
            return;
        }
        let registrar = self.registrars.get_mut(&at).unwrap();
        match what {
            1 => registrar.hangs = true,
            2 => registrar.listens = false,
            3 => *registrar = Scripted { listens: true, ..Scripted::default() },
            _ => {}
        }
        if what != 1 {
            let lost: Vec<LinkId> =
                self.links.iter().filter(|(_, to)| to.0 == at && to.1).map(|(&link, _)| link).collect();
            for link in lost {
                self.cut(link);
                self.links.insert(link, (at, true));
                self.post(link, Err(LinkChange::Down(LinkDown::Broken)));
            }
        }
    }

    fn request(&mut self, number: u64) {
        let (request, pool) = (RequestId(number), handle(["one", "two", "three"][number as usize % 3]));
        match self.rng.u8(..6) {
            0 => self.client.register(self.now, request, registration("echo", 1 + number as u32 % 5)),
            1 => self.client.deregister(self.now, request, &handle("echo"), PeId(1 + number as u32 % 5)),
            _ => self.client.resolve(self.now, request, &pool, Some(number as u32 % 4), false),
        }
        self.drain();
    }
}

#[test]
fn every_request_is_answered_once_through_all_faults() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        for number in 0..300 {
            world.request(number);
            let pause = world.rng.u64(..400);
            world.run(world.now + Duration::from_millis(pause));
            if world.rng.u8(..4) == 0 {
                world.disturb(None);
            }
        }
        world.run(world.now + Duration::from_secs(120));
        assert_eq!(world.answers.len(), 300, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_effects() {
    let run = |seed| {
        let mut world = World::new(seed);
        for number in 0..100 {
            world.request(number);
            world.run(world.now + Duration::from_millis(150));
            world.disturb(None);
        }
        world.transcript
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn no_request_fails_while_one_registrar_works() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        let well = address(A);
        for number in 0..200 {
            world.request(number);
            let pause = world.rng.u64(..400);
            world.run(world.now + Duration::from_millis(pause));
            if world.rng.u8(..8) == 0 {
                world.disturb(Some(well));
            }
        }
        world.run(world.now + Duration::from_secs(60));
        for (number, answer) in &world.answers {
            let not_ours = matches!(answer, Err(RequestError::NotFound));
            assert!(answer.is_ok() || not_ours, "seed {seed}: request {number}: {answer:?}");
        }
        assert_eq!(world.answers.len(), 200, "seed {seed}");
    }
}

#[test]
fn when_the_faults_stop_every_element_is_registered_at_home() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for number in 0..100 {
            world.request(number);
            let pause = world.rng.u64(..200);
            world.run(world.now + Duration::from_millis(pause));
            if world.rng.u8(..4) == 0 {
                world.disturb(None);
            }
        }
        for registrar in world.registrars.values_mut() {
            registrar.listens = true;
            registrar.hangs = false;
        }
        world.run(world.now + Duration::from_secs(60));
        let home = world.client.home.as_ref().map(|home| home.link);
        let ours: BTreeSet<_> = world.client.elements.keys().into_iter().collect();
        if ours.is_empty() {
            continue;
        }
        let (at, _) = world.links[&home.expect("a home")];
        assert!(world.registrars[&at].elements.is_superset(&ours), "seed {seed}");
        assert_eq!(world.links.len(), 1, "seed {seed}: one link is enough");
    }
}
