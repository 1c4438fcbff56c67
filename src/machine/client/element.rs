//! Our pool elements: registered once, re-registered at intervals and with every new home.

use super::asks::{Key, Kind, What};
use super::effects::Timer;
use super::{Client, Event, LinkId, LinkProtocol, MAX_ELEMENTS, Registration, RequestError, RequestId, Time};
use crate::wire::{Asap, CauseCode, OperationError, PeId, PoolHandle, Protocol, Transport, TransportUse};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Re-registrations are never more frequent.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// The first pause after a refusal; each further one is twice as long.
const REFUSED: Duration = Duration::from_millis(500);
/// How long a setback is remembered.
const SETBACKS: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Own {
    registration: Registration,
    /// Names its timers.
    number: u64,
    /// Whether any registrar was told of it.
    told: bool,
    /// Over which link it is registered, as far as we know.
    registered: Option<LinkId>,
    /// Whether it ever was.
    granted: bool,
    /// How often the registrar refused it, or told that it is out, and when it did so last.
    setbacks: (u32, Time),
    /// Whether the registration under way says something that is no longer so.
    outdated: bool,
    /// Requests of an update made while a registration is under way, or of one that has to wait for an
    /// address: the next one answers them.
    waiting: Vec<RequestId>,
}

impl Own {
    /// Whether nobody could reach it: then it is registered when it has an address.
    fn is_unreachable(&self) -> bool {
        match &self.registration.element.transport {
            Transport::Address { addresses, .. } => addresses.is_empty(),
            Transport::Opaque(_) => false,
        }
    }

