//! A reader that cannot leave the bytes it was given.

use super::Decoded;
use super::cause::{Cause, CauseCode, DecodeError, excerpt};
use super::code::{ParamType, Unknown};
use super::writer::MAX_MESSAGE;

/// The most unknown parameters of one message that are reported, and their bytes altogether: an
/// error that reports them all fits into a message.
const MAX_REPORTED: usize = 64;
const MAX_REPORT: usize = 60_000;

/// Whole TLVs of unknown parameters that their sender wants reported.
pub(crate) type Unrecognized = Vec<Vec<u8>>;

/// Reads forward through a message or through the value of one parameter.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the message.
    at: usize,
    /// The parameter, or message, that is being read.
    tlv: &'a [u8],
}

/// One parameter: its type as received and a reader over its value.
#[derive(Debug, Clone)]
pub(crate) struct Param<'a> {
    pub(crate) kind: ParamType,
    pub(crate) value: Reader<'a>,
}

impl<'a> Reader<'a> {
    /// Reads a message's header (RFC 5354 section 4): type, flags, and a reader over the rest.
    ///
    /// Bytes behind the declared length are not looked at: they may be padding.
    pub(crate) fn message(bytes: &'a [u8]) -> Result<(u8, u8, Reader<'a>), DecodeError> {
        let whole = Reader { rest: bytes, at: 0, tlv: bytes };
        let Some(&[kind, flags, high, low]) = bytes.first_chunk::<4>() else {
            return Err(whole.invalid("shorter than a message header"));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 4 {
            return Err(whole.invalid("message length below 4"));
        }
        if length > MAX_MESSAGE {
            return Err(whole.invalid("longer than messages can be"));
        }
        let Some(body) = bytes.get(4..length) else {
            return Err(whole.invalid("message shorter than its declared length"));
        };
        Ok((kind, flags, Reader { rest: body, at: 4, tlv: &bytes[..length] }))
    }

    /// Nothing left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.at += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.invalid("ends too early"));
        };
        self.rest = rest;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(*self.take(N)?.first_chunk::<N>().expect("take gives what it was asked for"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Exactly `N` bytes and nothing behind them.
    pub(crate) fn exactly<const N: usize>(mut self) -> Result<[u8; N], DecodeError> {
        if self.rest.len() != N {
            return Err(self.invalid("parameter of the wrong size"));
        }
        self.array()
    }

    /// The next parameter, its padding skipped (if it is there: some leave out the last one's).
    pub(crate) fn param(&mut self) -> Result<Param<'a>, DecodeError> {
        let Some(&[k0, k1, l0, l1]) = self.rest.first_chunk::<4>() else {
            return Err(self.bad_length("no room for a parameter header"));
        };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length < 4 {
            return Err(self.bad_length("parameter length below 4"));
        }
        let Some((tlv, _)) = self.rest.split_at_checked(length) else {
            return Err(self.bad_length("parameter longer than what contains it"));
        };
        let value = Reader { rest: &tlv[4..], at: self.at + 4, tlv };
        let padded = length.next_multiple_of(4).min(self.rest.len());
        self.rest = &self.rest[padded..];
        self.at += padded;
        Ok(Param { kind: ParamType(u16::from_be_bytes([k0, k1])), value })
    }

    /// Looks at every parameter up to the end: unknown ones are treated as their two high bits ask, and
    /// lengths that lead nowhere are an error. Once for each message and each parameter that contains others;
    /// what is looked for afterwards may stand anywhere, among parameters that nobody expected.
    pub(crate) fn check(&self, unrecognized: &mut Unrecognized) -> Result<(), DecodeError> {
        let mut all = self.clone();
        while !all.is_empty() {
            let param = all.param()?;
            if !param.kind.is_standard() {
                param.unknown(unrecognized)?;
            }
        }
        Ok(())
    }

    /// The next parameter that is one of `wanted`; others are passed over. `None` at the end.
    pub(crate) fn next(&mut self, wanted: &[ParamType]) -> Result<Option<Param<'a>>, DecodeError> {
        while !self.is_empty() {
            let param = self.param()?;
            if wanted.contains(&param.kind) {
                return Ok(Some(param));
            }
        }
        Ok(None)
    }

