"""The same for asyncio: descriptors are real file descriptors, watched by the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Optional, Union

from . import (
    Address, Buffer, Descriptor, Event, Failover, FailoverCallback, FailoverNecessary, Handle, Message, Policy, RSerPoolError, Sender,
    Session,
)
from . import Element as _Element, connect as _connect, populate as _populate, resolve as _resolve
from . import _bytes, _woken_by_cleanup

__all__ = [
    "Element", "accept", "connect", "failover", "messages", "populate", "readable", "receive", "resolve", "send", "send_to_address",
    "send_to_all", "send_to_pool", "writable",
]

# Seconds after which a sender looks whether it is still wanted.
PATIENCE = 0.1


async def readable(descriptor: Descriptor) -> None:
    """Waits until there is something to receive or accept. EBADF when the descriptor is closed meanwhile."""
    await _shown_by(descriptor.fileno(), descriptor)


async def writable(session: Session) -> None:
    """Waits until there is room for a message, or sending fails at once. EBADF when the session is closed meanwhile."""
    await _shown_by(session.writable_fileno(), session)


async def _shown_by(number: int, descriptor: Descriptor) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    def wake_from_anywhere() -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(wake)

    # A number of its own: a loop has one reader for each, and forgets those that are closed while it waits.
    number = os.dup(number)
    wakers = (_woken_by_cleanup, descriptor._woken_by_close)
    for woken in wakers:
        woken.add(wake_from_anywhere)
    try:
        loop.add_reader(number, wake)
        try:
            if not descriptor.closed:
                await ready
        finally:
            loop.remove_reader(number)
    finally:
        for woken in wakers:
            woken.discard(wake_from_anywhere)
        os.close(number)
    if descriptor.closed:
        raise RSerPoolError(errno.EBADF, "closed meanwhile")


async def receive(descriptor: Descriptor) -> Optional[Event]:
    """The next message, whole, or cookie echo or notification; None at the end of the session. A session with automatic
    failover moves meanwhile."""
    while True:
        try:
            event = Descriptor.receive(descriptor, timeout=0)
        except TimeoutError:
            await readable(descriptor)
            continue
        if not isinstance(descriptor, Session) or not isinstance(event, Failover):
            return event
        descriptor._parts.clear()
        if not descriptor._automatic:
            return event
        if not event.complete:
            # It may wait for a registrar, for new elements, for connections.
            await _while_wanted(descriptor.failover, descriptor)
        elif descriptor._on_failover is not None:
            descriptor._on_failover(descriptor, event)


async def _while_wanted(move: Callable[[], bool], descriptor: Descriptor) -> None:
    """Again and again, until it succeeds or the descriptor is closed."""
    while True:
        try:
            if await asyncio.to_thread(move):
                return
        except RSerPoolError as error:
            if error.errno == errno.EBADF or descriptor.closed:
                raise


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
        while True:
            try:
                return Descriptor.send(descriptor, data, session=session, ppid=ppid, stream=stream, timeout=0)
            except TimeoutError:
                # Of the sessions of a one-to-many descriptor each has room of its own.
                if not isinstance(descriptor, Session):
                    break
            await writable(descriptor)
    except FailoverNecessary:
        if not (isinstance(descriptor, Session) and descriptor._automatic):
            raise
    except RSerPoolError as error:
        # The longest messages can only be sent by those who may wait.
        if error.errno != errno.EMSGSIZE:
            raise
    try:
        return await asyncio.to_thread(wait)
    finally:
        given_up.set()


async def send_to_pool(sender: Union[Sender, _Element, Element], handle: Handle, data: Buffer, *, element: int = 0, last: bool = False,
                       failover: Optional[bool] = None, ppid: int = 0, stream: int = 0, unordered: bool = False,
                       stale: float = 0, timeout: Optional[float] = None) -> int:
    """As `Sender.send_to_pool`, without blocking the event loop while it asks, connects, or waits for room. When it is
    cancelled, the message may still be sent."""
    data = _bytes(data)
    return await asyncio.to_thread(
        _sender(sender).send_to_pool, handle, data, element=element, last=last, failover=failover, ppid=ppid, stream=stream,
        unordered=unordered, stale=stale, timeout=timeout,
    )


async def send_to_all(sender: Union[Sender, _Element, Element], handle: Handle, data: Buffer, *, to_self: bool = False, ppid: int = 0,
                      stream: int = 0, unordered: bool = False, timeout: Optional[float] = None) -> int:
    """As `Sender.send_to_all`, without blocking the event loop."""
    data = _bytes(data)
    return await asyncio.to_thread(
        _sender(sender).send_to_all, handle, data, to_self=to_self, ppid=ppid, stream=stream, unordered=unordered, timeout=timeout
    )


async def send_to_address(sender: Union[Sender, _Element, Element], address: tuple[str, int], data: Buffer, *, ppid: int = 0,
                          stream: int = 0, unordered: bool = False, timeout: Optional[float] = None) -> None:
    """As `Sender.send_to_address`, without blocking the event loop."""
    data = _bytes(data)
    await asyncio.to_thread(
        _sender(sender).send_to_address, address, data, ppid=ppid, stream=stream, unordered=unordered, timeout=timeout
    )


async def populate(handle: Handle) -> int:
    """As `rserpool.populate`, without blocking the event loop."""
    return await asyncio.to_thread(_populate, handle)


def _sender(sender: Union[Sender, _Element, "Element"]) -> Union[Sender, _Element]:
    return sender.element if isinstance(sender, Element) else sender


async def failover(session: Session, *, unreachable: bool = True, stale: float = 0) -> bool:
    """As `Session.failover`, without blocking the event loop."""
    return await asyncio.to_thread(session.failover, unreachable=unreachable, stale=stale)


async def messages(session: Session) -> AsyncIterator[Message]:
    """Messages until the session ends; other events are passed over. FailoverNecessary when the element is lost."""
    while (event := await receive(session)) is not None:
        session._refuse(event)
        if isinstance(event, Message):
            yield event


class Element:
    """As `rserpool.Element`, without blocking the event loop while it registers and leaves:

        async with aio.Element("EchoPool") as element:
            async for session in element:
                ...

    `await aio.Element(..)` registers it as well, to be closed by `await element.close()`.
    """

    def __init__(self, handle: Handle, *, policy: Policy = Policy.ROUND_ROBIN, weight: int = 1, load: int = 0,
                 degradation: int = 0, identifier: int = 0, interval: float = 30, backlog: int = 128,
                 wait: bool = True, one_to_many: bool = False, advertise: Optional[str] = None) -> None:
        self._make = lambda: _Element(
            handle, policy=policy, weight=weight, load=load, degradation=degradation, identifier=identifier,
            interval=interval, backlog=backlog, wait=wait, one_to_many=one_to_many, advertise=advertise,
        )
        self._element: Optional[_Element] = None

    def __repr__(self) -> str:
        return repr(self._element) if self._element else "<rserpool.aio.Element: not registered yet>"

    async def _start(self) -> "Element":
        if self._element is None:
            making = asyncio.ensure_future(asyncio.to_thread(self._make))
            try:
                self._element = await asyncio.shield(making)
            except asyncio.CancelledError:
                # Nobody will close it.
                making.add_done_callback(lambda made: None if made.exception() else made.result().close())
                raise
        return self

    def __await__(self) -> Generator[Any, None, "Element"]:
        return self._start().__await__()

    async def __aenter__(self) -> "Element":
        return await self._start()

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        await self.close()

    @property
    def element(self) -> _Element:
        """What is behind it. ValueError before it is registered."""
        if self._element is None:
            raise ValueError("the element is not registered yet: use async with, or await it")
        return self._element

    @property
    def identifier(self) -> int:
        return self.element.identifier

    @property
    def handle(self) -> bytes:
        return self.element.handle

    @property
    def registered(self) -> Optional[bool]:
        return self._element.registered if self._element else False

    @property
    def closed(self) -> bool:
        return self._element is not None and self._element.closed

    def fileno(self) -> int:
        return self.element.fileno()

    def set_load(self, load: float) -> None:
        """Tells the registrar the load, 0 to 1. Doesn't wait."""
        self.element.set_load(load)

    async def accept(self) -> Session:
        """The next user's session."""
        return await accept(self.element)

    async def receive(self) -> Optional[Event]:
        """With `one_to_many`: what the sessions bring."""
        return await receive(self.element)

    async def send(self, data: Buffer, *, session: int = 0, ppid: int = 0, stream: int = 0) -> int:
        """With `one_to_many`: to one of the sessions."""
        return await send(self.element, data, session=session, ppid=ppid, stream=stream)

    async def __aiter__(self) -> AsyncIterator[Session]:
        """Users' sessions, for ever."""
        while True:
            yield await self.accept()

    async def close(self) -> None:
        """Takes the element out of its pool."""
        if self._element is not None:
            await asyncio.to_thread(self._element.close)


async def accept(element: _Element) -> Session:
    """The next user's session."""
    while True:
        try:
            return element.accept(timeout=0)
        except TimeoutError:
            await readable(element)


class _Connecting:
    """`await` it, or use it with `async with`."""

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._session: Optional[Session] = None

    def __await__(self) -> Generator[Any, None, Session]:
        return asyncio.to_thread(self._make).__await__()

    async def __aenter__(self) -> Session:
        self._session = await self
        return self._session

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        traceback: Optional[TracebackType]) -> None:
        if self._session is not None:
            await asyncio.to_thread(self._session.close)


def connect(handle: Handle, *, stale: float = 0, notifications: bool = True, failover: bool = False,
            on_failover: Optional[FailoverCallback] = None) -> _Connecting:
    """As `rserpool.connect`, without blocking the event loop: `session = await aio.connect(..)`, or
    `async with aio.connect(..) as session`."""
    return _Connecting(lambda: _connect(
        handle, stale=stale, notifications=notifications, failover=failover, on_failover=on_failover
    ))


async def resolve(handle: Handle, *, items: int = 3, stale: float = 0) -> list[Address]:
    """As `rserpool.resolve`, without blocking the event loop."""
    return await asyncio.to_thread(_resolve, handle, items=items, stale=stale)
