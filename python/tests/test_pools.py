"""Elements, policies and resolution."""

import collections
import errno
import socket

import pytest

import rserpool
from conftest import SOON


def test_unknown_pool():
    with pytest.raises(rserpool.PoolNotFound) as raised:
        rserpool.resolve("NoSuchPool")
    assert raised.value.errno == errno.ENOENT


def test_resolution_tells_the_elements(pool, serve):
    for identifier in (0x21, 0x22, 0x23):
        serve(identifier)
    found = rserpool.resolve(pool)
    assert sorted(address.element for address in found) == [0x21, 0x22, 0x23]
    for address in found:
        assert address.addresses
        assert all(port > 0 and host for host, port in address.addresses)
    assert len({address.addresses for address in found}) == 3


def test_counters_count(pool):
    before = rserpool.counters()
    with rserpool.Element(pool, identifier=0x24):
        rserpool.resolve(pool)
        for _ in range(5):
            assert rserpool.resolve(pool, stale=60.0)
    done = {name: value - before[name] for name, value in rserpool.counters().items()}
    assert done["registrations"] == 1 and done["resolutions"] >= 1 and done["cache_misses"] >= 1, done
    assert done["cache_hits"] + done["cache_misses"] == 6 and done["cache_hits"] >= 4, done


def test_as_many_as_asked_for(pool, serve):
    for identifier in range(0x31, 0x35):
        serve(identifier)
    assert len(rserpool.resolve(pool, items=1)) == 1
    assert len(rserpool.resolve(pool, items=4)) == 4
    assert len(rserpool.resolve(pool, items=None)) == 4


def test_round_robin_takes_turns(pool, serve):
    for identifier in (0x41, 0x42, 0x43):
        serve(identifier)
    chosen = collections.Counter(rserpool.resolve(pool, items=1)[0].element for _ in range(9))
    assert chosen == {0x41: 3, 0x42: 3, 0x43: 3}


def test_weights_count(pool, serve):
    serve(0x51, "WEIGHTED_ROUND_ROBIN", "1")
    serve(0x52, "WEIGHTED_ROUND_ROBIN", "3")
    chosen = collections.Counter(rserpool.resolve(pool, items=1)[0].element for _ in range(40))
    assert chosen == {0x51: 10, 0x52: 30}


def test_least_used_follows_the_load(pool):
    with rserpool.Element(pool, policy=rserpool.Policy.LEAST_USED, identifier=0x61) as one:
        with rserpool.Element(pool, policy=rserpool.Policy.LEAST_USED, identifier=0x62) as two:
            for busy, idle in ((one, two), (two, one)):
                idle.set_load(0.1)
                busy.set_load(0.9)
                for _ in range(500):  # set_load does not wait for the registrar
                    if {rserpool.resolve(pool, items=1)[0].element for _ in range(3)} == {idle.identifier}:
                        break
                else:
                    pytest.fail("the load does not count")


def test_identifier_is_chosen_or_given(pool):
    with rserpool.Element(pool) as element:
        assert element.identifier != 0
        assert [address.element for address in rserpool.resolve(pool)] == [element.identifier]
    with rserpool.Element(pool, identifier=0xABCD) as element:
        assert element.identifier == 0xABCD


def test_published_elsewhere(pool):
    with rserpool.Element(pool, advertise="192.0.2.7:4711") as element:
        assert rserpool.resolve(pool)[0].addresses == (("192.0.2.7", 4711),)
        element.set_load(0.5)
        assert rserpool.resolve(pool)[0].addresses == (("192.0.2.7", 4711),)
    with pytest.raises(OSError) as raised:
        rserpool.Element(pool, advertise="192.0.2.7:port")
    assert raised.value.errno == errno.EINVAL


def test_closed_elements_leave_the_pool(pool):
    with rserpool.Element(pool):
        assert rserpool.resolve(pool)
    with pytest.raises(rserpool.PoolNotFound):
        rserpool.resolve(pool)


def test_handles_are_bytes(pool):
    handle = b"\x00\xff" + pool.encode()
    with rserpool.Element(handle, identifier=0x71):
        assert [address.element for address in rserpool.resolve(handle)] == [0x71]
        with rserpool.connect(handle) as session:
            assert session.element == 0x71


