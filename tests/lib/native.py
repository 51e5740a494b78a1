"""Commands that the front door may carry out without Python."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import struct
import time
from pathlib import Path

import pytest

from rootless.plan import cached_ops
from tests.lib.containers import until

MOST_MEMORY = 600
"""KiB of proportional memory."""
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


def proportional_memory(pid) -> int:
    """Return the KiB of memory of a process, of shared pages its share."""
    return int(re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])


@pytest.fixture
def plans(user):
    """The directory of the user's cached Plans, empty."""
    directory = user.runtime_dir / "rootless/@plans"
    shutil.rmtree(directory, ignore_errors=True)
    return directory


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
CHANGING += (
    "signalfd4",
    "socketpair",
    "recvmsg",
    "read",
    "pidfd_open",
    "unlinkat",
    "poll",
    "mkdir",
    "rmdir",
    "getdents64",
    "exit_group",
)
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
    reads = sum(bool(re.match(rf"{pid} +recvmsg\(", line)) for line in lines[:start])
    fails = ["inject=seccomp:error=ENOMEM", f"inject=recvmsg:delay_enter=300000:when={reads + 1}"]
    return ["-f", *[word for each in fails for word in ("-e", each)]]


_HEADER, _STEP = struct.Struct("=8sII"), struct.Struct("=HBBI6q8I")
NO_DEPENDENCIES = {
    "/proc/self/status": "its capabilities are compared with those of the front door",
    "/proc/self/limits": "the hard limits are compared with those of the front door",
    "/proc/sys/kernel/cap_last_cap": "a kernel does not change it: the boot is compared",
    "/proc/sys/kernel/random/boot_id": "it is compared as the boot",
}
"""Files that planning reads and that are no dependency by their path, with the reasons; the front door opens the
containers' directory itself."""
_OF_PYTHON = ("/usr/lib/python3", "/lib/", "/etc/ld.so.cache", "/proc/self/fd/")
_WITH_PATHS = (
    cached_ops.CONFIG_FILE,
    cached_ops.CONTENT,
    cached_ops.IDENTITY,
    cached_ops.STATUS,
    cached_ops.SYMLINK,
    cached_ops.ACCESS,
    cached_ops.LISTED,
    cached_ops.MOUNT_FLAGS,
)


def entries_of(plans) -> set[Path]:
    """Return the entries of the cache."""
    return {path for path in plans.iterdir() if path.name != "seen"} if plans.exists() else set()


def paths_of(entry) -> set[str]:
    """Return the paths of the files that an entry depends on."""
    content = entry.read_bytes()
    magic, count, _ = _HEADER.unpack_from(content)
    assert magic == cached_ops.MAGIC
    strings = content[_HEADER.size + count * _STEP.size :]
    found = set()
    for index in range(count):
        code, _, _, _, *rest = _STEP.unpack_from(content, _HEADER.size + index * _STEP.size)
        if cached_ops.KINDS[code - 1] in _WITH_PATHS:
            at, length = rest[6:8]
            found.add(strings[at : at + length].decode())
    return found


def looked_at_while_planning(trace) -> set[str]:
    """Return the paths in strace's lines from the import of the package on, up to the claim of the container's id.

    Those of Python's own library are left out, and the descriptors of the process.
    """
    lines = trace.read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if "/modules.archive" in line)
    last = next(index for index, line in enumerate(lines) if "mkdirat(" in line and '"c1"' in line)
    lines = [line for line in lines[first + 1 : last] if '"' in line and not line.startswith("getcwd(")]
    # a descriptor and its path, with strace's -y, and the path
    found = [re.search(r'^(\w+)\((?:\d+<(.*?)>, )?[^"]*"(.*?)"', line) for line in lines]
    looked = {
        f"{each[2]}{each[3]}" if each[1] == "openat2" else os.path.join(each[2] or "", each[3])
        for each in found
        if each
    }
    return {path for path in looked if not path.startswith(_OF_PYTHON)}


def calls_of(trace) -> dict[str, int]:
    """Return how often each call of CHANGING occurs in a trace."""
    names = [line.partition("(")[0] for line in trace.read_text().splitlines()]
    return {name: names.count(name) for name in CHANGING if name in names}
