//! The list of an authority's certificates: a text file, one line each.

use std::fmt;
use std::str::FromStr;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Sixteen bytes in hexadecimal.
    pub serial: String,
    /// When it was taken back, seconds since 1970.
    pub revoked: Option<u64>,
    /// Until when it is valid, seconds since 1970.
    pub until: u64,
    pub name: String,
    /// URIs, and `dns:` and `ip:` names.
    pub names: Vec<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revoked = self.revoked.map_or("-".into(), |time| time.to_string());
        write!(f, "{} {} {revoked} {} {}", self.serial, self.until, self.name, self.names.join(" "))
    }
}

impl FromStr for Entry {
    type Err = ();

    fn from_str(line: &str) -> Result<Entry, ()> {
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or(());
        let serial = word()?.to_string();
        let until = word()?.parse().map_err(|_| ())?;
        let revoked = match word()? {
            "-" => None,
            time => Some(time.parse().map_err(|_| ())?),
        };
        let name = word()?.to_string();
        serial_bytes(&serial).ok_or(())?;
        Ok(Entry { serial, revoked, until, name, names: words.map(String::from).collect() })
    }
}

/// A serial number's bytes.
pub fn serial_bytes(serial: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| serial.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (serial.len() == 32).then(|| (0..16).map(|byte| digit(2 * byte)).collect())?
}

/// What the file says: the scope, the number of the last revocation list, the certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub scope: String,
    pub list: u64,
    pub entries: Vec<Entry>,
}

const TITLE: &str = "rserpool-ca 1";

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}\nscope {}\nlist {}", self.scope, self.list)?;
        writeln!(f, "# serial, valid until, revoked, name, names in it; times in seconds since 1970")?;
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl FromStr for Index {
    type Err = String;

    fn from_str(text: &str) -> Result<Index, String> {
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#') && !line.is_empty());
        let mut head = |what: &str| match lines.next().and_then(|(line, _)| line.strip_prefix(what)) {
            Some(rest) => Ok(rest.to_string()),
            None => Err(format!("no \"{what}\"")),
        };
        head(TITLE)?;
        let scope = head("scope ")?;
        let list = head("list ")?.parse().map_err(|_| "a list's number".to_string())?;
        let entries = lines
            .map(|(line, number)| line.parse().map_err(|()| format!("line {number} makes no sense")))
            .collect::<Result<_, String>>()?;
        Ok(Index { scope, list, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = |revoked| Entry {
            serial: "0123456789abcdef0123456789abcdef".into(),
            revoked,
            until: 7,
            name: "a".into(),
            names: vec!["rserpool:user:*".into(), "dns:x".into()],
        };
        let index = Index { scope: "here".into(), list: 3, entries: vec![entry(None), entry(Some(9))] };
        assert_eq!(index.to_string().parse(), Ok(index));
        assert!("".parse::<Index>().is_err());
        assert!("rserpool-ca 1\nscope x\nlist 1\nbroken\n".parse::<Index>().is_err());
        assert_eq!(serial_bytes("zz"), None);
        assert_eq!(serial_bytes(&"é".repeat(16)), None);
    }
}
