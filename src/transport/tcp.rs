//! Links over TCP: ASAP and ENRP messages back to back.

use super::{QueueStatus, ReadStatus};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A link over TCP.
#[derive(Debug)]
pub struct TcpLink {
    fd: OwnedFd,
}

#[allow(unused_variables, missing_docs)]
impl TcpLink {
    pub fn read_messages(&mut self, budget: usize, message: &mut dyn FnMut(&[u8])) -> io::Result<ReadStatus> {
        todo!()
    }
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<QueueStatus> {
        todo!()
    }
    pub fn flush(&mut self) -> io::Result<QueueStatus> {
        todo!()
    }
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        todo!()
    }
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }
}

impl AsFd for TcpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
