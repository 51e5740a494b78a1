"""A host that has prepared nothing for a user: no runtime directory, an empty /tmp, an empty home."""

from __future__ import annotations

import shlex
import subprocess

import pytest

PATIENCE = 120
"""Seconds after which a script is killed."""


class BareHost:
    """Run scripts with file systems of their own on /run, /tmp and the homes of these users."""

    def __init__(self, *users) -> None:
        if any(str(user.tmp).startswith(("/tmp/", "/run/")) for user in users):
            pytest.skip("needs ROOTLESS_TEST_CACHE outside /tmp")
        self._mounts = ["mount -t tmpfs -o mode=0755 none /run", "mount -t tmpfs -o mode=1777 none /tmp", "cd /"]
        self._mounts += [
            f"mount -t tmpfs -o mode=0700,uid={user.uid},gid={user.gid} none {shlex.quote(str(user.home))}"
            for user in users
        ]

    def run(self, prepare: str, *scripts: str) -> subprocess.CompletedProcess:
        """Run scripts as root, `prepare` first, in mount and pid namespaces that end with the last script."""
        script = "\n".join(("set -e", *self._mounts, prepare, "set +e", *scripts))
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", script]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)

    @staticmethod
    def as_user(user, script: str, **environment: str) -> str:
        """Return the command that runs a script as this user, with only HOME and PATH in the environment."""
        given = {"HOME": str(user.home), "PATH": "/usr/bin:/bin"} | environment
        words = [*("setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups", "env", "-i")]
        return shlex.join([*words, *(f"{name}={value}" for name, value in given.items()), "sh", "-c", script])
