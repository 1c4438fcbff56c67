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
