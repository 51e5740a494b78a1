"""A container that root checkpoints and restores. It counts, so that the point at which it continues is visible."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from rootless.host.delegation import LEAF
from tests.lib.accounts import User
from tests.lib.boxes import add_mount, make_volume
from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, View
from tests.lib.containers import Rootless, until

COUNTING = """
i=0
while ! test -e /volume/stop; do i=$((i+1)); echo $i >>/volume/numbers; sleep 0.05; done
echo last $i
exit 7
"""


@contextmanager
def root_with_criu(need):
    """Yield root as a user of the command; skip the test if criu does not work."""
    check = subprocess.run([need("criu"), "check"], capture_output=True, text=True, check=False)
    if check.returncode:
        pytest.skip(f"needs a kernel that criu works on: {check.stdout}{check.stderr}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("ROOTLESS_TEST_RUN") or None) as directory:
        yield User("root", Path(directory))


@contextmanager
def root_in_cgroup2(root, command):
    """Yield the command as root calls it in a cgroup v2 tree, where each container has a cgroup."""
    view = View(root)
    # root's first container has moved it here, so that controllers can be enabled above
    (view.directory / LEAF).mkdir()
    try:
        with InView(view, root, command, path=f"{view.path}/{LEAF}") as rootless:
            yield rootless
    finally:
        view.close()


def make_counting_bundle(root, volume):
    """Make a bundle whose container counts, in a file of a volume, until the file `stop` exists."""
    config = base_config("sh", "-c", COUNTING)
    add_mount(config, "/volume", "bind", str(volume), "rbind", "rw")
    config["linux"]["maskedPaths"] = ["/proc/keys", "/proc/scsi"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]
    return make_bundle(root, config)


def begin_counting(rootless, bundle, volume):
    """Start the container c1, which counts; return the pid of its first process."""
    rootless.create("c1", bundle)
    rootless.start("c1")
    await_count(volume, 3)
    return rootless.pid("c1")


def numbers(volume):
    """Return the numbers that the container has written."""
    path = volume / "numbers"
    return path.read_text().split() if path.exists() else []


def await_count(volume, number):
    """Wait until the container has written this many numbers."""
    until(lambda: len(numbers(volume)) >= number, f"it counts to {number}")


def restore(rootless, bundle, *words, status=0, **options):
    """Restore c1; its standard output and error are the same files as before."""
    tmp = rootless.user.tmp
    with (tmp / "c1.out").open("ab") as out, (tmp / "c1.err").open("ab") as err:
        words = ("restore", "--bundle", bundle, "--image-path", "saved", *words)
        done = rootless(*words, stdout=out, stderr=err, **options)
    assert done.returncode == status, rootless.complaints("c1")


class ConsoleSocket:
    """The socket on which an engine receives the master side of a terminal."""

    def __init__(self, path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()

    def receive(self) -> int:
        """Return the descriptor that the runtime sends."""
        connection, _ = self._socket.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
        return master

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()


@pytest.fixture
def root(require_root, need):
    """Root, as a user of the command; skipped if criu does not work."""
    with root_with_criu(need) as root:
        yield root


@pytest.fixture
def rootless(root, rootless_command):
    with Rootless(root, rootless_command) as command:
        yield command


@pytest.fixture
def in_cgroup2(root, rootless_command):
    """The command in a cgroup v2 tree, where each container has a cgroup."""
    with root_in_cgroup2(root, rootless_command) as command:
        yield command


@pytest.fixture
def volume(root):
    return make_volume(root)


@pytest.fixture
def bundle(root, volume):
    return make_counting_bundle(root, volume)
