/* Sizes and offsets of rsplib's structures, values of its constants; and the types of its functions; src/ffi/abi.rs says the
 * same of the layouts. */
#include <stddef.h>

#include <rserpool/rserpool.h>
#include <rserpool/rserpool-internals.h>
#include <rserpool/tagitem.h>

#include "check.h"

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)

#if defined(__LP64__)
SIZE(struct rsp_registrar_info, 24);
AT(struct rsp_registrar_info, rri_next, 0);
AT(struct rsp_registrar_info, rri_addr, 8);
AT(struct rsp_registrar_info, rri_addrs, 16);

SIZE(struct rsp_info, 96);
AT(struct rsp_info, ri_version, 0);
AT(struct rsp_info, ri_revision, 4);
AT(struct rsp_info, ri_build_date, 8);
AT(struct rsp_info, ri_build_time, 16);
AT(struct rsp_info, ri_registrars, 24);
AT(struct rsp_info, ri_disable_autoconfig, 32);
AT(struct rsp_info, ri_registrar_announce, 40);
AT(struct rsp_info, ri_registrar_announce_timeout, 48);
AT(struct rsp_info, ri_registrar_connect_timeout, 52);
AT(struct rsp_info, ri_registrar_connect_max_trials, 56);
AT(struct rsp_info, ri_registrar_request_timeout, 60);
AT(struct rsp_info, ri_registrar_response_timeout, 64);
AT(struct rsp_info, ri_registrar_request_max_trials, 68);
AT(struct rsp_info, ri_csp_identifier, 72);
AT(struct rsp_info, ri_csp_server, 80);
AT(struct rsp_info, ri_csp_interval, 88);

SIZE(struct rsp_addrinfo, 56);
AT(struct rsp_addrinfo, ai_family, 0);
AT(struct rsp_addrinfo, ai_socktype, 4);
AT(struct rsp_addrinfo, ai_protocol, 8);
AT(struct rsp_addrinfo, ai_addrlen, 16);
AT(struct rsp_addrinfo, ai_addrs, 24);
AT(struct rsp_addrinfo, ai_addr, 32);
AT(struct rsp_addrinfo, ai_next, 40);
AT(struct rsp_addrinfo, ai_pe_id, 48);

SIZE(struct TagItem, 16);
AT(struct TagItem, Tag, 0);
AT(struct TagItem, Data, 8);
#endif

SIZE(struct rsp_loadinfo, 24);
AT(struct rsp_loadinfo, rli_policy, 0);
AT(struct rsp_loadinfo, rli_weight, 4);
AT(struct rsp_loadinfo, rli_weight_dpf, 8);
AT(struct rsp_loadinfo, rli_load, 12);
AT(struct rsp_loadinfo, rli_load_degradation, 16);
AT(struct rsp_loadinfo, rli_load_dpf, 20);

SIZE(rserpool_session_t, 4);
_Static_assert((rserpool_session_t)-1 < 0, "sessions are signed");

SIZE(struct rsp_sndrcvinfo, 20);
AT(struct rsp_sndrcvinfo, rinfo_session, 0);
AT(struct rsp_sndrcvinfo, rinfo_ppid, 4);
AT(struct rsp_sndrcvinfo, rinfo_pe_id, 8);
AT(struct rsp_sndrcvinfo, rinfo_timetolive, 12);
AT(struct rsp_sndrcvinfo, rinfo_stream, 16);

SIZE(struct rserpool_failover, 20);
AT(struct rserpool_failover, rf_type, 0);
AT(struct rserpool_failover, rf_flags, 2);
AT(struct rserpool_failover, rf_length, 4);
AT(struct rserpool_failover, rf_state, 8);
AT(struct rserpool_failover, rf_session, 12);
AT(struct rserpool_failover, rf_has_cookie, 16);

SIZE(struct rserpool_session_change, 16);
AT(struct rserpool_session_change, rsc_type, 0);
AT(struct rserpool_session_change, rsc_flags, 2);
AT(struct rserpool_session_change, rsc_length, 4);
AT(struct rserpool_session_change, rsc_state, 8);
AT(struct rserpool_session_change, rsc_session, 12);

SIZE(struct rserpool_shutdown_event, 12);
AT(struct rserpool_shutdown_event, rse_type, 0);
AT(struct rserpool_shutdown_event, rse_flags, 2);
AT(struct rserpool_shutdown_event, rse_length, 4);
AT(struct rserpool_shutdown_event, rse_session, 8);

