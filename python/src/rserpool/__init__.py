"""Reliable Server Pooling (RFC 5351-5356): sessions that survive the death of their server."""

from __future__ import annotations

import atexit
import ctypes
import errno
import math
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import NoReturn, Optional, Union

from . import _abi

__all__ = [
    "Address", "CookieEcho", "Descriptor", "Element", "Failover", "Message", "Notification", "Policy",
    "PoolNotFound", "RSerPoolError", "SessionChange", "Session", "Shutdown", "cleanup", "connect",
    "initialize", "resolve",
]

_library = _abi.load()
_lock = threading.Lock()
_initialized = False
# Counts calls of cleanup().
_lifetime = 0
# What event loops are told by when the descriptors that they wait for are gone.
_woken_by_cleanup: set[Callable[[], None]] = set()
Handle = Union[str, bytes]
Buffer = Union[bytes, bytearray, memoryview]


class RSerPoolError(OSError):
    """A call failed; `errno` says why."""


class PoolNotFound(RSerPoolError):
    """No such pool."""


class Policy(IntEnum):
    """Pool member selection policies."""

    ROUND_ROBIN = 0x1
    WEIGHTED_ROUND_ROBIN = 0x2
    RANDOM = 0x3
    WEIGHTED_RANDOM = 0x4
    PRIORITY = 0x5
    LEAST_USED = 0x40000001
    LEAST_USED_DEGRADATION = 0x40000002
    PRIORITY_LEAST_USED = 0x40000003
    RANDOMIZED_LEAST_USED = 0x40000004


@dataclass(frozen=True)
class Message:
    """Application data. `end` is False when more of the same message follows."""

    data: bytes
    session: int
    ppid: int
    stream: int
    element: int
    end: bool = True


@dataclass(frozen=True)
class CookieEcho:
    """The cookie of a session that failed over to this element; comes before its first data."""

    cookie: bytes
    session: int


@dataclass(frozen=True)
class Notification:
    """Base of what is told besides data."""

    session: int


@dataclass(frozen=True)
class SessionChange(Notification):
    """A session of a one-to-many descriptor was added or removed."""

    added: bool


@dataclass(frozen=True)
class Failover(Notification):
    """A failover is necessary, or complete."""

    complete: bool
    has_cookie: bool


@dataclass(frozen=True)
class Shutdown(Notification):
    """The peer ended the session."""


Event = Union[Message, CookieEcho, Notification]


@dataclass(frozen=True)
class Address:
    """An element as `resolve` tells it."""

    element: int
    protocol: int
    addresses: tuple[tuple[str, int], ...]


def _fail(what: str) -> RSerPoolError:
    number = ctypes.get_errno()
    return RSerPoolError(number, f"{what}: {os.strerror(number)}")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise _fail(what)
    return result


def _wait(call: Callable[[int], int], timeout: Optional[float], what: str) -> int:
    """Calls with a time-out in milliseconds; again after a signal whose handler raises nothing (PEP 475)."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        result = call(_ms(None if end is None else end - time.monotonic()))
        if result >= 0:
            return result
        error = _fail(what)
        if error.errno == errno.EAGAIN and timeout is not None:
            raise TimeoutError(error.errno, f"{what}: not within {timeout} s")
        if error.errno not in (errno.EINTR, errno.EAGAIN):
            raise error


def _bytes(data: Buffer) -> bytes:
    """A copy that nobody changes meanwhile; TypeError for what is no buffer (`bytes` takes numbers and lists)."""
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def _handle(handle: Handle) -> bytes:
    name = handle.encode() if isinstance(handle, str) else _bytes(handle)
    if not name:
        raise RSerPoolError(errno.EINVAL, "a pool handle has at least one byte")
    return name


def _number(value: int, what: str, bits: int = 32) -> int:
    """The C API's numbers; ctypes would take as many bits as fit."""
    if not 0 <= value < 1 << bits:
        raise OverflowError(f"{what} is 0 to {(1 << bits) - 1}, not {value}")
    return value


