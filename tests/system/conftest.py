"""The machines, in which their user has installed the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.installation.__main__ import script
from tests.lib.accounts import CHECKOUT
from tests.system.machine import Machine, Qemu, UserModeLinux, disk

RUNNING = pytest.StashKey[dict[str, Machine]]()
WHEELS = (
    "hatchling>=1.24",
    "backports.zstd>=1",
    "click>=8.1",
    "psutil>=5.9",
    "pyyaml>=6",
    "pyroute2>=0.7",
    "rich>=13",
    "urllib3>=2.2",
)


@pytest.fixture(scope="session")
def boot(need, tmp_path_factory, request):
    """Return a function that boots a machine of some kind, with more words for the kernel's command line."""
    if os.geteuid() != 0:
        pytest.skip("needs root: builds a machine")
    need("mmdebstrap")
    cache = Path(os.environ.get("ROOTLESS_TEST_MACHINES") or request.config.cache.mkdir("machines"))
    cache.mkdir(exist_ok=True)

    def booted(*words, kind=UserModeLinux):
        for program in kind.PROGRAMS:
            need(program)
        return kind(disk(cache), tmp_path_factory.mktemp("machine"), *words)

    return booted


@pytest.fixture(scope="session")
def machine(boot, wheels, request):
    """A machine whose user has the command `rootless`."""
    machine = boot()
    request.config.stash.setdefault(RUNNING, {})["machine"] = machine
    try:
        _install(machine, wheels)
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def two_processors(boot, wheels, request):
    """A machine with more resources, whose user has the command too; pip would take over a minute there."""
    machine = boot(kind=Qemu)
    request.config.stash.setdefault(RUNNING, {})["two_processors"] = machine
    try:
        _lay_out(machine, wheels)
        yield machine
    finally:
        machine.stop()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    """Stop a machine after the last test that uses it: even idle, it takes a third of a processor."""
    items = item.session.items
    for name, machine in item.config.stash.get(RUNNING, {}).items():
        if not any(name in later.fixturenames for later in items[items.index(item) + 1 :]):
            machine.stop()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A directory with the packages that build the checkout and that it requires: the machines have no network."""
    directory = tmp_path_factory.mktemp("wheels") / "readable"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", directory]
    subprocess.run([*download, *WHEELS], check=True)
    return directory


def _install(machine, wheels):
    """Install the checkout as its user does."""
    shutil.copytree(wheels, machine.shared / "wheels")
    _copy(machine, CHECKOUT, "__pycache__", "bin")
    install = f"cd {CHECKOUT} && PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/host/wheels ./install.sh"
    machine.run(install, timeout=300, check=True)


def _lay_out(machine, wheels):
    """Copy the checkout as tests/run has built it, and create a command of the user that uses it."""
    packages = wheels.parent / "packages"
    unpack = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*unpack, "--target", packages, *wheels.glob("*.whl")], check=True)
    for directory in (CHECKOUT, packages):
        _copy(machine, directory)
    (machine.shared / "rootless").write_bytes(script("/usr/bin/python3", [str(CHECKOUT), str(packages)]))
    machine.run("mkdir -p .local/bin && install -m 755 /mnt/host/rootless .local/bin", check=True)


def _copy(machine, directory, *without):
    """Copy a directory of the host to the same path, owned by the user: compiled files contain the path."""
    archive = machine.shared / f"{directory.name}.tar"
    exclude = [f"--exclude={each}" for each in (".git", ".*_cache", *without)]
    subprocess.run(["tar", "-C", directory, *exclude, "-cf", archive, "."], check=True)
    unpack = f"mkdir -p {directory} && tar -C {directory} --no-same-owner -xf /mnt/host/{archive.name}"
    machine.run(unpack, check=True)
