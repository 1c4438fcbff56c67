"""What a Python programmer expects: exceptions that say why, whole messages, failover by itself, asyncio, seconds."""

import asyncio
import errno
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rserpool
from rserpool import aio
from conftest import SOON

PACKAGE = Path(__file__).parent.parent


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Another Python, without this one's library."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})


def test_one_family_with_errno():
    for kind in (rserpool.PoolNotFound, rserpool.NoRegistrar, rserpool.RegistrationRefused, rserpool.FailoverNecessary,
                 rserpool.SessionEnded):
        assert issubclass(kind, rserpool.RSerPoolError) and issubclass(kind, OSError)


def test_refused_element_raises_and_says_why(pool):
    # Whichever test is the first: the library's own descriptors are there before any are counted.
    rserpool.Element(pool).close()
    before = len(os.listdir("/proc/self/fd"))
    with rserpool.Element(pool) as element:
        assert element.registered is True
        with pytest.raises(rserpool.RegistrationRefused, match="RoundRobin.*LeastUsed") as refused:
            rserpool.Element(pool, policy=rserpool.Policy.LEAST_USED)
        assert refused.value.code == 0x5 and pool in str(refused.value)

        async def main() -> None:
            with pytest.raises(rserpool.RegistrationRefused):
                async with aio.Element(pool, policy=rserpool.Policy.LEAST_USED):
                    pytest.fail("it is refused")

        asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before


NOBODY = {"RSP_REGISTRAR": "127.0.0.1:9", "RSP_CONNECT_TIMEOUT": "300", "RSP_RESPONSE_TIMEOUT": "300"}


@pytest.mark.parametrize("call", ["rserpool.Element('P')", "rserpool.resolve('P')",
                                  "asyncio.run(aio.resolve('P'))", "asyncio.run(aio.Element('P')._start())"])
def test_no_registrar_is_named(call):
    code = f"""
import asyncio, rserpool
from rserpool import aio
try:
    {call}
except rserpool.NoRegistrar as error:
    assert "127.0.0.1:9 over TCP" in str(error) and error.errno and error.code == 0x1007, repr(error)
    print("named")
"""
    done = python(code, **NOBODY)
    assert done.stdout == "named\n", done.stderr


def test_registration_does_not_block_the_loop():
    code = """
import asyncio, time, rserpool
from rserpool import aio
async def main():
    longest, last = 0, time.monotonic()
    task = asyncio.ensure_future(aio.Element("P")._start())
    while not task.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert isinstance(task.exception(), rserpool.NoRegistrar)
    assert longest < 0.2, longest
asyncio.run(main())
"""
    done = python(code, **NOBODY)
    assert done.returncode == 0, done.stderr


def test_a_session_without_an_element_says_why(pool):
    with rserpool.connect(pool) as session:
        with pytest.raises(rserpool.FailoverNecessary, match=pool):
            session.send(b"x", timeout=1)
        with pytest.raises(rserpool.FailoverNecessary, match=pool):
            session.receive_message(timeout=SOON)
        assert not session.failover()


@pytest.mark.parametrize("size", [65536, 65537, 200_000, 3_000_000])
def test_messages_are_whole(pool, size):
    data = os.urandom(size)
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        with element.accept(timeout=SOON) as session:
            user.send(data)
            message = session.receive(timeout=SOON)
            assert isinstance(message, rserpool.Message) and message.data == data and message.end


def test_messages_are_whole_on_one_descriptor_for_all(pool):
    with rserpool.Element(pool, one_to_many=True) as element:
        with rserpool.connect(pool) as first, rserpool.connect(pool) as second:
            wanted = {}
            for user, letter in ((first, b"1"), (second, b"2")):
                user.send(letter * 200_000)
            while len(wanted) < 2:
                event = element.receive(timeout=SOON)
                if isinstance(event, rserpool.Message):
                    wanted[event.session] = event.data
            assert sorted(wanted.values()) == [b"1" * 200_000, b"2" * 200_000]


def test_the_end_is_told_from_a_failure(pool):
    with rserpool.Element(pool) as element:
        with rserpool.connect(pool) as user:
            session = element.accept(timeout=SOON)
            user.send(b"last")
        with session:
            assert session.receive_message(timeout=SOON).data == b"last"
            with pytest.raises(rserpool.SessionEnded) as ended:
                session.receive_message(timeout=SOON)
            assert ended.value.errno == errno.EPIPE


def test_failover_by_itself(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0x201, 0x202, 0x203)}
    seen = []

    def moved(session: rserpool.Session, event: rserpool.Failover) -> None:
        seen.append((session.element, event.has_cookie))

    with rserpool.connect(pool, on_failover=moved) as session:
        session.send(b"x")
        assert session.receive_message(timeout=SOON).data == b"1 x"
        for count in (2, 3):
            victim = session.element
            servers.pop(victim).kill()
            # It is noticed in either call.
            while not seen or seen[-1][0] == victim or len(seen) < count - 1:
                try:
                    session.receive(timeout=0.05)
                except TimeoutError:
                    pass
            session.send(b"x", timeout=SOON)
            assert session.receive_message(timeout=SOON).data == b"%d x" % count
        assert [cookie for _, cookie in seen] == [True, True]