    /// Counts a setback; how long to wait before the next try.
    fn set_back(&mut self, now: Time) -> Duration {
        let (count, last) = self.setbacks;
        let count = if now - last < SETBACKS { count } else { 0 };
        self.setbacks = (count.saturating_add(1), now);
        if count == 0 { Duration::ZERO } else { REFUSED * (1 << (count - 1).min(10)) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Elements {
    own: BTreeMap<Key, Own>,
    numbers: BTreeMap<u64, Key>,
    last: u64,
    waiting: usize,
}

impl Elements {
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.own.keys().cloned().collect()
    }

    /// Requests that wait for a registration that is not even asked for.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Which of our elements a keep-alive names: one, or all of the pool.
    pub fn named(&self, handle: &PoolHandle, id: Option<PeId>) -> Vec<PeId> {
        let (first, last) = id.map_or((PeId(0), PeId(u32::MAX)), |id| (id, id));
        let range = (handle.clone(), first)..=(handle.clone(), last);
        self.own.range(range).map(|(key, _)| key.1).collect()
    }

    /// The number of one of ours.
    pub fn number(&self, handle: &PoolHandle, id: PeId) -> Option<u64> {
        self.own.get(&(handle.clone(), id)).map(|own| own.number)
    }

    /// Which one has this number.
    pub fn key(&self, number: u64) -> Option<Key> {
        self.numbers.get(&number).cloned()
    }

    pub fn is_registered(&self, handle: &PoolHandle, id: PeId, link: LinkId) -> bool {
        self.own.get(&(handle.clone(), id)).is_some_and(|own| own.registered == Some(link))
    }

    fn wait(&mut self, key: &Key, request: RequestId) {
        if let Some(own) = self.own.get_mut(key) {
            own.waiting.push(request);
            self.waiting += 1;
        }
    }

    fn is_unreachable(&self, key: &Key) -> bool {
        self.own.get(key).is_none_or(Own::is_unreachable)
    }

    fn take_waiting(&mut self, key: &Key) -> Vec<RequestId> {
        let waiting = self.own.get_mut(key).map(|own| std::mem::take(&mut own.waiting)).unwrap_or_default();
        self.waiting -= waiting.len();
        waiting
    }
}

impl Client {
    /// Takes an element in, or new values of one that is ours already, and registers it at once.
    pub(super) fn add_element(
        &mut self,
        request: RequestId,
        registration: Registration,
    ) -> Result<(), RequestError> {
        let key = (registration.handle.clone(), registration.element.id);
        let message = Asap::Registration { handle: key.0.clone(), element: registration.element.clone() };
        if !message.fits() {
            return Err(RequestError::Rejected(CauseCode::INVALID_VALUES.into()));
        }
        if let Some(own) = self.elements.own.get_mut(&key) {
            own.registration = registration;
        } else if self.elements.own.len() >= MAX_ELEMENTS {
            return Err(RequestError::Busy);
        } else {
            let elements = &mut self.elements;
            elements.last += 1;
            let number = elements.last;
            elements.numbers.insert(number, key.clone());
            let own = Own {
                registration,
                number,
                told: false,
                registered: None,
                setbacks: (0, Time(0)),
                granted: false,
                outdated: false,
                waiting: Vec::new(),
            };
            elements.own.insert(key.clone(), own);
        }
        self.request_registration(key, request);
        Ok(())
    }

    /// At most one registration of an element is under way: what changes meanwhile goes out together.
    fn request_registration(&mut self, key: Key, request: RequestId) {
        let under_way = self.asks.find(Kind::Registration, &key.0, key.1);
        if self.elements.is_unreachable(&key) {
            let unsent = |number: &u64| self.asks.get(*number).is_some_and(|ask| ask.sent.is_none());
            if let Some(What::Register { requests, .. }) =
                under_way.filter(unsent).and_then(|number| self.take(number)).map(|ask| ask.what)
            {
                requests.into_iter().for_each(|request| self.elements.wait(&key, request));
            }
            return self.elements.wait(&key, request);
        }
        let Some(number) = under_way else {
            return self.ask(What::Register { key, requests: vec![request] });
        };
        let Some(ask) = self.asks.get_mut(number) else { return };
        match &mut ask.what {
            What::Register { requests, .. } if ask.sent.is_none() => {
                requests.push(request);
                self.start_patience(number);
            }
            _ => self.elements.wait(&key, request),
        }
    }

    /// A registration on our own account.
    pub(super) fn ask_registration(&mut self, key: Key) {
        let under_way = self.asks.find(Kind::Registration, &key.0, key.1).is_some();
        if !under_way && !self.elements.is_unreachable(&key) {
            self.ask(What::Register { key, requests: Vec::new() });
        }
    }

    /// Every element is registered with the home as it is now.
    pub(super) fn register_all(&mut self) {
        for key in self.elements.keys() {
            self.ask_registration(key);
        }
    }

    /// The same when something about all of them has changed.
    pub(super) fn register_changed(&mut self) {
        for (key, own) in &mut self.elements.own {
            own.outdated = self.asks.find_sent(Kind::Registration, &key.0, key.1).is_some();
        }
        self.register_all();
    }

    /// Registered anew if that changes anything.
    pub(super) fn move_element(&mut self, key: Key, transport: Transport) {
        let Some(own) = self.elements.own.get_mut(&key) else { return };
        if own.registration.element.transport == transport {
            return;
        }
        let waited = own.is_unreachable();
        own.registration.element.transport = transport;
        if waited {
            for request in self.elements.take_waiting(&key) {
                self.request_registration(key.clone(), request);
            }
        }
        let Some(own) = self.elements.own.get_mut(&key) else { return };
        own.outdated = self.asks.find_sent(Kind::Registration, &key.0, key.1).is_some();
        // A home that is yet to be found gets all elements.
        if self.home.is_some() {
            self.ask_registration(key);
        }
    }

    /// T4-reregistration.
    pub(super) fn reregister(&mut self, number: u64) {
        if self.home.is_some()
            && let Some(key) = self.elements.numbers.get(&number).cloned()
        {
            self.ask_registration(key);
        }
    }

    /// Lets an element go; requests to register it fail for `reason`. True: its registrar is to be
    /// told, and the request waits for the answer.
    pub(super) fn remove_element(
        &mut self,
        request: Option<RequestId>,
        key: Key,
        reason: RequestError,
    ) -> Result<bool, RequestError> {
        let waiting = self.elements.take_waiting(&key);
        let own = self.elements.own.remove(&key).ok_or(RequestError::NotFound)?;
        self.elements.numbers.remove(&own.number);
        self.fx.timers.clear(&Timer::T4Reregistration(own.number));
        if let Some(number) = self.asks.find(Kind::Registration, &key.0, key.1) {
            self.forget(number, reason.clone());
        }
        for request in waiting {
            self.fx.event(Event::Registered { request, result: Err(reason.clone()) });
        }
        if own.told {
            self.ask(What::Deregister { key, request });
        }
        Ok(own.told)
    }

    /// The REGISTRATION of one of ours, with what only the machine knows.
    pub(super) fn registration_message(&mut self, key: &Key) -> Option<Asap> {
        let asap = self.asap_transport();
        let home = self.home()?;
        let own = self.elements.own.get_mut(key)?;
        own.told = true;
        own.outdated = false;
        let mut element = own.registration.element.clone();
        element.home = home;
        element.asap = asap;
        let message = Asap::Registration { handle: key.0.clone(), element };
        if message.fits() {
            return Some(message);
        }
        // It was measured without: a registrar can do without as well.
        let Asap::Registration { handle, mut element } = message else { return None };
        element.asap = None;
        Some(Asap::Registration { handle, element })
    }

    /// Where registrars reach us. Over SCTP that is the association's own address, and rsplib expects
    /// nothing here; a TCP connection comes from a port at which nobody listens.
    fn asap_transport(&self) -> Option<Transport> {
        let ends = self.home.as_ref().map(|home| &home.ends)?;
        if ends.protocol != LinkProtocol::Tcp {
            return None;
        }
        let local: Option<IpAddr> = ends.local.first().map(|address| address.ip().to_canonical());
        let listen = self.config.listen.iter().find(|target| target.protocol == LinkProtocol::Tcp)?;
        let fits = |ip: IpAddr| ip.is_unspecified() || local.is_none() || Some(ip) == local;
        let addresses = &listen.addresses;
        let at = addresses.iter().find(|address| fits(address.ip().to_canonical())).or(addresses.first())?;
        let ip = at.ip().to_canonical();
        let ip = if ip.is_unspecified() { local? } else { ip };
        (at.port() != 0).then(|| Transport::new(Protocol::Tcp, TransportUse::DataOnly, at.port(), vec![ip]))
    }

    /// REGISTRATION_RESPONSE.
    pub(super) fn registration_answered(&mut self, key: Key, rejected: bool, error: Option<OperationError>) {
        let Some(number) = self.asks.find_sent(Kind::Registration, &key.0, key.1) else { return };
        let Some(What::Register { requests, .. }) = self.take_answered(number).map(|ask| ask.what) else {
            return;
        };
        if rejected {
            let error = error.unwrap_or_else(|| CauseCode::UNSPECIFIED.into());
            return self.registration_failed(key, requests, RequestError::Rejected(error));
        }
        let Some((link, registrar)) = self.home.as_ref().map(|home| (home.link, home.registrar)) else {
            return;
        };
        if let Some(own) = self.elements.own.get_mut(&key) {
            own.registered = Some(link);
            match std::mem::replace(&mut own.granted, true) {
                true => self.fx.counts.reregistrations += 1,
                false => self.fx.counts.registrations += 1,
            }
        }
        if let Some(error) = error {
            let (handle, id) = key.clone();
            self.fx.event(Event::RegistrationWarned { handle, id, error });
        }
        for request in requests {
            self.fx.event(Event::Registered { request, result: Ok(registrar) });
        }
        self.registration_done(key, Duration::MAX);
    }

    /// A registration got no answer, or no for an answer. The element stays ours and is tried again.
    pub(super) fn registration_failed(&mut self, key: Key, requests: Vec<RequestId>, error: RequestError) {
        self.fx.counts.registrations_failed += 1;
        if requests.is_empty() {
            let (handle, id) = key.clone();
            self.fx.event(Event::RegistrationFailed { handle, id, error: error.clone() });
        }
        for request in requests {
            self.fx.event(Event::Registered { request, result: Err(error.clone()) });
        }
        let again = match (error, self.elements.own.get_mut(&key)) {
            (RequestError::Rejected(_), Some(own)) => own.set_back(self.fx.now).max(REFUSED),
            _ => Duration::MAX,
        };
        self.registration_done(key, again);
    }

    /// The registrar says by itself that an element of ours is out.
    fn unregistered(&mut self, key: Key, error: Option<OperationError>) {
        let now = self.fx.now;
        let under_way = self.asks.find(Kind::Registration, &key.0, key.1).is_some();
        let Some(own) = self.elements.own.get_mut(&key) else { return };
        let (handle, id) = key.clone();
        // Who comes back at once drives out whoever has the same identifier, and so on; or it is what an operator did not want.
        let stays_out = [CauseCode::NON_UNIQUE_PE_ID, CauseCode::SECURITY];
        let out = error.as_ref().is_some_and(|error| stays_out.contains(&error.code()));
        self.fx.event(Event::Unregistered { handle, id, error });
        own.registered = None;
        if under_way || out {
            return;
        }
        let pause = own.set_back(now);
        if pause.is_zero() {
            return self.ask_registration(key);
        }
        let timer = Timer::T4Reregistration(own.number);
        self.fx.timers.set(timer, now + pause.min(own.registration.interval));
    }

    /// What changed meanwhile is registered now, the rest at the next interval.
    fn registration_done(&mut self, key: Key, again: Duration) {
        if self.elements.is_unreachable(&key) {
            return;
        }
        let requests = self.elements.take_waiting(&key);
        let Some(own) = self.elements.own.get(&key) else { return };
        let timer = Timer::T4Reregistration(own.number);
        self.fx.timers.set(timer, self.fx.now + own.registration.interval.max(LEAST_INTERVAL).min(again));
        if !requests.is_empty() || own.outdated {
            self.ask(What::Register { key, requests });
        }
    }

    /// The link is gone: what changed meanwhile goes out with what was under way.
    pub(super) fn merge_registrations(&mut self) {
        if self.elements.waiting == 0 {
            return;
        }
        for key in self.elements.keys() {
            for request in self.elements.take_waiting(&key) {
                self.request_registration(key.clone(), request);
            }
        }
    }

    /// The home speaks of an element that it refused, as another one had its identifier, which is free now: whether it
    /// is that. It may be known by the link of a home before this one.
    pub(super) fn may_register_now(&mut self, key: Key) -> bool {
        let home = self.home.as_ref().map(|home| home.link);
        let refused = |own: &Own| own.registered != home && own.setbacks.0 > 0 && home.is_some();
        let was = self.elements.own.get(&key).is_some_and(refused);
        if was {
            self.ask_registration(key);
        }
        was
    }

    /// DEREGISTRATION_RESPONSE: the answer to ours, or the end of a registration's life, after which an element that
    /// is still there registers anew (RFC 5352 section 3.2).
    pub(super) fn deregistration_answered(&mut self, key: Key, error: Option<OperationError>) {
        let Some(number) = self.asks.find_sent(Kind::Deregistration, &key.0, key.1) else {
            let home = self.home.as_ref().map(|home| home.link);
            if error.is_none() && self.may_register_now(key.clone()) {
                return;
            }
            let Some(own) = self.elements.own.get_mut(&key) else { return };
            if own.registered.is_none() || own.registered != home {
                return;
            }
            if error.is_some() {
                return self.unregistered(key, error);
            }
            own.registered = None;
            return self.ask_registration(key);
        };
        self.fx.counts.deregistrations += u64::from(error.is_none());
        if let Some(What::Deregister { request: Some(request), .. }) =
            self.take_answered(number).map(|ask| ask.what)
        {
            let result = error.map_or(Ok(()), |error| Err(RequestError::Rejected(error)));
            self.fx.event(Event::Deregistered { request, result });
        }
    }
}
