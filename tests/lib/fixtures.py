"""Fixtures that several folders of tests share: a bundle to run, runtimes to compare, a host with a network."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.lib import netbox as host
from tests.lib.boxes import ALL, Box, make_box, pure_cgroup2
from tests.lib.containers import Rootless, until

TRIXIE_PACKAGES = "mount,passwd"


@pytest.fixture
def rootless(user, rootless_command):
    """The command of the user; its containers are deleted at the end."""
    with Rootless(user, rootless_command) as rootless:
        yield rootless


@pytest.fixture
def box(user, rootless_command):
    """A bundle for root, run by rootless."""
    box = Box(user, [rootless_command])
    yield box
    box.close()


@pytest.fixture(params=ALL)
def either(request, user, rootless_command, need):
    """A bundle for root, run by each runtime: runc and crun show whether the test is right."""
    with pure_cgroup2(request.param):
        box = make_box(user, request.param, rootless_command, need)
        yield box
        box.close()


@pytest.fixture(scope="module", params=ALL)
def every(request, module_user, rootless_command, need):
    """A bundle that many tests share, run by each runtime."""
    with pure_cgroup2(request.param):
        box = make_box(module_user, request.param, rootless_command, need, name=request.param)
        yield box
        box.close()


@pytest.fixture(scope="module")
def netbox(tmp_path_factory):
    """A host with a network, and another machine in that network."""
    yield from host.opened(tmp_path_factory.mktemp("netbox"))


@pytest.fixture
def net_user(netbox, user):
    """The user on that host."""
    return netbox.user(user)


@pytest.fixture
def net_rootless(net_user, rootless_command):
    """The command of that user; processes that serve networks must have ended at the end, unless they ran before."""
    before = host.helpers().keys()
    with Rootless(net_user, rootless_command) as rootless:
        yield rootless
    until(lambda: host.helpers().keys() <= before, "the end of the helpers")


@pytest.fixture(scope="session")
def trixie(request, need):
    """A Debian trixie root file system as a tar archive, made by mmdebstrap with this host's own package sources."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mmdebstrap writes device nodes")
    sources = b"".join(
        path.read_bytes()
        for path in sorted(Path("/etc/apt").glob("sources.list*/*"))
        if path.suffix in (".list", ".sources")
    )
    key = hashlib.sha256(sources + TRIXIE_PACKAGES.encode()).hexdigest()[:12]
    archive = Path(request.config.cache.mkdir("images")) / f"trixie-{key}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".new.tar")
        command = [
            need("mmdebstrap"),
            "--quiet",
            "--variant=minbase",
            f"--include={TRIXIE_PACKAGES}",
            '--aptopt=APT::Sandbox::User "root"',
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")),
            "trixie",
            str(unfinished),
        ]
        subprocess.run(command, input=sources, check=True, timeout=900)
        unfinished.rename(archive)
    return archive
