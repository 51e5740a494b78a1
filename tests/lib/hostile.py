"""A hostile image, the directory of the host that it attacks, and a program that races the runtime."""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.boxes import Box

SECRET = "known to the host alone"
SEARCH = "find / -path /proc -prune -o -path /sys -prune -o -type f -name canary -exec cat {} +"
"""A command in the image that prints the files of the host that it can find."""
CALLERS = ("user", "root")
"""The callers that run the image: the ordinary user, and the machine's root."""


class Victim(Box):
    """A bundle with a hostile image, and `outside`, a directory of the host with the same owner.

    Attributes:
        outside: a directory that the image must not read or change.
        owner: uid and gid of the caller.
    """

    def __init__(self, user, command, *, as_root, name="box"):
        """Make the bundle and the directory."""
        as_machines_root = {"user": 0, "group": 0, "env": {"HOME": str(user.tmp), "XDG_RUNTIME_DIR": ""}}
        words = [command, "--root", user.tmp / "state"] if as_root else [command]
        super().__init__(user, words, name=name, options=as_machines_root if as_root else {})
        self.owner = (0, 0) if as_root else (user.uid, user.gid)
        self.outside = user.tmp / "outside"
        self.own(self.path)
        if not self.outside.exists():
            for directory in range(10):
                (self.outside / str(directory)).mkdir(parents=True)
                (self.outside / str(directory) / "canary").write_text(SECRET)
            for file in ("canary", "null", "ptmx"):
                (self.outside / file).write_text(SECRET)
            self.own(self.outside)

    def own(self, *paths):
        """Make the caller the owner of these paths and everything below them."""
        if os.geteuid() == 0:
            for path in paths:
                for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
                    os.chown(each, *self.owner, follow_symlinks=False)

    def place(self, target, make):
        """Replace `target`, a path in the image: `make` is called with its path on the host and creates it."""
        path = self.clear(target)
        make(path)
        self.own(path)
        return path

    def link(self, target, text):
        """Replace `target`, a path in the image, by a symlink."""
        return self.place(target, lambda path: os.symlink(text, path))

    def clear(self, target):
        """Remove `target`, a path in the image, and create its parent directories."""
        path = self.rootfs / target.lstrip("/")
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.relative_to(self.rootfs).parents:
            os.chown(self.rootfs / parent, *self.owner)
        return path

    def attack(self, config, *script, **options):
        """Run the image, which must not print anything of the host; an error must be one line. Return the result."""
        done = self.run(config, *script, **options)
        assert SECRET not in done.stdout + done.stderr
        if done.returncode:
            assert re.fullmatch(r"(rootless: warning: [^\n]+\n)*rootless: [^\n]+\n", done.stderr), done
        return done

    def refused(self, config, *script, **options):
        """Run the image, which must not start; return the line with the error."""
        done = self.attack(config, *script, **options)
        assert (done.returncode, done.stdout) == (1, ""), done
        return done.stderr

    def contained(self, config, *script, **options):
        """Run the image, which must start and stay confined; return the lines of its output."""
        done = self.attack(config, *script, **options)
        assert done.returncode == 0, done
        return done.stdout.splitlines()


@contextmanager
def unharmed(*directories):
    """Check that the block changes nothing in these directories of the host, not even a time stamp."""
    before = [snapshot(directory) for directory in directories]
    yield
    assert [snapshot(directory) for directory in directories] == before


def snapshot(directory):
    """Return all metadata and content of a directory and everything below it, except access times."""
    found = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        text = path.read_text() if stat.S_ISREG(status.st_mode) else ""
        kept = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_ino, status.st_mtime_ns)
        found[path] = (*kept, status.st_ctime_ns, text)
    return found


@contextmanager
def victim(user, command, caller):
    """Yield a Victim for a caller of CALLERS; at the end the host must be unchanged."""
    if caller == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    box = Victim(user, command, as_root=caller == "root")
    mounted = Path("/proc/self/mountinfo").read_text()
    try:
        with unharmed(box.outside):
            yield box
    finally:
        box.close()
    assert Path("/proc/self/mountinfo").read_text() == mounted


def bind_socket(listener, path):
    """Bind a socket to a path of any length."""
    directory = os.open(path.parent, os.O_PATH)
    listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)
    return path
