"""Serves and downloads a file from a pool, as `make demo` does: the download survives its servers.

    download.py serve DIRECTORY [POOL]      as often as you like, on as many hosts as you like
    download.py get FILE TO [POOL]          kill the server in use meanwhile, and see

A user asks "GET <offset> <name>". Each answer is 16 bytes (offset of its bytes, size of the file) and
data; a cookie after every megabyte is the request that goes on from there. So a server needs no state.
"""

import asyncio
import struct
import sys
from pathlib import Path

import rserpool
from rserpool import aio

HEADER = struct.Struct("!QQ")
CHUNK, COOKIE_EVERY = 32768, 1 << 20


def send_file(session: rserpool.Session, directory: Path, request: bytes) -> None:
    _, offset, name = request.decode().split(" ", 2)
    position, told = int(offset), int(offset)
    path = (directory / name).resolve()
    if directory.resolve() not in path.parents or not path.is_file():
        session.send(HEADER.pack(0, 2**64 - 1))
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(position)
        while position < size:
            data = file.read(CHUNK)
            session.send(HEADER.pack(position, size) + data)
            position += len(data)
            if position - told >= COOKIE_EVERY:
                told = position
                session.send_cookie(f"GET {position} {name}".encode())


async def serve_one(session: rserpool.Session, directory: Path) -> None:
    with session:
        try:
            while (event := await aio.receive(session)) is not None:
                request = {rserpool.Message: "data", rserpool.CookieEcho: "cookie"}.get(type(event))
                if request:
                    await asyncio.to_thread(send_file, session, directory, getattr(event, request))
        except (OSError, ValueError) as error:
            print(f"a session ended: {error}", file=sys.stderr)


async def serve(directory: Path, pool: str) -> None:
    tasks: "set[asyncio.Task[None]]" = set()
    with rserpool.Element(pool) as element:
        print(f"serving {directory} as element {element.identifier:#010x} of {pool}", flush=True)
        while True:
            task = asyncio.create_task(serve_one(await aio.accept(element), directory))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def get(name: str, to: Path, pool: str) -> None:
    position, size, server = 0, -1, 0
    with await aio.connect(pool) as session, to.open("wb") as file:

        def ask() -> None:
            session.send(f"GET {position} {name}".encode(), timeout=5)

        if session.element:
            ask()
        while position != size:
            event = await aio.receive(session)
            if isinstance(event, rserpool.Failover) and not event.complete:
                await asyncio.to_thread(session.failover)
            elif isinstance(event, rserpool.Failover) and not event.has_cookie:
                ask()
            elif isinstance(event, rserpool.Message):
                offset, size = HEADER.unpack_from(event.data)
                if size == 2**64 - 1:
                    sys.exit(f"there is no {name!r}")
                if event.element != server:
                    server = event.element
                    print(f"element {server:#010x} from byte {offset}", flush=True)
                # A cookie may lie behind what has arrived: each byte is taken once.
                fresh = event.data[HEADER.size + max(0, position - offset):]
                file.write(fresh)
                position += len(fresh)
    print(f"done: {position} bytes")


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["help"]
    if command == "serve" and rest:
        asyncio.run(serve(Path(rest[0]), rest[1] if len(rest) > 1 else "DownloadPool"))
    elif command == "get" and len(rest) > 1:
        asyncio.run(get(rest[0], Path(rest[1]), rest[2] if len(rest) > 2 else "DownloadPool"))
    else:
        sys.exit(__doc__)
