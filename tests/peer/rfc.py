"""A registrar, a pool element and a pool user after RFC 5352, 5353, 5354 and 5356, and nothing else.

Written from the texts of the RFCs alone, so that it can tell what our programs do with somebody who has read
nothing else. Where a text leaves something open, the plainest reading stands here. One thread, one loop.

What a message looks like: a dictionary with `type`, `flags`, the fixed fields of its figure, and `params`, the list
of its parameters in order as (type, value).
"""

import heapq
import itertools
import random
import selectors
import socket
import struct
import time

# RFC 5354 section 3, RFC 5352 section 2.2, RFC 5353 section 2.
IPV4, IPV6, DCCP, SCTP, TCP, UDP, UDP_LITE, POLICY, HANDLE, ELEMENT, SERVER, ERROR, COOKIE, PE_ID, CHECKSUM, OPAQUE = range(1, 17)
(REGISTRATION, DEREGISTRATION, REGISTRATION_RESPONSE, DEREGISTRATION_RESPONSE, HANDLE_RESOLUTION, HANDLE_RESOLUTION_RESPONSE,
 KEEP_ALIVE, KEEP_ALIVE_ACK, UNREACHABLE, ANNOUNCE, COOKIE_MESSAGE, COOKIE_ECHO, BUSINESS_CARD, ASAP_ERROR) = range(1, 15)
(PRESENCE, TABLE_REQUEST, TABLE_RESPONSE, UPDATE, LIST_REQUEST, LIST_RESPONSE, INIT_TAKEOVER, TAKEOVER_ACK, TAKEOVER,
 ENRP_ERROR) = range(1, 11)
ADD, DELETE = 0, 1
UNRECOGNIZED_PARAMETER, UNRECOGNIZED_MESSAGE, INVALID, NON_UNIQUE, BAD_POLICY, RESOURCES, BAD_TRANSPORT, BAD_USE, UNKNOWN_POOL = range(1, 10)
ROUND_ROBIN = 1
ASAP_PPID, ENRP_PPID = 11, 12
TRANSPORTS = (DCCP, SCTP, TCP, UDP, UDP_LITE, OPAQUE)
# Bytes between the header and the first parameter.
ASAP_FIXED = {KEEP_ALIVE: 4, ANNOUNCE: 4}
ENRP_FIXED = {UPDATE: 12, INIT_TAKEOVER: 12, TAKEOVER_ACK: 12, TAKEOVER: 12}


class Malformed(Exception):
    pass


# Bytes and values.

def pad(data):
    return data + bytes(-len(data) % 4)


def tlv(kind, value):
    """A parameter without the padding behind it, which its length does not count."""
    return struct.pack("!HH", kind, 4 + len(value)) + value


def together(params):
    """Padding between parameters, and none behind the last one."""
    return b"".join(pad(one) for one in params[:-1]) + (params[-1] if params else b"")


def message(kind, flags, fixed, params):
    body = fixed + together(params)
    return pad(struct.pack("!BBH", kind, flags, 4 + len(body)) + body)


def parameters(data):
    """What is in `data`, by the rules for unknown types: (list of (type, value), TLVs to report)."""
    found, report = [], []
    while data:
        if len(data) < 4:
            raise Malformed("rest of a parameter")
        kind, length = struct.unpack("!HH", data[:4])
        if not 4 <= length <= len(data):
            raise Malformed("length of a parameter")
        if 1 <= kind <= 16:
            found.append((kind, data[4:length]))
        elif kind >> 14 in (0, 1):
            raise Malformed("unknown parameter")
        elif kind >> 14 == 3:
            report.append(data[:length])
        data = data[(length + 3) & ~3:]
    return found, report


def address(ip):
    if ":" in ip:
        return tlv(IPV6, socket.inet_pton(socket.AF_INET6, ip))
    return tlv(IPV4, socket.inet_aton(ip))


def transport(kind, port, addresses, use=0):
    return tlv(kind, struct.pack("!HH", port, use) + together([address(ip) for ip in addresses]))


def read_transport(kind, value):
    """(port, use, addresses) of all but opaque ones."""
    port, use = struct.unpack("!HH", value[:4])
    params, _ = parameters(value[8 if kind == DCCP else 4:])
    ips = [socket.inet_ntop(socket.AF_INET if at == IPV4 else socket.AF_INET6, ip) for at, ip in params if at in (IPV4, IPV6)]
    return port, use, ips