def test_failover_by_itself_gives_up_in_time(pool, serve):
    server = serve(0x211)
    with rserpool.connect(pool, failover=True) as session:
        session.send(b"x")
        assert session.receive_message(timeout=SOON).data == b"1 x"
        server.kill()
        begin = time.monotonic()
        with pytest.raises((rserpool.PoolNotFound, TimeoutError)):
            session.receive(timeout=0.5)
        assert time.monotonic() - begin < SOON


def test_asyncio_the_pythonic_way(pool):
    async def main() -> None:
        async def serve(element: aio.Element) -> None:
            async for session in element:
                async with session:
                    async for message in session:
                        await aio.send(session, message.data.upper())

        async with aio.Element(pool, identifier=0x221) as element:
            assert element.identifier == 0x221 and element.registered
            server = asyncio.create_task(serve(element))
            assert [found.element for found in await aio.resolve(pool)] == [0x221]
            async with aio.connect(pool) as user:
                await aio.send(user, b"a" * 200_000)
                answer = await aio.receive(user)
                assert isinstance(answer, rserpool.Message) and answer.data == b"A" * 200_000
            server.cancel()
        assert element.closed
        with pytest.raises(rserpool.PoolNotFound):
            await aio.resolve(pool)

    asyncio.run(asyncio.wait_for(main(), SOON))


def test_asyncio_failover_by_itself(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0x231, 0x232)}

    async def main() -> None:
        moved = []
        async with aio.connect(pool, on_failover=lambda session, event: moved.append(session.element)) as session:
            await aio.send(session, b"x")
            waiting = aio.messages(session)
            assert (await waiting.__anext__()).data == b"1 x"
            following = asyncio.ensure_future(waiting.__anext__())
            await asyncio.sleep(0.05)
            servers.pop(session.element).kill()
            while not moved:
                await asyncio.sleep(0.01)
            await aio.send(session, b"x")
            assert (await following).data == b"2 x"

    asyncio.run(asyncio.wait_for(main(), SOON))


def test_seconds_everywhere(pool, serve):
    serve(0x241)
    assert rserpool.resolve(pool, stale=0.5) == rserpool.resolve(pool, stale=2.5)
    with rserpool.connect(pool, stale=0.001) as session:
        assert session.element == 0x241
        session.failover(unreachable=False, stale=1.5)


def test_switches_after_the_start_are_an_error():
    rserpool.initialize()
    rserpool.initialize()
    with pytest.raises(rserpool.RSerPoolError, match="-loglevel=2") as late:
        rserpool.initialize("-loglevel=2")
    assert late.value.errno == errno.EALREADY


def test_import_needs_no_library():
    done = python("import rserpool, rserpool.aio; rserpool.cleanup(); print(rserpool.__version__)",
                  RSERPOOL_LIBRARY="/no/such/library.so")
    assert done.stdout.strip() == rserpool.__version__, done.stderr


@pytest.mark.parametrize("library, words", [("/no/such/library.so", "can't be loaded"), ("libc.so.6", "not a librserpool")])
def test_a_wrong_library_is_an_import_error_that_helps(library, words):
    done = python(f"""
import rserpool
try:
    rserpool.resolve("P")
except ImportError as error:
    assert "{words}" in str(error) and "RSERPOOL_LIBRARY" in str(error), error
    print("helped")
""", RSERPOOL_LIBRARY=library)
    assert done.stdout == "helped\n", done.stderr


def test_versions():
    assert f'version = "{rserpool.__version__}"' in (PACKAGE / "pyproject.toml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", rserpool.library_version())


def test_reprs_name_pool_and_identifier(pool):
    with rserpool.Element(pool, identifier=0x251) as element, rserpool.connect(pool) as user:
        for thing in (element, user):
            assert pool in repr(thing) and "0x00000251" in repr(thing), repr(thing)
    assert "closed" in repr(element) and pool in repr(element)


def test_log_lines_go_to_a_logger():
    done = python("""
import logging, rserpool, threading
came = threading.Event()
class Watch(logging.Handler):
    def emit(self, record):
        if "LoggedPool" in record.getMessage() and "127.0.0.1:9" in record.getMessage():
            came.set()
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s:%(name)s:%(message)s")
logging.getLogger().addHandler(Watch())
rserpool.enable_logging(logging.DEBUG)
try:
    rserpool.resolve("LoggedPool")
except rserpool.NoRegistrar:
    pass
# A thread of its own writes them.
came.wait(30)
""", **NOBODY)
    assert re.search("^DEBUG:rserpool:.*LoggedPool.*127.0.0.1:9", done.stderr, re.MULTILINE), done.stderr
    assert logging.getLogger("rserpool").level == logging.NOTSET
