"""Every test has a registrar of its own process, shared by all, and elements that are real processes."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

HERE = Path(__file__).parent
# For what must happen: long enough for a busy machine.
SOON = 30.0


def start(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def stop(process: "subprocess.Popen[str]") -> None:
    """Ends a process of ours, frozen or not."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.fixture(scope="session", autouse=True)
def registrar() -> Iterator[str]:
    """Address of a registrar on a free port, also for what is started later."""
    program = os.environ.get("RSPREGISTRAR", "rspregistrar")
    off = ["-asapannounce=off", "-enrpannounce=off", "-transport=tcp", "-mentordiscoverytimeout=0"]
    process = start(program, "-asap=127.0.0.1:0", "-enrp=127.0.0.1:0", *off)
    assert process.stdout
    address = ""
    for line in process.stdout:
        if found := re.match(r"ASAP tcp (\S+)", line):
            address = found[1].rstrip(",")
        if line.rstrip().endswith("ready"):
            break
    assert address, "the registrar did not say where it listens"
    os.environ["RSP_REGISTRAR"] = address
    os.environ["RSP_TRANSPORT"] = "tcp"
    os.environ["RSP_ANNOUNCE"] = "off"
    # A registration that gets no answer in time goes on in the background, and the element says all
    # the same that it is registered (as rsp_register does): a starved registrar needs longer than usual.
    os.environ["RSP_RESPONSE_TIMEOUT"] = os.environ["RSP_CONNECT_TIMEOUT"] = str(round(SOON * 1000))
    yield address
    stop(process)


@pytest.fixture
def pool(_numbers: "itertools.count[int]" = itertools.count()) -> str:
    """A pool handle that no other test uses."""
    return f"Pool{next(_numbers)}"


class Server:
    """A process with one element of a pool; see counter.py."""

    def __init__(self, pool: str, identifier: int, *arguments: str) -> None:
        self.identifier = identifier
        self.process = start(sys.executable, "-u", str(HERE / "counter.py"), pool, str(identifier), *arguments)
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == "registered"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Returns when it has stopped: on a busy machine it would go on for a while after the signal."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def serve(pool: str) -> Iterator[Callable[..., Server]]:
    """Starts elements of the test's pool: `serve(identifier)`."""
    servers: list[Server] = []

    def one(identifier: int, *arguments: str) -> Server:
        servers.append(Server(pool, identifier, *arguments))
        return servers[-1]

    yield one
    for server in servers:
        stop(server.process)
