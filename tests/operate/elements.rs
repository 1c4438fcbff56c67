//! Elements as cheap as can be: registrations over a connection of the test's own, which ends with them.

use rserpool::wire::{
    Asap, PeId, Policy, PoolElement, PoolHandle, Protocol, RegistrarId, Transport, TransportUse, frame,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A process with elements. They are lost when it is dropped.
pub struct Elements {
    stream: TcpStream,
    read: Vec<u8>,
}

pub fn handle(name: &[u8]) -> PoolHandle {
    PoolHandle::new(name).expect("handle")
}

pub fn element(id: u32, policy: Policy) -> PoolElement {
    let address = vec![Ipv4Addr::new(10, 0, (id >> 8) as u8, id as u8).into()];
    PoolElement {
        id: PeId(id),
        home: RegistrarId(0),
        life: 90_000,
        transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 80, address),
        policy,
        // As the library's elements say it: of whose process it is known that it is gone when its connection is.
        asap: Some(Transport::new(
            Protocol::Tcp,
            TransportUse::DataOnly,
            9,
            vec![Ipv4Addr::LOCALHOST.into()],
        )),
    }
}

impl Elements {
    pub fn connect(asap: SocketAddr) -> Elements {
        let stream = TcpStream::connect(asap).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        Elements { stream, read: Vec::new() }
    }

    /// Registers an element; whether it was taken.
    pub fn register(&mut self, pool: &[u8], element: PoolElement) -> bool {
        self.send(&Asap::Registration { handle: handle(pool), element });
        loop {
            if let Asap::RegistrationResponse { rejected, .. } = self.receive() {
                return !rejected;
            }
        }
    }

    /// One, with round robin.
    pub fn register_one(&mut self, pool: &[u8], id: u32) {
        assert!(self.register(pool, element(id, Policy::RoundRobin)));
    }

    /// Answers keep-alives for as long as there are some, and then so long.
    pub fn answer(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("timeout");
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = self.stream.read(&mut buffer) {
            self.read.extend_from_slice(&buffer[..count]);
            while let Ok(Some(length)) = frame::first_message(&self.read) {
                let message: Vec<u8> = self.read.drain(..length).collect();
                if let Asap::EndpointKeepAlive { handle, id: Some(id), .. } =
                    Asap::decode(&message).expect("a message").message
                {
                    self.send(&Asap::EndpointKeepAliveAck { handle, id });
                }
            }
        }
    }

    /// Very many, without waiting for each answer.
    pub fn register_many(&mut self, pool: &[u8], count: u32) {
        let mut answered = 0;
        for id in 1..=count {
            self.send(&Asap::Registration { handle: handle(pool), element: element(id, Policy::RoundRobin) });
            while answered + 100 < id {
                assert!(matches!(self.receive(), Asap::RegistrationResponse { rejected: false, .. }));
                answered += 1;
            }
        }
        while answered < count {
            assert!(matches!(self.receive(), Asap::RegistrationResponse { rejected: false, .. }));
            answered += 1;
        }
    }

    /// `count` of them with round robin, identifiers from 1.
    pub fn fill(asap: SocketAddr, pool: &[u8], count: u32) -> Elements {
        let mut elements = Elements::connect(asap);
        for id in 1..=count {
            assert!(elements.register(pool, element(id, Policy::RoundRobin)));
        }
        elements
    }

    /// The identifiers that a user gets, and the total if it is told.
    pub fn resolve(&mut self, pool: &[u8], items: u32) -> Option<Vec<u32>> {
        self.send(&Asap::HandleResolution { subscribe: false, handle: handle(pool), items: Some(items) });
        loop {
            if let Asap::HandleResolutionResponse { error, elements, .. } = self.receive() {
                return error.is_none().then(|| elements.iter().map(|element| element.id.0).collect());
            }
        }
    }

    pub fn send(&mut self, message: &Asap) {
        self.stream.write_all(&message.encode()).expect("send");
    }

    /// The next message; keep-alives are answered.
    pub fn receive(&mut self) -> Asap {
        loop {
            if let Ok(Some(length)) = frame::first_message(&self.read) {
                let message: Vec<u8> = self.read.drain(..length).collect();
                match Asap::decode(&message).expect("a message").message {
                    Asap::EndpointKeepAlive { handle, id: Some(id), .. } => {
                        self.send(&Asap::EndpointKeepAliveAck { handle, id });
                    }
                    other => return other,
                }
                continue;
            }
            let mut buffer = [0; 65_536];
            let count = self.stream.read(&mut buffer).expect("an answer");
            assert!(count > 0, "the registrar closed the connection");
            self.read.extend_from_slice(&buffer[..count]);
        }
    }
}
