"""A pure cgroup v2 tree, part of which is delegated to an ordinary user, on a machine that may have cgroup v1.

Each command has the tree mounted in its own mount namespace; the machine's /sys/fs/cgroup does not change. If the
machine has the controllers in v1 hierarchies, they are missing here: nothing can be limited, but everything else works.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.lib.accounts import User
from tests.lib.containers import Rootless

GIVEN = ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
"""Files of a cgroup that are delegated: cgroups(7)."""
PATIENCE = 30

ENTER = """
set -e
cgroup=$1 uid=$2 gid=$3 how=$4
shift 4
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# where a container was given the controllers of this cgroup, processes are in one below it (cgroups(7))
inside=/sys/fs/cgroup$cgroup
[ ! -d "$inside/rootless.caller" ] || inside=$inside/rootless.caller
echo 0 >"$inside/cgroup.procs"
case $how in
*namespace*) exec unshare --cgroup sh -ec "$0" again "$uid" "$gid" "$@" ;;
*read-only*) mount -o remount,bind,ro /sys/fs/cgroup ;;
*hybrid*)
    umount /sys/fs/cgroup
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
*unmounted*)
    umount /sys/fs/cgroup
    mount -t tmpfs tmpfs /sys/fs/cgroup
    ;;
esac
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
"""
REMOUNT = """
uid=$1 gid=$2
shift 2
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
"""


class View:
    """A cgroup of this test in which a user's commands start.

    Attributes:
        path: the cgroup's path in /proc/PID/cgroup.
        directory: the cgroup's directory for this process.
        options: arguments for `user.run` and `user.popen`, which start the prefix as root.
    """

    options = {"user": 0, "group": 0}  # noqa: RUF012 - never changed

    def __init__(self, user, *, delegated=True) -> None:
        """Create the cgroup; it belongs to root unless it is `delegated`."""
        self._user = user
        self._mount = Path(tempfile.mkdtemp(prefix="cgroup2-"))
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", self._mount], check=True)
        # pids are not unique: concurrent runs have their own pid namespaces
        self.top = self._mount / f"rootless-test-{self._mount.name}"
        self.directory = self.top / "user"
        self.directory.mkdir(parents=True)
        self.path = f"/{self.directory.relative_to(self._mount)}"
        if delegated:
            self.delegate(self.directory)

    def delegate(self, directory) -> None:
        """Delegate a cgroup to the user."""
        for name in GIVEN:
            os.chown(directory / name, self._user.uid, self._user.gid)

    def prefix(self, how="", path="") -> list[str]:
        """Return the words before a command that root starts and the user runs.

        Args:
            how: "read-only": the tree is mounted read-only; "namespace": the cgroup is the root of a cgroup namespace;
                "hybrid": the tree is mounted as on hosts that have cgroup v1 too; "unmounted": it is not mounted.
            path: another cgroup to start in.
        """
        script = REMOUNT if "namespace" in how else ""
        words = ["unshare", "--mount", "sh", "-c", ENTER.replace('"$0"', "'" + script.replace("'", "") + "'")]
        return [*words, "enter", path or self.path, str(self._user.uid), str(self._user.gid), how or "-"]

    def cgroups(self) -> list[str]:
        """Return the cgroups below the one in which commands start."""
        found = [path for path, *_ in os.walk(self.directory)]
        return sorted(os.path.relpath(path, self.directory) for path in found[1:])

    def close(self) -> None:
        """Kill the processes in the cgroup and remove it."""
        try:
            (self.top / "cgroup.kill").write_text("1")
            deadline = time.monotonic() + PATIENCE
            for path, *_ in os.walk(self.top, topdown=False):
                while True:
                    try:
                        os.rmdir(path)
                        break
                    except OSError:
                        assert time.monotonic() < deadline, f"{path} stays"
                        time.sleep(0.01)
        finally:
            subprocess.run(["umount", self._mount], check=True)
            self._mount.rmdir()


class InView(Rootless):
    """The command, which starts in a View."""

    def __init__(self, view: View, user, command: str, **prefix) -> None:
        super().__init__(user, command)
        self.view = view
        self.before = view.prefix(**prefix)

    def argv(self, *words):
        """Return the command line for `words`."""
        return [*self.before, *super().argv(*words)]

    def __call__(self, *words, **options):
        """Run the command to its end."""
        return super().__call__(*words, **View.options | options)

    def popen(self, *words, **options):
        """Start the command."""
        return super().popen(*words, **View.options | options)


class UserInView(User):
    """A user whose commands start in a View."""

    def __init__(self, view: View, user: User) -> None:
        self.__dict__.update(vars(user))
        self._before = view.prefix()

    def popen(self, argv, **options) -> subprocess.Popen:
        """Start `argv` in the View."""
        return super().popen([*self._before, *argv], **options | View.options)


@pytest.fixture
def cgroup2(user):
    """A View of `user`; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts cgroup v2 and delegates a part of it")
    view = View(user)
    yield view
    view.close()
