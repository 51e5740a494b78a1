"""A part of a cgroup v2 tree in which a limit can be enforced or not, with a controller that really exists.

Even a machine with cgroup v1 has some controllers in v2: those that v1 does not use.
"""

from __future__ import annotations

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, View

MIB = 1 << 20


class Limit:
    """A limit: linux.resources, its name in messages, the file of the cgroup and its expected content."""

    def __init__(self, controller, resources, name, file, value):
        self.controller = controller
        self.resources = resources
        self.name = name
        self.file = file
        self.value = value


LIMITS = (
    Limit("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "hugepageLimits[0]",
          "hugetlb.2MB.rsvd.max", str(4 * MIB)),
    Limit("pids", {"pids": {"limit": 77}}, "pids.limit", "pids.max", "77"),
    Limit("memory", {"memory": {"limit": 256 * MIB}}, "memory.limit", "memory.max", str(256 * MIB)),
)  # fmt: skip


class Scene:
    """A part of the tree, the command in it, and the requested limit.

    Attributes:
        root: the root of the tree.
        limit: a limit whose controller is in cgroup v2 on this machine.
    """

    def __init__(self, view, user, command):
        self.view = view
        self.user = user
        self.root = view.top.parent
        self._command = command
        self._given = []
        there = (self.root / "cgroup.controllers").read_text().split()
        self.limit = next((each for each in LIMITS if each.controller in there), None)

    def hand_on(self, *directories):
        """Enable the limit's controller for the children of these cgroups."""
        for directory in directories:
            file = directory / "cgroup.subtree_control"
            if self.limit.controller not in file.read_text().split():
                file.write_text(f"+{self.limit.controller}")
                self._given.append(file)

    def cgroup(self, path, *, delegated=True):
        """Create a cgroup below the one in which commands start, and return it."""
        directory = self.view.directory / path
        for each in reversed([directory, *directory.parents]):
            if self.view.directory in each.parents and not each.exists():
                each.mkdir()
                if delegated:
                    self.view.delegate(each)
        return directory

    def runs(self, **prefix):
        """Return the command."""
        return InView(self.view, self.user, self._command, **prefix)

    def bundle(self, *script, resources=None, change=None):
        """Return a bundle with the limit, or with other resources; `change` is called with its config.json."""
        config = base_config("sh", "-c", "\n".join(script) or "echo ran")
        config["linux"]["resources"] = self.limit.resources if resources is None else resources
        if change:
            change(config)
        return make_bundle(self.user, config, name=f"bundle{len(list(self.user.tmp.iterdir()))}")

    def showing(self, file):
        """Return a bundle that prints a file of its cgroup."""

        def change(config):
            config["linux"]["namespaces"].append({"type": "cgroup"})
            config["mounts"].append(
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
            )

        return self.bundle(f"cat /sys/fs/cgroup/{file}", change=change)

    def close(self):
        """Remove everything."""
        self.view.close()
        for file in reversed(self._given):
            if file.exists():
                try:
                    file.write_text(f"-{self.limit.controller}")
                except OSError:
                    assert file.parent == self.root, "only the root has others below it"


@pytest.fixture
def stage(user, rootless_command):
    """Return a function that makes a Scene."""
    made = []

    def make(*, delegated=True):
        made.append(Scene(View(user, delegated=delegated), user, rootless_command))
        if not made[-1].limit:
            pytest.skip("this machine has no controller in cgroup v2")
        return made[-1]

    yield make
    for scene in made:
        scene.close()
