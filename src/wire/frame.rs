//! Message boundaries on byte streams: ASAP and ENRP messages back to back, each padded to 4 bytes.

/// The longest message with its padding: a length field of 65535 bytes rounded up.
pub const LONGEST_MESSAGE: usize = 65_536;

/// The length of the first whole message in `bytes`, padding included.
///
/// `Ok(None)`: more bytes are needed. `Err`: this is no ASAP/ENRP stream (a declared length below
/// the header's 4 bytes).
pub fn first_message(bytes: &[u8]) -> Result<Option<usize>, super::DecodeError> {
    let Some(header) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if length < 4 {
        return Err(super::DecodeError { at: 2, reason: "message length below 4", cause: None });
    }
    let padded = length.next_multiple_of(4);
    Ok((bytes.len() >= padded).then_some(padded))
}

/// Whether `bytes` begin as one of the messages of a service does, for where nothing else says so: a type that
/// `knows`, and a declared length that fits. `whole`: nothing follows `bytes`, which may end with padding.
pub fn looks_like_one(bytes: &[u8], whole: bool, knows: impl Fn(u8) -> bool) -> bool {
    let Some(&[kind, _, high, low]) = bytes.first_chunk::<4>() else { return false };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let padded = length.next_multiple_of(4);
    let fits = match whole {
        true => (length..=padded).contains(&bytes.len()),
        false => padded >= bytes.len(),
    };
    knows(kind) && length >= 4 && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_message() {
        let knows = |kind| kind == 9;
        let message = [9, 0, 0, 7, 1, 2, 3, 0];
        for (length, whole, so) in [
            (8, true, true),
            (7, true, true),
            (6, true, false),
            (6, false, true),
            (4, false, true),
            (3, false, false),
        ] {
            assert_eq!(looks_like_one(&message[..length], whole, knows), so, "{length} {whole}");
        }
        for other in [
            &[8, 0, 0, 4][..],
            &[9, 0, 0, 3],
            &[9, 0, 0, 0],
            &[9, 0, 0, 4, 0],
            &[9, 0, 0, 5, 0, 0, 0, 0, 0],
            &[],
        ] {
            assert!(!looks_like_one(other, true, knows), "{other:?}");
        }
        assert!(!looks_like_one(&[9, 0, 0, 7, 0, 0, 0, 0, 0], false, knows));
    }
}
