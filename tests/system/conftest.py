"""The machine, with the checkout installed in it by its user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.system.machine import Machine, disk

HERE = Path(__file__).parent
RUNNING = pytest.StashKey[Machine]()
WHEELS = ("hatchling>=1.24", "click>=8.1", "pyroute2>=0.7", "rich>=13")


@pytest.fixture(scope="session")
def boot(need, tmp_path_factory, request):
    """Return a function that boots a Machine, given more words for the kernel's command line."""
    if os.geteuid() != 0:
        pytest.skip("needs root: builds a machine")
    need("linux.uml")
    need("mmdebstrap")
    cache = Path(os.environ.get("ROOTLESS_TEST_MACHINES") or request.config.cache.mkdir("machines"))
    cache.mkdir(exist_ok=True)
    return lambda *words: Machine(disk(cache), tmp_path_factory.mktemp("machine"), *words)


@pytest.fixture(scope="session")
def machine(boot, request):
    """A Machine in which `rootless` is a command of the user's."""
    machine = request.config.stash[RUNNING] = boot()
    try:
        _install(machine)
        yield machine
    finally:
        machine.stop()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """End it with the last test of this directory: it takes a third of a core even when it waits."""
    machine = item.config.stash.get(RUNNING, None)
    if machine and not (nextitem and HERE in nextitem.path.parents):
        machine.stop()


def _install(machine):
    """Install the checkout as its user does, from wheels: the machine has no network."""
    wheels = machine.shared / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", wheels]
    subprocess.run([*download, *WHEELS], check=True)
    exclude = [f"--exclude={name}" for name in (".git", "__pycache__", "bin", ".*_cache")]
    subprocess.run(["tar", "-C", CHECKOUT, *exclude, "-cf", machine.shared / "checkout.tar", "."], check=True)
    machine.run(
        """
        set -e
        mkdir checkout && cd checkout && tar -xf /mnt/host/checkout.tar
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/host/wheels ./install.sh
        """,
        timeout=300,
        check=True,
    )
