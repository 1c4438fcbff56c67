//! The kernel's SCTP interface (RFC 6458 as Linux has it): options, addresses, one message out or in.
//!
//! Everything that is `unsafe` about SCTP is here. Options travel in the structures of `sctp_structs`, so nothing depends
//! on libsctp.
#![expect(unsafe_code, reason = "SCTP's socket options and message headers have no safe wrapper")]

use super::descriptors::lift;
use super::sctp_structs::{AddressList, PeelOff, STORAGE, Storage};
use super::sockaddr;
use super::structures::{Plain, bytes_of, bytes_of_mut, read};
use crate::wire::scope::unmapped;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

const SOCKOPT_BINDX_ADD: i32 = 100;
const SOCKOPT_CONNECTX3: i32 = 111;
const SOCKOPT_PEELOFF_FLAGS: i32 = 122;
/// List of the peer's addresses.
pub(super) const GET_PEER_ADDRS: i32 = 108;
/// List of our addresses.
pub(super) const GET_LOCAL_ADDRS: i32 = 109;

/// More addresses than this are not handed to the kernel (rsplib's limit as well).
pub(super) const MAX_ADDRESSES: usize = 32;

/// The result of a system call: -1 becomes errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A non-blocking, close-on-exec SCTP socket: `SOCK_STREAM` (one-to-one) or `SOCK_SEQPACKET`.
pub(super) fn new_socket(v6: bool, kind: i32) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the result is checked, and nobody else owns it.
    unsafe {
        match check(libc::socket(family, kind, libc::IPPROTO_SCTP)) {
            Ok(fd) => lift(OwnedFd::from_raw_fd(fd)),
            // What a kernel without SCTP says depends on the style.
            Err(error) if error.raw_os_error() == Some(libc::ESOCKTNOSUPPORT) => {
                Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT))
            }
            Err(error) => Err(error),
        }
    }
}

/// What the kernel keeps for a socket (SO_MEMINFO): bytes that came and were not received, and bytes that are sent
/// and not acknowledged.
pub(super) fn memory(fd: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    const RMEM_ALLOC: usize = 0;
    const WMEM_QUEUED: usize = 5;
    let mut numbers = [0_u32; 9];
    let mut length = mem::size_of_val(&numbers) as libc::socklen_t;
    let pointer = numbers.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes at `numbers`.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, pointer, &mut length)
    })?;
    Ok((numbers[RMEM_ALLOC] as usize, numbers[WMEM_QUEUED] as usize))
}

/// What was set as size of a socket's buffers is where the kernel begins to be careful, not where it stops. Kernels
/// before 5.14 can't.
pub(super) fn soften_buffers(fd: BorrowedFd<'_>) -> io::Result<()> {
    /// SO_BUF_LOCK.
    const BUF_LOCK: libc::c_int = 72;
    let nothing: libc::c_int = 0;
    let length = mem::size_of_val(&nothing) as libc::socklen_t;
    let pointer = ptr::from_ref(&nothing).cast();
    // SAFETY: the kernel reads `length` bytes from `nothing`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, BUF_LOCK, pointer, length) })?;
    Ok(())
}

/// Sets an SCTP option.
pub(super) fn set(fd: BorrowedFd<'_>, option: i32, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `value`.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_SCTP, option, value.as_ptr().cast(), length)
    })?;
    Ok(())
}

/// Reads an SCTP option whose input is in `value`; returns the length of the answer.
pub(super) fn get(fd: BorrowedFd<'_>, option: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    let pointer = value.as_mut_ptr().cast();
    // SAFETY: the kernel reads and writes at most `length` bytes at `value`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_SCTP, option, pointer, &mut length) })?;
    Ok((length as usize).min(value.len()))
}

/// [`set`] with a structure, of which kernels may know only the first `length` bytes.
pub(super) fn set_structure<T: Plain>(
    fd: BorrowedFd<'_>,
    option: i32,
    value: T,
    length: usize,
) -> io::Result<()> {
    set(fd, option, &bytes_of(&value)[..length])
}

/// [`get`] with a structure.
pub(super) fn get_structure<T: Plain>(
    fd: BorrowedFd<'_>,
    option: i32,
    mut value: T,
    length: usize,
) -> io::Result<T> {
    get(fd, option, &mut bytes_of_mut(&mut value)[..length])?;
    Ok(value)
}

/// Binds to several addresses with one port; each counts in its own family.
pub(super) fn bindx(fd: BorrowedFd<'_>, addresses: &[SocketAddr]) -> io::Result<()> {
    set(fd, SOCKOPT_BINDX_ADD, &pack(addresses))
}