class Element:
    """What stands in a pool element parameter; `user`, `policy` and `asap` as (type, value)."""

    def __init__(self, ident, life, user, policy, home=0, asap=None):
        self.id, self.life, self.user, self.policy, self.home, self.asap = ident, life, user, policy, home, asap

    @classmethod
    def read(cls, value):
        ident, home, life = struct.unpack("!IIi", value[:12])
        params, _ = parameters(value[12:])
        transports = [param for param in params if param[0] in TRANSPORTS]
        policies = [param for param in params if param[0] == POLICY]
        if not transports or not policies:
            raise Malformed("pool element")
        return cls(ident, life, transports[0], policies[0], home, transports[1] if len(transports) > 1 else None)

    def write(self):
        parts = [self.user, self.policy] + ([self.asap] if self.asap else [])
        return tlv(ELEMENT, struct.pack("!IIi", self.id, self.home, self.life) + together([tlv(*part) for part in parts]))

    @property
    def policy_type(self):
        return struct.unpack("!I", self.policy[1][:4])[0]

    @property
    def control(self):
        return self.user[0] == SCTP and read_transport(*self.user)[1] == 1


def policy(kind=ROUND_ROBIN, *values):
    return POLICY, struct.pack(f"!{1 + len(values)}I", kind, *values)


def user_transport(kind, port, addresses, use=0):
    value = transport(kind, port, addresses, use)
    return kind, value[4:]


def handle(name):
    return tlv(HANDLE, name.encode())


def pe_id(ident):
    return tlv(PE_ID, struct.pack("!I", ident))


def error(code, data=b""):
    return tlv(ERROR, tlv(code, data))


def causes(value):
    """[(code, information)] of an operation error."""
    found = []
    while value:
        code, length = struct.unpack("!HH", value[:4])
        found.append((code, value[4:length]))
        value = value[(length + 3) & ~3:]
    return found


def checksum(elements):
    """RFC 5353 section 3.6.2 over (handle, identifier) of elements."""
    total = 0
    for name, ident in elements:
        block = pad(name.encode()) + struct.pack("!I", ident)
        total += sum(struct.unpack(f"!{len(block) // 2}H", block))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Message:
    def __init__(self, data, fixed):
        kind, self.flags, length = struct.unpack("!BBH", data[:4])
        self.type, extra = kind, fixed.get(kind, fixed.get(None, 0))
        self.bytes = data
        if length > len(data) or length < 4 + extra:
            raise Malformed("length of a message")
        self.fixed = data[4:4 + extra]
        self.params, self.report = parameters(data[4 + extra:length])

    def all(self, kind):
        return [value for at, value in self.params if at == kind]

    def one(self, kind):
        found = self.all(kind)
        if not found:
            raise Malformed(f"no parameter {kind:#x}")
        return found[0]

    @property
    def handle(self):
        return self.one(HANDLE).decode()

    @property
    def pe_id(self):
        return struct.unpack("!I", self.one(PE_ID))[0]

    @property
    def element(self):
        return Element.read(self.one(ELEMENT))

    @property
    def elements(self):
        return [Element.read(value) for value in self.all(ELEMENT)]

    @property
    def causes(self):
        return causes(self.one(ERROR)) if self.all(ERROR) else []


# Connections and time.

class Loop:
    def __init__(self):
        self.selector, self.timers, self.number = selectors.DefaultSelector(), [], itertools.count()

    def after(self, seconds, call):
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.number), call))

    def every(self, seconds, call):
        def again():
            if call() is not False:
                self.after(seconds, again)
        self.after(seconds, again)

    def turn(self, most):
        now = time.monotonic()
        wait = min(most, max(0.0, self.timers[0][0] - now)) if self.timers else most
        for key, _ in self.selector.select(wait):
            key.data()
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()

    def until(self, so, seconds=10.0):
        """Whether it is so in that time."""
        end = time.monotonic() + seconds
        while not so():
            if time.monotonic() >= end:
                return False
            self.turn(0.05)
        return True

    def run(self, seconds):
        self.until(lambda: False, seconds)


def new_socket(over, ip):
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP if over == "sctp" else socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


