"""Commands that the front door may carry out without Python."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lib.containers import until

SETTLED = 3
"""Seconds after which files that were installed may be in a cached Plan."""


class Runs:
    """Commands of which strace shows whether Python took part."""

    def __init__(self, rootless, need) -> None:
        until(lambda: time.time() - Path(f"{rootless.command}.py").stat().st_ctime > SETTLED, "it is installed")
        self.rootless = rootless
        self._strace = need("strace")
        self._trace = rootless.user.tmp / "execve"

    def argv(self, *words, strace=()) -> list[str]:
        """Return a command line under strace."""
        calls = "all" if strace else "execve"
        return [self._strace, "-o", str(self._trace), "-e", f"trace={calls}", *strace, *self.rootless.argv(*words)]

    def __call__(self, *words, prefix=(), strace=(), **options):
        """Run to the end; return what it did, and whether it did so without Python."""
        done = self.rootless.user.run([*prefix, *self.argv(*words, strace=strace)], **options)
        return done, self.is_native()

    def is_native(self) -> bool:
        """Whether the last command executed nothing but itself."""
        return self._trace.read_text().count("execve(") == 1


def warm(runs, *words, **options):
    """Run until Python takes no part, which is at the latest the third time. Return the outcome."""
    first, native = runs(*words, **options)
    for _ in range(2):
        last, native = runs(*words, **options)
        assert (first.returncode, first.stdout, first.stderr) == (last.returncode, last.stdout, last.stderr)
        if native:
            return last
    pytest.fail(f"Python takes part each time: {last}")