def _ms(timeout: Optional[float]) -> int:
    """Milliseconds for the C API, where a receive with -1 does not wait at all."""
    return 0x7FFFFFFF if timeout is None else min(max(0, math.ceil(timeout * 1000)), 0x7FFFFFFF)


def initialize(*arguments: str) -> None:
    """Starts the library with `rsp_initarg` switches (e.g. "-registrar=192.0.2.1:3863"). Done by itself at first use."""
    global _initialized
    with _lock:
        if _initialized:
            return
        info = _abi.Info()
        _library.rsp_initinfo(ctypes.byref(info))
        try:
            for argument in arguments:
                if _library.rsp_initarg(ctypes.byref(info), argument.encode()) == 0:
                    raise ValueError(f"unknown switch {argument!r}")
            _check(_library.rsp_initialize(ctypes.byref(info)), "rsp_initialize")
        finally:
            _library.rsp_freeinfo(ctypes.byref(info))
        _initialized = True


def cleanup() -> None:
    """Closes all descriptors, deregisters all elements, ends the library's thread."""
    global _initialized, _lifetime
    with _lock:
        if _initialized:
            # From now on, the numbers of the descriptors that there were may be anybody's.
            _lifetime += 1
            _library.rsp_cleanup()
            _initialized = False
    # Event loops don't hear of descriptors that are gone.
    for wake in list(_woken_by_cleanup):
        wake()


def _forked() -> None:
    """A child has no library until it starts its own; its parent's descriptors are not its to close."""
    global _initialized, _lifetime, _lock
    _initialized, _lock = False, threading.Lock()
    _lifetime += 1


atexit.register(cleanup)
os.register_at_fork(after_in_child=_forked)


class Descriptor:
    """An RSerPool descriptor: a real file descriptor, readable when there is something to receive or accept."""

    def __init__(self, number: int) -> None:
        # A list, because taking the last item is what only one thread can do.
        self._numbers = [number]
        self._lifetime = _lifetime

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"descriptor {self._numbers}"
        return f"<rserpool.{type(self).__name__}: {state}>"

    def __reduce__(self) -> NoReturn:
        # A copy would close the number once more, which may be somebody else's by then.
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled")

    def fileno(self) -> int:
        numbers = self._numbers[:]
        if not numbers or self._lifetime != _lifetime:
            raise ValueError("descriptor is closed")
        return numbers[0]

    @property
    def closed(self) -> bool:
        return not self._numbers or self._lifetime != _lifetime

    def close(self) -> None:
        try:
            number = self._numbers.pop()
        except IndexError:
            return
        if self._lifetime == _lifetime:
            _check(_library.rsp_close(number), "rsp_close")

    def __del__(self) -> None:
        try:
            if not self.closed:
                try:
                    warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
                finally:
                    self.close()
        except (OSError, AttributeError, TypeError):
            pass

    def send(self, data: Buffer, *, session: int = 0, ppid: int = 0, stream: int = 0,
             timeout: Optional[float] = None) -> int:
        """Sends one message. TimeoutError when there was no room within `timeout` seconds (None: waits for ever)."""
        data, ppid = _bytes(data), socket.htonl(_number(ppid, "ppid"))
        session, stream = _number(session, "session", 31), _number(stream, "stream", 16)
        return _wait(lambda ms: _library.rsp_sendmsg(
            self.fileno(), data, len(data), 0, session, ppid, stream, 0, 0, ms
        ), timeout, "rsp_sendmsg")

    def send_cookie(self, cookie: Buffer, *, session: int = 0, timeout: Optional[float] = 5) -> None:
        """Gives the user a cookie, which it echoes to the next element after a failover. TimeoutError as for `send`."""
        cookie, session = _bytes(cookie), _number(session, "session", 31)
        _wait(lambda ms: _library.rsp_send_cookie(
            self.fileno(), cookie, len(cookie), session, ms
        ), timeout, "rsp_send_cookie")

    def receive(self, timeout: Optional[float] = None, size: int = 65536) -> Optional[Event]:
        """The next message, cookie echo or notification; None at the end of the session.

        Raises TimeoutError when nothing came within `timeout` seconds (None: waits for ever).
        """
        buffer = ctypes.create_string_buffer(max(size, ctypes.sizeof(_abi.Notification)))
        info, flags = _abi.SndRcvInfo(), ctypes.c_int(0)
        got = _wait(lambda ms: _library.rsp_recvmsg(
            self.fileno(), buffer, len(buffer), ctypes.byref(info), ctypes.byref(flags), ms
        ), timeout, "rsp_recvmsg")
        if flags.value & _abi.MSG_NOTIFICATION:
            return _notification(_abi.Notification.from_buffer(buffer))
        if flags.value & _abi.MSG_COOKIE_ECHO:
            return CookieEcho(ctypes.string_at(buffer, got), info.rinfo_session)
        if got == 0 and not flags.value & _abi.MSG_EOR:
            return None
        ppid = socket.ntohl(info.rinfo_ppid)
        end = bool(flags.value & _abi.MSG_EOR)
        return Message(ctypes.string_at(buffer, got), info.rinfo_session, ppid, info.rinfo_stream, info.rinfo_pe_id, end)


