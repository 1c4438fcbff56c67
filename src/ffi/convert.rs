//! C arguments to values and back.

use super::guard::Errno;
use crate::socket::sockaddr;
use crate::wire::{MAX_HANDLE, PoolHandle};
use libc::{c_int, c_uchar, c_uint, sa_family_t};
use std::net::SocketAddr;
use std::time::Duration;

/// The most addresses that one call may give.
pub(super) const MAX_ADDRESSES: usize = 128;

/// A pool handle: EFAULT for NULL, EINVAL for an empty one, ENAMETOOLONG past [`MAX_HANDLE`].
pub(super) unsafe fn handle(bytes: *const c_uchar, size: usize) -> Result<PoolHandle, Errno> {
    if size > MAX_HANDLE {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    // SAFETY: the caller's `size` bytes.
    PoolHandle::new(unsafe { input(bytes, size)? }).ok_or(Errno(libc::EINVAL))
}

/// A caller's buffer to read: NULL is fine when it is empty, else EFAULT.
pub(super) unsafe fn input<'a, T>(data: *const T, size: usize) -> Result<&'a [u8], Errno> {
    match size {
        0 => Ok(&[]),
        _ if data.is_null() || isize::try_from(size).is_err() => Err(Errno(libc::EFAULT)),
        // SAFETY: the caller's `size` bytes.
        _ => Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) }),
    }
}

/// A caller's pointer that must be there.
pub(super) unsafe fn reference<'a, T>(pointer: *const T) -> Result<&'a T, Errno> {
    // SAFETY: NULL or the caller's.
    unsafe { pointer.as_ref() }.ok_or(Errno(libc::EFAULT))
}

/// A caller's pointer to something to change, which must be there.
pub(super) unsafe fn reference_mut<'a, T>(pointer: *mut T) -> Result<&'a mut T, Errno> {
    // SAFETY: NULL or the caller's.
    unsafe { pointer.as_mut() }.ok_or(Errno(libc::EFAULT))
}

/// Milliseconds of which a negative number means for ever.
pub(super) fn patience(milliseconds: c_int) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// Milliseconds.
pub(super) fn milliseconds(value: c_uint) -> Duration {
    Duration::from_millis(u64::from(value))
}

/// Reads `count` addresses that lie one after the other, each as long as its family says.
pub(super) unsafe fn unpack_addresses(
    first: *const libc::sockaddr,
    count: usize,
) -> Result<Vec<SocketAddr>, Errno> {
    if count > MAX_ADDRESSES {
        return Err(Errno(libc::EINVAL));
    }
    if count > 0 && first.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    let mut next: *const u8 = first.cast();
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: the caller's addresses; the family stands first in each and says how long it is.
        // They need not be aligned after the first.
        let bytes = unsafe {
            let length = sockaddr::length(next.cast::<sa_family_t>().read_unaligned());
            std::slice::from_raw_parts(next, length.ok_or(Errno(libc::EAFNOSUPPORT))?)
        };
        let (address, length) = sockaddr::unpack(bytes).ok_or(Errno(libc::EAFNOSUPPORT))?;
        addresses.push(address);
        // SAFETY: behind the address just read, within the caller's or one past its end.
        next = unsafe { next.add(length) };
    }
    Ok(addresses)
}

/// Copies bytes into a block that the caller frees with `free`.
pub(super) fn allocate_copy(bytes: &[u8]) -> Result<*mut u8, Errno> {
    // SAFETY: plain malloc, then within the block.
    unsafe {
        let block = libc::malloc(bytes.len().max(1)).cast::<u8>();
        if block.is_null() {
            return Err(Errno(libc::ENOMEM));
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), block, bytes.len());
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_pack_without_gaps() {
        let addresses: Vec<SocketAddr> =
            ["192.0.2.1:7", "[2001:db8::1%3]:8", "192.0.2.2:9"].map(|a| a.parse().unwrap()).into();
        let bytes = sockaddr::pack(addresses.iter().copied());
        assert_eq!(bytes.len(), 16 + 28 + 16);
        assert_eq!(unsafe { unpack_addresses(bytes.as_ptr().cast(), 3) }, Ok(addresses));
    }

    #[test]
    fn bad_addresses_are_refused() {
        let unix = [1u8, 0, 0, 0];
        let refused = |p: *const u8, n| unsafe { unpack_addresses(p.cast(), n) };
        assert_eq!(refused(unix.as_ptr(), 1), Err(Errno(libc::EAFNOSUPPORT)));
        assert_eq!(refused(std::ptr::null(), 1), Err(Errno(libc::EFAULT)));
        assert_eq!(refused(unix.as_ptr(), MAX_ADDRESSES + 1), Err(Errno(libc::EINVAL)));
        assert_eq!(refused(std::ptr::null(), 0), Ok(vec![]));
    }

    #[test]
    fn handles_have_bounds() {
        let bytes = [b'x'; MAX_HANDLE + 1];
        let make = |p: *const u8, n| unsafe { handle(p, n) }.map(|h| h.as_bytes().len());
        assert_eq!(make(bytes.as_ptr(), MAX_HANDLE), Ok(MAX_HANDLE));
        assert_eq!(make(bytes.as_ptr(), MAX_HANDLE + 1), Err(Errno(libc::ENAMETOOLONG)));
        assert_eq!(make(bytes.as_ptr(), 0), Err(Errno(libc::EINVAL)));
        assert_eq!(make(std::ptr::null(), 3), Err(Errno(libc::EFAULT)));
    }
}
