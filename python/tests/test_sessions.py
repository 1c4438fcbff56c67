"""Sessions: data both ways, sizes, time-outs, ends, errors."""

import copy
import errno
import gc
import os
import pickle
import socket
import threading
import time

import pytest

import rserpool
from conftest import SOON


def answer(session: rserpool.Session) -> rserpool.Message:
    """The next message; other events are not expected."""
    event = session.receive(timeout=SOON)
    assert isinstance(event, rserpool.Message), event
    return event


def test_request_and_answer(pool, serve):
    serve(0x11)
    with rserpool.connect(pool) as session:
        for count in range(1, 6):
            assert session.send(b"hello", ppid=7, stream=1) == 5
            message = answer(session)
            assert message.data == b"%d hello" % count
            assert (message.element, message.ppid, message.end) == (0x11, 7, True)


def test_stream_is_kept(pool, serve):
    serve(0x12)
    with rserpool.connect(pool) as session:
        session.send(b"on three", stream=3)
        assert answer(session).stream == 3


def test_descriptor_says_its_element(pool, serve):
    serve(0x13)
    with rserpool.connect(pool) as session:
        assert session.element == 0x13
        session.send(b"x")
        answer(session)
        assert session.has_cookie


@pytest.mark.parametrize("size", [1, 4096, 65535, 65536, 1_000_000])
def test_large_messages_arrive_whole(pool, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        with element.accept(timeout=SOON) as session:
            sender = threading.Thread(target=user.send, args=(data,))
            sender.start()
            received = b""
            while True:
                message = answer(session)
                received += message.data
                if message.end:
                    break
            sender.join()
            assert received == data


def test_parts_of_a_message_have_no_end(pool):
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        with element.accept(timeout=SOON) as session:
            user.send(b"a" * 100)
            parts = [session.receive(timeout=SOON, size=40) for _ in range(3)]
            assert [part.data for part in parts] == [b"a" * 40, b"a" * 40, b"a" * 20]
            assert [part.end for part in parts] == [False, False, True]


def test_empty_wait_is_a_timeout(pool, serve):
    serve(0x14)
    with rserpool.connect(pool) as session:
        with pytest.raises(TimeoutError):
            session.receive(timeout=0)
        with pytest.raises(TimeoutError):
            session.receive(timeout=0.05)
        session.send(b"still there")
        assert answer(session).data == b"1 still there"


def test_accept_times_out(pool):
    with rserpool.Element(pool) as element:
        with pytest.raises(TimeoutError):
            element.accept(timeout=0)


def test_end_of_user_is_none(pool):
    with rserpool.Element(pool) as element:
        with rserpool.connect(pool) as user:
            session = element.accept(timeout=SOON)
            user.send(b"last")
        with session:
            assert answer(session).data == b"last"
            assert session.receive(timeout=SOON) is None


def test_iteration_ends_with_the_session(pool):
    with rserpool.Element(pool) as element:
        with rserpool.connect(pool) as user:
            session = element.accept(timeout=SOON)
            for text in (b"one", b"two", b"three"):
                user.send(text)
        with session:
            assert [message.data for message in session] == [b"one", b"two", b"three"]


def test_closed_descriptors_say_so(pool, serve):
    serve(0x15)
    session = rserpool.connect(pool)
    assert session.fileno() >= 0
    session.close()
    session.close()
    with pytest.raises(ValueError):
        session.fileno()
    with pytest.raises(ValueError):
        session.send(b"x")


def test_errors_have_errno():
    class Wrong(rserpool.Session):
        def close(self) -> None:
            self._number = -1

    # A descriptor, but not one of RSerPool.
    with socket.socket() as plain:
        session = Wrong(plain.fileno())
        for call in (lambda: session.send(b"x"), lambda: session.receive(timeout=0), session.failover):
            with pytest.raises(rserpool.RSerPoolError) as raised:
                call()
            assert raised.value.errno == errno.EBADF
            assert isinstance(raised.value, OSError)
        session.close()


@pytest.mark.parametrize("handle", ["", "x" * 65001])
def test_impossible_handles(handle):
    with pytest.raises(OSError) as raised:
        rserpool.Element(handle)
    assert raised.value.errno in (errno.EINVAL, errno.ENAMETOOLONG)


def test_unknown_switch():
    rserpool.cleanup()
    with pytest.raises(ValueError):
        rserpool.initialize("-no-such-switch")
    rserpool.initialize()


def test_descriptors_of_before_a_cleanup_are_closed(pool):
    old = rserpool.Element(pool)
    number = old.fileno()
    rserpool.cleanup()
    with pytest.raises(ValueError):
        old.fileno()
    with rserpool.Element(pool) as new:
        assert new.fileno() == number, "the number is used again"
        old.close()
        del old
        with rserpool.connect(pool) as user, new.accept(timeout=SOON) as session:
            user.send(b"still there")
            assert answer(session).data == b"still there"


def test_many_sessions_at_once(pool):
    with rserpool.Element(pool) as element:
        users = [rserpool.connect(pool) for _ in range(50)]
        sessions = [element.accept(timeout=SOON) for _ in users]
        for number, user in enumerate(users):
            user.send(b"%d" % number)
        assert sorted(int(answer(session).data) for session in sessions) == list(range(50))
        for descriptor in users + sessions:
            descriptor.close()


def test_close_wakes_a_blocked_receive(pool, serve):
    serve(0x16)
    session = rserpool.connect(pool)
    caught = []
    started = threading.Event()

    def wait() -> None:
        started.set()
        try:
            session.receive()
        except (OSError, ValueError) as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    session.close()
    thread.join(SOON)
    assert not thread.is_alive()
    assert len(caught) == 1 and getattr(caught[0], "errno", errno.EBADF) == errno.EBADF


def test_many_sessions_on_one_descriptor(pool):
    with rserpool.Element(pool, one_to_many=True) as element:
        with rserpool.connect(pool) as first, rserpool.connect(pool) as second:
            changes = [element.receive(timeout=SOON) for _ in range(2)]
            assert changes == [rserpool.SessionChange(1, True), rserpool.SessionChange(2, True)]
            for session, user in ((1, first), (2, second)):
                user.send(b"question")
                message = element.receive(timeout=SOON)
                assert isinstance(message, rserpool.Message) and message.session == session
                element.send_cookie(b"cookie", session=session)
                element.send(b"answer", session=session)
                assert user.receive(timeout=SOON).data == b"answer"
                assert user.has_cookie
            first.close()
            assert element.receive(timeout=SOON) == rserpool.Shutdown(1)
            assert element.receive(timeout=SOON) == rserpool.SessionChange(1, False)


@pytest.mark.parametrize("what", [5, "text", [1, 2], None])
def test_only_buffers_can_be_sent(pool, what):
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        with element.accept(timeout=SOON) as session:
            for send in (user.send, session.send_cookie):
                with pytest.raises(TypeError):
                    send(what)
            user.send(memoryview(b"a-b-c")[::2])
            assert answer(session).data == b"abc"


def test_numbers_are_not_cut(pool):
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        for wrong in ({"stream": 1 << 16}, {"stream": -1}, {"ppid": 1 << 32}, {"session": 1 << 32}):
            with pytest.raises(OverflowError):
                user.send(b"x", **wrong)
        for call in (rserpool.resolve, rserpool.connect):
            with pytest.raises(OverflowError):
                call(pool, stale=-1)
        for wrong in ({"identifier": 1 << 32}, {"weight": -1}, {"interval": -1}):
            with pytest.raises(OverflowError):
                rserpool.Element(pool, **wrong)
        with pytest.raises(rserpool.RSerPoolError) as failure:
            rserpool.connect("")
        assert failure.value.errno == errno.EINVAL
        assert not element.closed


def test_descriptors_are_not_copied(pool):
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            for descriptor in (element, user):
                with pytest.raises(TypeError):
                    call(descriptor)
        gc.collect()
        with element.accept(timeout=SOON) as session:
            user.send(b"still there")
            assert answer(session).data == b"still there"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def settled_files() -> int:
    """How many descriptors there are when nothing moves any more: the library's thread closes in its own time."""
    counts = [open_files()]
    while len(counts) < 500 and counts[-10:] != counts[-1:] * 10:
        time.sleep(0.01)
        counts.append(open_files())
    return counts[-1]


def test_what_fails_leaves_no_descriptor(pool):
    before = settled_files()
    failures = []
    for call in (lambda: rserpool.connect("x" * 65001), lambda: rserpool.Element(pool, policy=77)):
        with pytest.raises(rserpool.RSerPoolError) as failure:
            call()
        # It holds the frame in which the descriptor was made.
        failures.append(failure)
    for _ in range(500):
        if open_files() <= before:
            break
        time.sleep(0.01)
    assert open_files() <= before


def test_forgotten_descriptors_are_closed_with_a_warning(pool):
    with rserpool.Element(pool) as element:
        user = rserpool.connect(pool)
        with element.accept(timeout=SOON) as session:
            with pytest.warns(ResourceWarning, match="unclosed.*Session"):
                del user
                gc.collect()
            assert session.receive(timeout=SOON) is None


def test_iteration_tells_an_end_from_a_failure(pool):
    with rserpool.Element(pool) as element, rserpool.connect(pool) as user:
        with element.accept(timeout=SOON) as session:
            session.send(b"only one")
        received = []
        with pytest.raises(rserpool.FailoverNecessary) as failure:
            for message in user:
                received.append(message.data)
        assert received == [b"only one"]
        assert isinstance(failure.value, rserpool.RSerPoolError) and failure.value.errno == errno.EIO
        assert pool in str(failure.value)
        event = user.receive(timeout=SOON)
        assert isinstance(event, rserpool.Failover) and not event.complete
