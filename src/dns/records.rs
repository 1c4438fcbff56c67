//! An answer under way: what may go into it, and what it says when it is full.

use super::{MAX_FACTOR, MAX_UDP};
use domain::base::iana::{OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, MessageBuilder, StaticCompressor};
use domain::base::name::ToName;
use domain::base::rdata::ComposeRecordData;
use domain::base::{Message, Ttl};

type Compressed = StaticCompressor<Vec<u8>>;

/// An OPT record without options.
const OPT_LEN: usize = 11;
/// Without EDNS (RFC 1035 section 4.2.1).
const CLASSIC_UDP: usize = 512;

/// What the asker takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyRoom {
    /// Bytes of the answer.
    pub most: usize,
    /// Whether it knows EDNS (RFC 6891).
    pub edns: bool,
}

impl ReplyRoom {
    /// Over UDP: what the asker says (`edns`), and never much more than it sent.
    pub(super) fn udp(query: usize, edns: Option<u16>) -> ReplyRoom {
        let said = usize::from(edns.unwrap_or(0)).clamp(CLASSIC_UDP, MAX_UDP);
        ReplyRoom { most: said.min(query * MAX_FACTOR), edns: edns.is_some() }
    }

    /// Over TCP.
    pub(super) fn tcp(edns: Option<u16>) -> ReplyRoom {
        ReplyRoom { most: usize::from(u16::MAX), edns: edns.is_some() }
    }
}

enum Stage {
    Answer(AnswerBuilder<Compressed>),
    Additional(AdditionalBuilder<Compressed>),
}

/// See the module.
pub(super) struct Records {
    stage: Stage,
    room: ReplyRoom,
    rcode: OptRcode,
    answers: bool,
    truncated: bool,
}

impl Records {
    /// The answer to a query whose question could be read, into memory of an earlier one.
    pub(super) fn begin(query: &Message<[u8]>, room: ReplyRoom, mut memory: Vec<u8>) -> Option<Records> {
        memory.clear();
        let mut builder = MessageBuilder::from_target(StaticCompressor::new(memory)).ok()?;
        // A limit is what the length stays below.
        builder.set_push_limit(room.most + 1 - if room.edns { OPT_LEN } else { 0 });
        let builder = builder.start_answer(query, Rcode::NOERROR).ok()?;
        Some(Records {
            stage: Stage::Answer(builder),
            room,
            rcode: OptRcode::NOERROR,
            answers: false,
            truncated: false,
        })
    }

    /// It comes from whom the zone is of.
    pub(super) fn authoritative(&mut self) {
        if let Stage::Answer(builder) = &mut self.stage {
            builder.header_mut().set_aa(true);
        }
    }

    pub(super) fn fail(&mut self, rcode: OptRcode) {
        self.rcode = rcode;
    }

    /// Another answer; `false`: it is full, and says so.
    pub(super) fn answer(&mut self, owner: impl ToName, ttl: Ttl, data: impl ComposeRecordData) -> bool {
        let Stage::Answer(builder) = &mut self.stage else { return false };
        let fits = builder.push((owner, ttl, data)).is_ok();
        self.answers |= fits;
        if !fits {
            self.truncated = true;
            builder.header_mut().set_tc(true);
        }
        fits
    }

    /// Who answers for the zone, to an answer that says "nothing"; without it, nobody may keep that (RFC 2308).
    pub(super) fn authority(self, owner: impl ToName, ttl: Ttl, data: impl ComposeRecordData) -> Records {
        let Stage::Answer(builder) = self.stage else { return self };
        let mut builder = builder.authority();
        let _ = builder.push((owner, ttl, data));
        Records { stage: Stage::Additional(builder.additional()), ..self }
    }

    /// What the asker will want to know next, where there is room.
    pub(super) fn additional(
        mut self,
        owner: impl ToName,
        ttl: Ttl,
        data: impl ComposeRecordData,
    ) -> Records {
        let mut builder = match self.stage {
            Stage::Answer(builder) => builder.additional(),
            Stage::Additional(builder) => builder,
        };
        let _ = builder.push((owner, ttl, data));
        self.stage = Stage::Additional(builder);
        self
    }

    /// Whether there are answers, and whether some had no room.
    pub(super) fn state(&self) -> (OptRcode, bool, bool) {
        (self.rcode, self.answers, self.truncated)
    }

    /// Its bytes.
    pub(super) fn end(self) -> Vec<u8> {
        let mut builder = match self.stage {
            Stage::Answer(builder) => builder.additional(),
            Stage::Additional(builder) => builder,
        };
        builder.header_mut().set_rcode(self.rcode.rcode());
        if self.room.edns {
            builder.set_push_limit(self.room.most + 1);
            let _ = builder.opt(|opt| {
                opt.set_udp_payload_size(MAX_UDP as u16);
                opt.set_rcode(self.rcode);
                Ok(())
            });
        }
        builder.finish().into_target()
    }
}