def _notification(raw: _abi.Notification) -> Notification:
    kind = raw.rn_header.rn_type
    if kind == 1:
        change = raw.rn_session_change
        return SessionChange(change.rsc_session, change.rsc_state == 1)
    if kind == 2:
        failover = raw.rn_failover
        return Failover(failover.rf_session, failover.rf_state == 2, bool(failover.rf_has_cookie))
    return Shutdown(raw.rn_shutdown_event.rse_session)


def _is_last(event: Optional[Event]) -> bool:
    """Whether nothing else comes; a necessary failover is told again and again."""
    return event is None or (isinstance(event, Failover) and not event.complete)


class _Context(Descriptor):
    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()


class Session(_Context):
    """A session with an element of a pool (client side), or with one user (server side)."""

    def __enter__(self) -> "Session":
        return self

    def failover(self, *, unreachable: bool = True, stale: int = 0) -> None:
        """Moves the session to another element; `unreachable` reports the old one to the registrar."""
        flags = _abi.FFF_UNREACHABLE if unreachable else 0
        _check(_library.rsp_forcefailover(self.fileno(), flags, _number(stale, "stale")), "rsp_forcefailover")

    @property
    def has_cookie(self) -> bool:
        return bool(_check(_library.rsp_has_cookie(self.fileno()), "rsp_has_cookie"))

    @property
    def element(self) -> int:
        """Identifier of the element in use; 0 when there is none."""
        identifier = ctypes.c_uint32(0)
        _check(_library.rsp_getpeername(self.fileno(), None, None, ctypes.byref(identifier)), "rsp_getpeername")
        return identifier.value

    def __iter__(self) -> Iterator[Message]:
        """Messages until the session ends, or until a `failover` is necessary; other events are passed over."""
        while not _is_last(event := self.receive()):
            if isinstance(event, Message):
                yield event


def connect(handle: Handle, *, stale: int = 0, notifications: bool = True) -> Session:
    """Opens a session with an element of the pool, chosen by the pool's policy.

    What is known about the pool may be `stale` milliseconds old. With `notifications`, losing an element is told by
    a `Failover`, else it looks like the end of the session.

    As `rsp_connect`, it succeeds even when no element can be reached just now: the first event is
    then a necessary `Failover`.
    """
    initialize()
    style = socket.SOCK_SEQPACKET if notifications else socket.SOCK_STREAM
    name, stale = _handle(handle), _number(stale, "stale")
    session = Session(_check(_library.rsp_socket(0, style, _abi.IPPROTO_SCTP), "rsp_socket"))
    try:
        _check(_library.rsp_connect(session.fileno(), name, len(name), stale), "rsp_connect")
    except BaseException:
        session.close()
        raise
    return session


