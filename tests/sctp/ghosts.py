"""SCTP (RFC 9260) by hand, from hosts that don't exist: what a kernel would never send.

A tun(4) device stands for a network, all of whose hosts are here. Checksums are not computed: the kernel has to be told
not to look at them (/sys/module/sctp/parameters/no_checksums).
"""

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

NETWORK, OURS = "10.66.0.0/16", "10.66.0.1"
DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN, SHUTDOWN_ACK, _, COOKIE_ECHO, COOKIE_ACK = range(12)
BEGINS, ENDS = 2, 1
SILENT, UP, OVER = range(3)


def host(number):
    return f"10.66.{1 + number // 250}.{1 + number % 250}"


class Network:
    """Answers for all of its hosts, on a thread."""

    def __init__(self, name="ghosts"):
        with open("/sys/module/sctp/parameters/no_checksums", "w", encoding="ascii") as switch:
            switch.write("Y")
        self.device = os.open("/dev/net/tun", os.O_RDWR)
        # TUNSETIFF with IFF_TUN | IFF_NO_PI.
        fcntl.ioctl(self.device, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x1001))
        for words in (f"addr add {OURS}/16 dev {name}", f"link set {name} mtu 32000 txqueuelen 10000 up"):
            subprocess.run(["ip", *words.split()], check=True)
        self.ghosts = {}
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            select.select([self.device], [], [])
            self.take(os.read(self.device, 65536))

    def take(self, packet):
        if packet[0] >> 4 != 4 or packet[9] != 132:
            return
        start = (packet[0] & 15) * 4
        to, port = socket.inet_ntoa(packet[16:20]), struct.unpack("!H", packet[start + 2:start + 4])[0]
        ghost = self.ghosts.get((to, port))
        if ghost is None:
            return
        rest = packet[start + 12:]
        while len(rest) >= 4:
            kind, flags, length = struct.unpack("!BBH", rest[:4])
            if length < 4:
                return
            ghost.heard(kind, flags, rest[4:length], to)
            rest = rest[(length + 3) & ~3:]

    def send(self, source, to, ports, tag, chunks):
        common = struct.pack("!HHII", *ports, tag, 0)
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(common) + len(chunks), 0, 0, 64, 132, 0,
                             socket.inet_aton(source), socket.inet_aton(to))
        total = sum(struct.unpack("!10H", header))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        os.write(self.device, header[:10] + struct.pack("!H", ~total & 0xffff) + header[12:] + common + chunks)


def chunk(kind, flags, value):
    return struct.pack("!BBH", kind, flags, 4 + len(value)) + value + bytes(-len(value) % 4)


class Ghost:
    """One end of an association. `lists`: what its INIT lists beside the address that it comes from. `full`: it takes no
    data, and says so as often as it is sent some."""

    def __init__(self, network, ip, to, port=None, lists=(), window=1 << 20, full=False):
        self.network, self.ip, self.to = network, ip, to
        self.ports = (port or random.randrange(20000, 60000), to[1])
        self.tag, self.theirs, self.tsn, self.state = random.randrange(1, 1 << 32), 0, random.randrange(1 << 32), SILENT
        # With the least window that there may be, nothing comes beside the chunk that is refused.
        self.lists, self.window, self.full = lists, 1500 if full else window, full
        self.last, self.got, self.ssn = 0, [], {}
        network.ghosts[ip, self.ports[0]] = self

    def begin(self):
        addresses = b"".join(struct.pack("!HH4s", 5, 8, socket.inet_aton(ip)) for ip in self.lists)
        fixed = struct.pack("!IIHHI", self.tag, self.window, 10, 10, self.tsn)
        self.network.send(self.ip, self.to[0], self.ports, 0, chunk(INIT, 0, fixed + addresses))

    def chunks(self, chunks, source=None):
        self.network.send(source or self.ip, self.to[0], self.ports, self.theirs, chunks)

    def heard(self, kind, flags, value, at):
        if kind == INIT_ACK and self.state == SILENT:
            self.theirs, rest = struct.unpack("!I", value[:4])[0], value[16:]
            self.last = (struct.unpack("!I", value[12:16])[0] - 1) & 0xffffffff
            while len(rest) >= 4:
                what, length = struct.unpack("!HH", rest[:4])
                if what == 7:
                    self.chunks(chunk(COOKIE_ECHO, 0, rest[4:length]))
                rest = rest[max(4, (length + 3) & ~3):]
        elif kind == COOKIE_ACK:
            self.state = UP
        elif kind == DATA:
            if not self.full:
                self.last = struct.unpack("!I", value[:4])[0]
                self.got.append(value[12:])
            self.chunks(chunk(SACK, 0, struct.pack("!IIHH", self.last, 0 if self.full else self.window, 0, 0)))
        elif kind == HEARTBEAT and at == self.ip:
            self.chunks(chunk(HEARTBEAT_ACK, 0, value))
        elif kind == SHUTDOWN:
            self.state = OVER
            self.chunks(chunk(SHUTDOWN_ACK, 0, b""))
        elif kind == ABORT:
            self.state = OVER

    def vanish(self):
        """Its host answers nothing any more."""
        self.network.ghosts.pop((self.ip, self.ports[0]), None)

    def data(self, payload, flags=BEGINS | ENDS, ppid=11, stream=0):
        """A chunk of a message, whole unless `flags` say otherwise."""
        ssn = self.ssn.get(stream, 0)
        self.ssn[stream] = (ssn + bool(flags & ENDS)) & 0xffff
        self.chunks(chunk(DATA, flags, struct.pack("!IHHI", self.tsn, stream, ssn, ppid) + payload))
        self.tsn = (self.tsn + 1) & 0xffffffff


def crowd(network, count, to, burst=50, **more):
    """So many associations, each from another host, `burst` at a time: those that came up."""
    ghosts = [Ghost(network, host(number), to, **more) for number in range(count)]
    for _ in range(4):
        # Of a listener that has too many to accept comes an ABORT.
        waiting = [ghost for ghost in ghosts if ghost.state != UP]
        for number, ghost in enumerate(waiting):
            ghost.state = SILENT
            ghost.begin()
            if number % burst == 0:
                time.sleep(0.02)
        end = time.monotonic() + 3
        while time.monotonic() < end and any(ghost.state == SILENT for ghost in waiting):
            time.sleep(0.05)
    return [ghost for ghost in ghosts if ghost.state == UP]
