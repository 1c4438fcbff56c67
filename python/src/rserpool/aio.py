"""The same for asyncio: descriptors are real file descriptors, watched by the event loop."""

from __future__ import annotations

import asyncio
from typing import AsyncIterator, Optional

from . import Descriptor, Element, Event, Handle, Message, Session, connect as _connect

__all__ = ["accept", "connect", "messages", "readable", "receive"]


async def readable(descriptor: Descriptor) -> None:
    """Waits until there is something to receive or accept."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    number = descriptor.fileno()
    loop.add_reader(number, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(number)


async def receive(descriptor: Descriptor) -> Optional[Event]:
    """The next message, cookie echo or notification; None at the end of the session."""
    while True:
        try:
            return descriptor.receive(timeout=0)
        except TimeoutError:
            await readable(descriptor)


async def messages(session: Session) -> AsyncIterator[Message]:
    """Messages until the session ends."""
    while (event := await receive(session)) is not None:
        if isinstance(event, Message):
            yield event


async def accept(element: Element) -> Session:
    """The next user's session."""
    while True:
        try:
            return element.accept(timeout=0)
        except TimeoutError:
            await readable(element)


async def connect(handle: Handle, *, stale: int = 0) -> Session:
    """As `rserpool.connect`, without blocking the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: _connect(handle, stale=stale))
