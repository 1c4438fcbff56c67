//! What was asked and answered, in plain numbers.

use domain::base::iana::{OptRcode, Rtype};

/// The types that are told apart, and everything else.
pub const TYPES: [&str; 7] = ["A", "AAAA", "SRV", "SOA", "NS", "TXT", "other"];

/// Since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries by type, in the order of [`TYPES`].
    pub queries: [u64; TYPES.len()],
    /// Of these, over TCP.
    pub over_tcp: u64,
    /// Answers with addresses or services.
    pub answered: u64,
    /// The name is there, but nothing of the type (NODATA).
    pub no_data: u64,
    /// No such name (NXDOMAIN).
    pub no_name: u64,
    /// Not to be told at present (SERVFAIL).
    pub failed: u64,
    /// Not for us (REFUSED, NOTIMP).
    pub refused: u64,
    /// No proper query (FORMERR, BADVERS).
    pub malformed: u64,
    /// Answers of which a part was left out (TC).
    pub truncated: u64,
    /// What was no query at all, and got no answer.
    pub dropped: u64,
    /// What came from a network that is not allowed.
    pub not_allowed: u64,
    /// TCP connections.
    pub connections: u64,
    /// Those that were closed for want of room.
    pub connections_dropped: u64,
}

impl Counts {
    pub(super) fn query(&mut self, rtype: Rtype, over_tcp: bool) {
        let known = [Rtype::A, Rtype::AAAA, Rtype::SRV, Rtype::SOA, Rtype::NS, Rtype::TXT];
        let place = known.iter().position(|known| *known == rtype).unwrap_or(known.len());
        self.queries[place] += 1;
        self.over_tcp += u64::from(over_tcp);
    }

    pub(super) fn answer(&mut self, rcode: OptRcode, answers: bool, truncated: bool) {
        self.truncated += u64::from(truncated);
        *match rcode {
            OptRcode::NOERROR if answers || truncated => &mut self.answered,
            OptRcode::NOERROR => &mut self.no_data,
            OptRcode::NXDOMAIN => &mut self.no_name,
            OptRcode::SERVFAIL => &mut self.failed,
            OptRcode::FORMERR | OptRcode::BADVERS => &mut self.malformed,
            _ => &mut self.refused,
        } += 1;
    }

    /// The answers, by what they said.
    pub fn answers(&self) -> [(&'static str, u64); 6] {
        [
            ("answer", self.answered),
            ("nodata", self.no_data),
            ("nxdomain", self.no_name),
            ("servfail", self.failed),
            ("refused", self.refused),
            ("malformed", self.malformed),
        ]
    }
}
