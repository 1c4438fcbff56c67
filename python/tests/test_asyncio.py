"""The same on an asyncio event loop; descriptors are watched with add_reader."""

import asyncio
import errno
import select
import socket

import pytest

import rserpool
from rserpool import aio
from conftest import SOON


def run(main) -> None:
    asyncio.run(asyncio.wait_for(main, SOON))


def test_server_and_users_in_one_loop(pool):
    async def serve(session: rserpool.Session) -> None:
        with session:
            async for message in aio.messages(session):
                session.send(b"<" + message.data + b">")

    async def listen(element: rserpool.Element, tasks: "set[asyncio.Task[None]]") -> None:
        while True:
            tasks.add(asyncio.create_task(serve(await aio.accept(element))))

    async def use(number: int) -> None:
        with await aio.connect(pool) as session:
            for turn in range(5):
                session.send(b"%d.%d" % (number, turn))
                event = await aio.receive(session)
                assert isinstance(event, rserpool.Message)
                assert event.data == b"<%d.%d>" % (number, turn)

    async def main() -> None:
        tasks: "set[asyncio.Task[None]]" = set()
        with rserpool.Element(pool) as element:
            listener = asyncio.create_task(listen(element, tasks))
            await asyncio.gather(*(use(number) for number in range(10)))
            await asyncio.gather(*tasks)
            assert len(tasks) == 10
            listener.cancel()

    run(main())


def test_failure_wakes_the_loop(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0x101, 0x102)}

    async def main() -> None:
        with await aio.connect(pool) as session:
            session.send(b"x")
            assert (await aio.receive(session)).data == b"1 x"
            waiting = asyncio.create_task(aio.receive(session))
            await asyncio.sleep(0)
            servers[session.element].kill()
            event = await waiting
            assert isinstance(event, rserpool.Failover) and not event.complete
            session.failover()
            event = await aio.receive(session)
            assert isinstance(event, rserpool.Failover) and event.complete and event.has_cookie
            session.send(b"x")
            assert (await aio.receive(session)).data == b"2 x"

    run(main())


def test_end_of_session(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element:
            user = await aio.connect(pool)
            with await aio.accept(element) as session:
                user.close()
                assert await aio.receive(session) is None

    run(main())


def test_closing_wakes_all_who_wait(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element):
                waiting = [asyncio.create_task(aio.receive(user)) for _ in range(2)]
                waiting.append(asyncio.create_task(aio.accept(element)))
                await asyncio.sleep(0.05)
                user.close()
                await asyncio.to_thread(element.close)
                for task in waiting:
                    with pytest.raises(rserpool.RSerPoolError) as failure:
                        await task
                    assert failure.value.errno == errno.EBADF
                # The loop has forgotten their numbers.
                with rserpool.Element(pool) as element, await aio.connect(pool) as user:
                    with await aio.accept(element) as session:
                        await aio.send(user, b"again")
                        assert (await aio.receive(session)).data == b"again"

    run(main())


def test_cleanup_wakes_who_waits(pool):
    async def main() -> None:
        element = rserpool.Element(pool)
        user = await aio.connect(pool)
        waiting = [asyncio.create_task(aio.receive(user)), asyncio.create_task(aio.receive(user))]
        await asyncio.sleep(0.05)
        rserpool.cleanup()
        for task in waiting:
            with pytest.raises(rserpool.RSerPoolError) as failure:
                await asyncio.wait_for(task, 10)
            assert failure.value.errno == errno.EBADF
        assert element.closed and user.closed

    run(main())


def test_two_who_wait_for_one_descriptor(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element) as session:
                waiting = [asyncio.create_task(aio.receive(session)) for _ in range(2)]
                await asyncio.sleep(0.05)
                user.send(b"one")
                user.send(memoryview(b"two"))
                assert {(await task).data for task in waiting} == {b"one", b"two"}

    run(main())


def test_sending_into_a_full_pipe_leaves_the_loop_alone(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element) as session:
                sent = 0
                with pytest.raises(TimeoutError):
                    while True:
                        user.send(bytes(65536), timeout=0)
                        sent += 1
                sending = asyncio.create_task(aio.send(user, bytearray(b"last")))
                await asyncio.sleep(0.05)
                for _ in range(sent):
                    assert len((await aio.receive(session)).data) == 65536
                assert await sending == 4
                assert (await aio.receive(session)).data == b"last"

    run(main())


def test_a_session_is_writable_while_there_is_room(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element) as session:
                await aio.writable(user)
                assert select.select([user.writable_fileno()], [], [], 0)[0]
                sent = 0
                with pytest.raises(TimeoutError):
                    while True:
                        user.send(bytes(65536), timeout=0)
                        sent += 1
                assert not select.select([user.writable_fileno()], [], [], 0.2)[0]
                room = asyncio.Event()
                asyncio.get_running_loop().add_reader(user.writable_fileno(), room.set)
                for _ in range(sent):
                    assert len((await aio.receive(session)).data) == 65536
                await room.wait()
                asyncio.get_running_loop().remove_reader(user.writable_fileno())
                assert await aio.send(user, b"last") == 4
                assert (await aio.receive(session)).data == b"last"

    run(main())


def test_a_failover_keeps_the_number_that_says_writable(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0x101, 0x102)}

    async def main() -> None:
        with await aio.connect(pool, failover=True) as session:
            await aio.writable(session)
            number, first = session.writable_fileno(), session.element
            servers[first].kill()
            while session.element == first:
                await aio.send(session, b"x")
                try:
                    await asyncio.wait_for(aio.receive(session), 2)
                except asyncio.TimeoutError:
                    pass  # What was sent is gone with the server.
            assert session.writable_fileno() == number
            await aio.writable(session)

    run(main())


