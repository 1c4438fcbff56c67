"""Reliable Server Pooling (RFC 5351-5356): sessions that survive the death of their server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import errno
import logging
import math
import os
import select
import socket
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from types import TracebackType
from typing import Dict, NoReturn, Optional, Union

from . import _abi

__all__ = [
    "Address", "CookieEcho", "Descriptor", "Element", "Failover", "FailoverNecessary", "Message", "NoRegistrar",
    "Notification", "Policy", "PoolNotFound", "RSerPoolError", "RegistrationRefused", "SendFailed", "Sender", "Session",
    "SessionChange", "SessionEnded", "Shutdown", "cleanup", "connect", "counters", "enable_logging", "forget", "initialize", "library_version",
    "populate", "resolve",
]

__version__ = "0.1.0"

_library = _abi.Library()
_lock = threading.Lock()
_initialized = False
# Counts calls of cleanup().
_lifetime = 0
# What event loops are told by when the descriptors that they wait for are gone.
_woken_by_cleanup: set[Callable[[], None]] = set()
Handle = Union[str, bytes]
Buffer = Union[bytes, bytearray, memoryview]


class RSerPoolError(OSError):
    """A call failed: `errno` is the C function's, `code` the RSPERR_* code behind it (0: none), the text says why."""

    code: int = 0


class PoolNotFound(RSerPoolError):
    """No such pool, or nobody is in it."""


class NoRegistrar(RSerPoolError):
    """No registrar could be reached, or it did not answer; the text says which were tried, and what came of it."""


class RegistrationRefused(RSerPoolError):
    """The registrar does not take the element; `code` and text say why."""


class FailoverNecessary(RSerPoolError):
    """The session has lost its element, or never had one: `failover` moves it to another one."""


class SessionEnded(RSerPoolError):
    """The session is over: the peer ended it."""


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


@dataclass(frozen=True)
class SendFailed(Notification):
    """A message of `send_to_pool` that did not get to `element`, or (`uncertain`) perhaps not; `session` is 0."""

    element: int
    #: Its connection broke before it sent anything back.
    uncertain: bool
    #: Up to 1024 bytes of the message.
    head: bytes
    #: How long it was.
    length: int


Event = Union[Message, CookieEcho, Notification]


@dataclass(frozen=True)
class Address:
    """An element as `resolve` tells it."""

    element: int
    protocol: int
    addresses: tuple[tuple[str, int], ...]