SIZE(union rserpool_notification, 20);
AT(union rserpool_notification, rn_header.rn_type, 0);
AT(union rserpool_notification, rn_header.rn_flags, 2);
AT(union rserpool_notification, rn_header.rn_length, 4);
AT(union rserpool_notification, rn_failover, 0);
AT(union rserpool_notification, rn_session_change, 0);
AT(union rserpool_notification, rn_shutdown_event, 0);

SIZE(struct rserpool_session_parameters, 24);
AT(struct rserpool_session_parameters, sp_rto_initial, 0);
AT(struct rserpool_session_parameters, sp_rto_min, 4);
AT(struct rserpool_session_parameters, sp_rto_max, 8);
AT(struct rserpool_session_parameters, sp_assoc_max_rxt, 12);
AT(struct rserpool_session_parameters, sp_path_max_rxt, 16);
AT(struct rserpool_session_parameters, sp_hbinterval, 20);

/* Values that programs have compiled in. */
#define IS(value, name) _Static_assert((name) == (value), #name)

IS(2, RSPLIB_VERSION);
IS(3, RSPLIB_REVISION);
IS(3863, ASAP_PORT);
IS(9901, ENRP_PORT);
IS(1, REGF_DONTWAIT);
IS(2, REGF_CONTROLCHANNEL);
IS(4, REGF_DAEMONMODE);
IS(1, DEREGF_DONTWAIT);
IS(0, FFF_NONE);
IS(1, FFF_UNREACHABLE);
IS(1, RSPGETADDRS_MIN);
IS(0, RSPGETADDRS_DEFAULT);
IS(0xffffffff, RSPGETADDRS_MAX);
IS(16384, SESSION_SETSIZE);
IS(1, MSG_RSERPOOL_NOTIFICATION);
IS(2, MSG_RSERPOOL_COOKIE_ECHO);
IS(1, RSERPOOL_SESSION_CHANGE);
IS(2, RSERPOOL_FAILOVER);
IS(3, RSERPOOL_SHUTDOWN_EVENT);
IS(1, RSERPOOL_FAILOVER_NECESSARY);
IS(2, RSERPOOL_FAILOVER_COMPLETE);
IS(1, RSERPOOL_SESSION_ADD);
IS(2, RSERPOOL_SESSION_REMOVE);
IS(-1, REAI_NONAME);
IS(-2, REAI_MEMORY);
IS(-3, REAI_SYSTEM);
IS(-4, REAI_FAMILY);
IS(1, CID_GROUP_REGISTRAR);
IS(2, CID_GROUP_POOLELEMENT);
IS(3, CID_GROUP_POOLUSER);
IS(0, TAG_DONE);
IS(0, TAG_END);
IS(1, TAG_IGNORE);
IS(2, TAG_MORE);
IS(3, TAG_SKIP);
IS(1000000, TAG_USER);
IS(1001000, TAG_PoolElement_Identifier);
IS(1009000, TAG_PoolElement_Advertise);
IS(1002000, TAG_RspSession_ConnectTimeout);
IS(1002001, TAG_RspSession_HandleResolutionRetryDelay);
IS(1004000, TAG_RspLib_CacheElementTimeout);
IS(1004001, TAG_RspLib_RegistrarAnnounceAddress);
IS(1004002, TAG_RspLib_RegistrarAnnounceTimeout);
IS(1004003, TAG_RspLib_RegistrarConnectMaxTrials);
IS(1004004, TAG_RspLib_RegistrarConnectTimeout);
IS(1004005, TAG_RspLib_RegistrarRequestMaxTrials);
IS(1004006, TAG_RspLib_RegistrarRequestTimeout);
IS(1004007, TAG_RspLib_RegistrarResponseTimeout);
IS(0x00000000, PPT_UNDEFINED);
IS(0x00000001, PPT_ROUNDROBIN);
IS(0x00000002, PPT_WEIGHTED_ROUNDROBIN);
IS(0x00000003, PPT_RANDOM);
IS(0x00000004, PPT_WEIGHTED_RANDOM);
IS(0x00000005, PPT_PRIORITY);
IS(0x40000001, PPT_LEASTUSED);
IS(0x40000002, PPT_LEASTUSED_DEGRADATION);
IS(0x40000003, PPT_PRIORITY_LEASTUSED);
IS(0x40000004, PPT_RANDOMIZED_LEASTUSED);
IS(0xb0001001, PPT_RANDOMIZED_PRIORITY_LEASTUSED);
IS(0xb0001002, PPT_RANDOMIZED_LEASTUSED_DEGRADATION);
IS(0xb0001003, PPT_PRIORITY_LEASTUSED_DEGRADATION);
IS(0xb0001004, PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION);
IS(0xb0002001, PPT_WEIGHTED_RANDOM_DPF);
IS(0xb0002002, PPT_LEASTUSED_DPF);
IS(0xb0002003, PPT_LEASTUSED_DEGRADATION_DPF);
IS(0xb0002004, PPT_PRIORITY_LEASTUSED_DPF);
IS(0xb0002005, PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF);
IS(0, PPV_MIN_WEIGHT);
IS(0xffffffff, PPV_MAX_WEIGHT);
IS(0, PPV_MIN_LOAD);
IS(0xffffffff, PPV_MAX_LOAD);
IS(0, PPV_MIN_LOAD_DEGRADATION);
IS(0xffffffff, PPV_MAX_LOAD_DEGRADATION);
IS(0, PPV_MIN_LOADDPF);
IS(0xffffffff, PPV_MAX_LOADDPF);
IS(0, PPV_MIN_WEIGHTDPF);
IS(0xffffffff, PPV_MAX_WEIGHTDPF);
IS(0x0000, RSPERR_OKAY);
IS(0x0001, RSPERR_UNRECOGNIZED_PARAMETER);
IS(0x0002, RSPERR_UNRECOGNIZED_MESSAGE);
IS(0x0003, RSPERR_INVALID_TLV);
IS(0x0005, RSPERR_INCOMPATIBLE_POOL_POLICY);
IS(0x0006, RSPERR_OUT_OF_MEMORY);
IS(0x0008, RSPERR_WRONG_CONTROLCHANNEL_HANDLING);
IS(0x0009, RSPERR_NOT_FOUND);
IS(0x0010, RSPERR_INVALID_MESSAGE);
IS(0x0011, RSPERR_INVALID_VALUE);
IS(0x1000, RSPERR_NOT_INITIALIZED);
IS(0x1001, RSPERR_BUFFERSIZE_EXCEEDED);
IS(0x1003, RSPERR_READ_ERROR);
IS(0x1004, RSPERR_WRITE_ERROR);
IS(0x1005, RSPERR_CONNECTION_FAILURE_SOCKET);
IS(0x1006, RSPERR_CONNECTION_FAILURE_CONNECT);
IS(0x1007, RSPERR_NO_REGISTRAR);
IS(0x1008, RSPERR_TIMEOUT);
IS(0x1009, RSPERR_UNRECOGNIZED_PARAMETER_SILENT);
IS(0x100a, RSPERR_WRONG_PROTOCOL);
IS(0x100b, RSPERR_UNSUPPORTED_POOL_POLICY);
IS(0xf000, RSPERR_INVALID_ID);
IS(0xf001, RSPERR_OWN_ID);
IS(0xf002, RSPERR_DUPLICATE_ID);
IS(0xf003, RSPERR_INVALID_POOL_POLICY);
IS(0xf004, RSPERR_INVALID_POOL_HANDLE);
IS(0xf005, RSPERR_INVALID_ADDRESSES);
IS(0xf006, RSPERR_INVALID_REGISTRATOR);
IS(0xf007, RSPERR_NO_USABLE_ASAP_ADDRESSES);
IS(0xf008, RSPERR_NO_USABLE_USER_ADDRESSES);

