"""Hosts on which something is missing: namespaces in which a test removes it for the processes that it starts there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.lib.boxes import subordinate
from tests.lib.containers import PATIENCE, Reader

ROOT = "root"
"""Mount and pid namespaces that root of the machine makes, with a copy of /etc; an ordinary user calls rootless."""
NETWORK = "network"
"""The same with a network namespace."""
USER = "user"
"""The same with user and network namespaces: its root is a subordinate ID of the user, whose own ID is mapped too."""

_OWN_ETC = """
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
mkdir -p /etc/sysctl.d /etc/udev/rules.d /etc/modules-load.d /mnt/scratch
"""
_OWN_SETTINGS = "mount -t tmpfs tmpfs /etc/sysctl.d\n"
_STAY = "\necho ready; read -r _ || :"
_NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


class BrokenHost:
    """Such a host.

    Attributes:
        user: the ordinary user.
        outer: words before a command that its root starts, which then becomes the user.
        wrap: words before a command of the user.
        env: variables of the user's commands; None removes one.
    """

    def __init__(self, user, command, kind, script, *, outer=(), wrap=(), env=None) -> None:
        self.user = user
        self.outer = outer
        self.wrap = wrap
        self.env = env or {}
        self._is_roots = kind in (ROOT, NETWORK)
        self._network = ["--net"] if kind in (NETWORK, USER) else []
        self._command = command
        self._script = script
        self._enter: list[str] = []
        about = {"TEST_USER": user.name, "TEST_UID": user.uid, "TEST_HOME": user.home, "TEST_TMP": user.tmp}
        self._names = os.environ | {name: str(value) for name, value in about.items()}

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        enter = ["nsenter", "--mount", "--pid", *self._network]
        if self._is_roots:
            words = ["unshare", *self._network, *_NAMESPACES, "sh", "-euc", _OWN_ETC + self._script + _STAY]
            self._holder = subprocess.Popen(words, env=self._names, **pipes)
        else:
            user, own = self.user, subordinate(self.user, 1)
            ids = [f"--map-users=0:{own}:1", f"--map-users={user.uid}:{user.uid}:1"]
            ids += [f"--map-groups=0:{own}:1", f"--map-groups={user.gid}:{user.gid}:1", "--setuid=0", "--setgid=0"]
            words = ["unshare", "--user", *self._network, *ids, *_NAMESPACES, "sh", "-euc"]
            self._holder = self.user.popen([*words, _OWN_SETTINGS + self._script + _STAY], text=False, **pipes)
            enter.append("--user")
        try:
            Reader(self._holder.stdout).until(b"ready\n")
        except BaseException:
            self._holder.communicate()
            raise
        child = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()[0]
        self._enter = [*enter, "--target", child]
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate(b"\n", timeout=PATIENCE)

    def as_root(self, script) -> None:
        """Run a script of shell as the root of this host."""
        root = [] if self._is_roots else ["--setuid=0", "--setgid=0"]
        done = self._run([*self._enter, *root, "--", "sh", "-euc", script], self._names)
        assert done.returncode == 0, done

    def run(self, *words) -> subprocess.CompletedProcess:
        """Run a command as the ordinary user."""
        user = self.user
        become = ["--preserve-credentials", "--"]
        if self._is_roots:
            ids = ("setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups")
            become = ["--", *self.outer, *ids]
        env = {name: value for name, value in (user.env | self.env).items() if value is not None}
        return self._run([*self._enter, *become, *self.wrap, *words], env)

    def __call__(self, *words) -> subprocess.CompletedProcess:
        """Run `rootless` as the ordinary user."""
        return self.run(self._command, *words)

    def _run(self, words, env):
        ids = {} if self._is_roots else {"user": self.user.uid, "group": self.user.gid, "extra_groups": ()}
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": PATIENCE} | ids
        return subprocess.run([str(word) for word in words], env=env, cwd="/", check=False, **options)

    def problems(self) -> dict[str, dict]:
        """Return what `rootless doctor --json` finds, by code."""
        done = self("doctor", "--json")
        assert done.stderr == "", done
        return {problem["code"]: problem for problem in json.loads(done.stdout)["problems"]}
