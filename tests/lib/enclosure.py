"""Namespaces for root's engines, with only cgroup v2, an empty /run and a loopback interface.

No process, mount, cgroup, socket or packet of an engine reaches the host, and all of them end with the enclosure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.accounts import User, becoming
from tests.lib.containers import Reader, children_of, until

_INSIDE = """
umount --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni
mount --make-rshared /
ip link set lo up
echo ready
exec tini -s -- sleep infinity
"""
_RUNTIME_DIR = """
mkdir -p "$1"
# root of a user namespace that the user gives a container has to come through
[ "$(stat -c %d "$1")" != "$(stat -c %d /run)" ] || mount -t tmpfs -o "mode=0711,uid=$2,gid=$3" tmpfs "$1"
"""
_DELEGATED = """
cd /sys/fs/cgroup
mkdir -p delegated
chown "$1:$2" delegated delegated/cgroup.procs delegated/cgroup.subtree_control delegated/cgroup.threads
"""
_ENTER_DELEGATED = 'echo 0 >/sys/fs/cgroup/delegated/cgroup.procs; exec "$@"'
_NAMESPACES = ("--mount", "--cgroup", "--pid", "--net")


class Enclosure:
    """The namespaces, with a process 1 that reaps orphans.

    Attributes:
        cgroup: the host's directory of the cgroup that is the root inside.
    """

    def __init__(self) -> None:
        self.cgroup = _cgroup2() / f"rootless-engines-{os.urandom(6).hex()}"
        self.cgroup.mkdir()
        words = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-euc", _INSIDE]
        self._holder = subprocess.Popen(self._entering(words), stdout=subprocess.PIPE)
        Reader(self._holder.stdout).until(b"ready\n")
        (self._first,) = children_of(self._holder.pid)

    def words(self, *argv) -> list[str]:
        """Return the command line that runs `argv` inside, as root, in a cgroup below the enclosure's."""
        return self._entering(["nsenter", f"--target={self._first}", *_NAMESPACES, "--", *argv])

    def close(self) -> None:
        """End all processes in it."""
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()
        until(lambda: removed(self.cgroup), f"{self.cgroup} is empty")

    def _entering(self, argv) -> list[str]:
        return ["sh", "-euc", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(self.cgroup), *map(str, argv)]


class Enclosed(User):
    """An account whose programs run in an enclosure, in a cgroup that may be `delegated` to it."""

    def __init__(self, name: str, tmp: Path, enclosure: Enclosure, *, delegated: bool = False) -> None:
        super().__init__(name, tmp)
        self.enclosure = enclosure
        self._become = becoming(self.uid, self.gid) if self.uid else []
        if delegated:
            subprocess.run(enclosure.words("sh", "-euc", _DELEGATED, "sh", self.uid, self.gid), check=True)
            self._become = ["sh", "-euc", _ENTER_DELEGATED, "sh", *self._become]
        self.runtime_dir = Path(f"/run/user/{self.uid}")
        self.env |= {"HOME": str(tmp), "XDG_RUNTIME_DIR": str(self.runtime_dir)}
        subprocess.run(
            enclosure.words("sh", "-euc", _RUNTIME_DIR, "sh", self.runtime_dir, self.uid, self.gid), check=True
        )

    def popen(self, argv, **options) -> subprocess.Popen:
        """Start `argv` inside; its working directory is /."""
        return super().popen(self.enclosure.words(*self._become, *argv), **{"user": 0, "group": 0} | options)


def removed(cgroup: Path) -> bool:
    """Remove a cgroup with those below, and return whether that is done: their processes may still be ending."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            return False
    return True


def _cgroup2() -> Path:
    """Return the mount point of the host's cgroup v2 tree, on a pure or a hybrid host."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    pytest.skip("needs cgroup v2")


def stop(process: subprocess.Popen) -> None:
    """End a daemon with SIGTERM, or with SIGKILL if it does not end.

    nsenter(1) forks to enter a pid namespace, and forwards no signals.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in children_of(process.pid) or [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        else:
            return
    process.kill()
    process.wait()
