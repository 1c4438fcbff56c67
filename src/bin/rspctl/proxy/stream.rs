//! Sockets of the proxy: TCP and UNIX alike.

use super::options::ListenPlace;
use super::pipe::Pipe;
use super::relay::End;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// When to ask a silent client's host whether it is still there, and how often.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_AGAIN: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Who is at the other end, and which of our addresses is at this one; none for UNIX sockets.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok().zip(stream.local_addr().ok()),
            Stream::Unix(_) => None,
        }
    }

    /// What went wrong.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        }
    }

    /// The peer shall not take the close for an end in order.
    pub fn reset_on_close(&self) {
        if let Stream::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl End for Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn fill(&self, pipe: &mut Pipe) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => pipe.fill(stream),
            Stream::Unix(stream) => pipe.fill(stream),
        }
    }

    fn drain(&self, pipe: &mut Pipe) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => pipe.drain(stream),
            Stream::Unix(stream) => pipe.drain(stream),
        }
    }
}

/// Begins to connect.
pub fn connect(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// Sockets that somebody listened at before us and handed over (sd_listen_fds(3)), until they are wanted: who connects
/// while we are started again waits in their queues.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

impl Inherited {
    /// Those of this process, once. An error: what LISTEN_FDS counts is not there.
    pub fn from_environment() -> io::Result<Inherited> {
        let numbers = sd_notify::listen_fds()?;
        // SAFETY: LISTEN_PID says that they are for us, and nobody else in this process asks.
        let sockets = numbers.map(|number| unsafe { Socket::from_raw_fd(number) });
        Ok(Inherited(sockets.collect()))
    }

    fn take(&mut self, is_it: impl Fn(&SockAddr) -> bool) -> io::Result<Option<Socket>> {
        let found = self.0.iter().position(|socket| {
            socket.is_listener().unwrap_or(false) && socket.local_addr().is_ok_and(|at| is_it(&at))
        });
        let Some(place) = found else { return Ok(None) };
        let socket = self.0.swap_remove(place);
        socket.set_nonblocking(true)?;
        Ok(Some(socket))
    }

    /// Where those listen that nobody has wanted.
    pub fn left(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|socket| match socket.local_addr() {
            Ok(at) => match (at.as_socket(), at.as_pathname()) {
                (Some(address), _) => address.to_string(),
                (None, Some(path)) => format!("unix:{}", path.display()),
                _ => "a socket of another kind".into(),
            },
            Err(error) => error.to_string(),
        })
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// Its file goes with it where it is ours.
    Unix {
        listener: UnixListener,
        path: PathBuf,
        ours: bool,
    },
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix { path, ours: true, .. } = self {
            let _ = fs::remove_file(path);
        }
    }
}

impl Listener {
    /// One for each address of the place: who was handed over, or a new one.
    pub fn bind(place: &ListenPlace, inherited: &mut Inherited) -> io::Result<Vec<Listener>> {
        match place {
            ListenPlace::Unix(path) => match inherited.take(|at| at.as_pathname() == Some(path))? {
                Some(socket) => {
                    let listener = UnixListener::from_std(socket.into());
                    Ok(vec![Listener::Unix { listener, path: path.clone(), ours: false }])
                }
                None => Ok(vec![bind_unix(path)?]),
            },
            ListenPlace::Tcp(_, addresses) => {
                let mut bound = Vec::new();
                let mut failure = None;
                for &address in addresses {
                    let bound_to = match inherited.take(|at| at.as_socket() == Some(address))? {
                        Some(socket) => configured(socket),
                        None => bind_tcp(address),
                    };
                    match bound_to {
                        Ok(listener) => bound.push(Listener::Tcp(listener)),
                        // A host name may have addresses of a family that this kernel lacks.
                        Err(error) if is_family(&error) && addresses.len() > 1 => failure = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                match failure {
                    Some(error) if bound.is_empty() => Err(error),
                    _ => Ok(bound),
                }
            }
        }
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix { listener, .. } => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// As it is written.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string())
            }
            Listener::Unix { path, .. } => format!("unix:{}", path.display()),
        }
    }
}

fn is_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let made = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None);
    let socket = match made {
        // Every address of a host without IPv6.
        Err(error) if is_family(&error) && address.ip().is_unspecified() && address.is_ipv6() => {
            return bind_tcp((IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()).into());
        }
        made => made?,
    };
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    configured(socket)
}

/// What is accepted inherits the options.
fn configured(socket: Socket) -> io::Result<TcpListener> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_AGAIN).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A socket file that nobody serves any more is taken over.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == ErrorKind::ConnectionRefused
    {
        fs::remove_file(path)?;
    }
    Ok(Listener::Unix { listener: UnixListener::bind(path)?, path: path.to_owned(), ours: true })
}

macro_rules! source {
    ($name:ident, $($kind:pat => $inner:ident),*) => {
        impl Source for $name {
            fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
                match self { $($kind => $inner.register(registry, token, interests)),* }
            }
            fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
                match self { $($kind => $inner.reregister(registry, token, interests)),* }
            }
            fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
                match self { $($kind => $inner.deregister(registry)),* }
            }
        }
    };
}
source!(Stream, Stream::Tcp(stream) => stream, Stream::Unix(stream) => stream);
source!(Listener, Listener::Tcp(listener) => listener, Listener::Unix { listener, .. } => listener);