def test_initialise_again(pool, serve):
    serve(0x81)
    for _ in range(3):
        rserpool.cleanup()
        rserpool.initialize()
        with rserpool.connect(pool) as session:
            session.send(b"again")
            assert session.receive(timeout=SOON).data == b"1 again"


def received(descriptor):
    """The next message, past what is told of sessions."""
    while True:
        event = descriptor.receive(SOON)
        if isinstance(event, rserpool.Message):
            return event


def test_messages_without_sessions(pool):
    with rserpool.Element(pool, identifier=0x71, one_to_many=True) as one, \
            rserpool.Element(pool, identifier=0x72, one_to_many=True) as two, rserpool.Sender() as sender:
        elements = {0x71: one, 0x72: two}
        with pytest.raises(rserpool.PoolNotFound):
            sender.send_to_pool(pool + "-nobody", b"x")
        chosen = [sender.send_to_pool(pool, b"hello", ppid=7, timeout=SOON) for _ in range(4)]
        assert collections.Counter(chosen) == {0x71: 2, 0x72: 2}
        for identifier in chosen:
            message = received(elements[identifier])
            assert (message.data, message.ppid) == (b"hello", 7)
            elements[identifier].send(b"answer", session=message.session)
            assert received(sender).element == identifier
        assert sender.send_to_pool(pool, b"to one", element=0x72) == 0x72
        assert sender.send_to_pool(pool, b"again", last=True) == 0x72
        assert [received(two).data for _ in range(2)] == [b"to one", b"again"]
        assert sender.send_to_all(pool, b"all") == 2
        assert [received(element).data for element in (one, two)] == [b"all", b"all"]
        assert one.send_to_all(pool, b"the other") == 1
        assert received(two).data == b"the other"
        with pytest.raises(rserpool.PoolNotFound):
            sender.send_to_pool(pool, b"x", element=0x73)


def test_what_did_not_arrive_comes_back(pool):
    with rserpool.Element(pool, identifier=0x81, one_to_many=True) as element, rserpool.Sender() as sender:
        sender.send_to_pool(pool, b"into the dark")
        session = element.receive(SOON).session
        assert received(element).data == b"into the dark"
        rserpool._library.rsp_sendmsg(element.fileno(), b"x", 1, 0, session, 0, 0, 0, 4, 0)  # SCTP_ABORT
        back = sender.receive(SOON)
        assert isinstance(back, rserpool.SendFailed)
        assert (back.element, back.uncertain, back.head, back.length) == (0x81, True, b"into the dark", 13)


def test_messages_to_an_address(pool):
    with socket.create_server(("127.0.0.1", 0)) as server, rserpool.Sender() as sender:
        server.settimeout(SOON)
        sender.send_to_address(server.getsockname(), b"no pool")
        link, _ = server.accept()
        with link:
            link.settimeout(SOON)
            assert link.recv(100) == b"no pool"
            link.sendall(b"answer")
            assert received(sender).data == b"answer"
        for wrong in [("localhost", 1), ("10.0.0.1.2", 1), ("127.0.0.1", 65536), ("127.0.0.1", -1)]:
            with pytest.raises((ValueError, OverflowError)):
                sender.send_to_address(wrong, b"x")
        gone = server.getsockname()
    with rserpool.Sender() as sender, pytest.raises(rserpool.RSerPoolError) as refused:
        sender.send_to_address(gone, b"x", timeout=SOON)
    assert refused.value.errno == errno.ECONNREFUSED


def test_the_cache_is_filled_and_emptied(pool):
    assert rserpool.populate(pool) == 0
    with rserpool.Element(pool, identifier=0x91) as one, rserpool.Element(pool, identifier=0x92):
        assert rserpool.populate(pool) == 2
        one.close()
        # However good what is known would be.
        rserpool.forget(pool)
        assert [found.element for found in rserpool.resolve(pool, items=None, stale=SOON * 100)] == [0x92]
    for call in (rserpool.populate, rserpool.forget):
        with pytest.raises(rserpool.RSerPoolError) as empty:
            call("")
        assert empty.value.errno == errno.EINVAL
