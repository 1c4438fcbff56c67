//! One reader's connection with the operator's page: plain, or inside TLS. Nothing here waits.

use mio::net::TcpStream;
use rserpool::machine::trust::Roles;
use rserpool::runtime::registrar::Server;
use rserpool::transport::stream;
use rserpool::transport::tls::{Engine, FIRST_BYTE, Failure, Mode, Purpose, TlsStream};
use rserpool::wire::scope::host_of;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// See the module.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Box<TlsStream>>,
    /// Until the first byte has come.
    undecided: bool,
}

/// How far a connection is that will carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    NotYet,
    /// Nobody on the way can read it or change it: TLS, or a connection within the host.
    Private,
    Open,
}

impl Wire {
    pub fn new(socket: TcpStream, peer: SocketAddr) -> Wire {
        Wire { socket, peer, tls: None, undecided: true }
    }

    /// Goes on with what comes before a request. Errors: the peer went, or its TLS is not for us; it was told why.
    pub fn begin(&mut self, server: &Server) -> io::Result<Begun> {
        if self.undecided {
            let mut first = [0];
            match stream::peek(self.socket.as_fd(), &mut first) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(Begun::NotYet);
                }
                Err(error) => return Err(error),
            }
            self.undecided = false;
            if first[0] == FIRST_BYTE
                && let Some((credentials, _)) = server.security()
            {
                let engine = Engine::accepted(credentials, Purpose::Page, None)?;
                self.tls = Some(Box::new(TlsStream::new(engine)));
            }
        }
        let Some(tls) = &mut self.tls else {
            return Ok(if self.peer.ip().to_canonical().is_loopback() {
                Begun::Private
            } else {
                Begun::Open
            });
        };
        match tls.prove(self.socket.as_fd()) {
            Ok(true) => Ok(Begun::Private),
            Ok(false) => Ok(Begun::NotYet),
            Err(failure) => {
                tls.dismiss(self.socket.as_fd());
                if matches!(failure, Failure::Distrusted(..)) {
                    log::info!("operator's page: {} refused: {failure}", self.peer);
                }
                Err(failure.into())
            }
        }
    }

    /// Whether a plain request has to come again inside TLS: where it is required, and on the way from elsewhere.
    pub fn wants_tls(&self, server: &Server) -> bool {
        self.tls.is_none() && server.security().is_some_and(|(_, mode)| mode == Mode::Require)
    }

    /// Whose it is.
    pub fn host(&self) -> IpAddr {
        host_of(self.peer.ip())
    }

    /// Whether the peer has an operator's certificate.
    pub fn is_operators(&self) -> bool {
        let names = self.tls.as_ref().map(|tls| tls.engine().names()).unwrap_or_default();
        Roles::parse(names.iter().map(String::as_str)).is_operator()
    }

    /// What came; `WouldBlock`: nothing. 0: the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.receive(self.socket.as_fd(), &mut [IoSliceMut::new(buffer)]),
            None => self.socket.read(buffer),
        }
    }

    /// How much was taken; `WouldBlock`: there is no room.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.send(self.socket.as_fd(), &[IoSlice::new(bytes)]),
            None => self.socket.write(bytes),
        }
    }

    /// Whether all that was taken is gone.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.tls.as_mut().map_or(Ok(true), |tls| tls.flush(self.socket.as_fd()))
    }

    /// Ends our direction in order.
    pub fn finish(&mut self) {
        match &mut self.tls {
            Some(tls) => _ = tls.finish(self.socket.as_fd()),
            None => _ = self.socket.shutdown(std::net::Shutdown::Write),
        }
    }
}
