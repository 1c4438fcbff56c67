"""The download example: the file arrives whole although its server is killed."""

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from conftest import start, stop

EXAMPLE = str(Path(__file__).parent.parent / "examples" / "download.py")
MEBIBYTE = 1 << 20


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        stop(process)


def test_download_survives_its_server(pool, processes, tmp_path):
    (tmp_path / "files").mkdir()
    content = os.urandom(64 * MEBIBYTE)
    (tmp_path / "files" / "random").write_bytes(content)
    servers = {}
    for _ in range(3):
        server = start(sys.executable, EXAMPLE, "serve", str(tmp_path / "files"), pool)
        processes.append(server)
        servers[int(re.search("0x[0-9a-f]+", server.stdout.readline())[0], 16)] = server
    user = start(sys.executable, EXAMPLE, "get", "random", str(tmp_path / "out"), pool)
    processes.append(user)
    served = []
    for line in user.stdout:
        if found := re.match(r"element (0x[0-9a-f]+) from byte (\d+)", line):
            served.append(int(found[1], 16))
            if len(served) < 3:
                # Struck while it serves: the file is far too large for the buffers in between.
                servers[served[-1]].kill()
        else:
            assert line == f"done: {len(content)} bytes\n"
    assert user.wait() == 0
    assert len(served) == 3 and len(set(served)) == 3
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(content).digest()


def test_missing_file(pool, processes, tmp_path):
    server = start(sys.executable, EXAMPLE, "serve", str(tmp_path), pool)
    processes.append(server)
    assert server.stdout.readline().startswith("serving")
    user = start(sys.executable, EXAMPLE, "get", "no such file", str(tmp_path / "out"), pool)
    processes.append(user)
    assert user.wait(30) == 1