    /// The first parameter that is one of `wanted`, wherever it stands among those not yet read.
    pub(crate) fn find(&self, wanted: &[ParamType]) -> Result<Option<Param<'a>>, DecodeError> {
        self.clone().next(wanted)
    }

    /// The same if it must be there.
    pub(crate) fn require(&self, wanted: &[ParamType]) -> Result<Param<'a>, DecodeError> {
        self.find(wanted)?.ok_or_else(|| self.invalid("mandatory parameter missing"))
    }

    /// "This makes no sense": cause 0x3 with the parameter, or with the message if it is none of a parameter's
    /// (RFC 5354 section 3.12.4).
    pub(crate) fn invalid(&self, reason: &'static str) -> DecodeError {
        self.wrong(reason, self.tlv)
    }

    /// A length that leads nowhere: the same with what is there of the parameter.
    fn bad_length(&self, reason: &'static str) -> DecodeError {
        self.wrong(reason, self.rest)
    }

    fn wrong(&self, reason: &'static str, what: &[u8]) -> DecodeError {
        let cause = Cause { code: CauseCode::INVALID_VALUES, data: excerpt(what) };
        DecodeError { at: self.at, reason, cause: Some(cause) }
    }
}

impl Param<'_> {
    /// The reaction to a parameter that nobody here knows.
    fn unknown(&self, unrecognized: &mut Unrecognized) -> Result<(), DecodeError> {
        let at = self.value.at - 4;
        let reason = "unknown parameter that must be understood";
        match Unknown::of(self.kind) {
            Unknown::Stop => Err(DecodeError { at, reason, cause: None }),
            Unknown::StopAndReport => {
                let cause = Cause { code: CauseCode::UNRECOGNIZED_PARAMETER, data: excerpt(self.value.tlv) };
                Err(DecodeError { at, reason, cause: Some(cause) })
            }
            Unknown::Skip => Ok(()),
            Unknown::SkipAndReport => {
                let reported: usize = unrecognized.iter().map(Vec::len).sum();
                if unrecognized.len() < MAX_REPORTED && reported + self.value.tlv.len() <= MAX_REPORT {
                    unrecognized.push(self.value.tlv.to_vec());
                }
                Ok(())
            }
        }
    }
}

/// What came of decoding an Error message: an answer to it could start an endless conversation.
pub(crate) fn without_answer<M>(decoded: Result<Decoded<M>, DecodeError>) -> Result<Decoded<M>, DecodeError> {
    match decoded {
        Ok(decoded) => Ok(Decoded { unrecognized: Vec::new(), ..decoded }),
        Err(error) => Err(DecodeError { cause: None, ..error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &[u8]) -> Reader<'_> {
        Reader { rest: bytes, at: 4, tlv: &[] }
    }

    #[test]
    fn a_child_cannot_read_its_neighbour() {
        let mut outer = body(&[0, 9, 0, 5, b'x', 0, 0, 0, 0, 9, 0, 4]);
        let mut first = outer.param().unwrap().value;
        assert_eq!(first.take(1).unwrap(), b"x");
        assert_eq!(first.take(1).unwrap_err().at, 9);
        assert!(outer.param().unwrap().value.is_empty());
        assert!(outer.is_empty());
    }

    #[test]
    fn missing_last_padding_is_forgiven() {
        let mut outer = body(&[0, 9, 0, 5, b'x']);
        assert_eq!(outer.param().unwrap().value.rest(), b"x");
        assert!(outer.is_empty());
    }

    #[test]
    fn lengths_that_lead_nowhere() {
        for bytes in [&[0, 9, 0][..], &[0, 9, 0, 3], &[0, 9, 0, 6, b'x'], &[0, 9, 0xff, 0xff, 0, 0]] {
            let error = body(bytes).param().unwrap_err();
            let shown = Cause { code: CauseCode::INVALID_VALUES, data: bytes.to_vec() };
            assert_eq!(error.cause, Some(shown), "{bytes:?}");
        }
    }

    #[test]
    fn the_two_high_bits_decide() {
        let with = |high: u8| [high, 0x33, 0, 4, 0, 9, 0, 5, b'x', 0, 0, 0];
        let read = |high: u8, unrecognized: &mut Unrecognized| {
            let bytes = with(high);
            body(&bytes).check(unrecognized)?;
            body(&bytes).require(&[ParamType::HANDLE]).map(|mut param| param.value.rest().to_vec())
        };
        let mut unrecognized = Vec::new();
        assert_eq!(read(0x00, &mut unrecognized).unwrap_err().cause, None);
        let reported = read(0x40, &mut unrecognized).unwrap_err().cause.unwrap();
        assert_eq!(
            (reported.code, &reported.data[..]),
            (CauseCode::UNRECOGNIZED_PARAMETER, &with(0x40)[..4])
        );
        assert_eq!(read(0x80, &mut unrecognized).unwrap(), b"x");
        assert!(unrecognized.is_empty());
        assert_eq!(read(0xc0, &mut unrecognized).unwrap(), b"x");
        assert_eq!(unrecognized, [with(0xc0)[..4].to_vec()]);
    }
}