class Element(_Context):
    """A pool element: registered as long as it is open.

    Its users' sessions are taken with `accept`; with `one_to_many` they are all received from and sent to here: a
    `SessionChange` tells their numbers, which every event has and every `send` wants.
    """

    def __init__(self, handle: Handle, *, policy: Policy = Policy.ROUND_ROBIN, weight: int = 1, load: int = 0,
                 degradation: int = 0, identifier: int = 0, interval: float = 30, backlog: int = 128,
                 wait: bool = True, one_to_many: bool = False) -> None:
        self.handle = _handle(handle)
        self._interval = _number(round(interval * 1000), "interval (ms)")
        self._load = _abi.LoadInfo(
            _number(policy, "policy"), _number(weight, "weight"), 0, _number(load, "load"),
            _number(degradation, "degradation"), 0,
        )
        tags = (_abi.TagItem * 2)()
        if _number(identifier, "identifier"):
            tags[0].Tag, tags[0].Data = _abi.TAG_POOL_ELEMENT_IDENTIFIER, identifier
        initialize()
        style = socket.SOCK_SEQPACKET if one_to_many else socket.SOCK_STREAM
        super().__init__(_check(_library.rsp_socket(0, style, _abi.IPPROTO_SCTP), "rsp_socket"))
        try:
            _check(_library.rsp_bind(self.fileno(), None, 0), "rsp_bind")
            _check(_library.rsp_listen(self.fileno(), backlog), "rsp_listen")
            self._register(0 if wait else _abi.REGF_DONTWAIT, tags)
        except BaseException:
            self.close()
            raise

    def _register(self, flags: int, tags: Optional[ctypes.Array[_abi.TagItem]]) -> None:
        result = _library.rsp_register_tags(
            self.fileno(), self.handle, len(self.handle), ctypes.byref(self._load), self._interval, flags, tags
        )
        _check(result, "rsp_register")

    def __enter__(self) -> "Element":
        return self

    def set_load(self, load: float) -> None:
        """Tells the registrar the load, 0 to 1."""
        self._load.rli_load = round(min(max(load, 0.0), 1.0) * 0xFFFFFFFF)
        self._register(_abi.REGF_DONTWAIT, None)

    @property
    def identifier(self) -> int:
        identifier = ctypes.c_uint32(0)
        _check(_library.rsp_getsockname(self.fileno(), None, None, ctypes.byref(identifier)), "rsp_getsockname")
        return identifier.value

    def accept(self, timeout: Optional[float] = None) -> Session:
        """The next user's session. TimeoutError when none came within `timeout` seconds."""
        return Session(_wait(lambda ms: _library.rsp_accept(self.fileno(), ms), timeout, "rsp_accept"))


def resolve(handle: Handle, *, items: int = 3, stale: int = 0) -> list[Address]:
    """Up to `items` elements of the pool, chosen by its policy (basic mode), as known `stale` milliseconds ago at most.

    PoolNotFound when there is no such pool.
    """
    name, items, stale = _handle(handle), _number(items, "items", 31), _number(stale, "stale")
    initialize()
    first = ctypes.POINTER(_abi.AddrInfo)()
    result = _library.rsp_getaddrinfo(name, len(name), ctypes.byref(first), items, stale)
    if result == _abi.REAI_NONAME:
        raise PoolNotFound(errno.ENOENT, f"no pool {name!r}")
    if result == _abi.REAI_MEMORY:
        raise MemoryError
    if result < 0:
        raise _fail(f"resolution of {name!r}")
    try:
        return list(_addresses(first))
    finally:
        _library.rsp_freeaddrinfo(first)


def _addresses(entry: "ctypes._Pointer[_abi.AddrInfo]") -> Iterator[Address]:
    while entry:
        info, found, at = entry.contents, [], 0
        for _ in range(info.ai_addrs):
            family = ctypes.c_uint16.from_address(info.ai_addr + at).value
            raw = ctypes.string_at(info.ai_addr + at, 16 if family == socket.AF_INET else 28)
            port = int.from_bytes(raw[2:4], "big")
            host = raw[4:8] if family == socket.AF_INET else raw[8:24]
            found.append((socket.inet_ntop(family, host), port))
            at += len(raw)
        yield Address(info.ai_pe_id, info.ai_protocol, tuple(found))
        entry = info.ai_next
