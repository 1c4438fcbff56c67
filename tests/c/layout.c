/* Sizes and offsets of rsplib's structures, values of its constants; src/ffi/abi.rs says the same. */
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
static void constants(void)
{
    SAME(2, RSPLIB_VERSION);
    SAME(3, RSPLIB_REVISION);
    SAME(3863, ASAP_PORT);
    SAME(9901, ENRP_PORT);
    SAME_TEXT("239.0.0.50:3863", ASAP_ANNOUNCE_MULTICAST_ADDRESS);
    SAME_TEXT("239.0.0.51:9901", ENRP_ANNOUNCE_MULTICAST_ADDRESS);
    SAME(1, REGF_DONTWAIT);
    SAME(2, REGF_CONTROLCHANNEL);
    SAME(4, REGF_DAEMONMODE);
    SAME(1, DEREGF_DONTWAIT);
    SAME(0, FFF_NONE);
    SAME(1, FFF_UNREACHABLE);
    SAME(1, RSPGETADDRS_MIN);
    SAME(0, RSPGETADDRS_DEFAULT);
    SAME(0xffffffff, RSPGETADDRS_MAX);
    SAME(16384, SESSION_SETSIZE);
    SAME(1, MSG_RSERPOOL_NOTIFICATION);
    SAME(2, MSG_RSERPOOL_COOKIE_ECHO);
    SAME(1, RSERPOOL_SESSION_CHANGE);
    SAME(2, RSERPOOL_FAILOVER);
    SAME(3, RSERPOOL_SHUTDOWN_EVENT);
    SAME(1, RSERPOOL_FAILOVER_NECESSARY);
    SAME(2, RSERPOOL_FAILOVER_COMPLETE);
    SAME(1, RSERPOOL_SESSION_ADD);
    SAME(2, RSERPOOL_SESSION_REMOVE);
    SAME(-1, REAI_NONAME);
    SAME(-2, REAI_MEMORY);
    SAME(-3, REAI_SYSTEM);
    SAME(-4, REAI_FAMILY);
    SAME(1, CID_GROUP_REGISTRAR);
    SAME(2, CID_GROUP_POOLELEMENT);
    SAME(3, CID_GROUP_POOLUSER);
    SAME(0xffffffff, PPV_MAX_WEIGHT);
    SAME(0xffffffff, PPV_MAX_LOAD);
    SAME(0, PPV_MIN_LOAD);
    SAME(1000000, TAG_USER);
    SAME(1001000, TAG_PoolElement_Identifier);
    SAME(1002000, TAG_RspSession_ConnectTimeout);
    SAME(1002001, TAG_RspSession_HandleResolutionRetryDelay);
    SAME(1004000, TAG_RspLib_CacheElementTimeout);
    SAME(1004001, TAG_RspLib_RegistrarAnnounceAddress);
    SAME(1004002, TAG_RspLib_RegistrarAnnounceTimeout);
    SAME(1004003, TAG_RspLib_RegistrarConnectMaxTrials);
    SAME(1004004, TAG_RspLib_RegistrarConnectTimeout);
    SAME(1004005, TAG_RspLib_RegistrarRequestMaxTrials);
    SAME(1004006, TAG_RspLib_RegistrarRequestTimeout);
    SAME(1004007, TAG_RspLib_RegistrarResponseTimeout);
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
    constants();
    macros();
    policies();
    return checked();
}