_NO_ANSWER = (0x1007, 0x1008)
_NOT_FOUND = 0x9
_LOST = (errno.EIO, errno.ECONNRESET, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


def _error(kind: type[RSerPoolError], number: int, text: str, code: int = 0) -> RSerPoolError:
    error = kind(number, text)
    error.code = code
    return error


def _why(sd: int) -> tuple[int, str]:
    """What the library says of the last call: code and words."""
    text: bytes = _library.rsp_strerror(sd)
    return int(_library.rsp_geterror(sd)), text.decode(errors="replace")


def _fail(what: str, sd: int = -1, lost: bool = False) -> RSerPoolError:
    """The exception for a call that failed just now. `lost`: it was about a session's data."""
    number = ctypes.get_errno()
    code, text = _why(sd) if number not in (errno.EAGAIN, errno.EINTR, errno.EBADF) else (0, "")
    kind = RSerPoolError
    if lost and number in (errno.EPIPE, errno.ENOTCONN):
        kind = SessionEnded
    elif lost and number in _LOST:
        kind = FailoverNecessary
    elif code in _NO_ANSWER:
        kind = NoRegistrar
    elif code == _NOT_FOUND:
        kind = PoolNotFound
    return _error(kind, number, f"{what}: {text or os.strerror(number)}", code)


def _check(result: int, what: str, sd: int = -1) -> int:
    if result < 0:
        raise _fail(what, sd)
    return result


def _wait(call: Callable[[int], int], timeout: Optional[float], what: str, sd: Callable[[], int]) -> int:
    """Calls with a time-out in milliseconds; again after a signal whose handler raises nothing (PEP 475)."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        result = call(_ms(None if end is None else end - time.monotonic()))
        if result >= 0:
            return result
        error = _fail(what, sd(), lost=True)
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


def _stale(seconds: float) -> int:
    return _number(math.ceil(seconds * 1000), "stale (ms)")


def initialize(*arguments: str) -> None:
    """Starts the library with `rsp_initarg` switches (e.g. "-registrar=192.0.2.1:3863"). Done by itself at first use.

    RSerPoolError (EALREADY) when there are switches and the library runs: they would have no effect.
    """
    global _initialized
    with _lock:
        if _initialized:
            if arguments:
                text = f"the library runs already, {' '.join(arguments)} comes too late: initialize first, or cleanup()"
                raise RSerPoolError(errno.EALREADY, text)
            return
        info = _abi.Info()
        _library.rsp_initinfo(ctypes.byref(info))
        try:
            for argument in arguments:
                if _library.rsp_initarg(ctypes.byref(info), argument.encode()) == 0:
                    raise ValueError(f"unknown switch, or a value that makes no sense: {argument!r}")
            _check(_library.rsp_initialize(ctypes.byref(info)), "rsp_initialize")
        finally:
            _library.rsp_freeinfo(ctypes.byref(info))
        _initialized = True


def library_version() -> str:
    """The version of librserpool.so that is in use; `__version__` is the package's."""
    version: bytes = _library.rsp_version()
    return version.decode()


def counters() -> Dict[str, int]:
    """What the library did since the process began: the members of `struct rsp_counters` without their "rc_"."""
    known = _abi.Counters()
    _check(_library.rsp_getcounters(ctypes.byref(known), ctypes.sizeof(known)), "rsp_getcounters")
    return {name[3:]: getattr(known, name) for name, *_ in _abi.Counters._fields_}


def enable_logging(level: int = logging.INFO, logger: Optional[logging.Logger] = None) -> None:
    """Hands the library's log lines of at least `level` to a logger; default: "rserpool". For good."""
    to = logger or logging.getLogger("rserpool")
    switch = next((n for n, at in enumerate((logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG), 1)
                   if level >= at), 5)
    reading, writing = os.pipe()
    # The library opens the pipe anew; the end here stays, so that the reader never sees an end.
    info = _abi.Info()
    _library.rsp_initinfo(ctypes.byref(info))
    try:
        for argument in (f"-logfile=/proc/self/fd/{writing}", "-logcolor=off", f"-loglevel={switch}"):
            if _library.rsp_initarg(ctypes.byref(info), argument.encode()) == 0:
                raise RSerPoolError(errno.EIO, f"the library does not take {argument}")
    finally:
        _library.rsp_freeinfo(ctypes.byref(info))
    threading.Thread(target=_pass_on, args=(reading, to), name="rserpool log", daemon=True).start()


def _pass_on(reading: int, logger: logging.Logger) -> None:
    """Lines are "[time LEVEL module] text"."""
    levels = {"ERROR": logging.ERROR, "WARN": logging.WARNING, "INFO": logging.INFO, "DEBUG": logging.DEBUG}
    with os.fdopen(reading, errors="replace") as lines:
        for line in lines:
            head, _, text = line.rstrip().partition("] ")
            words = head.split()
            level = levels.get(words[1] if len(words) > 1 else "", 5)
            logger.log(level, "%s", text if words and head.startswith("[") else line.rstrip())


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
        # Parts of messages that are not whole yet, by session.
        self._parts: dict[int, list[bytes]] = {}
        # The wait set that knows when it is writable, once somebody asked, and who hears when both are gone.
        self._room: Optional[Descriptor] = None
        self._woken_by_close: set[Callable[[], None]] = set()

    def __repr__(self) -> str:
        numbers = self._numbers[:]
        state = "closed" if self.closed or not numbers else f"descriptor {numbers[0]}"
        return f"<rserpool.{type(self).__name__}: {self._about()}{state}>"

    def _about(self) -> str:
        return ""

    def __reduce__(self) -> NoReturn:
        # A copy would close the number once more, which may be somebody else's by then.
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled")

    def fileno(self) -> int:
        numbers = self._numbers[:]
        if not numbers or self._lifetime != _lifetime:
            raise ValueError("descriptor is closed")
        return numbers[0]

    def writable_fileno(self) -> int:
        """The number of a descriptor that is *readable* in any event loop while there is room for a message of this
        session, or sending fails at once: `fileno()` is never writable there. It is closed with this one."""
        with _lock:
            if self._room is None:
                number = self.fileno()
                room = Descriptor(_check(_library.rsp_waitset_create(), "rsp_waitset_create"))
                try:
                    _check(_library.rsp_waitset_set(room.fileno(), number, select.POLLOUT), "rsp_waitset_set", number)
                except RSerPoolError:
                    room.close()
                    raise
                self._room = room
            return self._room.fileno()

    @property
    def closed(self) -> bool:
        return not self._numbers or self._lifetime != _lifetime

    def close(self) -> None:
        try:
            number = self._numbers.pop()
        except IndexError:
            return
        try:
            if self._lifetime == _lifetime:
                _check(_library.rsp_close(number), "rsp_close", number)
        finally:
            if self._room is not None:
                self._room.close()
            for wake in list(self._woken_by_close):
                wake()

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
        ), timeout, "rsp_sendmsg", self.fileno)

    def send_cookie(self, cookie: Buffer, *, session: int = 0, timeout: Optional[float] = 5) -> None:
        """Gives the user a cookie, which it echoes to the next element after a failover. TimeoutError as for `send`."""
        cookie, session = _bytes(cookie), _number(session, "session", 31)
        _wait(lambda ms: _library.rsp_send_cookie(
            self.fileno(), cookie, len(cookie), session, ms
        ), timeout, "rsp_send_cookie", self.fileno)

    def receive(self, timeout: Optional[float] = None, size: Optional[int] = None) -> Optional[Event]:
        """The next message, whole, or cookie echo or notification; None at the end of the session.

        With `size`, a longer message comes in parts of up to so many bytes, the last of which has `end`. Raises
        TimeoutError when nothing (or no whole message) came within `timeout` seconds (None: waits for ever); what
        came is kept for the next call. One thread at a time receives from a descriptor.
        """
        end = None if timeout is None else time.monotonic() + timeout
        room = size or 65536
        while True:
            event = self._receive_part(None if end is None else max(0.0, end - time.monotonic()), room)
            if not isinstance(event, Message) or size is not None:
                if event is None or isinstance(event, (SessionChange, Shutdown)):
                    self._parts.pop(0 if event is None else event.session, None)
                return event
            parts = self._parts.pop(event.session, [])
            parts.append(event.data)
            if event.end:
                return event if len(parts) == 1 else replace(event, data=b"".join(parts))
            self._parts[event.session] = parts
            # There is more of it.
            room = 1 << 20

    def _receive_part(self, timeout: Optional[float], size: int) -> Optional[Event]:
        buffer = ctypes.create_string_buffer(max(size, ctypes.sizeof(_abi.Notification)))
        info, flags = _abi.SndRcvInfo(), ctypes.c_int(0)
        got = _wait(lambda ms: _library.rsp_recvmsg(
            self.fileno(), buffer, len(buffer), ctypes.byref(info), ctypes.byref(flags), ms
        ), timeout, "rsp_recvmsg", self.fileno)
        if flags.value & _abi.MSG_NOTIFICATION:
            raw = _abi.Notification.from_buffer(buffer)
            if raw.rn_header.rn_type == _abi.RSERPOOL_SEND_FAILED:
                failed, size = raw.rn_send_failed, ctypes.sizeof(raw)
                head = ctypes.string_at(ctypes.addressof(buffer) + size, got - size)
                return SendFailed(0, failed.rsf_pe_id, failed.rsf_state == 2, head, failed.rsf_message_length)
            return _notification(raw)
        if flags.value & _abi.MSG_COOKIE_ECHO:
            return CookieEcho(ctypes.string_at(buffer, got), info.rinfo_session)
        if got == 0 and not flags.value & _abi.MSG_EOR:
            return None
        ppid = socket.ntohl(info.rinfo_ppid)
        end = bool(flags.value & _abi.MSG_EOR)
        return Message(ctypes.string_at(buffer, got), info.rinfo_session, ppid, info.rinfo_stream, info.rinfo_pe_id, end)


