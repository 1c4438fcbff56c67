//! A writer that fixes every length and all padding itself.

use super::code::ParamType;

/// The longest message, padding included: the message length, which rsplib makes a multiple of
/// four, has 16 bits.
pub const MAX_MESSAGE: usize = 65_532;

/// What a length counts of the padding at the end of a message, or of a parameter that contains others: whose the
/// padding of the last parameter is. The bytes sent are the same, and readers take both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lengths {
    /// All of it: as rsplib does, whose registrars and clients want it so.
    #[default]
    Padded,
    /// Nothing (RFC 5354 sections 2 and 4, RFC 5353 section 2.3).
    Exact,
}

/// Appends one message to a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    lengths: Lengths,
    /// Bytes of padding at the end of what is written.
    padding: usize,
    /// A parameter did not fit: it and all behind it are left out.
    full: bool,
}

/// The bytes a value of `length` bytes takes as a parameter, padding included.
pub(crate) const fn param_len(length: usize) -> usize {
    (4 + length).next_multiple_of(4)
}

impl<'a> Writer<'a> {
    /// Writes a whole message: header, what `body` writes, length.
    pub(crate) fn message(
        out: &'a mut Vec<u8>,
        lengths: Lengths,
        kind: u8,
        flags: u8,
        body: impl FnOnce(&mut Writer<'_>),
    ) {
        let start = out.len();
        let mut writer = Writer { out, start, lengths, padding: 0, full: false };
        writer.bytes(&[kind, flags, 0, 0]);
        body(&mut writer);
        debug_assert!(!writer.full, "a message of type {kind:#x} was made larger than messages can be");
        let length = writer.length_from(start) as u16;
        writer.out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes parameters that stand alone, such as those that an error cause quotes.
    pub(crate) fn parameters(out: &'a mut Vec<u8>, body: impl FnOnce(&mut Writer<'_>)) {
        let start = out.len();
        body(&mut Writer { out, start, lengths: Lengths::Padded, padding: 0, full: false });
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.padding = 0;
    }

    /// The length of what begins at `start` and ends here.
    fn length_from(&self, start: usize) -> usize {
        let padding = if self.lengths == Lengths::Exact { self.padding } else { 0 };
        self.out.len() - start - padding
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
            let length = self.length_from(start) as u16;
            self.out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
            if padded > end {
                self.bytes(&[0; 3][..padded - end]);
                self.padding = padded - end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_padding() {
        let mut out = vec![0xaa];
        let body = |w: &mut Writer<'_>| {
            w.u32(0x01020304);
            w.param(ParamType::ELEMENT, |w| w.param(ParamType::HANDLE, |w| w.bytes(b"abc")));
        };
        Writer::message(&mut out, Lengths::Padded, 7, 1, body);
        let expected = [7, 1, 0, 20, 1, 2, 3, 4, 0, 10, 0, 12, 0, 9, 0, 7, b'a', b'b', b'c', 0];
        assert_eq!(out[1..], expected);
        out.clear();
        Writer::message(&mut out, Lengths::Exact, 7, 1, body);
        let expected = [7, 1, 0, 19, 1, 2, 3, 4, 0, 10, 0, 11, 0, 9, 0, 7, b'a', b'b', b'c', 0];
        assert_eq!(out, expected);
        out.clear();
        Writer::message(&mut out, Lengths::Exact, 7, 0, |w| {
            w.param(ParamType::HANDLE, |w| w.bytes(b"a"));
            w.param(ParamType::ELEMENT, |_| ());
        });
        assert_eq!(out, [7, 0, 0, 16, 0, 9, 0, 5, b'a', 0, 0, 0, 0, 10, 0, 4], "padding between parameters");
        assert_eq!(param_len(3), 8);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "larger than messages can be"))]
    fn what_does_not_fit_is_left_out_whole() {
        let mut out = Vec::new();
        Writer::message(&mut out, Lengths::Padded, 1, 0, |w| {
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