/* Types of the functions: a second declaration must agree with the header's. */
#define TYPE(result, name, ...) result name(__VA_ARGS__)
typedef const unsigned char* pool_handle;

TYPE(void, rsp_initinfo, struct rsp_info*);
TYPE(void, rsp_freeinfo, struct rsp_info*);
TYPE(int, rsp_initarg, struct rsp_info*, const char*);
TYPE(int, rsp_initialize, struct rsp_info*);
TYPE(void, rsp_cleanup, void);
TYPE(int, rsp_getaddrinfo, pool_handle, size_t, struct rsp_addrinfo**, size_t, unsigned int);
TYPE(int, rsp_getaddrinfo_tags, pool_handle, size_t, struct rsp_addrinfo**, size_t, unsigned int, struct TagItem*);
TYPE(void, rsp_freeaddrinfo, struct rsp_addrinfo*);
TYPE(unsigned int, rsp_pe_registration, pool_handle, size_t, struct rsp_addrinfo*, const struct rsp_loadinfo*, unsigned int, int);
TYPE(unsigned int, rsp_pe_registration_tags, pool_handle, size_t, struct rsp_addrinfo*, const struct rsp_loadinfo*, unsigned int, int, struct TagItem*);
TYPE(unsigned int, rsp_pe_deregistration, pool_handle, size_t, uint32_t, int);
TYPE(unsigned int, rsp_pe_deregistration_tags, pool_handle, size_t, uint32_t, int, struct TagItem*);
TYPE(unsigned int, rsp_pe_failure, pool_handle, size_t, uint32_t);
TYPE(unsigned int, rsp_pe_failure_tags, pool_handle, size_t, uint32_t, struct TagItem*);
TYPE(const char*, rsp_getpolicybytype, unsigned int);
TYPE(unsigned int, rsp_getpolicybyname, const char*);
TYPE(int, rsp_socket, int, int, int);
TYPE(int, rsp_update_session_parameters, int, struct rserpool_session_parameters*);
TYPE(int, rsp_bind, int, const struct sockaddr*, int);
TYPE(int, rsp_listen, int, int);
TYPE(int, rsp_getsockname, int, unsigned char*, size_t*, uint32_t*);
TYPE(int, rsp_getpeername, int, unsigned char*, size_t*, uint32_t*);
TYPE(int, rsp_close, int);
TYPE(int, rsp_getsockopt, int, int, int, void*, socklen_t*);
TYPE(int, rsp_setsockopt, int, int, int, const void*, socklen_t);
TYPE(int, rsp_mapsocket, int, int);
TYPE(int, rsp_unmapsocket, int);
TYPE(int, rsp_poll, struct pollfd*, unsigned int, int);
TYPE(int, rsp_select, int, fd_set*, fd_set*, fd_set*, struct timeval*);
TYPE(int, rsp_register, int, pool_handle, size_t, const struct rsp_loadinfo*, unsigned int, int);
TYPE(int, rsp_register_tags, int, pool_handle, size_t, const struct rsp_loadinfo*, unsigned int, int, struct TagItem*);
TYPE(int, rsp_deregister, int, int);
TYPE(int, rsp_deregister_tags, int, int, struct TagItem*);
TYPE(int, rsp_accept, int, int);
TYPE(int, rsp_accept_tags, int, int, struct TagItem*);
TYPE(int, rsp_connect, int, pool_handle, size_t, unsigned int);
TYPE(int, rsp_connect_tags, int, pool_handle, size_t, unsigned int, struct TagItem*);
TYPE(int, rsp_forcefailover, int, unsigned int, unsigned int);
TYPE(int, rsp_forcefailover_tags, int, unsigned int, unsigned int, struct TagItem*);
TYPE(int, rsp_has_cookie, int);
TYPE(int, rsp_csp_setstatus, int, rserpool_session_t, const char*);
TYPE(ssize_t, rsp_sendmsg, int, const void*, size_t, unsigned int, rserpool_session_t, uint32_t, uint16_t, uint32_t, uint16_t, int);
TYPE(ssize_t, rsp_send_cookie, int, pool_handle, size_t, rserpool_session_t, int);
TYPE(ssize_t, rsp_recvmsg, int, void*, size_t, struct rsp_sndrcvinfo*, int*, int);
TYPE(ssize_t, rsp_recvfullmsg, int, void*, size_t, struct rsp_sndrcvinfo*, int*, int);
TYPE(ssize_t, rsp_read, int, void*, size_t);
TYPE(ssize_t, rsp_recv, int, void*, size_t, int);
TYPE(ssize_t, rsp_write, int, const char*, size_t);
TYPE(ssize_t, rsp_send, int, const void*, size_t, int);
TYPE(void, rsp_print_notification, const union rserpool_notification*, FILE*);
TYPE(struct TagItem*, tagListAllocate, size_t);
TYPE(void, tagListFree, struct TagItem*);
TYPE(size_t, tagListGetSize, struct TagItem*);
TYPE(struct TagItem*, tagListDuplicate, struct TagItem*);
TYPE(struct TagItem*, tagListDuplicateFilter, struct TagItem*, const tag_t*);
TYPE(struct TagItem*, tagListNext, struct TagItem*);
TYPE(struct TagItem*, tagListFind, struct TagItem*, tag_t);
TYPE(tagdata_t, tagListGetData, struct TagItem*, tag_t, tagdata_t);
TYPE(struct TagItem*, tagListSetData, struct TagItem*, tag_t, tagdata_t);
TYPE(void, tagListPrint, struct TagItem*, FILE*);

