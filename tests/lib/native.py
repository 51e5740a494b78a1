"""Commands that the front door may carry out without Python."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import time
from pathlib import Path

import pytest

from rootless.plan import cached_ops
from tests.lib.containers import until

SETTLED = 3
"""Seconds after which files that were installed may be in a cached Plan."""


def without_numbers(files):
    """Return files of a container without what differs for each process."""
    state = json.loads(files["state.json"][1])
    made = dt.datetime.fromisoformat(state["created"])
    assert abs(dt.datetime.now(dt.UTC) - made) < dt.timedelta(minutes=1)
    for name in ("pid", "startTime", "created", "keyringName"):
        assert state[name], name
        state[name] = name
    for kind, number in state.get("made", {}).items():
        assert number > 0
        state["made"][kind] = kind
    record = files["status"][1]
    status = record[40:80] + re.sub(rb'"pid": [1-9][0-9]*|20\d\d-[0-9T:.-]*Z', b"", record[128:])
    return files | {"state.json": state, "status": status}


class Runs:
    """Commands of which strace shows whether Python took part."""

    def __init__(self, rootless, need) -> None:
        until(lambda: time.time() - Path(f"{rootless.command}.py").stat().st_ctime > SETTLED, "it is installed")
        self.rootless = rootless
        self._strace = need("strace")
        self.trace = rootless.user.tmp / "execve"

    def argv(self, *words, strace=()) -> list[str]:
        """Return a command line under strace."""
        calls = "all" if strace else "execve"
        return [self._strace, "-o", str(self.trace), "-e", f"trace={calls}", *strace, *self.rootless.argv(*words)]

    def __call__(self, *words, prefix=(), strace=(), **options):
        """Run to the end; return what it did, and whether it did so without Python."""
        done = self.rootless.user.run([*prefix, *self.argv(*words, strace=strace)], **options)
        return done, self.is_native()

    def is_native(self) -> bool:
        """Whether the last command executed nothing but itself."""
        return self.trace.read_text().count("execve(") == 1


ACCOUNTS = ("passwd", "group", "subuid", "subgid")
"""Files of /etc that change while another run of the tests makes its users."""


def warm(runs, *words, **options):
    """Run until Python takes no part, which is at the latest the third time. Return the outcome."""
    while True:
        before = time.time()
        until(lambda: last_change() < time.time() - SETTLED, "the accounts of the host have settled")
        first, _ = runs(*words, **options)
        for _ in range(2):
            last, native = runs(*words, **options)
            assert (first.returncode, first.stdout, first.stderr) == (last.returncode, last.stdout, last.stderr)
            if native:
                return last
        if last_change() < before:
            pytest.fail(f"Python takes part each time: {last}")


def last_change() -> float:
    """Return when the accounts of the host were changed, in seconds since 1970."""
    return max(Path("/etc", name).stat().st_ctime for name in ACCOUNTS)


def _swap_for_symlink(entry):
    entry.rename(entry.with_name("real"))
    entry.symlink_to("real")


HOSTILE_ENTRIES = {
    "another owner": lambda entry: os.chown(entry, 0, 0),
    "writable for the group": lambda entry: entry.chmod(0o660),
    "writable for others": lambda entry: entry.chmod(0o602),
    "symlink": _swap_for_symlink,
    "empty": lambda entry: os.truncate(entry, 0),
    "truncated": lambda entry: os.truncate(entry, entry.stat().st_size - 1),
    "too large": lambda entry: os.truncate(entry, cached_ops.LARGEST + 1),
    "another magic": lambda entry: entry.write_bytes(b"RLCACH00" + entry.read_bytes()[8:]),
}
"""What makes the file of a cached Plan one that must not be followed; most of it needs root."""

CHANGING = (
    "mkdirat",
    "openat",
    "flock",
    "memfd_create",
    "sendfile",
    "pipe2",
    "clone",
    "clone3",
    "write",
    "wait4",
    "renameat",
)
CHANGING += ("signalfd4", "read", "pidfd_open", "unlinkat", "poll", "mkdir", "rmdir", "getdents64", "exit_group")
"""System calls of the front door around which something changes."""


def with_a_late_skip(runs, *words) -> list[str]:
    """Return strace's words: the executor reports a skip after the start, which is read when the program has begun.

    The filter of a single ID fails, and the read after the start waits.
    """
    done, _ = runs(*words, strace=["-f", "-e", "trace=all"])
    lines = runs.trace.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if re.search(r' write\(\d+, "S", 1', line))
    pid = lines[0].split()[0]
    assert lines[start].startswith(pid), done
    reads = sum(bool(re.match(rf"{pid} +read\(", line)) for line in lines[:start])
    fails = ["inject=seccomp:error=ENOMEM", f"inject=read:delay_enter=300000:when={reads + 1}"]
    return ["-f", *[word for each in fails for word in ("-e", each)]]