@pytest.mark.parametrize("end", ["close", "cleanup"])
def test_closing_wakes_who_waits_for_room(pool, end):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element):
                with pytest.raises(TimeoutError):
                    while True:
                        user.send(bytes(65536), timeout=0)
                waiting = asyncio.create_task(aio.writable(user))
                await asyncio.sleep(0.05)
                assert not waiting.done()
                await asyncio.to_thread(user.close if end == "close" else rserpool.cleanup)
                with pytest.raises(rserpool.RSerPoolError) as caught:
                    await waiting
                assert caught.value.errno == errno.EBADF

    run(main())


def test_the_longest_messages_go_through_the_loop(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            with await aio.accept(element) as session:
                sending = asyncio.create_task(aio.send(user, bytes(17 << 20)))
                length = 0
                while not (message := await aio.receive(session)).end:
                    length += len(message.data)
                assert length + len(message.data) == await sending == 17 << 20

    run(main())


def test_a_cancelled_send_leaves_no_thread(pool):
    async def main() -> None:
        with rserpool.Element(pool), await aio.connect(pool) as user:
            with pytest.raises(TimeoutError):
                while True:
                    user.send(bytes(65536), timeout=0)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(aio.send(user, b"never"), 0.05)
            # Waits for the threads, while the session is still open and full.
            await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 10)

    run(main())


def test_messages_end_when_a_failover_is_necessary(pool):
    async def main() -> None:
        with rserpool.Element(pool) as element, await aio.connect(pool) as user:
            (await aio.accept(element)).close()
            with pytest.raises(rserpool.FailoverNecessary):
                async for message in aio.messages(user):
                    pytest.fail(f"{message}")

    run(main())


@pytest.mark.parametrize("poller", ["select", "poll", "epoll"])
def test_readable_exactly_when_there_is_something(pool, poller):
    def readable(descriptor: rserpool.Descriptor, seconds: float) -> bool:
        if poller == "select":
            return bool(select.select([descriptor], [], [], seconds)[0])
        if poller == "poll":
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        with select.epoll() as epoll:
            epoll.register(descriptor, select.EPOLLIN)
            return bool(epoll.poll(seconds))

    with rserpool.Element(pool) as element:
        assert not readable(element, 0)
        with rserpool.connect(pool) as user:
            assert readable(element, SOON)
            with element.accept(timeout=0) as session:
                assert not readable(element, 0)
                assert not readable(session, 0)
                assert not readable(user, 0)
                user.send(b"x")
                assert readable(session, SOON)
                assert session.receive(timeout=0).data == b"x"
                assert not readable(session, 0)
            assert readable(user, SOON)
            event = user.receive(timeout=0)
            assert isinstance(event, rserpool.Failover) and not event.complete


def test_messages_to_pools(pool):
    async def message(descriptor: rserpool.Descriptor) -> rserpool.Message:
        while not isinstance(event := await aio.receive(descriptor), rserpool.Message):
            assert event is not None
        return event

    async def main() -> None:
        async with aio.Element(pool, identifier=0xA1, one_to_many=True) as element:
            with rserpool.Sender() as sender:
                assert await aio.populate(pool) == 1
                assert await aio.send_to_pool(sender, pool, bytearray(b"one")) == 0xA1
                got = await message(element.element)
                assert got.data == b"one"
                await element.send(b"answer", session=got.session)
                assert (await message(sender)).element == 0xA1
                assert await aio.send_to_all(sender, pool, b"all") == 1
                assert (await message(element.element)).data == b"all"
                # An element sends as well, here to itself.
                assert await aio.send_to_all(element, pool, b"self", to_self=True) == 1
                assert (await message(element.element)).data == b"self"
                with pytest.raises(rserpool.PoolNotFound):
                    await aio.send_to_pool(sender, pool + "-nobody", b"x")
                with socket.create_server(("127.0.0.1", 0)) as server:
                    server.settimeout(SOON)
                    await aio.send_to_address(sender, server.getsockname(), b"there")
                    link, _ = server.accept()
                    with link:
                        link.settimeout(SOON)
                        assert link.recv(100) == b"there"

    run(main())
