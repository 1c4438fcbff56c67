"""The same for asyncio: descriptors are real file descriptors, watched by the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator
from typing import Optional

from . import Buffer, Descriptor, Element, Event, Handle, Message, RSerPoolError, Session, connect as _connect
from . import _bytes, _is_last, _woken_by_cleanup

__all__ = ["accept", "connect", "failover", "messages", "readable", "receive", "send"]

# Seconds after which a sender looks whether it is still wanted.
PATIENCE = 0.1


async def readable(descriptor: Descriptor) -> None:
    """Waits until there is something to receive or accept. EBADF when the descriptor is closed meanwhile."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    def wake_from_anywhere() -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(wake)

    # A number of its own: a loop has one reader for each, and forgets those that are closed while it waits.
    number = os.dup(descriptor.fileno())
    _woken_by_cleanup.add(wake_from_anywhere)
    try:
        loop.add_reader(number, wake)
        try:
            await ready
        finally:
            loop.remove_reader(number)
    finally:
        _woken_by_cleanup.discard(wake_from_anywhere)
        os.close(number)
    if descriptor.closed:
        raise RSerPoolError(errno.EBADF, "closed meanwhile")


async def receive(descriptor: Descriptor) -> Optional[Event]:
    """The next message, cookie echo or notification; None at the end of the session."""
    while True:
        try:
            return descriptor.receive(timeout=0)
        except TimeoutError:
            await readable(descriptor)


async def send(descriptor: Descriptor, data: Buffer, *, session: int = 0, ppid: int = 0, stream: int = 0) -> int:
    """Sends one message, without blocking the event loop while there is no room. When it is cancelled, the message may
    still be sent within a moment."""
    given_up = threading.Event()
    # As it is now, whatever others do with it meanwhile.
    data = _bytes(data)

    def wait() -> int:
        while not given_up.is_set():
            with contextlib.suppress(TimeoutError):
                return descriptor.send(data, session=session, ppid=ppid, stream=stream, timeout=PATIENCE)
        return 0

    try:
        return descriptor.send(data, session=session, ppid=ppid, stream=stream, timeout=0)
    except TimeoutError:
        pass
    except RSerPoolError as error:
        # The longest messages can only be sent by those who may wait.
        if error.errno != errno.EMSGSIZE:
            raise
    try:
        # Readability is all that an event loop can see of a descriptor.
        return await asyncio.to_thread(wait)
    finally:
        given_up.set()


async def failover(session: Session, *, unreachable: bool = True, stale: int = 0) -> None:
    """As `Session.failover`, without blocking the event loop."""
    await asyncio.to_thread(session.failover, unreachable=unreachable, stale=stale)


async def messages(session: Session) -> AsyncIterator[Message]:
    """Messages until the session ends, or until a `failover` is necessary; other events are passed over."""
    while not _is_last(event := await receive(session)):
        if isinstance(event, Message):
            yield event


async def accept(element: Element) -> Session:
    """The next user's session."""
    while True:
        try:
            return element.accept(timeout=0)
        except TimeoutError:
            await readable(element)


async def connect(handle: Handle, *, stale: int = 0, notifications: bool = True) -> Session:
    """As `rserpool.connect`, without blocking the event loop."""
    return await asyncio.to_thread(_connect, handle, stale=stale, notifications=notifications)
