"""The ordinary users of the tests, and the checkout and directory that a run uses."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROVIDED = "provided by CI"
"""In the reason of a skip: tests/run installs it, so on CI its absence is a failure."""
RUN = os.environ.get("ROOTLESS_TEST_RUN", "")
"""Directory that tests/run made for this run: every component of its path is open to everybody."""


class User:
    """An ordinary user: who runs the tests, or, when that is root, one whom tests/run made.

    Attributes:
        name, uid, gid, home, runtime_dir: the account's own.
        tmp: a directory of the user's own for this test, on a path whose components can all be searched by everybody.
        env: the whole environment that the user's programs get.
    """

    def __init__(self, name: str, tmp: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = Path(entry.pw_dir)
        own = os.environ.get("XDG_RUNTIME_DIR") if os.geteuid() == self.uid else None
        self.runtime_dir = Path(own or f"/run/user/{self.uid}")
        self.tmp = tmp
        self.env = {
            "HOME": entry.pw_dir,
            "USER": name,
            "LOGNAME": name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            "LC_ALL": "C.UTF-8",
        }

    def popen(self, argv, *, env=None, **options) -> subprocess.Popen:
        """Start `argv` as this user, in `tmp` unless `cwd` says otherwise; `env` is added to the user's own."""
        if os.geteuid() != self.uid:
            options = {"user": self.uid, "group": self.gid, "extra_groups": (), "umask": 0o022} | options
        options = {"cwd": self.tmp, "text": True} | options
        return subprocess.Popen([os.fspath(word) for word in argv], env=self.env | (env or {}), **options)

    def run(self, argv, *, timeout=120, check=False, **options) -> subprocess.CompletedProcess:
        """Run `argv` as this user to its end, with empty input, and return its status and output."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        given = options.pop("input", None)
        options.setdefault("stdin", subprocess.DEVNULL if given is None else subprocess.PIPE)
        with self.popen(argv, **options) as process:
            try:
                out, err = process.communicate(given, timeout=timeout)
            except subprocess.TimeoutExpired as expired:
                state = "runs on" if process.poll() is None else "has ended, what it left behind holds its output"
                process.kill()
                pytest.fail(f"{expired}: it {state}\nstdout: {expired.stdout}\nstderr: {expired.stderr}")
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not (check and done.returncode), (
            f"{process.args} ended with {done.returncode}\nstdout: {out}\nstderr: {err}"
        )
        return done


def account(number, request):
    """Yield the test user of this number, with a directory for the node of `request` that is removed afterwards."""
    names = os.environ.get("ROOTLESS_TEST_USERS", "").split()
    if os.geteuid() != 0:
        name = pwd.getpwuid(os.geteuid()).pw_name
    elif names:
        name = names[number]
    else:
        pytest.skip("needs an ordinary user: start the tests with tests/run")
    directory = Path(tempfile.mkdtemp(prefix=request.node.name[:20].replace("/", "-"), dir=RUN or None))
    user = User(name, directory)
    os.chown(directory, user.uid, user.gid)
    directory.chmod(0o755)
    yield user
    _remove(directory, user)


def _remove(directory, user):
    """Remove a test's directory; a mount left in it would take what is mounted with it, so that is a failure."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    left = [mount for mount in mounts if mount.startswith(f"{directory}/")]
    for mount in reversed(left):
        subprocess.run(["umount", "--lazy", mount], check=True)
    remove = ["rm", "-rf", directory]
    if subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode:
        # Some of it belongs to the user's subordinate ids.
        user.run(["unshare", "--map-root-user", "--map-auto", *remove], cwd="/", check=True)
    assert not left, f"mounts were left: {left}"
