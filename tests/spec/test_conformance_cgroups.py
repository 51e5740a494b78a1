"""config-linux.md "Cgroups Path", "Cgroup ownership" and "Unified", in a delegated part of a cgroup v2 tree."""

from __future__ import annotations

import pytest

from tests.lib.boxes import ALL, add_mount, config_with_maps, make_box
from tests.lib.cgroup2 import cgroup2

__all__ = ["cgroup2"]  # the fixture


STAYS = '"Runtimes SHOULD change the cgroup ownership …": for an ordinary user it stays the caller\'s'


@pytest.fixture(params=ALL)
def viewed(request, user, rootless_command, need, cgroup2):
    """A box whose runtime is called in a View."""
    box = make_box(user, request.param, rootless_command, need)
    if request.param == "crun":
        box.command.remove("--cgroup-manager=disabled")
        box.command.append("--cgroup-manager=cgroupfs")
    box.command[:0] = cgroup2.prefix()
    box.options = cgroup2.options
    yield box
    box.close()


def config_in(view, box):
    """Return a config whose cgroup is one below that of the view."""
    config = config_with_maps(box.user)
    config["linux"]["cgroupsPath"] = f"{view.path}/deep/box"
    config["linux"]["namespaces"].append({"type": "cgroup"})
    return config


@pytest.mark.spec("linux.cgroupsPath")
def test_the_path(viewed, cgroup2):
    """ "The runtime MUST take the path to be relative to the cgroups mount point"."""
    config = config_in(cgroup2, viewed)
    del config["linux"]["namespaces"][-1]
    lines = viewed.lines(config, "grep ^0:: /proc/self/cgroup")
    assert lines == [f"0::{cgroup2.path}/deep/box"]


@pytest.mark.spec("linux.resources.unified")
def test_unified(viewed, cgroup2):
    """ "Configuration unknown to the runtime MUST still be written to the relevant file"."""
    config = config_in(cgroup2, viewed)
    config["linux"]["resources"] = {"unified": {"cgroup.max.descendants": "7"}}
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    assert viewed.lines(config, "cat /sys/fs/cgroup/cgroup.max.descendants") == ["7"]


@pytest.mark.spec("cgroup ownership")
@pytest.mark.parametrize(
    "option", [pytest.param("rw", marks=[pytest.mark.differs(name, STAYS) for name in ("runc", "crun")]), "ro"]
)
def test_the_owner(viewed, cgroup2, option):
    """ "… if and only if the cgroup filesystem is to be mounted read/write"."""
    config = config_in(cgroup2, viewed)
    config["process"]["user"] = {"uid": 33, "gid": 33}
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", option)
    lines = viewed.lines(config, "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.subtree_control cgroup.max.depth")
    given = "33" if option == "rw" else "0"
    assert lines == [given, given, given, "0"]