static void addresses(void)
{
    SAME_TEXT("239.0.0.50:3863", ASAP_ANNOUNCE_MULTICAST_ADDRESS);
    SAME_TEXT("239.0.0.51:9901", ENRP_ANNOUNCE_MULTICAST_ADDRESS);
}

static void macros(void)
{
    const uint64_t id = CID_COMPOUND(CID_GROUP_POOLELEMENT, 0xabcd1234);

    HOLDS(id == 0x02000000abcd1234ULL);
    SAME(2, CID_GROUP(id));
    SAME(0xabcd1234, CID_OBJECT(id));
    HOLDS(PPT_IS_ADAPTIVE(PPT_LEASTUSED));
    HOLDS(PPT_IS_ADAPTIVE(PPT_LEASTUSED_DEGRADATION));
    HOLDS(PPT_IS_ADAPTIVE(PPT_PRIORITY_LEASTUSED));
    HOLDS(PPT_IS_ADAPTIVE(PPT_RANDOMIZED_LEASTUSED));
    HOLDS(PPT_IS_ADAPTIVE(PPT_RANDOMIZED_PRIORITY_LEASTUSED));
    HOLDS(PPT_IS_ADAPTIVE(PPT_RANDOMIZED_PRIORITY_LEASTUSED_DEGRADATION));
    HOLDS(PPT_IS_ADAPTIVE(PPT_LEASTUSED_DPF));
    HOLDS(PPT_IS_ADAPTIVE(PPT_PRIORITY_LEASTUSED_DEGRADATION_DPF));
    HOLDS(!PPT_IS_ADAPTIVE(PPT_ROUNDROBIN));
    HOLDS(!PPT_IS_ADAPTIVE(PPT_PRIORITY));
    HOLDS(!PPT_IS_ADAPTIVE(PPT_WEIGHTED_RANDOM_DPF));
    HOLDS(!PPT_IS_ADAPTIVE(PPT_UNDEFINED));
}

