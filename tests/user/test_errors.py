"""What is said when something fails: one line with the place, the cause and the fix, in words that engines know."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.user.bundles import base_config, make_bundle, own
from tests.user.containers import Rootless

PODMAN = (
    ("denied", re.compile(r"(?i).*permission denied.*|.*operation not permitted.*")),
    ("not found", re.compile(r"(?i).*executable file not found in.*|.*no such file or directory.*|.*open executable.*")),
)
"""How podman reads an error (libpod, oci_util.go), first match first; the line that matches is all that it shows."""
DOCKER = (
    ("not found", ("executable file not found", "no such file or directory", "not a directory")),
    ("denied", ("permission denied", "is a directory")),
)
"""How dockerd does, in lower case (daemon/errors.go): exit status 127 or 126, the later one wins."""


def podman(message):
    return next((verdict for verdict, pattern in PODMAN if any(map(pattern.search, message.splitlines()))), "other")


def docker(message):
    found = [verdict for verdict, words in DOCKER if any(word in message.lower() for word in words)]
    return found[-1] if found else "other"


@pytest.fixture
def rootless(user, rootless_command):
    with Rootless(user, rootless_command) as command:
        yield command


def mount(destination, **properties):
    return {"destination": destination} | properties


def script(text, mode=0o755):
    def write(root):
        (root / "bin/script").write_bytes(text)
        (root / "bin/script").chmod(mode)

    return write


def elf(machine, interpreter=b""):
    """Write a program of 64 bits, little-endian, with an interpreter."""
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(interpreter) + 1, len(interpreter) + 1, 1)
    return script(header + program + interpreter + b"\0")


def machine():
    """Return the number of this machine's architecture in ELF, and of another."""
    ours = struct.unpack("<H", Path("/proc/self/exe").read_bytes()[18:20])[0]
    return ours, 183 if ours != 183 else 62


OURS, THEIRS = machine()
NAMES = {62: "x86_64", 183: "aarch64"}


def link_proc(root):
    (root / "proc").rmdir()
    (root / "proc").symlink_to("data")


def closed_directory(root):
    (root / "data").chmod(0o700)


CASES = {
    # name: (what is changed in config.json or None, what is prepared in the root file system or None, the line, podman's
    # verdict, docker's)
}
