//! As much of DER as it takes to read the dates of certificates and revocation lists, which the verifier
//! checks but doesn't tell. Input comes from files of ours; whatever it is, nothing panics.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// The first element of `input`: tag, content, what follows.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = input else { return None };
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    element(input).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// From when to when a certificate is valid, in seconds since 1970 (RFC 5280 section 4.1.2.5).
pub fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, after)) = expect(VERSION, rest) {
        rest = after;
    }
    let (_, rest) = expect(INTEGER, rest)?;
    // Signature algorithm, issuer.
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (from, rest) = time(validity)?;
    Some((from, time(rest)?.0))
}

/// When the successor of a revocation list is due, if it says so (RFC 5280 section 5.1.2.5).
pub fn next_update(list: &[u8]) -> Option<u64> {
    let (list, _) = expect(SEQUENCE, list)?;
    let (mut rest, _) = expect(SEQUENCE, list)?;
    if let Some((_, after)) = expect(INTEGER, rest) {
        rest = after;
    }
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, rest) = time(rest)?;
    Some(time(rest)?.0)
}

fn time(input: &[u8]) -> Option<(u64, &[u8])> {
    let (tag, text, rest) = element(input)?;
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, at) = match tag {
        UTC_TIME => (digits(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (digits(0..4)?, 4),
        _ => return None,
    };
    let field = |number: usize| digits(at + 2 * number..at + 2 * number + 2);
    let days = days(year, field(0)?, field(1)?);
    let seconds = ((days * 24 + field(2)?) * 60 + field(3)?) * 60 + field(4)?;
    Some((u64::try_from(seconds).unwrap_or(0), rest))
}

/// Days from 1970-01-01 to that day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229120000Z", 951_825_600),
            (GENERALIZED_TIME, "20260101000001Z", 1_767_225_601),
            (GENERALIZED_TIME, "20991231235959Z", 4_102_444_799),
        ] {
            let mut bytes = vec![tag, text.len() as u8];
            bytes.extend(text.as_bytes());
            assert_eq!(time(&bytes).map(|(time, _)| time), Some(seconds), "{text}");
        }
        assert_eq!(time(&[UTC_TIME, 2, b'x', b'y']), None);
    }

    #[test]
    fn nonsense_has_no_dates() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 2, 0x30, 0], &[0xff; 64]]
        {
            assert_eq!(validity(bytes), None);
            assert_eq!(next_update(bytes), None);
        }
    }
}
