//! Plain TCP sockets.

use crate::pool::Side;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

pub struct Bare;

impl Side for Bare {
    type Listener = TcpListener;

    fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        // As many as a pool element has.
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4096) }, 0);
        let place = listener.local_addr().expect("bound").to_string();
        (listener, place)
    }

    fn accept(listener: &TcpListener) -> RawFd {
        ours(listener.accept().expect("a connection").0)
    }

    fn connect(place: &str) -> RawFd {
        ours(TcpStream::connect(place).expect("the server listens"))
    }

    fn send(sd: RawFd, data: &[u8]) {
        // SAFETY: the kernel reads `data`.
        let sent = unsafe { libc::send(sd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) };
        assert_eq!(sent, data.len() as isize, "blocking sockets take all");
    }

    fn receive(sd: RawFd, buffer: &mut [u8]) -> usize {
        // SAFETY: the kernel writes to `buffer`.
        let length = unsafe { libc::recv(sd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_WAITALL) };
        usize::try_from(length).unwrap_or(0)
    }

    fn close(sd: RawFd) {
        // SAFETY: ours.
        unsafe { libc::close(sd) };
    }
}

fn ours(stream: TcpStream) -> RawFd {
    stream.set_nodelay(true).expect("a socket");
    stream.into_raw_fd()
}
