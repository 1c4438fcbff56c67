//! A writer that fixes every length and all padding itself.

use super::code::ParamType;

/// The longest message, padding included: the message length, which rsplib makes a multiple of
/// four, has 16 bits.
pub const MAX_MESSAGE: usize = 65_532;

/// Appends one message to a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// A parameter did not fit: it and all behind it are left out.
    full: bool,
}

/// The bytes a value of `length` bytes takes as a parameter, padding included.
pub(crate) const fn param_len(length: usize) -> usize {
    (4 + length).next_multiple_of(4)
}

impl<'a> Writer<'a> {
    /// Writes a whole message: header, what `body` writes, length.
    pub(crate) fn message(out: &'a mut Vec<u8>, kind: u8, flags: u8, body: impl FnOnce(&mut Writer<'_>)) {
        let start = out.len();
        let mut writer = Writer { out, start, full: false };
        writer.bytes(&[kind, flags, 0, 0]);
        body(&mut writer);
        debug_assert!(!writer.full, "a message of type {kind:#x} was made larger than messages can be");
        let length = (writer.out.len() - start) as u16;
        writer.out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a parameter: header, what `body` writes, length, padding.
    ///
    /// One that does not fit into the message vanishes as a whole, and nothing follows it.
    pub(crate) fn param(&mut self, kind: ParamType, body: impl FnOnce(&mut Writer<'_>)) {
        self.tlv(kind.0, body);
    }

    /// The same for anything with a 16-bit code and length, such as an error cause.
    pub(crate) fn tlv(&mut self, code: u16, body: impl FnOnce(&mut Writer<'_>)) {
        if self.full {
            return;
        }
        let start = self.out.len();
        let [high, low] = code.to_be_bytes();
        self.bytes(&[high, low, 0, 0]);
        body(self);
        let end = self.out.len();
        let padded = start + (end - start).next_multiple_of(4);
        if self.full || padded - self.start > MAX_MESSAGE {
            self.out.truncate(start);
            self.full = true;
        } else {
            let length = (end - start) as u16;
            self.out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
            self.bytes(&[0; 3][..padded - end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding() {
        let mut out = vec![0xaa];
        Writer::message(&mut out, 7, 1, |w| {
            w.u32(0x01020304);
            w.param(ParamType::ELEMENT, |w| w.param(ParamType::HANDLE, |w| w.bytes(b"abc")));
        });
        let expected = [7, 1, 0, 20, 1, 2, 3, 4, 0, 10, 0, 12, 0, 9, 0, 7, b'a', b'b', b'c', 0];
        assert_eq!(out[1..], expected);
        assert_eq!(param_len(3), 8);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "larger than messages can be"))]
    fn what_does_not_fit_is_left_out_whole() {
        let mut out = Vec::new();
        Writer::message(&mut out, 1, 0, |w| {
            w.param(ParamType::HANDLE, |w| w.bytes(b"abcd"));
            w.param(ParamType::ELEMENT, |w| {
                w.u32(1);
                w.param(ParamType::COOKIE, |w| w.bytes(&[0; 70_000]));
            });
            w.param(ParamType::PE_ID, |w| w.u32(1));
        });
        assert_eq!(out, [1, 0, 0, 12, 0, 9, 0, 8, b'a', b'b', b'c', b'd']);
    }
}
