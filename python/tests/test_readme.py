"""The snippets of README.md and python/README.md: they run as they stand, and are typed."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import start, stop

ROOT = Path(__file__).parent.parent.parent


def snippets(page: str, language: str) -> "list[str]":
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def server():
    started = []

    def begin(*command: str) -> None:
        started.append(start(*command))

    yield begin
    for process in started:
        stop(process)


def in_pool(code: str, pool: str) -> str:
    assert '"EchoPool"' in code
    return code.replace('"EchoPool"', f'"{pool}"')


def ask(command: "list[str]", **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def wait_for(pool: str) -> None:
    import rserpool

    while True:
        try:
            assert rserpool.resolve(pool)
            return
        except rserpool.PoolNotFound:
            time.sleep(0.05)


@pytest.mark.parametrize("page", ["README.md", "python/README.md"])
def test_python(page, pool, server):
    serve, use = snippets(page, "python")[:2]
    server(sys.executable, "-c", in_pool(serve, pool))
    wait_for(pool)
    done = ask([sys.executable, "-c", "import rserpool\n" + in_pool(use, pool)])
    assert done.stdout == "b'hello'\n", done.stderr


def test_asyncio(pool, server):
    code = in_pool(snippets("python/README.md", "python")[2], pool)
    server(sys.executable, "-c", code + "\nasyncio.run(serve())")
    wait_for(pool)
    done = ask([sys.executable, "-c", code + "\nasyncio.run(ask())"])
    assert done.stdout == "b'hello'\n", done.stderr


@pytest.mark.parametrize("page", ["README.md", "python/README.md"])
def test_types(page, tmp_path):
    if ask([sys.executable, "-m", "mypy", "--version"]).returncode:
        pytest.skip("no mypy")
    file = tmp_path / "snippet.py"
    file.write_text("\n".join(snippets(page, "python")))
    path = {**os.environ, "MYPYPATH": str(ROOT / "python" / "src")}
    done = ask([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)], env=path)
    assert done.returncode == 0, done.stdout


C_PROGRAM = """
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <rserpool/rserpool.h>

int main(int argc, char** argv)
{{
    char buffer[64];

    rsp_initialize(NULL);
    if (argc > 1) {{
        int sd = rsp_socket(0, SOCK_STREAM, IPPROTO_SCTP);
        ssize_t length;

        {use};
        rsp_write(sd, "hello", 5);
        do {{
            length = rsp_read(sd, buffer, sizeof(buffer));
        }} while (length < 0);
        printf("%.*s\\n", (int)length, buffer);
    }} else {{
        {serve}
        for (ssize_t length; (length = rsp_read(session, buffer, sizeof(buffer))) != 0;) {{
            if (length > 0) {{
                rsp_write(session, buffer, (size_t)length);
            }}
        }}
    }}
    rsp_cleanup();
    return 0;
}}
"""


def test_c(pool, server, tmp_path):
    library = Path(os.environ.get("RSERPOOL_LIBRARY", "librserpool.so"))
    try:
        ask(["cc", "--version"])
    except FileNotFoundError:
        pytest.skip("no cc")
    serve = snippets("README.md", "c")[0].replace('"EchoPool", 8', f'"{pool}", {len(pool)}')
    # The client's half stands in the text.
    use = re.search(r"`(rsp_connect\(sd, [^`]*)`", (ROOT / "README.md").read_text())[1]
    use = use.replace('"EchoPool", 8', f'(const unsigned char*)"{pool}", {len(pool)}')
    (tmp_path / "program.c").write_text(C_PROGRAM.format(serve=serve, use=use))
    program = str(tmp_path / "program")
    built = ask(["cc", "-std=c99", "-D_GNU_SOURCE", "-Wall", "-Werror", f"-I{ROOT / 'include'}", "-o", program,
                 str(tmp_path / "program.c"), str(library), f"-Wl,-rpath,{library.parent}"])
    assert built.returncode == 0, built.stderr
    path = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    soname = tmp_path / "librserpool.so.0"
    soname.symlink_to(library)
    os.environ["LD_LIBRARY_PATH"] = path["LD_LIBRARY_PATH"] = str(tmp_path)
    server(program)
    wait_for(pool)
    done = ask([program, "use"], env=path)
    assert done.stdout == "hello\n", done.stderr
