/* Reliable Server Pooling (RFC 5351-5356), classic RSerPool socket API. SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by cbindgen from src/ffi; `RSP_BLESS=1 cargo test --test header` writes it anew. */

#ifndef RSERPOOL_INTERNALS_H
#define RSERPOOL_INTERNALS_H

#include "rserpool.h"

struct TagItem; /* tagitem.h */

/* The pool element's identifier, 1 to 0xffffffff (rsp_register_tags). Default: random. */
#define TAG_PoolElement_Identifier 1001000

/* Where users reach the element, if that is not where it listens: behind NAT, or a published port. The address of a
 * string, "host[:port]"; without a port, its own (rsp_register_tags). None: as the process's -advertise= or RSP_ADVERTISE. */
#define TAG_PoolElement_Advertise 1009000

/* How long connecting to an element may take, in microseconds (rsp_connect_tags). Default: 5000000. */
#define TAG_RspSession_ConnectTimeout 1002000

/* Pause of rsp_forcefailover when the pool is empty, in microseconds (rsp_connect_tags). Default: 250000. */
#define TAG_RspSession_HandleResolutionRetryDelay 1002001

/* The tags from here on are known by name and have no effect: struct rsp_info has these settings. */
#define TAG_RspLib_CacheElementTimeout 1004000
#define TAG_RspLib_RegistrarAnnounceAddress 1004001
#define TAG_RspLib_RegistrarAnnounceTimeout 1004002
#define TAG_RspLib_RegistrarConnectMaxTrials 1004003
#define TAG_RspLib_RegistrarConnectTimeout 1004004
#define TAG_RspLib_RegistrarRequestMaxTrials 1004005
#define TAG_RspLib_RegistrarRequestTimeout 1004006
#define TAG_RspLib_RegistrarResponseTimeout 1004007

#ifdef __cplusplus
extern "C" {
#endif

/* rsp_pe_registration; no tags are known. */
unsigned int rsp_pe_registration_tags(const unsigned char *poolHandle,
                                      size_t poolHandleSize,
                                      struct rsp_addrinfo *addrinfo,
                                      const struct rsp_loadinfo *loadinfo,
                                      unsigned int registrationLife,
                                      int flags,
                                      struct TagItem *tags);

/* rsp_pe_deregistration; no tags are known. */
unsigned int rsp_pe_deregistration_tags(const unsigned char *poolHandle,
                                        size_t poolHandleSize,
                                        uint32_t identifier,
                                        int flags,
                                        struct TagItem *tags);

/* rsp_pe_failure; no tags are known. */
unsigned int rsp_pe_failure_tags(const unsigned char *poolHandle,
                                 size_t poolHandleSize,
                                 uint32_t identifier,
                                 struct TagItem *tags);

/* rsp_getaddrinfo; no tags are known. */
int rsp_getaddrinfo_tags(const unsigned char *poolHandle,
                         size_t poolHandleSize,
                         struct rsp_addrinfo **addrinfo,
                         size_t items,
                         unsigned int staleCacheValue,
                         struct TagItem *tags);

/* rsp_register with the TAG_PoolElement_* tags; also EINVAL for a TAG_PoolElement_Advertise that makes no sense. */
int rsp_register_tags(int sd,
                      const unsigned char *poolHandle,
                      size_t poolHandleSize,
                      const struct rsp_loadinfo *loadinfo,
                      unsigned int reregInterval,
                      int flags,
                      struct TagItem *tags);

/* rsp_deregister; no tags are known. */
int rsp_deregister_tags(int sd, int flags, struct TagItem *tags);

/* rsp_accept; the TAG_RspSession_* tags are taken and have no effect on accepted sessions. */
int rsp_accept_tags(int sd, int timeout, struct TagItem *tags);

/* rsp_connect with the TAG_RspSession_* tags. */
int rsp_connect_tags(int sd,
                     const unsigned char *poolHandle,
                     size_t poolHandleSize,
                     unsigned int staleCacheValue,
                     struct TagItem *tags);

/* rsp_forcefailover; no tags are known. */
int rsp_forcefailover_tags(int sd,
                           unsigned int flags,
                           unsigned int staleCacheValue,
                           struct TagItem *tags);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif
