"""Containers that run detached: what the tests of `logs`, `stop`, `wait`, `restart` and others share."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import until


class Detached:
    """The bundle and the container `bundle` of one test."""

    def __init__(self, rootless, user) -> None:
        self.rootless = rootless
        self.bundle = make_bundle(user)
        self.place = rootless.root / "bundle"
        self.fifo = self.bundle / "rootfs/fifo"
        os.mkfifo(self.fifo)
        self.fifo.chmod(0o666)

    def __call__(self, script, *flags, end=True, annotations=None) -> int:
        """Run a shell script; return its process, or with `end` 0 when the script has ended."""
        write_config(self.bundle, base_config("sh", "-c", script) | {"annotations": annotations or {}})
        done = self.rootless("run", "-d", *flags, self.bundle)
        assert (done.returncode, done.stdout, done.stderr) == (0, "bundle\n", "")
        if end:
            until((self.place / "exit").read_bytes, "the note of the exit status")
            return 0
        return self.rootless.pid("bundle")

    def ready(self) -> None:
        """Return when the script opens /fifo for writing, and closes it."""
        self.fifo.read_bytes()

    @property
    def monitor(self) -> int:
        """The process of its monitor."""
        notes = [json.loads(line) for line in (self.place / "undo").read_text().splitlines()]
        return next(data["process"][0] for kind, _, data in notes if kind == "monitor")


@pytest.fixture
def detached(rootless, user):
    """A function that runs a shell script in a detached container."""
    return Detached(rootless, user)
