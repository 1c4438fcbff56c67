//! Both ends of a session under anything that whoever holds the other one can send.

use super::Input;
use crate::machine::seal::{CookieKey, SIGNATURE, Seal};
use crate::machine::session::{First, Ignored, Inbox, MAX_COOKIE, Role, business_card, cookie_message};
use crate::socket::channel::stranger::{Stranger, StrangerInput};
use crate::wire::session_frame::{FrameHeader, GREETING_LENGTH, Greeting, HEADER_LENGTH};
use crate::wire::{
    Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse,
};
use std::net::{IpAddr, Ipv4Addr};

/// Receives after which all must have been delivered once the stranger is gone.
const DRAINED: usize = 10_000;

/// A list of operations: the stranger sends, we receive into buffers of any size. What is delivered
/// is what was sent, in order, up to the first violation; short messages come whole; nothing gets
/// stuck; and control messages leave the session in a state that makes sense.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let accepting = choice & 1 == 1;
    let Ok(stranger) = Stranger::new(accepting) else { return };
    let role = if accepting { Role::User } else { Role::Element };
    let control = ControlChannel::new(role, choice & 2 == 2);
    let mut world = World { stranger, sent: Sent::new(accepting), control, open: false, buffer: Vec::new() };
    while !input.0.is_empty() {
        world.step(&mut input);
    }
    world.finish();
}

struct World {
    stranger: Stranger,
    sent: Sent,
    control: ControlChannel,
    /// The stranger is in the middle of a message, as far as its well-formed frames go.
    open: bool,
    buffer: Vec<u8>,
}

impl World {
    fn step(&mut self, input: &mut Input) {
        match input.byte() % 16 {
            0 => {
                let length = usize::from(input.byte());
                let bytes = input.bytes(length).to_vec();
                self.say(&bytes);
            }
            1 | 2 => {
                let greeting = Greeting::ours(self.sent.accepting ^ input.byte().is_multiple_of(16));
                let mut bytes = greeting.encode().to_vec();
                if input.byte().is_multiple_of(16) {
                    bytes[11] = 3;
                    bytes.extend([1, 2, 3]);
                }
                self.say(&bytes);
            }
            3..=5 => self.data(input),
            6 | 7 => {
                let message = asap(input).encode();
                self.frame(FrameHeader::control(message.len()), &message);
            }
            8 => {
                let length = usize::from(input.byte());
                let bytes = input.bytes(length).to_vec();
                self.frame(FrameHeader::control(bytes.len()), &bytes);
            }
            9..=12 => {
                let size =
                    [0, 1, 5, 100, 2048, 5000, Stranger::WHOLE, 100_000][usize::from(input.byte() % 8)];
                self.receive(size);
            }
            13 => drop(self.stranger.look()),
            14 => drop(self.stranger.settle()),
            _ => match input.byte() % 8 {
                0 => self.sent.gone(&mut self.stranger),
                1 | 2 => drop(self.stranger.greet()),
                3 | 4 => self.control.act(input.byte(), usize::from(input.byte() % 64)),
                _ => drop(self.controls()),
            },
        }
    }

    /// A data frame: mostly in order, of any size, sometimes only its beginning.
    fn data(&mut self, input: &mut Input) {
        let choice = input.byte();
        let length = match choice % 8 {
            0 => 70_000,
            1 => 3000,
            2 => Stranger::WHOLE,
            _ => usize::from(input.byte()) + 1,
        };
        let header = FrameHeader {
            begin: !self.open ^ choice.is_multiple_of(64),
            end: choice & 16 == 0,
            unordered: choice & 32 != 0,
            control: false,
            stream: u16::from(choice),
            length: length as u32,
            ppid: [0, 0, choice, 1],
        };
        self.open = !header.end;
        let payload: Vec<u8> = (0..length).map(|at| (at / 7) as u8 ^ choice).collect();
        let there = if choice & 8 == 0 { length } else { length - usize::from(input.byte()).min(length) };
        self.frame(header, &payload[..there]);
    }

    fn frame(&mut self, header: FrameHeader, payload: &[u8]) {
        self.say(&[&header.encode()[..], payload].concat());
    }

    fn say(&mut self, bytes: &[u8]) {
        let count = self.stranger.say(bytes);
        self.sent.bytes.extend_from_slice(&bytes[..count]);
    }

    /// Receives once; whether something came of it.
    fn receive(&mut self, size: usize) -> bool {
        self.buffer.resize(size, 0xee);
        match self.stranger.receive(&mut self.buffer) {
            StrangerInput::Data { length, end, ppid, stream } => {
                self.sent.delivered(&self.buffer[..length], size, end, (ppid, stream));
                // Nothing was asked for, so nothing came.
                length > 0
            }
            StrangerInput::Nothing => self.controls(),
            StrangerInput::Closed => {
                self.sent.ended(true);
                false
            }
            StrangerInput::Broken => {
                self.sent.ended(false);
                false
            }
        }
    }