class _Writing(Descriptor):
    """What one-to-many descriptors can: messages to pools without a session."""

    def send_to_pool(self, handle: Handle, data: Buffer, *, element: int = 0, last: bool = False, failover: Optional[bool] = None,
                     ppid: int = 0, stream: int = 0, unordered: bool = False, stale: float = 0,
                     timeout: Optional[float] = None) -> int:
        """Sends one message to whom the pool's policy chooses, anew each time; the element that got it.

        With `element` to that one, with `last` to whom the last message to this pool went. `failover` says whether
        another one gets the message if that one can't be reached: by default only if it is not a certain one. What
        comes back is received here, with its sender as `element`. PoolNotFound when nobody is there (or not that one).
        """
        options = _abi.SEND_TO_LAST if last else 0
        if failover is not None:
            options |= _abi.SEND_FAILOVER if failover else _abi.SEND_NO_FAILOVER
        to = ctypes.c_uint32(_number(element, "element"))
        self._to_pool(handle, data, options, to, ppid, stream, unordered, stale, timeout)
        return to.value

    def send_to_all(self, handle: Handle, data: Buffer, *, to_self: bool = False, ppid: int = 0, stream: int = 0,
                    unordered: bool = False, timeout: Optional[float] = None) -> int:
        """Sends a copy to each of the pool's elements, but to the one registered here only with `to_self`; how many
        got one. A `SendFailed` is received for each that could not be reached."""
        options = _abi.SEND_TO_ALL | (_abi.SEND_TO_SELF if to_self else 0)
        return self._to_pool(handle, data, options, ctypes.c_uint32(0), ppid, stream, unordered, 0, timeout)

    def send_to_address(self, address: tuple[str, int], data: Buffer, *, ppid: int = 0, stream: int = 0, unordered: bool = False,
                        timeout: Optional[float] = None) -> None:
        """Sends one message to whoever is at an address (numeric host, port): no pool, no failover. Over TCP the bytes
        as they are, without the framing of sessions. What comes back is received here."""
        data, to = _bytes(data), _sockaddr(address)
        ppid, stream = socket.htonl(_number(ppid, "ppid")), _number(stream, "stream", 16)
        wait = 2**31 - 1 if timeout is None else _ms(timeout)
        result = _library.rsp_sendto_address(self.fileno(), data, len(data), _abi.SCTP_UNORDER if unordered else 0, to,
                                             ppid, stream, 0, wait)
        if result < 0 and ctypes.get_errno() == errno.EAGAIN:
            raise TimeoutError(errno.EAGAIN, f"rsp_sendto_address: no room within {timeout} s")
        _check(result, "rsp_sendto_address", self.fileno())

    def _to_pool(self, handle: Handle, data: Buffer, options: int, to: ctypes.c_uint32, ppid: int, stream: int,
                 unordered: bool, stale: float, timeout: Optional[float]) -> int:
        name, data, age = _handle(handle), _bytes(data), _stale(stale)
        ppid, stream = socket.htonl(_number(ppid, "ppid")), _number(stream, "stream", 16)
        options |= _abi.SCTP_UNORDER if unordered else 0
        wait = 2**31 - 1 if timeout is None else _ms(timeout)
        result = _library.rsp_sendto_pool(self.fileno(), data, len(data), options, name, len(name), ctypes.byref(to),
                                          age, ppid, stream, 0, wait)
        if result < 0 and ctypes.get_errno() == errno.EAGAIN:
            raise TimeoutError(errno.EAGAIN, f"rsp_sendto_pool: no room within {timeout} s")
        return _check(result, "rsp_sendto_pool", self.fileno())


