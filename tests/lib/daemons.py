"""Fixtures for engines with daemons: their namespaces and directory, the image they load, rootless with a record."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.accounts import RUN
from tests.lib.containers import until
from tests.lib.enclosure import Enclosure, stop
from tests.lib.engines import Recorder, make_image


@pytest.fixture(scope="session")
def image(directory, need):
    """The archive of an image that every engine can load."""
    need("busybox")
    return make_image(directory)


@pytest.fixture(scope="session")
def enclosure(need):
    """Namespaces for the processes that root starts."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces and cgroups")
    need("tini")
    enclosure = Enclosure()
    yield enclosure
    enclosure.close()


@pytest.fixture(scope="session")
def directory():
    """A directory for the engines of the session, on a path that everyone may search."""
    directory = Path(tempfile.mkdtemp(prefix="engines-", dir=RUN or None))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def recorder(directory, rootless_command):
    """`rootless` with a record of its calls."""
    return Recorder(directory / "recorded", rootless_command)


@contextmanager
def daemon(account, words, env, client):
    """Run a daemon; yield when its client reaches it, and stop the daemon at the end."""
    log = account.tmp / "log"
    with log.open("w") as file:
        started = account.popen(words, env=env, stdout=file, stderr=file)
    try:

        def answers():
            assert started.poll() is None, log.read_text()[-2000:]
            return client("version").returncode == 0

        until(answers, f"{words[0]} answers")
        yield
    finally:
        stop(started)
