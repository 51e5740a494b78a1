"""Where other runtimes can run beside this one, and the config.json that an engine gives each of them."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

from tests.lib.boxes import own_mappings
from tests.lib.bundles import own
from tests.lib.cgroup2 import View
from tests.lib.configurations import CONFIGURATIONS, PODMAN_SECCOMP
from tests.lib.figures import PEERS

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


class World:
    """The environment in which the runtimes are compared.

    Attributes:
        prefix: words before their command lines.
        options: for `user.run`.
        cgroup: the path of a cgroup that is delegated to the user, or an empty string.
        peers: the other runtimes that can run here.
    """

    def __init__(self, view=None, *, delegated=False):
        self.prefix = view.prefix() if view else []
        self.options = view.options if view else {}
        self.cgroup = view.path if delegated else ""
        self.peers = PEERS if view or UNIFIED else tuple(peer for peer in PEERS if peer != "crun")

    def flags(self, runtime):
        """Return the global flags that a runtime needs here."""
        return ["--cgroup-manager=disabled"] if runtime == "crun" and not self.cgroup else []


@pytest.fixture
def plain(user):
    """No cgroup is delegated to the user. crun 1.21 refuses a host with controllers in cgroup v1: root hides them."""
    if UNIFIED or os.geteuid() != 0:
        yield World()
        return
    view = View(user, delegated=False)
    yield World(view)
    view.close()


@pytest.fixture
def delegated(cgroup2):
    """A cgroup is delegated to the user."""
    return World(cgroup2, delegated=True)


def podmans_config(user, *args):
    """Return the config.json that podman wrote, with files of this test instead of podman's."""
    config = copy.deepcopy(CONFIGURATIONS["podman"])
    config["process"] |= {"args": list(args)}
    del config["process"]["rlimits"]
    config["root"]["path"] = "rootfs"
    userdata = user.tmp / "userdata"
    (userdata / "shm").mkdir(parents=True)
    for name in ("hosts", "hostname", ".containerenv"):
        (userdata / name).touch()
    own(user, userdata)
    for mount in config["mounts"]:
        mount["source"] = mount["source"].replace(mount["source"].rpartition("userdata")[0], f"{user.tmp}/", 1)
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= own_mappings(user)
    return config
