"""The command as a user or an engine calls it, and functions that wait for events instead of sleeping."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

PATIENCE = 30
"""Seconds after which an immediate event counts as missing."""


class Rootless:
    """`rootless --root DIR …` as one user, with a DIR of the test; at the end all its containers are deleted."""

    def __init__(self, user, command: str) -> None:
        self.user = user
        self.root = user.tmp / "state"
        self.command = command

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        left = self("list", "-q").stdout.split()
        for container in left:
            self("delete", "--force", container)
        assert not self("list", "-q").stdout

    def argv(self, *words) -> list[str]:
        """Return the command line for `words`."""
        return [self.command, "--root", str(self.root), *map(str, words)]

    def __call__(self, *words, **options) -> subprocess.CompletedProcess:
        """Run the command to its end; no process that it leaves may keep its output open."""
        return self.user.run(self.argv(*words), **({"timeout": PATIENCE} | options))

    def make_root(self) -> None:
        """Create DIR as the user, unless it exists."""
        self.root.mkdir(exist_ok=True)
        os.chown(self.root, self.user.uid, self.user.gid)

    def popen(self, *words, **options) -> subprocess.Popen:
        """Start the command."""
        return self.user.popen(self.argv(*words), **options)

    def create(self, container: str, bundle, *flags, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Create a container with empty input; output() and complaints() read the files of its other streams."""
        with self._stream(container, "out") as out, self._stream(container, "err") as err:
            options = {"stdout": out, "stderr": err} | options
            done = self("create", "--bundle", bundle, *flags, container, **options)
        done.stderr = self.complaints(container)
        assert not (check and done.returncode), done
        return done

    def start(self, container: str) -> None:
        """Start a created container."""
        done = self("start", container)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def state(self, container: str) -> dict:
        """Return the state of a container."""
        return json.loads(self("state", container, check=True).stdout)

    def status(self, container: str) -> str:
        """Return the status of a container."""
        return self.state(container)["status"]

    def pid(self, container: str) -> int:
        """Return the process id of a container."""
        return self.state(container)["pid"]

    def list(self) -> list[dict]:
        """Return the states of all containers."""
        return json.loads(self("list", "--format", "json", check=True).stdout) or []

    def output(self, container: str) -> str:
        """Return the standard output of a container from create()."""
        return (self.user.tmp / f"{container}.out").read_text()

    def complaints(self, container: str) -> str:
        """Return the standard error of create() and then of its container."""
        return (self.user.tmp / f"{container}.err").read_text()

    def _stream(self, container: str, name: str):
        path = self.user.tmp / f"{container}.{name}"
        with path.open("wb"):
            os.chown(path, self.user.uid, self.user.gid)
        return path.open("ab")


def readable(fd: int, seconds: float) -> bool:
    """Wait until a descriptor can be read. Unlike select(2), it may be above 1023, after thousands of tests."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Reader:
    """Read lines from a pipe, each within PATIENCE seconds."""

    def __init__(self, file) -> None:
        self._fd = file if isinstance(file, int) else file.fileno()
        self._rest = b""

    def until(self, end: bytes) -> bytes:
        """Return the output up to `end`, included."""
        deadline = time.monotonic() + PATIENCE
        while end not in self._rest:
            if not readable(self._fd, max(0, deadline - time.monotonic())):
                pytest.fail(f"{end!r} did not come; there is {self._rest!r}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the other side of the terminal is closed
                data = b""
            if not data:
                pytest.fail(f"end of file instead of {end!r}; there is {self._rest!r}")
            self._rest += data
        found, _, self._rest = self._rest.partition(end)
        return found + end

    def comes(self, end: bytes, seconds: float) -> bool:
        """Whether `end` is in the output, or comes within so many seconds of silence; none of it is taken."""
        while end not in self._rest and readable(self._fd, seconds):
            self._rest += os.read(self._fd, 65536)
        return end in self._rest

    def line(self) -> str:
        """Return the next line without its end."""
        return self.until(b"\n").decode().strip()

    def rest(self) -> bytes:
        """Return everything up to end of file."""
        deadline = time.monotonic() + PATIENCE
        while readable(self._fd, max(0, deadline - time.monotonic())):
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            if not data:
                found, self._rest = self._rest, b""
                return found
            self._rest += data
        pytest.fail(f"no end of file; there is {self._rest!r}")


def await_end(pid: int) -> None:
    """Wait until a process has ended; it may be a zombie."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert readable(process, PATIENCE), f"process {pid} does not end"
    finally:
        os.close(process)


def until(condition, what: str) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"does not happen: {what}"
        time.sleep(0.01)


def executors(user) -> set[int]:
    """Return the user's processes that run helpers/init and have not executed a container's program yet."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid in (user.uid, 0):
                name, _, state = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                if name == "rootless:init" and state.split()[0] not in "ZX":
                    found.add(int(entry.name))
        except OSError:
            continue
    return found


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB, shared memory included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def children_of(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def in_mount_namespace_of(first: int) -> set[int]:
    """Return the other processes in the mount namespace of a container's first process."""
    namespace = os.readlink(f"/proc/{first}/ns/mnt")
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.readlink(entry / "ns/mnt") == namespace:
                found.add(int(entry.name))
        except OSError:
            continue
    return found - {first}