    fn controls(&mut self) -> bool {
        let mut some = false;
        while let Some(message) = self.stranger.control() {
            self.sent.controlled(&message);
            self.control.handle(&message);
            some = true;
        }
        some
    }

    /// Once the stranger has gone, everything up to the first violation arrives.
    fn finish(mut self) {
        self.sent.gone(&mut self.stranger);
        for _ in 0..DRAINED {
            // A short read is not asked for more; the end comes with the next one.
            if !self.receive(100_000) && !self.receive(100_000) {
                let ended = matches!(
                    self.stranger.receive(&mut [0; 1]),
                    StrangerInput::Closed | StrangerInput::Broken
                );
                assert!(ended, "stuck at byte {} of {}", self.sent.at, self.sent.bytes.len());
                return;
            }
        }
        panic!("it never ends");
    }
}

/// All that the stranger sent, and how much of it was delivered: a second, simpler reader.
struct Sent {
    bytes: Vec<u8>,
    /// Everything before is dealt with.
    at: usize,
    accepting: bool,
    greeted: bool,
    /// Inside a message of several frames.
    open: bool,
    /// The current data frame and what is left of it.
    frame: Option<(FrameHeader, usize)>,
    gone: bool,
}

impl Sent {
    fn new(accepting: bool) -> Sent {
        Sent { bytes: Vec::new(), at: 0, accepting, greeted: false, open: false, frame: None, gone: false }
    }

    fn gone(&mut self, stranger: &mut Stranger) {
        stranger.leave();
        self.gone = true;
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Goes past the greeting; `false`: it is not there, or wrong.
    fn greeting(&mut self) -> bool {
        if self.greeted {
            return true;
        }
        let ours = Greeting::ours(self.accepting).encode();
        let Some(bytes) = self.rest().first_chunk::<GREETING_LENGTH>() else { return false };
        let extension = usize::from(u16::from_be_bytes([bytes[10], bytes[11]]));
        // Other flags may mean something one day.
        let flags = (bytes[9] & 1) == ours[9];
        if bytes[..9] != ours[..9] || !flags || extension > 4096 {
            return false;
        }
        if self.rest().len() < GREETING_LENGTH + extension {
            return false;
        }
        self.at += GREETING_LENGTH + extension;
        self.greeted = true;
        true
    }

    /// The next header, unless that is incomplete or illegal where it stands.
    fn header(&self) -> Option<FrameHeader> {
        let header = FrameHeader::decode(self.rest().first_chunk::<HEADER_LENGTH>()?).ok()?;
        (header.control || header.begin != self.open).then_some(header)
    }

    fn controlled(&mut self, message: &[u8]) {
        assert!(self.greeting() && self.frame.is_none(), "a control message out of place");
        let header = self.header().expect("a control message where there is none");
        assert!(header.control && header.length as usize == message.len());
        self.at += HEADER_LENGTH;
        assert_eq!(self.rest().get(..message.len()), Some(message));
        self.at += message.len();
    }

    fn delivered(&mut self, bytes: &[u8], room: usize, end: bool, of: ([u8; 4], u16)) {
        assert!(self.greeting(), "data before the greeting");
        if self.frame.is_none() {
            let header = self.header().expect("data where there is none");
            assert!(!header.control, "data before the control message in front of it");
            self.at += HEADER_LENGTH;
            self.frame = Some((header, header.length as usize));
        }
        let Some((header, left)) = self.frame else { return };
        assert!(bytes.len() <= left && self.rest().get(..bytes.len()) == Some(bytes), "other bytes");
        assert_eq!(of, (header.ppid, header.stream));
        if left <= Stranger::WHOLE {
            assert_eq!(bytes.len(), left.min(room), "a short message in parts");
        }
        self.at += bytes.len();
        let left = left - bytes.len();
        assert_eq!(end, left == 0 && header.end, "the end of a message");
        self.open = !(left == 0 && header.end);
        self.frame = (left > 0).then_some((header, left));
    }

    /// The connection is over: because the stranger has gone, or did what must not be done.
    fn ended(&mut self, orderly: bool) {
        let incomplete = match (self.greeting(), self.frame) {
            (false, _) => {
                // Not even a greeting: how it ended does not matter, only that there was none.
                assert!(self.gone || !orderly, "closed by nobody");
                return;
            }
            (true, Some((_, left))) => self.rest().len() < left,
            (true, None) => match self.header() {
                Some(header) => self.rest().len() < HEADER_LENGTH + header.length as usize,
                // Less than a header, or an illegal one.
                None => !self.rest().is_empty(),
            },
        };
        if orderly {
            assert!(self.gone && self.rest().is_empty() && !self.open, "closed in the middle");
        } else {
            assert!(incomplete || (self.gone && self.open), "broken without reason at byte {}", self.at);
        }
    }
}

/// Pools of others that one session's peer can make us ask about.
const STRANGE_POOLS: usize = 4;

/// What the session's owner is told, beside a model of it.
struct ControlChannel {
    inbox: Inbox,
    role: Role,
    /// What cookie echoes must be signed with.
    seal: Option<Seal>,
    /// The last cookie, as it must be echoed.
    cookie: Option<Vec<u8>>,
    /// The echo that the owner has not read, and how much of it was read.
    echo: Option<(Vec<u8>, usize)>,
    /// A failover is complete, and the owner was not told.
    complete: bool,
    failed: bool,
    /// Data was read ahead.
    ahead: bool,
    /// The owner closed it.
    closed: bool,
    /// Other pools to ask about, and how many there were.
    strange: Vec<PoolHandle>,
    strangers: usize,
}

impl ControlChannel {
    fn new(role: Role, sealed: bool) -> ControlChannel {
        let seal = (sealed && role == Role::Element).then(seal);
        ControlChannel {
            inbox: Inbox::new(role).with_seal(seal.clone()),
            role,
            seal,
            cookie: None,
            echo: None,
            complete: false,
            failed: role == Role::User,
            ahead: false,
            closed: false,
            strange: Vec::new(),
            strangers: 0,
        }
    }

