"""What is told when the element in use dies or hangs, and that the session goes on."""

import os
import signal

import pytest

import rserpool
from conftest import SOON


def fail_over(session: rserpool.Session) -> rserpool.Failover:
    """Waits for the need, moves, and returns the notification that it is done."""
    while True:
        event = session.receive(timeout=SOON)
        assert isinstance(event, (rserpool.Failover, rserpool.Message)), event
        if isinstance(event, rserpool.Message):
            continue
        if event.complete:
            return event
        session.failover()


def count(session: rserpool.Session) -> int:
    session.send(b"x")
    event = session.receive(timeout=SOON)
    assert isinstance(event, rserpool.Message), event
    return int(event.data.split()[0])


def test_kill_is_told_and_the_cookie_goes_on(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0x91, 0x92, 0x93)}
    with rserpool.connect(pool) as session:
        counted = [count(session) for _ in range(3)]
        for _ in range(2):
            victim = session.element
            servers.pop(victim).kill()
            done = fail_over(session)
            assert done.has_cookie
            assert session.element in servers and session.element != victim
            counted += [count(session) for _ in range(3)]
        assert counted == list(range(1, 10))


def test_frozen_element_is_left(pool, serve):
    servers = {identifier: serve(identifier) for identifier in (0xA1, 0xA2)}
    with rserpool.connect(pool) as session:
        assert count(session) == 1
        victim = session.element
        servers[victim].freeze()
        session.send(b"into the void")
        fail_over(session)
        assert session.element != victim
        assert count(session) == 2


def test_user_may_leave_a_healthy_element(pool, serve):
    serve(0xB1)
    serve(0xB2)
    with rserpool.connect(pool) as session:
        first = session.element
        assert count(session) == 1
        session.failover(unreachable=False)
        done = session.receive(timeout=SOON)
        assert isinstance(done, rserpool.Failover) and done.complete and done.has_cookie
        assert count(session) == 2
        assert session.element in (0xB1, 0xB2) and first in (0xB1, 0xB2)


def test_nobody_left(pool, serve):
    server = serve(0xC1)
    with rserpool.connect(pool) as session:
        assert count(session) == 1
        server.kill()
        event = session.receive(timeout=SOON)
        assert isinstance(event, rserpool.Failover) and not event.complete
        session.failover()
        serve(0xC2)
        assert fail_over(session).has_cookie
        assert count(session) == 2


def test_connect_before_there_is_an_element(pool, serve):
    with rserpool.connect(pool) as session:
        event = session.receive(timeout=SOON)
        assert isinstance(event, rserpool.Failover) and not event.complete
        serve(0xD1)
        session.failover()
        assert not fail_over(session).has_cookie
        assert count(session) == 1


def test_element_sees_the_echo_before_the_data(pool, serve):
    server = serve(0xE1)
    with rserpool.connect(pool) as user:
        assert count(user) == 1
        with rserpool.Element(pool, identifier=0xE2) as element:
            server.kill()
            fail_over(user)
            user.send(b"data")
            with element.accept(timeout=SOON) as session:
                assert session.receive(timeout=SOON) == rserpool.CookieEcho(b"1", session=1)
                message = session.receive(timeout=SOON)
                assert isinstance(message, rserpool.Message) and message.data == b"data"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_leaves_the_parent_alone(pool, serve):
    serve(0xF1)
    with rserpool.connect(pool) as session:
        assert count(session) == 1
        child = os.fork()
        if child == 0:
            try:
                session.send(b"from the child")
            except ValueError:
                # It has a library of its own as soon as it asks for something.
                with rserpool.connect(pool) as own:
                    os._exit(0 if count(own) == 1 else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert count(session) == 2


def test_signals_do_not_break_a_wait(pool, serve):
    """Python handles the signal, and the call goes on, within its time; nothing is lost."""
    serve(0xF2)
    seen = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        with rserpool.connect(pool) as session:
            assert count(session) == 1
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            with pytest.raises(TimeoutError):
                session.receive(timeout=0.5)
            assert seen
            assert count(session) == 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
