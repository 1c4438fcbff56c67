//! The kernel's structures as bytes: declared field by field, read and written without an offset in sight.
//!
//! Where the kernel leaves gaps, they stand there as fields, so that each structure is nothing but numbers without room
//! between them.
#![expect(unsafe_code, reason = "structures of numbers are taken for bytes, and bytes for such structures")]

use std::{mem, ptr};

/// Numbers without room between them.
///
/// # Safety
/// Any bytes are a legal value, and every byte of a value is initialised.
pub(super) unsafe trait Plain: Copy {}

/// Declares structures of numbers, arrays of numbers and other such structures, and holds their sizes.
macro_rules! structures {
    ($($(#[$meta:meta])* $name:ident: $size:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C, packed)]
            #[derive(Debug, Clone, Copy)]
            pub(super) struct $name { $(pub $field: $type,)* }

            const _: () = assert!(size_of::<$name>() == $size);

            // SAFETY: packed, and every field is a number, an array of bytes, or such a structure: any bytes are good, and all are set.
            #[allow(unsafe_code)]
            unsafe impl $crate::transport::structures::Plain for $name {}
        )*
    };
}
pub(super) use structures;

/// A structure's bytes.
pub(super) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain`: all bytes are there.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A structure's bytes, for the kernel to fill.
pub(super) fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: `Plain`: all bytes are there, and any may be written.
    unsafe { std::slice::from_raw_parts_mut(ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// An all-zero structure: nothing asked, nothing changed.
pub(super) fn zeroed<T: Plain>() -> T {
    // SAFETY: `Plain`: any bytes are good.
    unsafe { mem::zeroed() }
}

/// The structure that bytes begin with; `None`: they are less than one.
pub(super) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let mut value = zeroed();
    bytes_of_mut::<T>(&mut value).copy_from_slice(bytes.get(..size_of::<T>())?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    structures! {
        /// Two numbers that would have a gap between them.
        Uneven: 6 {
            short: u16,
            long: u32,
        }
    }

    #[test]
    fn a_structure_is_its_bytes() {
        let uneven = Uneven { short: 0x0102, long: 0x0304_0506 };
        let mut bytes = 0x0102_u16.to_ne_bytes().to_vec();
        bytes.extend(0x0304_0506_u32.to_ne_bytes());
        assert_eq!(bytes_of(&uneven), bytes);
        bytes.push(7);
        let again: Uneven = read(&bytes).unwrap();
        assert_eq!((again.short, again.long), (0x0102, 0x0304_0506));
        assert!(read::<Uneven>(&bytes[..5]).is_none());
    }
}