    fn handle(&mut self, message: &[u8]) {
        let pool = pool();
        let result = self.inbox.handle_message(Some(&pool), message);
        let mut forged = false;
        match Asap::decode(message).map(|decoded| decoded.message) {
            Ok(Asap::Cookie { cookie }) if self.role == Role::User => self.cookie = Some(cookie),
            // The first one counts until it is read.
            Ok(Asap::CookieEcho { cookie }) if self.role == Role::Element && self.echo.is_none() => {
                match self.genuine(&cookie) {
                    Some(cookie) => self.echo = Some((cookie.to_vec(), 0)),
                    None => forged = true,
                }
            }
            Ok(Asap::BusinessCard { handle, .. }) if handle != pool && self.strangers < STRANGE_POOLS => {
                self.strangers += 1;
                self.strange.push(handle);
            }
            Err(_) => assert!(result.is_err(), "taken, but not decodable"),
            Ok(_) => {}
        }
        assert_eq!(result == Err(Ignored::Forged), forged, "a signature");
        self.check();
    }

    /// The program's part of an echo, if it is one of the pool's.
    fn genuine<'a>(&self, echo: &'a [u8]) -> Option<&'a [u8]> {
        let Some(seal) = &self.seal else { return Some(echo) };
        let cookie = &echo[..echo.len().checked_sub(SIGNATURE)?];
        (seal.sign(cookie) == echo).then_some(cookie)
    }

    /// The owner asks what comes before any data, with so much room, or goes on with an echo, or closes; or the session
    /// moves or fails, is ahead or not, asks about other pools.
    fn act(&mut self, action: u8, room: usize) {
        if action >= 128 {
            self.act_further(action, room);
            return self.check();
        }
        match action % 4 {
            0 => match self.inbox.first() {
                Some(First::Complete) => {
                    assert!(self.inbox.take_complete() && self.complete, "not complete");
                    self.complete = false;
                }
                Some(First::Echo) => self.read_echo(room),
                None => {}
            },
            1 if self.role == Role::User => {
                self.inbox.begin_move();
                (self.failed, self.complete, self.ahead, self.echo) = (false, false, false, None);
            }
            2 if self.role == Role::User && !self.failed => {
                self.inbox.moved(room.is_multiple_of(2));
                self.complete = room.is_multiple_of(2);
            }
            3 => {
                assert_eq!(self.inbox.fail(), !self.failed, "news");
                self.failed = true;
            }
            _ => {}
        }
        self.check();
    }

    fn act_further(&mut self, action: u8, room: usize) {
        match action % 8 {
            0..=2 => {
                self.ahead = room.is_multiple_of(2);
                self.inbox.set_ahead(self.ahead);
            }
            3 | 4 => assert_eq!(self.inbox.take_strange(), self.strange.pop(), "a pool to ask about"),
            // More of the echo of which a part was delivered, whatever became of the session.
            5 | 6 if self.inbox.inside_echo() => self.read_echo(room),
            7 if action == 255 => {
                self.inbox.close();
                self.closed = true;
            }
            _ => {}
        }
    }

    fn read_echo(&mut self, room: usize) {
        let mut buffer = vec![0; room];
        let (length, end) = self.inbox.take_echo(&mut buffer).expect("an echo that was told of");
        let (bytes, at) = self.echo.as_mut().expect("an echo that nobody sent");
        assert_eq!(buffer[..length], bytes[*at..*at + length]);
        assert_eq!(length, room.min(bytes.len() - *at), "less than there is");
        *at += length;
        assert_eq!(end, *at == bytes.len());
        if end {
            self.echo = None;
        }
    }

    fn check(&self) {
        let signs = self.inbox.signs();
        let told = !self.closed;
        assert_eq!(signs.first, told && (self.complete || self.echo.is_some()), "told first");
        assert_eq!(self.inbox.first().is_some(), signs.first);
        assert_eq!((signs.failed, self.inbox.failed()), (told && self.failed, self.failed));
        assert_eq!(signs.ahead, told && self.ahead, "ahead");
        let inside = self.echo.as_ref().is_some_and(|(_, at)| *at > 0);
        assert_eq!(self.inbox.inside_echo(), inside, "inside an echo");
        assert_eq!(self.inbox.has_cookie(), self.cookie.is_some());
        let opening = self.inbox.opening().map(|bytes| Asap::decode(&bytes).expect("an echo").message);
        assert_eq!(opening, self.cookie.clone().map(|cookie| Asap::CookieEcho { cookie }));
        assert!(self.cookie.as_ref().is_none_or(|cookie| cookie.len() <= MAX_COOKIE));
        let alive = [element(1), element(3)];
        if let Some(next) = self.inbox.preferred(PeId(1), &alive) {
            assert_eq!((next.id, self.role), (PeId(3), Role::User));
        }
    }
}

