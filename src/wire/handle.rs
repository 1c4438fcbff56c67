//! Pool handles and the two kinds of 32-bit identifier.

use super::cause::DecodeError;
use super::code::ParamType;
use super::reader::Param;
use super::writer::{Writer, param_len};
use std::fmt;
use std::sync::Arc;

/// The longest pool handle that fits every message that must carry one.
pub const MAX_HANDLE: usize = 65_000;

/// A pool handle: any byte string of 1 to [`MAX_HANDLE`] bytes (RFC 5354 section 3.9).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolHandle(Arc<[u8]>);

impl PoolHandle {
    /// Copies `bytes`; `None` when empty or longer than [`MAX_HANDLE`].
    pub fn new(bytes: &[u8]) -> Option<PoolHandle> {
        (1..=MAX_HANDLE).contains(&bytes.len()).then(|| PoolHandle(bytes.into()))
    }

    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        param_len(self.0.len())
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::HANDLE, |w| w.bytes(&self.0));
    }

    pub(crate) fn decode(mut param: Param<'_>) -> Result<PoolHandle, DecodeError> {
        let error = param.value.invalid("pool handle empty or too long");
        PoolHandle::new(param.value.rest()).ok_or(error)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for PoolHandle {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for PoolHandle {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Printable bytes as they are, the others as `\xNN`.
impl fmt::Display for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.as_bytes() {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b'"' => f.write_str("\\\"")?,
                0x20..=0x7e => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A pool element's identifier (RFC 5354 section 3.14), random, unique in its pool. 0 is not legal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PeId(pub u32);

/// A registrar's identifier (RFC 5353 section 2), random, unique in the scope. 0 means "unknown".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RegistrarId(pub u32);

impl PeId {
    /// Bytes of the whole PE identifier parameter.
    pub const ENCODED_LEN: usize = param_len(4);

    pub(crate) fn write(self, w: &mut Writer<'_>) {
        w.param(ParamType::PE_ID, |w| w.u32(self.0));
    }

    pub(crate) fn decode(param: Param<'_>) -> Result<PeId, DecodeError> {
        param.value.exactly().map(u32::from_be_bytes).map(PeId)
    }
}

macro_rules! hex_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{:08x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(0x{:08x})", stringify!($name), self.0)
            }
        }
    )*};
}
hex_display!(PeId, RegistrarId);
