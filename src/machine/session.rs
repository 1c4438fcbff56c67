//! All that a session's owner is to be told, in its order: completed failovers, cookie echoes, data, failures.
//! With it the control channel that some of that comes from: cookies, cookie echoes, business cards.
//!
//! A session has no timers of its own: what fails it comes from its transport or from the pool
//! (`fail`), and what moves it is the application (`begin_move`, then `moved` or `fail`).

use super::seal::Seal;
use crate::wire::{Asap, MAX_MESSAGE, PeId, Policy, PoolElement, PoolHandle};
use std::fmt;
use std::sync::Arc;

/// The longest cookie: what one ASAP message can carry beside two headers, when its length counts the
/// padding inside (as rsplib's and ours do).
pub const MAX_COOKIE: usize = MAX_MESSAGE - 8;

/// Which end of a session we are (RFC 5352 section 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The pool user: keeps the last cookie, echoes it to the next element.
    User,
    /// The pool element: hands a cookie echo to the application.
    Element,
}

/// A session's life, as its user sees it.
///
/// ```text
///            begin_move          moved
///   Failed ─────────────► Moving ─────► Up
///     ▲  ▲                   │ fail      │ fail
///     │  └───────────────────┘           │
///     └──────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionPhase {
    Moving,
    Up,
    Failed,
}

/// A control message that is no use; the session goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    /// It can't be decoded.
    Malformed(&'static str),
    /// A message that does not belong on this end of a control channel.
    Misplaced,
    /// A cookie echo whose signature is not that of the pool's elements.
    Forged,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ignored::Malformed(reason) => write!(f, "malformed control message: {reason}"),
            Ignored::Forged => f.write_str("cookie echo that no element of the pool signed"),
            Ignored::Misplaced => f.write_str("control message that does not belong there"),
        }
    }
}

/// What is told before any data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A failover is complete ([`Inbox::take_complete`]).
    Complete,
    /// A cookie echo waits ([`Inbox::take_echo`]).
    Echo,
}

/// Why a session's descriptor is to be readable whatever its transport says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Something is told before any data.
    pub first: bool,
    /// Data was read ahead.
    pub ahead: bool,
    /// It is failed or over.
    pub failed: bool,
}

/// What one session's owner has not been told yet, and what its control channel left.
#[derive(Debug)]
pub struct Inbox {
    role: Role,
    phase: SessionPhase,
    /// The owner closed it: there is nobody to tell anything.
    closed: bool,
    /// A move ended well, and its owner was not told yet.
    complete: bool,
    cookie: Option<Arc<[u8]>>,
    /// A cookie echo, and how much of it was delivered.
    echo: Option<(Vec<u8>, usize)>,
    /// Only cookies signed with it count.
    seal: Option<Seal>,
    /// Other pools that business cards were for, to be asked about.
    strange: Vec<PoolHandle>,
    /// How many of these there were.
    strangers: usize,
    /// A receive would find data without asking the transport.
    ahead: bool,
    /// The failover order of the last business card for our pool.
    preferred: Vec<PeId>,
}

impl Inbox {
    /// A user's session starts failed: connecting is its first move. An element's is up.
    pub fn new(role: Role) -> Inbox {
        let phase = match role {
            Role::User => SessionPhase::Failed,
            Role::Element => SessionPhase::Up,
        };
        Inbox {
            role,
            phase,
            closed: false,
            complete: false,
            cookie: None,
            echo: None,
            seal: None,
            strange: Vec::new(),
            strangers: 0,
            ahead: false,
            preferred: Vec::new(),
        }
    }

    /// An element's, whose cookies are signed.
    pub fn with_seal(self, seal: Option<Seal>) -> Inbox {
        Inbox { seal, ..self }
    }

    /// The next pool that a business card was for and that is not the session's own (RFC 5352 section 3.9, BC1).
    pub fn take_strange(&mut self) -> Option<PoolHandle> {
        self.strange.pop()
    }