/* The table of policy names, which works without the library being initialised. */
static void policies(void)
{
    const struct {
        unsigned int type;
        const char* name;
    } table[] = {
        {0x00000001, "RoundRobin"},
        {0x00000002, "WeightedRoundRobin"},
        {0x00000003, "Random"},
        {0x00000004, "WeightedRandom"},
        {0x00000005, "Priority"},
        {0x40000001, "LeastUsed"},
        {0x40000002, "LeastUsedDegradation"},
        {0x40000003, "PriorityLeastUsed"},
        {0x40000004, "RandomizedLeastUsed"},
        {0xb0001001, "RandomizedPriorityLeastUsed"},
        {0xb0001002, "RandomizedLeastUsedDegradation"},
        {0xb0001003, "PriorityLeastUsedDegradation"},
        {0xb0001004, "RandomizedPriorityLeastUsedDegradation"},
        {0xb0002001, "WeightedRandomDPF"},
        {0xb0002002, "LeastUsedDPF"},
        {0xb0002003, "LeastUsedDegradationDPF"},
        {0xb0002004, "PriorityLeastUsedDPF"},
        {0xb0002005, "PriorityLeastUsedDegradationDPF"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        SAME_TEXT(table[i].name, rsp_getpolicybytype(table[i].type));
        SAME(table[i].type, rsp_getpolicybyname(table[i].name));
    }
    HOLDS(rsp_getpolicybytype(PPT_UNDEFINED) == NULL);
    HOLDS(rsp_getpolicybytype(4711) == NULL);
    SAME(PPT_UNDEFINED, rsp_getpolicybyname("roundrobin"));
    SAME(PPT_UNDEFINED, rsp_getpolicybyname(""));
    SAME(PPT_UNDEFINED, rsp_getpolicybyname(NULL));
}

int main(void)
{
    addresses();
    macros();
    policies();
    return checked();
}