class Connection:
    """One association, or one TCP connection with padded messages back to back."""

    def __init__(self, loop, over, made, ppid, heard, closed=lambda connection: None):
        self.loop, self.over, self.socket, self.ppid = loop, over, made, ppid
        self.heard, self.closed, self.open, self.rest, self.last = heard, closed, True, b"", 0
        loop.selector.register(made, selectors.EVENT_READ, self.read)

    def read(self):
        try:
            data, control, flags, _ = self.socket.recvmsg(1 << 17, 512)
        except (ConnectionError, OSError):
            data = b""
        if not data:
            return self.close()
        self.rest += data
        if self.over == "sctp":
            if flags & socket.MSG_EOR:
                self.last = ppid_of(control)
                data, self.rest = self.rest, b""
                self.heard(self, data)
            return None
        while self.open and len(self.rest) >= 4 and self.ppid is not None:
            length = (struct.unpack("!H", self.rest[2:4])[0] + 3) & ~3
            if len(self.rest) < max(4, length):
                return None
            data, self.rest = self.rest[:max(4, length)], self.rest[max(4, length):]
            self.heard(self, data)
        if self.ppid is None and self.rest:
            data, self.rest = self.rest, b""
            self.heard(self, data)
        return None

    def send(self, data, ppid=None):
        try:
            if self.over == "sctp":
                # struct sctp_sndrcvinfo, RFC 6458 section 5.3.2.
                info = struct.pack("=HHHxxIIIIIi", 0, 0, 0, socket.htonl(self.ppid or 0 if ppid is None else ppid), 0, 0, 0, 0, 0)
                self.socket.sendmsg([data], [(socket.IPPROTO_SCTP, 1, info)])
            else:
                self.socket.sendall(data)
        except OSError:
            self.close()

    @property
    def peer(self):
        return self.socket.getpeername()[:2]

    def close(self):
        if self.open:
            self.open = False
            self.loop.selector.unregister(self.socket)
            self.socket.close()
            self.closed(self)


class Many:
    """An SCTP endpoint with all its associations: those that it sets up come from the port at which it is reached."""

    def __init__(self, loop, ip, port, ppid, heard):
        self.loop, self.ppid, self.heard, self.links, self.rest = loop, ppid, heard, {}, {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, socket.IPPROTO_SCTP)
        subscribe(self.socket)
        self.socket.bind((ip, port))
        self.socket.listen(16)
        loop.selector.register(self.socket, selectors.EVENT_READ, self.read)

    def read(self):
        data, _, flags, peer = self.socket.recvmsg(1 << 17, 512)
        self.rest[peer] = self.rest.get(peer, b"") + data
        if data and flags & socket.MSG_EOR:
            self.heard(self.dial(peer), self.rest.pop(peer))

    def dial(self, to):
        """The association with an address; the first message sets it up."""
        return self.links.setdefault(to, Association(self, to))

    def close(self):
        self.loop.selector.unregister(self.socket)
        self.socket.close()
        for link in self.links.values():
            link.open = False


class Association:
    def __init__(self, many, peer):
        self.many, self.peer, self.open = many, peer, True

    def send(self, data):
        # struct sctp_sndrcvinfo, RFC 6458 section 5.3.2.
        info = struct.pack("=HHHxxIIIIIi", 0, 0, 0, socket.htonl(self.many.ppid), 0, 0, 0, 0, 0)
        try:
            self.many.socket.sendmsg([data], [(socket.IPPROTO_SCTP, 1, info)], 0, self.peer)
        except OSError:
            self.open = False
            self.many.links.pop(self.peer, None)


def ppid_of(control):
    for level, kind, data in control:
        if level == socket.IPPROTO_SCTP and kind == 1 and len(data) >= 12:
            return socket.ntohl(struct.unpack("=HHHxxI", data[:12])[3])
    return 0


def listen(loop, over, ip, accepted, port=0):
    made = new_socket(over, ip)
    made.bind((ip, port))
    made.listen(16)

    def ready():
        connection = made.accept()[0]
        if over == "sctp":
            subscribe(connection)
        accepted(connection)
    loop.selector.register(made, selectors.EVENT_READ, ready)
    return made


def subscribe(made):
    # SCTP_EVENTS with data_io_event alone: PPIDs are told.
    made.setsockopt(socket.IPPROTO_SCTP, 11, b"\x01")


def dial(over, to, source=None):
    made = new_socket(over, to[0])
    if source:
        made.bind((source, 0))
    if over == "sctp":
        subscribe(made)
    made.settimeout(2)
    made.connect(to)
    made.settimeout(None)
    return made


