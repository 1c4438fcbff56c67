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

    /// Reads what [`fmt::Display`] writes, and other bytes as they are: `\\` is a backslash, `\"` a quotation
    /// mark, `\xNN` a byte. Errors say what is wrong.
    pub fn read(text: &[u8]) -> Result<PoolHandle, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((&byte, behind)) = rest.split_first() {
            let (taken, byte) = match (byte, behind) {
                (b'\\', [quoted @ (b'\\' | b'"'), ..]) => (1, *quoted),
                (b'\\', [b'x', high, low, ..]) => {
                    let digit = |digit: u8| char::from(digit).to_digit(16);
                    let value = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
                    let value = value.and_then(|value| u8::try_from(value).ok());
                    (3, value.ok_or("pool handle: two hexadecimal digits follow \\x")?)
                }
                (b'\\', _) => return Err("pool handle: a backslash is written \\\\, any byte \\xNN".into()),
                _ => (0, byte),
            };
            bytes.push(byte);
            rest = &behind[taken..];
        }
        PoolHandle::new(&bytes).ok_or_else(|| match bytes.is_empty() {
            true => "pool handle: empty".into(),
            false => format!("pool handle: {} bytes, {MAX_HANDLE} are the limit", bytes.len()),
        })
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

/// Characters that a terminal acts on, or that make two handles look alike or one read backwards.
fn is_shown(character: char) -> bool {
    let invisible = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !character.is_control() && !invisible
}

/// UTF-8 as it is; backslash and quotation mark with a backslash before them; control characters and bytes that
/// are no UTF-8 as `\xNN`. [`PoolHandle::read`] reads it back.
impl fmt::Display for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        };
        for chunk in self.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' | '"' => write!(f, "\\{character}")?,
                    shown if is_shown(shown) => write!(f, "{shown}")?,
                    other => bytes(f, other.encode_utf8(&mut [0; 4]).as_bytes())?,
                }
            }
            bytes(f, chunk.invalid())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spelling() {
        for (bytes, text) in [
            (&b"WebPool"[..], "WebPool"),
            ("Köln/東京".as_bytes(), "Köln/東京"),
            (b"a\\b\"c", r#"a\\b\"c"#),
            (b"\xff\xc3", r"\xff\xc3"),
            (b"a\n\x7f", r"a\x0a\x7f"),
            ("\u{202e}x".as_bytes(), r"\xe2\x80\xaex"),
        ] {
            let handle = PoolHandle::new(bytes).unwrap();
            assert_eq!(handle.to_string(), text);
            assert_eq!(PoolHandle::read(text.as_bytes()), Ok(handle));
        }
        assert_eq!(PoolHandle::read(b"\xff").unwrap().as_bytes(), b"\xff", "other bytes as they are");
        for bad in [&b""[..], b"a\\", b"\\x", b"\\xg0", b"\\n", &[b'x'; MAX_HANDLE + 1]] {
            assert!(PoolHandle::read(bad).unwrap_err().starts_with("pool handle: "), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let handle = PoolHandle::new(&bytes).unwrap();
            prop_assert_eq!(PoolHandle::read(handle.to_string().as_bytes()), Ok(handle));
        }

        #[test]
        fn so_is_text(text in ".{1,30}") {
            let handle = PoolHandle::new(text.as_bytes()).unwrap();
            prop_assert_eq!(PoolHandle::read(handle.to_string().as_bytes()), Ok(handle));
        }
    }
}
