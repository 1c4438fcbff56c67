/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */

#ifndef RSERPOOL_POLICYTYPES_H
#define RSERPOOL_POLICYTYPES_H

#include <stdint.h>

/* Whether a policy chooses by load, so that its elements should keep theirs up to date. */
#define PPT_IS_ADAPTIVE(p) \
    ((p) == PPT_LEASTUSED || \
     (p) == PPT_LEASTUSED_DEGRADATION || \
     (p) == PPT_PRIORITY_LEASTUSED || \
     (p) == PPT_RANDOMIZED_LEASTUSED || \
     (p) == PPT_RANDOMIZED_PRIORITY_LEASTUSED || \
     (p) == PPT_RANDOMIZED_LEASTUSED_DEGRADATION || \
     (p) == PPT_PRIORITY_LEASTUSED_DEGRADATION || \
     (p) == PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION || \
     (p) == PPT_LEASTUSED_DPF || \
     (p) == PPT_LEASTUSED_DEGRADATION_DPF || \
     (p) == PPT_PRIORITY_LEASTUSED_DPF || \
     (p) == PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF)

#define PPT_UNDEFINED 0x00000000

/* Policies of RFC 5356. */
#define PPT_ROUNDROBIN 0x00000001
#define PPT_WEIGHTED_ROUNDROBIN 0x00000002
#define PPT_RANDOM 0x00000003
#define PPT_WEIGHTED_RANDOM 0x00000004
#define PPT_PRIORITY 0x00000005
#define PPT_LEASTUSED 0x40000001
#define PPT_LEASTUSED_DEGRADATION 0x40000002
#define PPT_PRIORITY_LEASTUSED 0x40000003
#define PPT_RANDOMIZED_LEASTUSED 0x40000004

/* Private policies of rsplib. */
#define PPT_RANDOMIZED_PRIORITY_LEASTUSED 0xb0001001
#define PPT_RANDOMIZED_LEASTUSED_DEGRADATION 0xb0001002
#define PPT_PRIORITY_LEASTUSED_DEGRADATION 0xb0001003
#define PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION 0xb0001004
#define PPT_WEIGHTED_RANDOM_DPF 0xb0002001
#define PPT_LEASTUSED_DPF 0xb0002002
#define PPT_LEASTUSED_DEGRADATION_DPF 0xb0002003

/* Known by name only: no message can carry the last two. */
#define PPT_PRIORITY_LEASTUSED_DPF 0xb0002004
#define PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF 0xb0002005

/* Ranges of the values; loads and factors are fractions of the largest value. */
#define PPV_MIN_WEIGHT 0
#define PPV_MAX_WEIGHT 0xffffffff
#define PPV_MIN_LOAD 0
#define PPV_MAX_LOAD 0xffffffff
#define PPV_MIN_LOAD_DEGRADATION 0
#define PPV_MAX_LOAD_DEGRADATION 0xffffffff
#define PPV_MIN_LOADDPF 0
#define PPV_MAX_LOADDPF 0xffffffff
#define PPV_MIN_WEIGHTDPF 0
#define PPV_MAX_WEIGHTDPF 0xffffffff

#endif
