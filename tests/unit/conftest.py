"""Fixtures that several unit tests share."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from rootless.container.state.root import StateRoot
from tests.lib.ops_header import SOURCES, includes

# no deadline: the machine may be busy
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

HERE = Path(__file__).resolve().parent
SANITIZERS = "-fsanitize=address,undefined"


@pytest.fixture
def closed(monkeypatch):
    """Close the state directories that a test opens, as the end of a command does; no other descriptor may stay."""
    open_root, roots, before = StateRoot._open, [], os.listdir("/proc/self/fd")

    def note(root):
        open_root(root)
        roots.append(root.fd)

    monkeypatch.setattr(StateRoot, "_open", note)
    yield
    for fd in roots:
        os.close(fd)
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture(scope="session")
def decoder(tmp_path_factory, need):
    """Return a function that passes a Plan to the executor's decoder, built with sanitizers."""
    program = tmp_path_factory.mktemp("decode") / "decode"
    words = [need("gcc"), "-std=gnu11", "-g", "-O1", SANITIZERS, "-fno-sanitize-recover=all", *includes(program.parent)]
    subprocess.run([*words, HERE / "data/decode.c", SOURCES / "plan.c", "-o", program], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:

        def judge(plan: bytes) -> str:
            process.stdin.write(struct.pack("=I", len(plan)) + plan)
            return process.stdout.readline().decode().strip() or pytest.fail("a sanitizer ended it: see standard error")

        yield judge
        process.stdin.close()
        assert process.wait() == 0