    /// One message from the control channel. `handle` is the pool a user's session belongs to.
    pub fn handle_message(&mut self, handle: Option<&PoolHandle>, bytes: &[u8]) -> Result<(), Ignored> {
        let message = Asap::decode(bytes).map_err(|error| Ignored::Malformed(error.reason))?.message;
        match (message, self.role) {
            (Asap::Cookie { cookie }, Role::User) => self.cookie = Some(cookie.into()),
            // The first one counts until the application has read it.
            (Asap::CookieEcho { cookie }, Role::Element) if self.echo.is_none() => {
                let genuine = match &self.seal {
                    Some(seal) => seal.open(cookie).ok_or(Ignored::Forged)?,
                    None => cookie,
                };
                self.echo = Some((genuine, 0));
            }
            (Asap::BusinessCard { handle: pool, elements, .. }, Role::User) if handle == Some(&pool) => {
                self.preferred = elements.iter().map(|element| element.id).collect();
            }
            (Asap::BusinessCard { handle: pool, .. }, _) => {
                if handle != Some(&pool) && self.strangers < MAX_STRANGE_POOLS {
                    self.strangers += 1;
                    self.strange.push(pool);
                }
            }
            (Asap::CookieEcho { .. }, Role::Element) | (Asap::Error { .. }, _) => {}
            _ => return Err(Ignored::Misplaced),
        }
        Ok(())
    }

    /// What a user's session says first on a new connection (RFC 5352 section 3.8): the cookie echo.
    pub fn opening(&self) -> Option<Vec<u8>> {
        let cookie = self.cookie.as_ref()?;
        Some(Asap::CookieEcho { cookie: cookie.to_vec() }.encode())
    }

    /// Whether a user's session holds a cookie.
    pub fn has_cookie(&self) -> bool {
        self.cookie.is_some()
    }

    /// What is to be told before any data.
    pub fn first(&self) -> Option<First> {
        match (self.complete, &self.echo) {
            _ if self.closed => None,
            (true, _) => Some(First::Complete),
            (false, Some(_)) => Some(First::Echo),
            (false, None) => None,
        }
    }

    /// Whether a completed failover is to be told, once.
    pub fn take_complete(&mut self) -> bool {
        std::mem::take(&mut self.complete)
    }

    /// Puts the next part of the cookie echo into `buffer`: its length, and whether the echo ends with it.
    /// `None`: there is no echo.
    pub fn take_echo(&mut self, buffer: &mut [u8]) -> Option<(usize, bool)> {
        let (bytes, at) = self.echo.as_mut()?;
        let rest = &bytes[*at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        let end = length == rest.len();
        *at += length;
        if end {
            self.echo = None;
        }
        Some((length, end))
    }

    /// Whether a part of the cookie echo was delivered, and not its end.
    pub fn inside_echo(&self) -> bool {
        self.echo.as_ref().is_some_and(|(_, at)| *at > 0)
    }

    /// Whether a receive would find data without asking the transport.
    pub fn set_ahead(&mut self, ahead: bool) {
        self.ahead = ahead;
    }

    /// A connection attempt or failover begins; what was to be told about earlier ones is void.
    pub fn begin_move(&mut self) {
        self.phase = SessionPhase::Moving;
        self.complete = false;
        self.echo = None;
        self.ahead = false;
    }

    /// It ended well. `announce`: the owner is to be told (failovers, not the first connect).
    pub fn moved(&mut self, announce: bool) {
        self.phase = SessionPhase::Up;
        self.complete = announce;
    }

    /// The element or the way to it is lost; whether that is news.
    pub fn fail(&mut self) -> bool {
        let news = self.phase != SessionPhase::Failed;
        self.phase = SessionPhase::Failed;
        news
    }

    /// Whether a failover is necessary, or an element's session is over. Stays so until the next move.
    pub fn failed(&self) -> bool {
        self.phase == SessionPhase::Failed
    }

    /// The owner closed the session; nobody is to be told anything.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What its descriptor is to show.
    pub fn signs(&self) -> Signs {
        if self.closed {
            return Signs::default();
        }
        Signs { first: self.first().is_some(), ahead: self.ahead, failed: self.failed() }
    }

    /// The element that the last business card would have us try next, out of those known to be
    /// alive, not `lost` itself; `None` where there is no card or the pool's policy decides by its
    /// elements' values. Round robin and random leave the choice open: any element is as good.
    pub fn preferred<'a>(&self, lost: PeId, alive: &'a [PoolElement]) -> Option<&'a PoolElement> {
        let open = |policy: &Policy| matches!(policy, Policy::RoundRobin | Policy::Random);
        self.preferred
            .iter()
            .filter(|&&id| id != lost)
            .find_map(|&id| alive.iter().find(|element| element.id == id && open(&element.policy)))
    }
}

/// Pools of others that one session's peer can make us ask about.
const MAX_STRANGE_POOLS: usize = 4;