fn pool() -> PoolHandle {
    PoolHandle::new(b"pool").expect("a legal handle")
}

fn seal() -> Seal {
    CookieKey::new(&[7; 32]).expect("a key").seal(&pool())
}

fn element(id: u32) -> PoolElement {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let transport = Transport::new(Protocol::Tcp, TransportUse::DataPlusControl, 80, vec![address]);
    let policy = if id == 5 { Policy::Priority { priority: 1 } } else { Policy::RoundRobin };
    PoolElement { id: PeId(id), home: RegistrarId(0), life: 1000, transport, policy, asap: None }
}

fn asap(input: &mut Input) -> Asap {
    let cookie = |input: &mut Input| {
        let length = usize::from(input.byte());
        input.bytes(length).to_vec()
    };
    let kind = input.byte();
    match kind % 6 {
        0 => Asap::Cookie { cookie: cookie(input) },
        1 if kind >= 128 => Asap::CookieEcho { cookie: seal().sign(&cookie(input)) },
        1 => Asap::CookieEcho { cookie: cookie(input) },
        2 => {
            let elements = (0..input.byte() % 4).map(|_| element(u32::from(input.byte() % 6))).collect();
            let handle = if kind >= 128 { PoolHandle::new(&[kind]).expect("a legal handle") } else { pool() };
            Asap::BusinessCard { handle, policy: None, elements }
        }
        3 => {
            let elements = (1..=u32::from(input.byte())).map(element).collect();
            let card = business_card(&pool(), PeId(1), elements, usize::from(input.byte()));
            card.map_or(Asap::Deregistration { handle: pool(), id: PeId(1) }, decoded)
        }
        4 => {
            let length = if input.flag() { MAX_COOKIE } else { 1 };
            decoded(cookie_message(&vec![b'c'; length]).expect("a legal cookie"))
        }
        _ => Asap::EndpointKeepAliveAck { handle: pool(), id: PeId(1) },
    }
}

fn decoded(bytes: Vec<u8>) -> Asap {
    Asap::decode(&bytes).expect("what was encoded decodes").message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verbs of whoever owns a session and of its peer in any order: the model's checks hold, and each verb is met.
    #[test]
    fn an_inbox_says_what_its_model_says() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut asked, mut closed, mut echoed, mut ahead, mut forged) = (0, 0, 0, 0, 0);
        for round in 0..400 {
            let role = if round % 2 == 0 { Role::User } else { Role::Element };
            let mut channel = ControlChannel::new(role, round % 4 == 1);
            for _ in 0..60 {
                let bytes: Vec<u8> = (0..300).map(|_| random.u8(..)).collect();
                if random.bool() {
                    let message = asap(&mut Input(&bytes)).encode();
                    let before = channel.echo.is_some();
                    channel.handle(&message);
                    let is_echo = matches!(Asap::decode(&message).unwrap().message, Asap::CookieEcho { .. });
                    forged +=
                        u32::from(channel.seal.is_some() && is_echo && !before && channel.echo.is_none());
                } else {
                    channel.act(bytes[0], usize::from(bytes[1] % 64));
                }
                echoed += u32::from(channel.inbox.inside_echo());
                ahead += u32::from(channel.ahead);
            }
            asked += channel.strangers - channel.strange.len();
            closed += u32::from(channel.closed);
        }
        assert!(asked > 100 && closed > 20 && echoed > 100 && ahead > 100 && forged > 10);
    }
}
