"""The ordinary users of the tests, and the directories of a run."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROVIDED = "provided by CI"
"""The reason of a skip that counts as a failure on CI, because tests/run installs the program."""
RUN = os.environ.get("ROOTLESS_TEST_RUN", "")
"""The directory that tests/run created for this run; all users can reach it."""


class User:
    """An ordinary user: the caller of tests/run or, if that is root, one that tests/run created.

    Attributes:
        name, uid, gid, home, runtime_dir: properties of the account.
        tmp: a directory of the user for this test, which all users can reach.
        env: the whole environment of the user's programs.
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
        """Start `argv` as this user, in `tmp` unless `cwd` is given; `env` is added to the user's environment.

        `user`, `group` and `extra_groups` are those of subprocess.
        """
        ids = options.pop("user", self.uid), options.pop("group", self.gid), options.pop("extra_groups", ())
        words = [*(becoming(*ids) if os.geteuid() != self.uid else ()), *argv]
        options = {"cwd": self.tmp, "text": True, "umask": 0o022} | options
        return subprocess.Popen([os.fspath(word) for word in words], env=self.env | (env or {}), **options)

    def run(self, argv, *, timeout=120, check=False, **options) -> subprocess.CompletedProcess:
        """Run `argv` as this user, with empty input; return its status and output."""
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


def becoming(uid, gid, groups=()) -> list[str]:
    """Return the words before a command by which root has it run with these IDs.

    With IDs of its own, subprocess would copy this process, which is large, instead of calling vfork(2).
    """
    further = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", further, "--"]


def account(number, request):
    """Yield the test user with this number, with a directory for the node of `request` that is removed afterwards."""
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
    """Remove a test's directory. It fails if something is mounted there, whose files would be removed too."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    left = [mount for mount in mounts if mount.startswith(f"{directory}/")]
    for mount in reversed(left):
        subprocess.run(["umount", "--lazy", mount], check=True)
    remove = ["rm", "-rf", directory]
    if subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode:
        # Some files belong to the user's subordinate ids.
        user.run(["unshare", "--map-root-user", "--map-auto", *remove], cwd="/", check=True)
    assert not left, f"mounts were left: {left}"
