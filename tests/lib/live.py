"""A running container, for tests of `exec`."""

from __future__ import annotations

import json
import subprocess

from tests.lib.boxes import ATTEMPTS, RUNC_BUSY, RUNC_EARLY, SHORT, config_with_maps
from tests.lib.bundles import own

FOREVER = "exec sleep 1000"
NOT_EXECUTED = 255
"""The exit status of an `exec` that could not run its command."""


class Live:
    """A running container, and commands in it.

    Attributes:
        box: its bundle and runtime.
        name: its id.
        pid: its first process.
    """

    def __init__(self, box, config=None, *script, flags=(), name="held", start=True):
        self.box = box
        self.user = box.user
        self.name = name
        config = config_with_maps(box.user) if config is None else config
        self.pid = box.create(config, *(script or (FOREVER,)), flags=flags, name=name)
        if start:
            box.user.run([*box.command, "start", name], timeout=SHORT, check=True, **box.options)

    def argv(self, *words, flags=()):
        """Return the command line for a command in the container."""
        return [*self.box.command, "exec", *flags, self.name, *words]

    def exec(self, *words, flags=(), **options):
        """Run a command to its end."""
        for _ in range(ATTEMPTS):
            done = self.user.run(self.argv(*words, flags=flags), **{"timeout": SHORT} | self.box.options | options)
            if not any(failure in (done.stderr or "") for failure in (RUNC_BUSY, RUNC_EARLY)):
                break
        return done

    def lines(self, *script, flags=(), **options):
        """Run a script that must succeed; return the lines of its output."""
        done = self.exec("sh", "-c", "\n".join(script), flags=flags, **options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.splitlines()

    def popen(self, *words, flags=(), **options):
        """Start a command."""
        return self.user.popen(self.argv(*words, flags=flags), **self.box.options | options)

    def detach(self, *words, flags=()):
        """Start a command with --detach; return its pid."""
        pid_file = self.user.tmp / "exec.pid"
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        done = self.exec(*words, flags=["--detach", "--pid-file", pid_file, *flags], **quiet)
        assert done.returncode == 0
        return int(pid_file.read_text())

    def process_file(self, **process):
        """Write a process object to a file."""
        path = self.user.tmp / "process.json"
        path.write_text(json.dumps({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]} | process))
        own(self.user, path)
        return path