def dial_any(over, transport):
    """A connection with one of a transport's IPv4 addresses; None if there is none."""
    port, _, ips = transport
    for ip in (ip for ip in ips if ":" not in ip):
        try:
            return dial(over, (ip, port))
        except OSError:
            pass
    return None


# RFC 5353 and the server's side of RFC 5352.

class Peer:
    def __init__(self, ident):
        self.id, self.connection, self.heard, self.asked, self.active, self.server = ident, None, time.monotonic(), None, True, None


class Registrar:
    """An ENRP server. The thresholds are those of section 4.2, divided by `haste`."""

    def __init__(self, loop, over, ip="127.0.0.1", ident=None, haste=30, asap_port=0, enrp_port=0):
        self.loop, self.over, self.ip = loop, over, ip
        self.id = ident or random.randrange(1, 1 << 32)
        self.peers, self.pools, self.serving, self.taking, self.log = {}, {}, True, {}, []
        self.owners, self.subscribers, self.marked, self.expiry = {}, {}, {}, {}
        # For who looks what others make of it: a warning with each registration, time before an answer to peers.
        self.warning, self.patience = None, 0
        self.heartbeat, self.last_heard, self.no_response = 30 / haste, 61 / haste, max(1.0, 5 / haste)
        if over == "sctp":
            self.many = Many(loop, ip, enrp_port, ENRP_PPID, self.enrp)
            self.enrp_listener = self.many.socket
        else:
            self.many = None
            self.enrp_listener = listen(loop, over, ip, lambda made: Connection(loop, over, made, ENRP_PPID, self.enrp, self.lost), enrp_port)
        self.asap_listener = listen(loop, over, ip, lambda made: Connection(loop, over, made, ASAP_PPID, self.asap, self.ended), asap_port)
        self.enrp_address, self.asap_address = self.enrp_listener.getsockname()[:2], self.asap_listener.getsockname()[:2]
        self.alive = True
        loop.every(self.heartbeat, self.beat)
        loop.every(0.1, self.watch)

    def stop(self):
        """A sudden death."""
        self.alive = False
        if self.many:
            self.many.close()
        for listener in (self.asap_listener,) if self.many else (self.enrp_listener, self.asap_listener):
            self.loop.selector.unregister(listener)
            listener.close()
        for key in list(self.loop.selector.get_map().values()):
            owner = getattr(key.data, "__self__", None)
            if isinstance(owner, Connection) and owner.heard in (self.enrp, self.asap):
                owner.closed = lambda connection: None
                owner.close()

    # Section 3.2: joining.
    def join(self, mentor):
        self.serving = False
        self.mentor = connection = self.connect(mentor)
        connection.send(self.message(LIST_REQUEST))

    def connect(self, to):
        if self.many:
            return self.many.dial(to)
        return Connection(self.loop, self.over, dial(self.over, to), ENRP_PPID, self.enrp, self.lost)

    def message(self, kind, flags=0, receiver=0, fixed=b"", params=()):
        return message(kind, flags, struct.pack("!II", self.id, receiver) + fixed, list(params))

    def server_information(self):
        return tlv(SERVER, struct.pack("!I", self.id) + transport(SCTP, self.enrp_address[1], [self.ip]))

    def presence(self, receiver=0, required=False):
        own = tlv(CHECKSUM, struct.pack("!H", self.checksum(self.id)))
        return self.message(PRESENCE, int(required), receiver, params=[own, self.server_information()])

    def checksum(self, owner):
        return checksum((name, pe.id) for name, pool in self.pools.items() for pe in pool.values() if pe.home == owner)

    def announce(self, data, but=()):
        for peer in list(self.peers.values()):
            if peer.connection and peer.connection.open and peer.id not in but:
                peer.connection.send(data)

    def beat(self):
        if self.alive:
            self.announce(self.presence())
        return self.alive

    # Section 3.4.3.
    def watch(self):
        now = time.monotonic()
        for peer in list(self.peers.values()):
            if not peer.active or peer.id in self.taking or peer.id not in self.peers:
                continue
            if peer.asked and peer.heard < peer.asked and now - peer.asked > self.no_response:
                self.begin_takeover(peer)
            elif now - peer.heard > self.last_heard and not peer.asked:
                peer.asked = now
                if peer.connection and peer.connection.open:
                    peer.connection.send(self.presence(peer.id, True))
        for key, end in list(self.expiry.items()):
            if end <= now:
                self.expire(*key)
        return self.alive

    def lost(self, connection):
        for peer in self.peers.values():
            if peer.connection is connection:
                peer.connection = None

    # Section 3.5.
    def begin_takeover(self, peer):
        peer.active, peer.asked = False, None
        self.log.append(("takeover begun", peer.id))
        waiting = {other.id for other in self.peers.values() if other.active and other.connection}
        self.taking[peer.id] = waiting
        self.announce(self.message(INIT_TAKEOVER, fixed=struct.pack("!I", peer.id)))
        self.may_take_over(peer.id)

    def may_take_over(self, target):
        if target in self.taking and not self.taking[target]:
            del self.taking[target]
            self.announce(self.message(TAKEOVER, fixed=struct.pack("!I", target)), but=[target])
            self.peers.pop(target, None)
            self.log.append(("taken over", target))
            self.adopt(target, self.id, True)

    def adopt(self, target, owner, tell):
        for name, pool in self.pools.items():
            for pe in pool.values():
                if pe.home == target:
                    pe.home = owner
                    if tell and pe.asap and pe.asap[0] in (SCTP, TCP):
                        self.claim(name, pe)

    def claim(self, name, pe):
        over = "sctp" if pe.asap[0] == SCTP else "tcp"
        made = dial_any(over, read_transport(*pe.asap))
        if made is None:
            return
        link = Connection(self.loop, over, made, ASAP_PPID, self.asap, self.ended)
        self.owners[name, pe.id] = link
        link.send(message(KEEP_ALIVE, 1, struct.pack("!I", self.id), [handle(name)]))

    # What peers send.
    def enrp(self, connection, data):
        try:
            got = Message(data, {**{None: 8}, **ENRP_FIXED})
        except Malformed as wrong:
            self.log.append(("malformed", str(wrong), data.hex()))
            return
        sender, receiver = struct.unpack("!II", got.fixed[:8])
        self.log.append((got.type, sender, receiver, got))
        if got.type > ENRP_ERROR:
            if got.type >> 6 == 1:
                connection.send(self.message(ENRP_ERROR, receiver=sender, params=[error(UNRECOGNIZED_MESSAGE, data)]))
            return
        if got.report:
            connection.send(self.message(ENRP_ERROR, receiver=sender, params=[error(UNRECOGNIZED_PARAMETER, one) for one in got.report[:1]]))
        peer = self.peers.get(sender)
        if peer is None:
            # Section 3.4.1.
            peer = self.peers[sender] = Peer(sender)
            peer.connection = connection
            connection.send(self.presence(sender, True))
        peer.connection, peer.heard, peer.asked = connection, time.monotonic(), None
        target = struct.unpack("!I", got.fixed[8:12])[0] if got.type in (INIT_TAKEOVER, TAKEOVER_ACK, TAKEOVER) else 0
        if got.type == PRESENCE:
            peer.active = True
            if sender in self.taking:
                del self.taking[sender]
                self.log.append(("takeover stopped", sender))
            if got.all(SERVER):
                peer.server = got.one(SERVER)
            if got.flags & 1:
                connection.send(self.presence(sender))
            if got.all(CHECKSUM) and self.serving and struct.unpack("!H", got.one(CHECKSUM))[0] != self.checksum(sender):
                self.log.append(("audit", sender))
                self.marked[sender] = {(name, pe.id) for name, pool in self.pools.items() for pe in pool.values() if pe.home == sender}
                connection.send(self.message(TABLE_REQUEST, 1, sender))
        elif got.type == TABLE_REQUEST:
            pools = [(name, [pe for pe in pool.values() if not got.flags & 1 or pe.home == self.id]) for name, pool in self.pools.items()]
            params = [part for name, pes in pools if pes for part in [handle(name), *[pe.write() for pe in pes]]]
            response = self.message(TABLE_RESPONSE, 0 if self.serving else 1, sender, params=params if self.serving else [])
            self.loop.after(self.patience, lambda: connection.send(response))
        elif got.type == TABLE_RESPONSE:
            self.table(peer, got)
        elif got.type == UPDATE:
            action = struct.unpack("!H", got.fixed[8:10])[0]
            if action == ADD:
                self.put(got.handle, got.element)
            elif action == DELETE:
                self.drop(got.handle, got.element.id)
        elif got.type == LIST_REQUEST:
            known = [tlv(SERVER, other.server) for other in self.peers.values() if other.server and other.id != sender]
            connection.send(self.message(LIST_RESPONSE, 0 if self.serving else 1, sender, params=known if self.serving else []))
        elif got.type == LIST_RESPONSE:
            self.listed(connection, sender, got)
        elif got.type == INIT_TAKEOVER:
            if target == self.id:
                self.announce(self.presence())
            elif target in self.taking and self.id >= sender:
                pass
            else:
                if self.taking.pop(target, None) is not None:
                    self.log.append(("gave way", sender))
                if target in self.peers:
                    self.peers[target].active = False
                connection.send(self.message(TAKEOVER_ACK, receiver=sender, fixed=struct.pack("!I", target)))
        elif got.type == TAKEOVER_ACK:
            self.taking.get(target, set()).discard(sender)
            self.may_take_over(target)
        elif got.type == TAKEOVER:
            self.taking.pop(target, None)
            if target != self.id:
                self.peers.pop(target, None)
            self.adopt(target, sender, False)

    def listed(self, connection, sender, got):
        if connection is not getattr(self, "mentor", None):
            return
        if got.flags & 1:
            self.loop.after(1, lambda: connection.send(self.message(LIST_REQUEST, receiver=sender)))
            return
        for value in got.all(SERVER):
            ident = struct.unpack("!I", value[:4])[0]
            kinds, _ = parameters(value[4:])
            if ident == self.id or ident in self.peers:
                continue
            peer = self.peers[ident] = Peer(ident)
            for kind, one in kinds:
                if kind == (SCTP if self.over == "sctp" else TCP) and peer.connection is None:
                    port, _, ips = read_transport(kind, one)
                    # Another host's loopback address is none of it.
                    for ip in (ip for ip in ips if ":" not in ip and ip.startswith("127.") == self.ip.startswith("127.")):
                        try:
                            peer.connection = self.connect((ip, port))
                        except OSError:
                            continue
                        peer.connection.send(self.presence(ident, True))
                        break
        connection.send(self.message(TABLE_REQUEST, 0, sender))

    def table(self, peer, got):
        if got.flags & 1:
            if not self.serving:
                self.loop.after(1, lambda: peer.connection.send(self.message(TABLE_REQUEST, 0, peer.id)))
            return
        name, marked = None, self.marked.get(peer.id, set())
        for kind, value in got.params:
            if kind == HANDLE:
                name = value.decode()
            elif kind == ELEMENT and name is not None:
                pe = Element.read(value)
                marked.discard((name, pe.id))
                self.put(name, pe)
        if got.flags & 2:
            peer.connection.send(self.message(TABLE_REQUEST, int(peer.id in self.marked), peer.id))
            return
        for name, ident in marked:
            self.drop(name, ident)
        self.marked.pop(peer.id, None)
        if not self.serving:
            self.serving = True
            self.log.append(("serves",))

    # The handlespace.
    def put(self, name, pe):
        self.pools.setdefault(name, {})[pe.id] = pe
        self.push(name)

    def drop(self, name, ident):
        pe = self.pools.get(name, {}).pop(ident, None)
        self.expiry.pop((name, ident), None)
        if name in self.pools and not self.pools[name]:
            del self.pools[name]
        if pe:
            self.push(name)
        return pe

    def update(self, action, name, pe):
        self.announce(self.message(UPDATE, fixed=struct.pack("!HH", action, 0), params=[handle(name), pe.write()]))

    def remove(self, name, ident):
        pe = self.drop(name, ident)
        if pe and pe.home == self.id:
            self.update(DELETE, name, pe)

    def expire(self, name, ident):
        link = self.owners.get((name, ident))
        self.remove(name, ident)
        if link and link.open:
            link.send(message(DEREGISTRATION_RESPONSE, 0, b"", [handle(name), pe_id(ident)]))

    def push(self, name):
        for link in self.subscribers.get(name, []):
            if link.open and name in self.pools:
                link.send(self.resolution(name, True))

    # RFC 5352: what elements and users send.
    def ended(self, connection):
        for key, link in list(self.owners.items()):
            if link is connection:
                del self.owners[key]

    def resolution(self, name, accepted):
        pool = self.pools.get(name)
        if not pool:
            return message(HANDLE_RESOLUTION_RESPONSE, 0, b"", [handle(name), error(UNKNOWN_POOL)])
        first = next(iter(pool.values()))
        return message(HANDLE_RESOLUTION_RESPONSE, int(accepted), b"", [handle(name), tlv(*first.policy), *[pe.write() for pe in pool.values()]])

    def asap(self, connection, data):
        try:
            got = Message(data, ASAP_FIXED)
            self.log.append(("asap", got.type, got))
            if got.type == REGISTRATION:
                self.register(connection, got.handle, got.element)
            elif got.type == DEREGISTRATION:
                self.remove(got.handle, got.pe_id)
                connection.send(message(DEREGISTRATION_RESPONSE, 0, b"", [handle(got.handle), pe_id(got.pe_id)]))
            elif got.type == HANDLE_RESOLUTION:
                wanted = bool(got.flags & 1) and got.handle in self.pools
                if wanted:
                    self.subscribers.setdefault(got.handle, []).append(connection)
                connection.send(self.resolution(got.handle, wanted))
            elif got.type == UNREACHABLE:
                link = self.owners.get((got.handle, got.pe_id))
                if link and link.open:
                    link.send(message(KEEP_ALIVE, 0, struct.pack("!I", self.id), [handle(got.handle)]))
                else:
                    self.remove(got.handle, got.pe_id)
        except Malformed as wrong:
            self.log.append(("malformed", str(wrong), data.hex()))

    def register(self, connection, name, pe):
        pool, cause = self.pools.get(name), None
        if pool:
            first = next(iter(pool.values()))
            if pe.policy_type != first.policy_type:
                cause = error(BAD_POLICY, tlv(*first.policy))
            elif pe.user[0] != first.user[0]:
                cause = error(BAD_TRANSPORT, tlv(*first.user))
            elif pe.control != first.control:
                cause = error(BAD_USE)
        told = cause or self.warning
        answer = [handle(name), pe_id(pe.id)] + ([told] if told else [])
        if cause is None:
            pe.home = self.id
            if self.over == "sctp":
                ip, port = connection.peer
                pe.asap = user_transport(SCTP, port, [ip])
            self.owners[name, pe.id] = connection
            self.put(name, pe)
            if pe.life >= 0:
                self.expiry[name, pe.id] = time.monotonic() + pe.life
            self.update(ADD, name, pe)
        connection.send(message(REGISTRATION_RESPONSE, int(cause is not None), b"", answer))


