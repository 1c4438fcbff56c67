/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */

#ifndef RSERPOOL_CSP_H
#define RSERPOOL_CSP_H

#include <stdint.h>

/* A component's identity: what it is, and which one of those. */
#define CID_GROUP(id) (((uint64_t)(id) >> 56) & 0xffff)
#define CID_OBJECT(id) ((uint64_t)(id) & (((uint64_t)1 << 56) - 1))
#define CID_COMPOUND(group, object) (((uint64_t)((group) & 0xffff) << 56) | CID_OBJECT(object))

#define CID_GROUP_REGISTRAR 1
#define CID_GROUP_POOLELEMENT 2
#define CID_GROUP_POOLUSER 3

#endif
