//! `rserpool-policytypes.h`: pool member selection policies (RFC 5356) and their value ranges.

#![allow(missing_docs)]

pub const PPT_UNDEFINED: u32 = 0x0000_0000;

/// Policies of RFC 5356.
pub const PPT_ROUNDROBIN: u32 = 0x0000_0001;
pub const PPT_WEIGHTED_ROUNDROBIN: u32 = 0x0000_0002;
pub const PPT_RANDOM: u32 = 0x0000_0003;
pub const PPT_WEIGHTED_RANDOM: u32 = 0x0000_0004;
pub const PPT_PRIORITY: u32 = 0x0000_0005;
pub const PPT_LEASTUSED: u32 = 0x4000_0001;
pub const PPT_LEASTUSED_DEGRADATION: u32 = 0x4000_0002;
pub const PPT_PRIORITY_LEASTUSED: u32 = 0x4000_0003;
pub const PPT_RANDOMIZED_LEASTUSED: u32 = 0x4000_0004;

/// Private policies of rsplib.
pub const PPT_RANDOMIZED_PRIORITY_LEASTUSED: u32 = 0xb000_1001;
pub const PPT_RANDOMIZED_LEASTUSED_DEGRADATION: u32 = 0xb000_1002;
pub const PPT_PRIORITY_LEASTUSED_DEGRADATION: u32 = 0xb000_1003;
pub const PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION: u32 = 0xb000_1004;
pub const PPT_WEIGHTED_RANDOM_DPF: u32 = 0xb000_2001;
pub const PPT_LEASTUSED_DPF: u32 = 0xb000_2002;
pub const PPT_LEASTUSED_DEGRADATION_DPF: u32 = 0xb000_2003;
/// Known by name only: no message can carry the last two.
pub const PPT_PRIORITY_LEASTUSED_DPF: u32 = 0xb000_2004;
pub const PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF: u32 = 0xb000_2005;

/// Ranges of the values; loads and factors are fractions of the largest value.
pub const PPV_MIN_WEIGHT: u32 = 0;
pub const PPV_MAX_WEIGHT: u32 = 0xffff_ffff;
pub const PPV_MIN_LOAD: u32 = 0;
pub const PPV_MAX_LOAD: u32 = 0xffff_ffff;
pub const PPV_MIN_LOAD_DEGRADATION: u32 = 0;
pub const PPV_MAX_LOAD_DEGRADATION: u32 = 0xffff_ffff;
pub const PPV_MIN_LOADDPF: u32 = 0;
pub const PPV_MAX_LOADDPF: u32 = 0xffff_ffff;
pub const PPV_MIN_WEIGHTDPF: u32 = 0;
pub const PPV_MAX_WEIGHTDPF: u32 = 0xffff_ffff;
