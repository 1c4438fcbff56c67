"""Prototypes and layouts of librserpool.so, as in include/rserpool/."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from ctypes import POINTER, Structure, Union, c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_ubyte, c_uint
from ctypes import c_uint16, c_uint32, c_ulong, c_void_p
from pathlib import Path
from typing import Any


class RegistrarInfo(Structure):
    pass


RegistrarInfo._fields_ = [("rri_next", POINTER(RegistrarInfo)), ("rri_addr", c_void_p), ("rri_addrs", c_size_t)]


class Info(Structure):
    _fields_ = [
        ("ri_version", c_uint),
        ("ri_revision", c_uint),
        ("ri_build_date", c_char_p),
        ("ri_build_time", c_char_p),
        ("ri_registrars", POINTER(RegistrarInfo)),
        ("ri_disable_autoconfig", c_int),
        ("ri_registrar_announce", c_void_p),
        ("ri_registrar_announce_timeout", c_uint),
        ("ri_registrar_connect_timeout", c_uint),
        ("ri_registrar_connect_max_trials", c_uint),
        ("ri_registrar_request_timeout", c_uint),
        ("ri_registrar_response_timeout", c_uint),
        ("ri_registrar_request_max_trials", c_uint),
        ("ri_csp_identifier", ctypes.c_uint64),
        ("ri_csp_server", c_void_p),
        ("ri_csp_interval", c_uint),
    ]


class Counters(Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "rc_cache_hits", "rc_cache_misses", "rc_resolutions", "rc_resolutions_failed", "rc_registrations",
            "rc_reregistrations", "rc_registrations_failed", "rc_deregistrations", "rc_keepalives", "rc_registrars_found",
            "rc_registrars_lost", "rc_reports", "rc_sessions_connected", "rc_sessions_accepted", "rc_failovers",
            "rc_connects_failed", "rc_connections_refused", "rc_bytes_sent", "rc_bytes_received",
        )
    ]


class LoadInfo(Structure):
    _fields_ = [
        ("rli_policy", c_uint32),
        ("rli_weight", c_uint32),
        ("rli_weight_dpf", c_uint32),
        ("rli_load", c_uint32),
        ("rli_load_degradation", c_uint32),
        ("rli_load_dpf", c_uint32),
    ]


class AddrInfo(Structure):
    pass


AddrInfo._fields_ = [
    ("ai_family", c_int),
    ("ai_socktype", c_int),
    ("ai_protocol", c_int),
    ("ai_addrlen", c_size_t),
    ("ai_addrs", c_size_t),
    ("ai_addr", c_void_p),
    ("ai_next", POINTER(AddrInfo)),
    ("ai_pe_id", c_uint32),
]


class SndRcvInfo(Structure):
    _fields_ = [
        ("rinfo_session", c_int),
        ("rinfo_ppid", c_uint32),
        ("rinfo_pe_id", c_uint32),
        ("rinfo_timetolive", c_uint32),
        ("rinfo_stream", c_uint16),
    ]


class NotificationHeader(Structure):
    _fields_ = [("rn_type", c_uint16), ("rn_flags", c_uint16), ("rn_length", c_uint32)]


class Failover(Structure):
    _fields_ = [
        ("rf_type", c_uint16),
        ("rf_flags", c_uint16),
        ("rf_length", c_uint32),
        ("rf_state", c_uint),
        ("rf_session", c_int),
        ("rf_has_cookie", c_ubyte),
    ]


class SessionChange(Structure):
    _fields_ = [
        ("rsc_type", c_uint16),
        ("rsc_flags", c_uint16),
        ("rsc_length", c_uint32),
        ("rsc_state", c_uint),
        ("rsc_session", c_int),
    ]


class ShutdownEvent(Structure):
    _fields_ = [("rse_type", c_uint16), ("rse_flags", c_uint16), ("rse_length", c_uint32), ("rse_session", c_int)]


class SendFailed(Structure):
    _fields_ = [
        ("rsf_type", c_uint16),
        ("rsf_flags", c_uint16),
        ("rsf_length", c_uint32),
        ("rsf_state", c_uint),
        ("rsf_pe_id", c_uint32),
        ("rsf_message_length", c_uint32),
    ]


class Notification(Union):
    _fields_ = [
        ("rn_header", NotificationHeader),
        ("rn_failover", Failover),
        ("rn_session_change", SessionChange),
        ("rn_shutdown_event", ShutdownEvent),
        ("rn_send_failed", SendFailed),
    ]


class SessionParameters(Structure):
    _fields_ = [
        (name, c_uint)
        for name in ("sp_rto_initial", "sp_rto_min", "sp_rto_max", "sp_assoc_max_rxt", "sp_path_max_rxt", "sp_hbinterval")
    ]


class PollFd(Structure):
    _fields_ = [("fd", c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class TagItem(Structure):
    _fields_ = [("Tag", c_uint32), ("Data", c_ulong)]


_bytes, _fd, _tags = c_char_p, c_int, POINTER(TagItem)
_int_out, _id_out, _size_out = POINTER(c_int), POINTER(c_uint32), POINTER(c_size_t)

#: name -> (result, arguments); the whole public list.
PROTOTYPES = {
    "rsp_strerror": (c_char_p, [c_int]),
    "rsp_geterror": (c_uint, [c_int]),
    "rsp_version": (c_char_p, []),
    "rsp_getcounters": (c_int, [POINTER(Counters), c_size_t]),
    "rsp_initinfo": (None, [POINTER(Info)]),
    "rsp_freeinfo": (None, [POINTER(Info)]),
    "rsp_initarg": (c_int, [POINTER(Info), c_char_p]),
    "rsp_initialize": (c_int, [POINTER(Info)]),
    "rsp_cleanup": (None, []),
    "rsp_getaddrinfo": (c_int, [_bytes, c_size_t, POINTER(POINTER(AddrInfo)), c_size_t, c_uint]),
    "rsp_getaddrinfo_tags": (c_int, [_bytes, c_size_t, POINTER(POINTER(AddrInfo)), c_size_t, c_uint, _tags]),
    "rsp_freeaddrinfo": (None, [POINTER(AddrInfo)]),
    "rsp_pe_registration": (c_uint, [_bytes, c_size_t, POINTER(AddrInfo), POINTER(LoadInfo), c_uint, c_int]),
    "rsp_pe_registration_tags": (
        c_uint,
        [_bytes, c_size_t, POINTER(AddrInfo), POINTER(LoadInfo), c_uint, c_int, _tags],
    ),
    "rsp_pe_deregistration": (c_uint, [_bytes, c_size_t, c_uint32, c_int]),
    "rsp_pe_deregistration_tags": (c_uint, [_bytes, c_size_t, c_uint32, c_int, _tags]),
    "rsp_pe_failure": (c_uint, [_bytes, c_size_t, c_uint32]),
    "rsp_pe_failure_tags": (c_uint, [_bytes, c_size_t, c_uint32, _tags]),
    "rsp_getpolicybytype": (c_char_p, [c_uint]),
    "rsp_getpolicybyname": (c_uint, [c_char_p]),
    "rsp_socket": (c_int, [c_int, c_int, c_int]),
    "rsp_update_session_parameters": (c_int, [_fd, POINTER(SessionParameters)]),
    "rsp_bind": (c_int, [_fd, c_void_p, c_int]),
    "rsp_listen": (c_int, [_fd, c_int]),
    "rsp_getsockname": (c_int, [_fd, c_void_p, _size_out, _id_out]),
    "rsp_getpeername": (c_int, [_fd, c_void_p, _size_out, _id_out]),
    "rsp_close": (c_int, [_fd]),
    "rsp_getsockopt": (c_int, [_fd, c_int, c_int, c_void_p, POINTER(c_uint32)]),
    "rsp_setsockopt": (c_int, [_fd, c_int, c_int, c_void_p, c_uint32]),
    "rsp_mapsocket": (c_int, [c_int, c_int]),
    "rsp_unmapsocket": (c_int, [_fd]),
    "rsp_poll": (c_int, [POINTER(PollFd), c_uint, c_int]),
    "rsp_select": (c_int, [c_int, c_void_p, c_void_p, c_void_p, c_void_p]),
    "rsp_waitset_create": (c_int, []),
    "rsp_waitset_set": (c_int, [c_int, c_int, ctypes.c_short]),
    "rsp_waitset_wait": (c_int, [c_int, POINTER(PollFd), c_uint, c_int]),
    "rsp_register": (c_int, [_fd, _bytes, c_size_t, POINTER(LoadInfo), c_uint, c_int]),
    "rsp_register_tags": (c_int, [_fd, _bytes, c_size_t, POINTER(LoadInfo), c_uint, c_int, _tags]),
    "rsp_deregister": (c_int, [_fd, c_int]),
    "rsp_deregister_tags": (c_int, [_fd, c_int, _tags]),
    "rsp_accept": (c_int, [_fd, c_int]),
    "rsp_accept_tags": (c_int, [_fd, c_int, _tags]),
    "rsp_connect": (c_int, [_fd, _bytes, c_size_t, c_uint]),
    "rsp_connect_tags": (c_int, [_fd, _bytes, c_size_t, c_uint, _tags]),
    "rsp_forcefailover": (c_int, [_fd, c_uint, c_uint]),
    "rsp_forcefailover_tags": (c_int, [_fd, c_uint, c_uint, _tags]),
    "rsp_has_cookie": (c_int, [_fd]),
    "rsp_csp_setstatus": (c_int, [_fd, c_int, c_char_p]),
    "rsp_sendmsg": (
        c_ssize_t,
        [_fd, _bytes, c_size_t, c_uint, c_int, c_uint32, c_uint16, c_uint32, c_uint16, c_int],
    ),
    "rsp_send_cookie": (c_ssize_t, [_fd, _bytes, c_size_t, c_int, c_int]),
    "rsp_sendto_pool": (
        c_int,
        [_fd, _bytes, c_size_t, c_uint, _bytes, c_size_t, _id_out, c_uint, c_uint32, c_uint16, c_uint32, c_int],
    ),
    "rsp_sendto_address": (c_int, [_fd, _bytes, c_size_t, c_uint, c_void_p, c_uint32, c_uint16, c_uint32, c_int]),
    "rsp_cache_populate": (c_int, [_bytes, c_size_t]),
    "rsp_cache_purge": (c_int, [_bytes, c_size_t]),
    "rsp_recvmsg": (c_ssize_t, [_fd, c_void_p, c_size_t, POINTER(SndRcvInfo), _int_out, c_int]),
    "rsp_recvfullmsg": (c_ssize_t, [_fd, c_void_p, c_size_t, POINTER(SndRcvInfo), _int_out, c_int]),
    "rsp_read": (c_ssize_t, [_fd, c_void_p, c_size_t]),
    "rsp_recv": (c_ssize_t, [_fd, c_void_p, c_size_t, c_int]),
    "rsp_write": (c_ssize_t, [_fd, c_char_p, c_size_t]),
    "rsp_send": (c_ssize_t, [_fd, c_char_p, c_size_t, c_int]),
    "rsp_print_notification": (None, [POINTER(Notification), c_void_p]),
}

MSG_EOR = 0x80
MSG_NOTIFICATION = 1
MSG_COOKIE_ECHO = 2
FFF_UNREACHABLE = 1
SEND_FAILOVER, SEND_NO_FAILOVER, SEND_TO_LAST, SEND_TO_ALL, SEND_TO_SELF = 1, 2, 4, 8, 16
SCTP_UNORDER = 0x1000
RSERPOOL_SEND_FAILED = 4
REGF_DONTWAIT = 1
TAG_DONE = 0
TAG_IGNORE = 1
TAG_POOL_ELEMENT_IDENTIFIER = 1001000
TAG_POOL_ELEMENT_ADVERTISE = 1009000
IPPROTO_SCTP = 132
GETADDRS_ALL = 0x7FFFFFFF
REAI_NONAME = -1
REAI_MEMORY = -2


REMEDY = "install librserpool (make install), or set RSERPOOL_LIBRARY to the path of librserpool.so"


def load() -> ctypes.CDLL:
    """Loads the library: RSERPOOL_LIBRARY, else the one in the package, else librserpool.so.0 by the dynamic linker's
    rules. ImportError when there is none, or when it is another one."""
    if ctypes.sizeof(c_long) != 8:
        raise ImportError("rserpool needs a 64-bit Python")
    wanted = os.environ.get("RSERPOOL_LIBRARY")
    bundled = Path(__file__).with_name("librserpool.so.0")
    if wanted:
        names = [wanted]
    elif bundled.exists():
        names = [str(bundled)]
    else:
        names = ["librserpool.so.0", ctypes.util.find_library("rserpool") or "librserpool.so"]
    problem: OSError | None = None
    for name in names:
        try:
            library = ctypes.CDLL(name, use_errno=True)
            break
        except OSError as error:
            problem = error
    else:
        raise ImportError(f"librserpool can't be loaded ({problem}); {REMEDY}", name="rserpool") from problem
    for function_name, (result, arguments) in PROTOTYPES.items():
        try:
            function = getattr(library, function_name)
        except AttributeError:
            raise ImportError(
                f"{name} is not a librserpool that this package works with: it has no {function_name}; {REMEDY}",
                name="rserpool", path=name,
            ) from None
        function.restype, function.argtypes = result, arguments
    return library


class Library:
    """The library, loaded when its first function is used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: ctypes.CDLL | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in PROTOTYPES:
            raise AttributeError(name)
        with self._lock:
            if self._loaded is None:
                self._loaded = load()
        function = getattr(self._loaded, name)
        # From now on without a detour.
        setattr(self, name, function)
        return function