def _notification(raw: _abi.Notification) -> Notification:
    kind = raw.rn_header.rn_type
    if kind == 1:
        change = raw.rn_session_change
        return SessionChange(change.rsc_session, change.rsc_state == 1)
    if kind == 2:
        failover = raw.rn_failover
        return Failover(failover.rf_session, failover.rf_state == 2, bool(failover.rf_has_cookie))
    return Shutdown(raw.rn_shutdown_event.rse_session)


class _Context(Descriptor):
    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()


class Session(_Context):
    """A session with an element of a pool (client side), or with one user (server side)."""

    def __init__(self, number: int, *, handle: Optional[bytes] = None, automatic: bool = False,
                 on_failover: Optional[FailoverCallback] = None) -> None:
        super().__init__(number)
        self.handle = handle
        self._automatic = automatic
        self._on_failover = on_failover

    def _about(self) -> str:
        if self.handle is None:
            return ""
        with contextlib.suppress(OSError, ValueError):
            return f"pool {self.handle!r}, element {self.element:#010x}, "
        return f"pool {self.handle!r}, "

    def __enter__(self) -> "Session":
        return self

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        await asyncio.to_thread(self.close)

    def send(self, data: Buffer, *, session: int = 0, ppid: int = 0, stream: int = 0,
             timeout: Optional[float] = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                return super().send(data, session=session, ppid=ppid, stream=stream, timeout=left)
            except FailoverNecessary:
                if not self._automatic:
                    raise
                self._move(end)

    send.__doc__ = Descriptor.send.__doc__

    def receive(self, timeout: Optional[float] = None, size: Optional[int] = None) -> Optional[Event]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            event = super().receive(None if end is None else max(0.0, end - time.monotonic()), size)
            if isinstance(event, Failover):
                # Half a message of an element that is gone.
                self._parts.clear()
                if self._automatic:
                    if event.complete:
                        if self._on_failover is not None:
                            self._on_failover(self, event)
                    else:
                        self._move(end)
                    continue
            return event

    receive.__doc__ = Descriptor.receive.__doc__

    def receive_message(self, timeout: Optional[float] = None) -> Message:
        """The next message; other events are passed over. SessionEnded at the end, FailoverNecessary when the element is
        lost, TimeoutError when nothing came within `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            event = self.receive(None if end is None else max(0.0, end - time.monotonic()))
            if isinstance(event, Message):
                return event
            self._refuse(event)

    def _refuse(self, event: Optional[Event]) -> None:
        """Raises for events after which no message comes."""
        if event is None:
            raise SessionEnded(errno.EPIPE, "the session is over")
        if isinstance(event, Failover) and not event.complete:
            code, text = _why(self.fileno())
            about = "" if self.handle is None else f" of pool {self.handle!r}"
            raise _error(FailoverNecessary, errno.EIO, f"the session{about} needs a failover{text and ': '}{text}", code)

    def _move(self, end: Optional[float]) -> None:
        """Until there is an element. NoRegistrar, PoolNotFound or why else there is none, when time is over."""
        while True:
            try:
                if self.failover():
                    return
                error = _fail("rsp_forcefailover", self.fileno())
            except RSerPoolError as failure:
                if failure.errno == errno.EBADF:
                    raise
                error = failure
            if end is not None and time.monotonic() >= end:
                raise error

    def failover(self, *, unreachable: bool = True, stale: float = 0) -> bool:
        """Moves the session to another element; `unreachable` reports the old one to the registrar. What is known about
        the pool may be `stale` seconds old.

        A `Failover` that is complete follows. False: nobody is in the pool just now; try again. So for NoRegistrar.
        """
        flags = _abi.FFF_UNREACHABLE if unreachable else 0
        sd, age = self.fileno(), _stale(stale)
        ctypes.set_errno(0)
        _check(_library.rsp_forcefailover(sd, flags, age), "rsp_forcefailover", sd)
        return ctypes.get_errno() == 0

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
        """Messages until the session ends; other events are passed over. FailoverNecessary when the element is lost."""
        while (event := self.receive()) is not None:
            self._refuse(event)
            if isinstance(event, Message):
                yield event

    async def __aiter__(self) -> AsyncIterator[Message]:
        """The same on an event loop."""
        from . import aio

        async for message in aio.messages(self):
            yield message


FailoverCallback = Callable[[Session, Failover], None]


def connect(handle: Handle, *, stale: float = 0, notifications: bool = True, failover: bool = False,
            on_failover: Optional[FailoverCallback] = None) -> Session:
    """Opens a session with an element of the pool, chosen by the pool's policy.

    What is known about the pool may be `stale` seconds old. With `notifications`, losing an element is told by
    a `Failover`, else it looks like the end of the session.

    With `failover`, a session that loses its element moves to another one by itself, in the call that notices it
    (`receive`, `send`, iteration); `on_failover(session, event)` is called then, and has to say again what the
    new element can't know if `event.has_cookie` is False. Else, as `rsp_connect`, it succeeds even when no
    element can be reached just now: the first event is then a necessary `Failover`.
    """
    initialize()
    automatic = failover or on_failover is not None
    style = socket.SOCK_SEQPACKET if notifications or automatic else socket.SOCK_STREAM
    name, age = _handle(handle), _stale(stale)
    number = _check(_library.rsp_socket(0, style, _abi.IPPROTO_SCTP), "rsp_socket")
    session = Session(number, handle=name, automatic=automatic, on_failover=on_failover)
    try:
        ctypes.set_errno(0)
        _check(_library.rsp_connect(session.fileno(), name, len(name), age), "rsp_connect", session.fileno())
    except BaseException:
        session.close()
        raise
    return session


class Sender(_Context, _Writing):
    """A pool user without sessions: sends messages to pools, and receives what elements answer."""

    def __init__(self) -> None:
        initialize()
        super().__init__(_check(_library.rsp_socket(0, socket.SOCK_SEQPACKET, _abi.IPPROTO_SCTP), "rsp_socket"))

    def __enter__(self) -> "Sender":
        return self


class Element(_Context, _Writing):
    """A pool element: registered as long as it is open.

    A registrar that refuses is RegistrationRefused, none at all is NoRegistrar. With `wait` False neither is waited
    for: `registered` is None then, and it is tried again in the background.

    `advertise` is where users reach it, "host[:port]", if that is not where it listens: behind NAT, or a published port.

    Its users' sessions are taken with `accept`, or by iteration; with `one_to_many` they are all received from and sent to here: a
    `SessionChange` tells their numbers, which every event has and every `send` wants.
    """

    def __init__(self, handle: Handle, *, policy: Policy = Policy.ROUND_ROBIN, weight: int = 1, load: int = 0,
                 degradation: int = 0, identifier: int = 0, interval: float = 30, backlog: int = 128,
                 wait: bool = True, one_to_many: bool = False, advertise: Optional[str] = None) -> None:
        self.handle = _handle(handle)
        self._interval = _number(round(interval * 1000), "interval (ms)")
        self._load = _abi.LoadInfo(
            _number(policy, "policy"), _number(weight, "weight"), 0, _number(load, "load"),
            _number(degradation, "degradation"), 0,
        )
        tags = (_abi.TagItem * 3)()
        if _number(identifier, "identifier"):
            tags[0].Tag, tags[0].Data = _abi.TAG_POOL_ELEMENT_IDENTIFIER, identifier
        else:
            tags[0].Tag = _abi.TAG_IGNORE
        # As long as the tags are read.
        place = ctypes.create_string_buffer((advertise or "").encode())
        if advertise:
            tags[1].Tag, tags[1].Data = _abi.TAG_POOL_ELEMENT_ADVERTISE, ctypes.addressof(place)
        initialize()
        style = socket.SOCK_SEQPACKET if one_to_many else socket.SOCK_STREAM
        super().__init__(_check(_library.rsp_socket(0, style, _abi.IPPROTO_SCTP), "rsp_socket"))
        try:
            _check(_library.rsp_bind(self.fileno(), None, 0), "rsp_bind")
            _check(_library.rsp_listen(self.fileno(), backlog), "rsp_listen")
            self._register(0 if wait else _abi.REGF_DONTWAIT, tags)
            self.registered: Optional[bool] = True if wait else None
        except BaseException:
            self.close()
            raise

    def _register(self, flags: int, tags: Optional[ctypes.Array[_abi.TagItem]]) -> None:
        result = _library.rsp_register_tags(
            self.fileno(), self.handle, len(self.handle), ctypes.byref(self._load), self._interval, flags, tags
        )
        _check(result, "rsp_register", self.fileno())
        code, text = _why(self.fileno())
        if code and not flags & _abi.REGF_DONTWAIT:
            kind = NoRegistrar if code in _NO_ANSWER else RegistrationRefused
            number = errno.ETIMEDOUT if kind is NoRegistrar else errno.EACCES
            raise _error(kind, number, text or f"the registration was refused with code {code:#x}", code)

    def _about(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return f"{self.identifier:#010x} of pool {self.handle!r}, "
        return f"pool {self.handle!r}, "

    def __enter__(self) -> "Element":
        return self

    def __iter__(self) -> Iterator[Session]:
        """Users' sessions, for ever."""
        while True:
            yield self.accept()

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
        return Session(_wait(lambda ms: _library.rsp_accept(self.fileno(), ms), timeout, "rsp_accept", self.fileno))


def resolve(handle: Handle, *, items: Optional[int] = 3, stale: float = 0) -> list[Address]:
    """Up to `items` elements of the pool (None: all), chosen by its policy (basic mode), as known `stale` seconds ago at most.

    PoolNotFound when there is no such pool, NoRegistrar when nobody could be asked.
    """
    name, age = _handle(handle), _stale(stale)
    items = _abi.GETADDRS_ALL if items is None else _number(items, "items", 31)
    initialize()
    first = ctypes.POINTER(_abi.AddrInfo)()
    result = _library.rsp_getaddrinfo(name, len(name), ctypes.byref(first), items, age)
    if result == _abi.REAI_NONAME:
        raise _error(PoolNotFound, errno.ENOENT, _why(-1)[1] or f"nobody is in pool {name!r}", _NOT_FOUND)
    if result == _abi.REAI_MEMORY:
        raise MemoryError
    if result < 0:
        raise _fail(f"resolution of {name!r}")
    try:
        return list(_addresses(first))
    finally:
        _library.rsp_freeaddrinfo(first)


def populate(handle: Handle) -> int:
    """Asks a registrar for all elements of the pool, ahead of need; how many are known now. NoRegistrar when nobody
    could be asked."""
    name = _handle(handle)
    initialize()
    return _check(_library.rsp_cache_populate(name, len(name)), "rsp_cache_populate")


def forget(handle: Handle) -> None:
    """Forgets what is known of the pool: whoever resolves it next asks a registrar, whatever `stale` says."""
    name = _handle(handle)
    initialize()
    _check(_library.rsp_cache_purge(name, len(name)), "rsp_cache_purge")


def _sockaddr(address: tuple[str, int]) -> "ctypes.Array[ctypes.c_char]":
    """A struct sockaddr_in or sockaddr_in6. ValueError if the host is no numeric address."""
    host, port = address
    port = _number(port, "port", 16)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ip = socket.inet_pton(family, host)
    except OSError:
        raise ValueError(f"{host!r} is no IPv4 or IPv6 address") from None
    head = family.to_bytes(2, sys.byteorder) + port.to_bytes(2, "big")
    raw = head + (ip + bytes(8) if family == socket.AF_INET else bytes(4) + ip + bytes(4))
    return ctypes.create_string_buffer(raw, len(raw))


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