/// Starts an association with the host that has all `addresses`; returns its number. It is not up yet.
pub(super) fn connectx(fd: BorrowedFd<'_>, addresses: &[SocketAddr]) -> io::Result<i32> {
    #[repr(C)]
    struct Argument {
        association: i32,
        bytes: libc::c_int,
        addresses: *const u8,
    }
    let packed = pack(addresses);
    let mut argument =
        Argument { association: 0, bytes: packed.len() as libc::c_int, addresses: packed.as_ptr() };
    let mut length = mem::size_of::<Argument>() as libc::socklen_t;
    let pointer = ptr::from_mut(&mut argument).cast();
    // SAFETY: `argument` and what it points to live through the call, with the lengths given.
    let result = check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_SCTP, SOCKOPT_CONNECTX3, pointer, &mut length)
    });
    match result {
        Ok(_) => Ok(argument.association),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(argument.association),
        Err(error) => Err(error),
    }
}

/// Moves an association of a one-to-many socket, with all that is queued for it, to a descriptor of its
/// own, which is non-blocking and close-on-exec.
pub(super) fn peel_off(fd: BorrowedFd<'_>, association: i32) -> io::Result<OwnedFd> {
    let argument = PeelOff { association, descriptor: -1, flags: libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK };
    let answer = get_structure(fd, SOCKOPT_PEELOFF_FLAGS, argument, mem::size_of::<PeelOff>())?;
    let number = Some(answer.descriptor).filter(|number| *number >= 0).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor for us.
    lift(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes a connection from a listening one-to-one socket; one of its peer's addresses.
pub(super) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let mut name = AddressRoom([0; STORAGE]);
    let mut length = STORAGE as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `name`; the result is checked, and nobody else
    // owns it.
    let fd = unsafe {
        let name = name.0.as_mut_ptr().cast();
        lift(OwnedFd::from_raw_fd(check(libc::accept4(fd.as_raw_fd(), name, &mut length, flags))?))?
    };
    let named = (length as usize).min(STORAGE);
    Ok((fd, unpack(&name.0[..named]).map(|(address, _)| address)))
}

/// Room for an address, aligned as `sockaddr_storage` is.
#[repr(C, align(8))]
struct AddressRoom([u8; STORAGE]);

/// A buffer for control messages, aligned as `cmsghdr` wants it: `sctp_sndrcvinfo` and `sctp_nxtinfo`.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Sends one user message whole, or nothing (`EAGAIN`). Never raises SIGPIPE.
pub(super) fn send(fd: BorrowedFd<'_>, bytes: &[u8], info: &libc::sctp_sndrcvinfo) -> io::Result<usize> {
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid. The control buffer is aligned and larger than the space of one
    // sctp_sndrcvinfo, so CMSG_FIRSTHDR is inside it. The kernel only reads what iov_base points to.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(mem::size_of_val(info) as u32) as _;
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::IPPROTO_SCTP;
        (*first).cmsg_type = libc::SCTP_SNDRCV;
        (*first).cmsg_len = libc::CMSG_LEN(mem::size_of_val(info) as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(first).cast(), *info);
        libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What one receive call brought.
pub(super) struct Raw {
    /// Bytes written to the buffer; 0: the end.
    pub length: usize,
    /// `MSG_EOR`, `MSG_NOTIFICATION`.
    pub flags: i32,
    /// Of data, if the data-io event is on.
    pub info: Option<libc::sctp_sndrcvinfo>,
    /// Whether another message or notification waits behind this one, if `RECVNXTINFO` is on.
    pub more: bool,
    /// The peer's address that it came from.
    pub source: Option<SocketAddr>,
}

/// Receives a message or a part of one; `None`: nothing there. `flags`: 0 or `MSG_PEEK`.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> io::Result<Option<Raw>> {
    let mut control = Control([0; 128]);
    let mut name = [0_u8; STORAGE];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let (received, header) = loop {
        // SAFETY: an all-zero msghdr is valid; all pointers carry the lengths of what they point to.
        let (result, header) = unsafe {
            let mut header: libc::msghdr = mem::zeroed();
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = STORAGE as u32;
            header.msg_iov = &mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control.0.len() as _;
            (libc::recvmsg(fd.as_raw_fd(), &mut header, flags | libc::MSG_DONTWAIT), header)
        };
        match usize::try_from(result) {
            Ok(received) => break (received, header),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    };
    let named = (header.msg_namelen as usize).min(STORAGE);
    let source = unpack(&name[..named]).map(|(address, _)| address);
    let (info, more) = control_messages(&header);
    Ok(Some(Raw { length: received, flags: header.msg_flags, info, more, source }))
}

fn control_messages(header: &libc::msghdr) -> (Option<libc::sctp_sndrcvinfo>, bool) {
    let (mut info, mut more) = (None, false);
    // SAFETY: the kernel filled msg_control up to msg_controllen with well-formed control messages, and
    // the buffer still lives; cmsg_len says how long each one's data is.
    unsafe {
        let whole_info = libc::CMSG_LEN(mem::size_of::<libc::sctp_sndrcvinfo>() as u32) as usize;
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_SCTP, libc::SCTP_SNDRCV) if (*message).cmsg_len as usize >= whole_info => {
                    info = Some(ptr::read_unaligned(libc::CMSG_DATA(message).cast()));
                }
                (libc::IPPROTO_SCTP, libc::SCTP_NXTINFO) => more = true,
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    (info, more)
}

/// An `sctp_sndrcvinfo` with everything 0.
pub(super) fn no_info() -> libc::sctp_sndrcvinfo {
    libc::sctp_sndrcvinfo {
        sinfo_stream: 0,
        sinfo_ssn: 0,
        sinfo_flags: 0,
        sinfo_ppid: 0,
        sinfo_context: 0,
        sinfo_timetolive: 0,
        sinfo_tsn: 0,
        sinfo_cumtsn: 0,
        sinfo_assoc_id: 0,
    }
}

/// The addresses that `GET_PEER_ADDRS` or `GET_LOCAL_ADDRS` lists for an association.
pub(super) fn addresses(fd: BorrowedFd<'_>, option: i32, association: i32) -> io::Result<Vec<SocketAddr>> {
    /// Of the longer addresses.
    const ROOM: usize = 256 * size_of::<libc::sockaddr_in6>();
    let mut value = bytes_of(&AddressList { association, count: 0 }).to_vec();
    value.resize(size_of::<AddressList>() + ROOM, 0);
    // The length that comes back counts the header for one of the options and not for the other.
    get(fd, option, &mut value)?;
    let count = read(&value).map_or(0, |list: AddressList| list.count);
    let mut rest = &value[size_of::<AddressList>()..];
    let mut list = Vec::new();
    for _ in 0..count {
        let Some((address, length)) = unpack(rest) else { break };
        list.push(address);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(list)
}

/// The first addresses, as many as the kernel may be given, packed.
pub(super) fn pack(addresses: &[SocketAddr]) -> Vec<u8> {
    sockaddr::pack(addresses.iter().copied().take(MAX_ADDRESSES))
}

/// The first of packed addresses and how long it was; an IPv4-mapped one becomes IPv4.
pub(super) fn unpack(bytes: &[u8]) -> Option<(SocketAddr, usize)> {
    let (mut address, length) = sockaddr::unpack(bytes)?;
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
        // The kernel fills it in for every address of its own; it would only spoil comparisons.
        if !v6.ip().is_unicast_link_local() {
            v6.set_scope_id(0);
        }
    }
    Some((unmapped(&address), length))
}

/// An address as `sockaddr_storage`; `None`: all zero, "any address" to the kernel.
pub(super) fn storage(address: Option<&SocketAddr>) -> Storage {
    let mut bytes = [0; STORAGE];
    if let Some(address) = address {
        let packed = pack(&[*address]);
        bytes[..packed.len()].copy_from_slice(&packed);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_unmapped_and_short_or_strange_ones_refused() {
        let mapped = pack(&["[::ffff:10.1.1.1]:7".parse().unwrap()]);
        assert_eq!(unpack(&mapped).unwrap(), ("10.1.1.1:7".parse().unwrap(), 28));
        let scoped = pack(&["[fd00::1%2]:7".parse().unwrap()]);
        assert_eq!(unpack(&scoped).unwrap().0, "[fd00::1]:7".parse().unwrap());
        assert!(unpack(&mapped[..27]).is_none() && unpack(&[]).is_none());
        assert!(unpack(&[0xff; 28]).is_none());
    }

    #[test]
    fn the_control_messages_fit_their_buffer() {
        let sizes = [mem::size_of::<libc::sctp_sndrcvinfo>(), mem::size_of::<libc::sctp_nxtinfo>()];
        assert_eq!(sizes, [32, 16]);
        // SAFETY: pure arithmetic.
        assert!(unsafe { libc::CMSG_SPACE(32) + libc::CMSG_SPACE(16) } as usize <= mem::size_of::<Control>());
    }
}
