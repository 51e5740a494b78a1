"""Several tests at once (ROOTLESS_TEST_WORKERS): which share a worker, and which need the machine for themselves.

A worker of pytest-xdist gets a file at a time, or a folder whose tests share daemons or virtual machines.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lib.accounts import RUN

TOGETHER = ("bench", "cluster", "engines", "system")
ALONE = ("bench",)
"""Folders of tests: each goes to one worker as a whole; no other test runs beside these."""


def folder_of(test: str) -> str:
    """Return the folder of a test id."""
    return test.removeprefix("tests/").partition("/")[0]


class Scheduler(LoadScopeScheduling):
    """Hands out files and folders in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return folder_of(nodeid) if folder_of(nodeid) in TOGETHER else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log) -> Scheduler:
    """Make the scheduler."""
    return Scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let the tests of some folders have the machine for themselves: wait for the tests of other workers."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        return (yield)
    with ExitStack() as held:
        # who waits to be alone holds this one, so that nobody begins before
        with locked("next", fcntl.LOCK_EX):
            held.enter_context(locked("running", fcntl.LOCK_EX if folder_of(item.nodeid) in ALONE else fcntl.LOCK_SH))
        return (yield)


@contextmanager
def locked(name: str, kind: int):
    """Hold a lock of this run."""
    with (Path(RUN or tempfile.gettempdir()) / f"lock-{name}").open("w") as file:
        fcntl.flock(file, kind)
        yield
