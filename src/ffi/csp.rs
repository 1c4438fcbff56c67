//! `rserpool-csp.h`: identities in component status reports. The `CID_*` macros are text beside this
//! file's constants, see `tests/header.rs`.

#![allow(missing_docs)]

pub const CID_GROUP_REGISTRAR: u64 = 1;
pub const CID_GROUP_POOLELEMENT: u64 = 2;
pub const CID_GROUP_POOLUSER: u64 = 3;

/// `CID_COMPOUND` for our own use.
pub(super) fn compound(group: u64, object: u64) -> u64 {
    (group & 0xffff) << 56 | object & 0x00ff_ffff_ffff_ffff
}
