"""Fixtures that several folders of tests share: a bundle to run, runtimes to compare, a host with a network."""

from __future__ import annotations

import pytest

from tests.lib import netbox as host
from tests.lib.boxes import ALL, Box, make_box, pure_cgroup2
from tests.lib.containers import Rootless, until


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
    until(lambda: host.helpers().keys() <= before, "the end of what serves networks")