/// An element's cookie message; `None` when `cookie` is longer than [`MAX_COOKIE`].
pub fn cookie_message(cookie: &[u8]) -> Option<Vec<u8>> {
    (cookie.len() <= MAX_COOKIE).then(|| Asap::Cookie { cookie: cookie.to_vec() }.encode())
}

/// An element's business card (RFC 5352 section 3.9): its pool with the order in which its users
/// should try the others when it fails. `turn` rotates that order from user to user, so that the
/// users of a failed element spread over the pool instead of meeting at one other element.
/// `None` when there is nobody else to name. At most [`MAX_CARD`] elements.
pub fn business_card(
    handle: &PoolHandle,
    own: PeId,
    mut elements: Vec<PoolElement>,
    turn: usize,
) -> Option<Vec<u8>> {
    elements.retain(|element| element.id != own);
    if elements.is_empty() {
        return None;
    }
    let middle = turn % elements.len();
    elements.rotate_left(middle);
    elements.truncate(MAX_CARD);
    let policy = elements.first().map(|element| element.policy.clone());
    let card = Asap::BusinessCard { handle: handle.clone(), policy, elements };
    card.fits().then(|| card.encode())
}

/// Most elements named on a business card.
pub const MAX_CARD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::seal::CookieKey;
    use crate::wire::{Protocol, RegistrarId, Transport, TransportUse};

    fn element(id: u32, policy: Policy) -> PoolElement {
        let transport =
            Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 80, vec![[10, 0, 0, 1].into()]);
        PoolElement { id: PeId(id), home: RegistrarId(0), life: 1000, transport, policy, asap: None }
    }

    fn pool() -> PoolHandle {
        PoolHandle::new(b"pool").unwrap()
    }

    #[test]
    fn the_last_cookie_is_echoed_to_every_next_element() {
        let mut session = Inbox::new(Role::User);
        assert_eq!(session.opening(), None);
        for cookie in [b"first", b"other"] {
            assert_eq!(session.handle_message(None, &cookie_message(cookie).unwrap()), Ok(()));
        }
        for _ in 0..2 {
            let opening = session.opening().unwrap();
            assert_eq!(
                Asap::decode(&opening).unwrap().message,
                Asap::CookieEcho { cookie: b"other".to_vec() }
            );
        }
        assert!(session.has_cookie());
    }

    #[test]
    fn an_echo_counts_until_it_is_read() {
        let mut session = Inbox::new(Role::Element);
        let echo = |text: &[u8]| Asap::CookieEcho { cookie: text.to_vec() }.encode();
        let mut buffer = [0; 8];
        session.handle_message(None, &echo(b"one")).unwrap();
        assert_eq!((session.first(), session.signs().first), (Some(First::Echo), true));
        session.handle_message(None, &echo(b"two")).unwrap();
        assert_eq!(session.take_echo(&mut buffer[..2]), Some((2, false)));
        assert!(session.inside_echo());
        session.handle_message(None, &echo(b"two")).unwrap();
        assert_eq!(session.take_echo(&mut buffer[2..]), Some((1, true)));
        assert_eq!(&buffer[..3], b"one");
        assert!(!session.inside_echo());
        assert_eq!((session.take_echo(&mut buffer), session.first()), (None, None));
        session.handle_message(None, &echo(b"three")).unwrap();
        assert_eq!(session.take_echo(&mut buffer), Some((5, true)));
    }

    #[test]
    fn nobody_is_told_anything_of_a_closed_session() {
        let mut session = Inbox::new(Role::Element);
        session.handle_message(None, &Asap::CookieEcho { cookie: b"c".to_vec() }.encode()).unwrap();
        session.set_ahead(true);
        session.fail();
        assert_eq!(session.signs(), Signs { first: true, ahead: true, failed: true });
        session.close();
        assert_eq!((session.signs(), session.first()), (Signs::default(), None));
    }

    #[test]
    fn messages_at_the_wrong_end_are_ignored() {
        let cookie = cookie_message(b"c").unwrap();
        assert_eq!(Inbox::new(Role::Element).handle_message(None, &cookie), Err(Ignored::Misplaced));
        let echo = Asap::CookieEcho { cookie: b"c".to_vec() }.encode();
        assert_eq!(Inbox::new(Role::User).handle_message(None, &echo), Err(Ignored::Misplaced));
        assert!(matches!(Inbox::new(Role::User).handle_message(None, &[11]), Err(Ignored::Malformed(_))));
    }

    #[test]
    fn failing_is_news_once_per_move() {
        let mut session = Inbox::new(Role::User);
        assert!(session.failed());
        session.begin_move();
        assert!(!session.failed());
        session.moved(false);
        assert!(!session.take_complete());
        assert!(session.fail());
        assert!(!session.fail());
        session.begin_move();
        session.moved(true);
        assert!(session.take_complete());
        assert!(!session.take_complete());
        session.begin_move();
        assert!(session.fail());
    }

    #[test]
    fn the_card_orders_what_the_policy_leaves_open() {
        let elements = || (1..=4).map(|id| element(id, Policy::RoundRobin)).collect::<Vec<_>>();
        let mut session = Inbox::new(Role::User);
        assert_eq!(session.preferred(PeId(2), &elements()), None);
        let card = business_card(&pool(), PeId(2), elements(), 1).unwrap();
        session.handle_message(Some(&pool()), &card).unwrap();
        let next = |session: &Inbox, lost, alive: &[PoolElement]| {
            session.preferred(PeId(lost), alive).map(|element| element.id.0)
        };
        // Without element 2 and rotated by one: 3, 4, 1.
        assert_eq!(next(&session, 2, &elements()), Some(3));
        assert_eq!(next(&session, 3, &elements()), Some(4));
        assert_eq!(next(&session, 2, &elements()[..1]), Some(1));
        assert_eq!(next(&session, 2, &[]), None);
        assert_eq!(next(&session, 2, &[element(3, Policy::Priority { priority: 1 })]), None);
        // A new one may come at any time (RFC 5352 section 3.9), and counts.
        let card = business_card(&pool(), PeId(2), elements(), 2).unwrap();
        session.handle_message(Some(&pool()), &card).unwrap();
        assert_eq!(next(&session, 2, &elements()), Some(4));
    }

    #[test]
    fn an_echo_that_nobody_signed_is_none() {
        let seal = CookieKey::new(&[1; 32]).unwrap().seal(&pool());
        let mut session = Inbox::new(Role::Element).with_seal(Some(seal.clone()));
        let echo = |cookie: &[u8]| Asap::CookieEcho { cookie: cookie.to_vec() }.encode();
        assert_eq!(session.handle_message(Some(&pool()), &echo(b"state")), Err(Ignored::Forged));
        assert_eq!(session.first(), None);
        session.handle_message(Some(&pool()), &echo(&seal.sign(b"state"))).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(session.take_echo(&mut buffer), Some((5, true)));
        assert_eq!(&buffer[..5], b"state");
    }

    /// RFC 5352 section 3.9, BC1; and a peer can't make us ask for ever.
    #[test]
    fn a_card_for_another_pool_is_asked_about() {
        for role in [Role::User, Role::Element] {
            let mut session = Inbox::new(role);
            for number in 0..9 {
                let other = PoolHandle::new(format!("pool {number}").as_bytes()).unwrap();
                let card = business_card(&other, PeId(9), vec![element(1, Policy::Random)], 0).unwrap();
                session.handle_message(Some(&pool()), &card).unwrap();
                let strange = session.take_strange();
                assert_eq!(strange, (number < MAX_STRANGE_POOLS).then_some(other));
            }
            let own = business_card(&pool(), PeId(9), vec![element(1, Policy::Random)], 0).unwrap();
            session.handle_message(Some(&pool()), &own).unwrap();
            assert_eq!(session.take_strange(), None);
        }
    }

    #[test]
    fn a_card_for_another_pool_says_nothing() {
        let mut session = Inbox::new(Role::User);
        let card = business_card(&pool(), PeId(9), vec![element(1, Policy::Random)], 0).unwrap();
        session.handle_message(PoolHandle::new(b"other").as_ref(), &card).unwrap();
        assert_eq!(session.preferred(PeId(9), &[element(1, Policy::Random)]), None);
        assert_eq!(business_card(&pool(), PeId(1), vec![element(1, Policy::Random)], 0), None);
    }

    #[test]
    fn cookies_are_bounded_by_their_message() {
        assert_eq!(cookie_message(&vec![1; MAX_COOKIE + 1]), None);
        let cookie = vec![1; MAX_COOKIE];
        let longest = cookie_message(&cookie).unwrap();
        assert_eq!(Asap::decode(&longest).unwrap().message, Asap::Cookie { cookie });
    }
}