# RFC 5352: the element's and the user's side.

class Endpoint:
    """An ASAP endpoint with its home registrar: sends requests, keeps what came, answers keep-alives for its elements."""

    def __init__(self, loop, over, registrar, source=None):
        self.loop, self.over, self.got, self.mine, self.home = loop, over, [], {}, None
        self.link = Connection(loop, over, dial(over, registrar, source), ASAP_PPID, self.heard)
        # Registrars that take over come to where registrations came from (section 3.1); over TCP, to what is told.
        self.claims = []

    def heard(self, connection, data):
        got = Message(data, ASAP_FIXED)
        self.got.append(got)
        if got.type == KEEP_ALIVE:
            self.home = struct.unpack("!I", got.fixed)[0] if got.flags & 1 else self.home
            for name, ident in self.mine:
                if name == got.handle:
                    connection.send(message(KEEP_ALIVE_ACK, 0, b"", [handle(name), pe_id(ident)]))

    def ask(self, data, kind, seconds=5.0):
        """Sends, and waits for a message of that type, which is returned; None if none comes."""
        start = len(self.got)
        self.link.send(data)
        return self.next(kind, seconds, start)

    def next(self, kind, seconds=5.0, start=None):
        start = len(self.got) if start is None else start
        found = lambda: next((got for got in self.got[start:] if got.type == kind), None)
        self.loop.until(lambda: found() is not None, seconds)
        return found()

    def register(self, name, pe):
        answer = self.ask(message(REGISTRATION, 0, b"", [handle(name), pe.write()]), REGISTRATION_RESPONSE)
        if answer is not None and not answer.flags & 1:
            self.mine[name, pe.id] = pe
        return answer

    def deregister(self, name, ident):
        self.mine.pop((name, ident), None)
        return self.ask(message(DEREGISTRATION, 0, b"", [handle(name), pe_id(ident)]), DEREGISTRATION_RESPONSE)

    def resolve(self, name, subscribe=False):
        return self.ask(message(HANDLE_RESOLUTION, int(subscribe), b"", [handle(name)]), HANDLE_RESOLUTION_RESPONSE)

    def unreachable(self, name, ident):
        self.link.send(message(UNREACHABLE, 0, b"", [handle(name), pe_id(ident)]))

    def close(self):
        self.link.close()
