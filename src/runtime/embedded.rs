//! A registrar in a thread of a program.

use super::reactor::Waker;
use super::registrar::{Listen, Options, Server};
use super::thread::spawn;
use super::{Tls, targets};
use crate::machine::registrar::Config;
use crate::machine::{LinkProtocol, Target};
use crate::wire::scope::Scope;
use crate::wire::{ASAP_PORT, ASAP_TLS_PORT, ENRP_PORT, ENRP_TLS_PORT};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A registrar in a thread of this process, for this host only (`RSP_REGISTRAR=embedded`).
#[derive(Debug)]
pub(super) struct Embedded {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Takes the default ports on localhost; if another registrar has them already, joins it.
    pub fn start(tls: &Tls) -> io::Result<Embedded> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let at = |asap, enrp, peers| {
            let listen = |port| Listen { addresses: vec![local(port)], fallback: false };
            // Nobody was here before the process was.
            let machine = Config {
                peers,
                min_address_scope: Scope::Loopback,
                return_time: Duration::ZERO,
                ..Config::default()
            };
            Server::bind(Options {
                machine,
                asap: listen(asap),
                enrp: listen(enrp),
                protocols: vec![LinkProtocol::Tcp],
                tls: tls.clone(),
                ..Options::default()
            })
        };
        let (asap, enrp) = (tls.port(ASAP_PORT, ASAP_TLS_PORT), tls.port(ENRP_PORT, ENRP_TLS_PORT));
        let mut server = at(asap, enrp, Vec::new())
            .or_else(|_| at(0, 0, targets(&[LinkProtocol::Tcp], &[local(enrp)])))?;
        let (address, waker) = (server.asap_addresses()[0], server.waker());
        log::info!("embedded registrar {} at {address}", server.machine().id());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = spawn("rspregistrar", move || {
            let mut ready = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                if let Err(error) = server.turn(None, &mut ready) {
                    // See `Reactor::turn`.
                    std::mem::forget(server);
                    return log::error!("the embedded registrar ends: {error}");
                }
            }
            server.shutdown(Duration::from_millis(500));
        })?;
        Ok(Embedded { address, stop, waker, thread: Some(thread) })
    }

    /// It touches its descriptors no more: somebody closed them.
    pub fn abandon(&self) {
        self.waker.abandon();
    }

    /// Where it is.
    pub fn target(&self) -> Target {
        Target { protocol: LinkProtocol::Tcp, addresses: vec![self.address] }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the embedded registrar panicked");
        }
    }
}
