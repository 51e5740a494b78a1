"""Containers inside the machine: bundles that are written from outside, and their state in the guest."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

SCOPES = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
"""The cgroup of the user's manager."""

UNTIL = """
until_() { for i in $(seq 200); do "$@" && return; sleep 0.05; done; echo "never: $*" >&2; exit 1; }
gone() { ! systemctl --user --quiet is-active "$1" && ! systemctl --user list-units --all --plain | grep -q "$1"; }
"""
"""Functions for scripts: wait until a command succeeds; test whether systemd has no such unit."""


class Guest:
    """The machine, used by a user with a root file system and containers.

    Attributes:
        machine: the machine.
    """

    def __init__(self, machine) -> None:
        self.machine = machine
        made = machine.run("[ -e base ] || rootless new base -- true >/dev/null; cat base/config.json", check=True)
        self._base = json.loads(made.stdout)
        self._base["root"] = {"path": "/home/tester/base/rootfs", "readonly": True}

    def __call__(self, script, **options):
        """Run a script, which fails with its first command that fails, and return its output."""
        return self.machine.run(f"set -e\n{script}", check=True, **options).stdout

    def fails(self, script, **options) -> str:
        """Run a script that has to fail, and return its messages."""
        done = self.machine.run(script, **options)
        assert done.returncode, done.stdout
        return done.stderr

    def bundle(self, script: str, resources=None, path: str = "", *, shared=(), **more) -> str:
        """Return a bundle whose program is a shell script.

        Args:
            script: the script.
            resources: linux.resources.
            path: linux.cgroupsPath.
            shared: types of namespaces that it shares with the caller.
            more: further top-level members of config.json.
        """
        config = copy.deepcopy(self._base) | more
        config["process"]["args"] = ["sh", "-c", script]
        config["linux"]["resources"] = resources or {}
        if path:
            config["linux"]["cgroupsPath"] = path
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [each for each in namespaces if each["type"] not in shared]
        directory = Path(tempfile.mkdtemp(prefix="bundle", dir=self.machine.shared))
        directory.chmod(0o755)
        (directory / "config.json").write_text(json.dumps(config))
        return f"/mnt/host/{directory.name}"

    def config(self, bundle: str) -> Path:
        """Return the path of a bundle's config.json outside."""
        return self.machine.shared / bundle.rpartition("/")[2] / "config.json"

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit, as printed by `systemctl --user show`."""
        asked = " ".join(f"--property={name}" for name in names)
        return dict(line.split("=", 1) for line in self(f"systemctl --user show {asked} -- {unit}").splitlines())

    def files(self, unit: str, *names: str, slice_: str = "user.slice") -> dict[str, str]:
        """Return files of a unit's cgroup."""
        told = self(f"cd {SCOPES}/{slice_}/{unit} && for f in {' '.join(names)}; do echo $f $(cat $f); done")
        return dict(line.partition(" ")[::2] for line in told.splitlines())
