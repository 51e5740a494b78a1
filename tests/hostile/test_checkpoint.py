"""Attacks on root's `checkpoint` and `restore`: criu's configuration, forged images, directories of other users."""

from __future__ import annotations

import itertools
import json
import os
import shutil

import pytest

from tests.lib.bundles import write_config
from tests.lib.checkpoints import (
    ConsoleSocket,
    await_count,
    begin_counting,
    bundle,
    in_cgroup2,
    numbers,
    restore,
    root,
    rootless,
    volume,
)
from tests.lib.containers import await_end

__all__ = ["bundle", "in_cgroup2", "root", "rootless", "volume"]


class Trap:
    """A criu configuration whose action script records in a file that root has run it.

    Attributes:
        directory: contains both, and can serve as a home directory.
        options: the path of the configuration, `.criu/default.conf`.
    """

    def __init__(self, directory, owner=0) -> None:
        self.directory = directory
        self._sprung = directory / "sprung"
        self.script = directory / "script"
        self.options = directory / ".criu/default.conf"
        self.options.parent.mkdir(parents=True)
        self.script.write_text(f"#!/bin/sh\nid -u >>{self._sprung}\n")
        self.script.chmod(0o755)
        self.options.write_text(f"action-script {self.script}\n")
        for path in (directory, self.script, self.options.parent, self.options):
            os.chown(path, owner, owner)

    @property
    def sprung(self) -> bool:
        """Whether root has run the script."""
        return self._sprung.exists()


@pytest.fixture
def trap(root, user):
    """A trap that another user has prepared."""
    return Trap(user.tmp / "trap", user.uid)


def edit_config(bundle, **properties):
    """Set properties of config.json."""
    config = json.loads((bundle / "config.json").read_text())
    write_config(bundle, config | properties)


def forge(root, **properties):
    """Set properties of the state that the checkpoint in `saved` holds, in the older format."""
    path = root.tmp / "saved/rootless.json"
    noted = json.loads(path.read_text())
    config = json.loads((root.tmp / "bundle/config.json").read_text())
    state = {
        "ociVersion": "1.0.2",
        "id": "c1",
        "pid": 1,
        "status": "created",
        "startTime": 0,
        "bootId": "",
        "bundle": str(root.tmp / "bundle"),
        "rootfs": str(root.tmp / "bundle/rootfs"),
        "created": "2020-01-01T00:00:00Z",
        "annotations": config.get("annotations") or {},
        "owner": "root",
        "afterStart": {},
        "user": [0, 0, []],
        "keyring": True,
    }
    noted["state"] = state | noted.get("state", {}) | properties
    path.write_text(json.dumps(noted))


@pytest.mark.parametrize("variable", ["HOME", "CRIU_CONFIG_FILE"])
def test_criu_ignores_configuration_named_by_roots_environment(rootless, bundle, volume, trap, variable):
    """`sudo` can keep the HOME of the user who calls it."""
    env = {variable: str(trap.directory if variable == "HOME" else trap.options)}
    begin_counting(rootless, bundle, volume)
    done = rootless("checkpoint", "--image-path", "saved", "c1", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    restore(rootless, bundle, "--detach", "c1", env=env)
    assert not trap.sprung


def test_criu_service_ignores_configuration_named_by_roots_environment(rootless, root, bundle, trap):
    """criu runs as a service when the container has a terminal."""
    env = {"HOME": str(trap.directory), "CRIU_CONFIG_FILE": str(trap.options)}
    config = json.loads((bundle / "config.json").read_text())
    edit_config(bundle, process=config["process"] | {"terminal": True})
    with ConsoleSocket(root.tmp / "console") as console:
        words = ("--console-socket", console.path)
        rootless.create("c1", bundle, *words)
        masters = [console.receive()]
        rootless.start("c1")
        done = rootless("checkpoint", "--image-path", "saved", "c1", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        restore(rootless, bundle, "--detach", *words, "c1", env=env)
        masters.append(console.receive())
    for master in masters:
        os.close(master)
    assert not trap.sprung


def test_hooks_come_from_the_bundle_and_not_from_the_images(rootless, root, bundle, volume, trap):
    ran = root.tmp / "ran"
    edit_config(bundle, hooks={"poststop": [{"path": "/bin/touch", "args": ["touch", str(ran)]}]})
    begin_counting(rootless, bundle, volume)
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    ran.unlink(missing_ok=True)
    hook = {"path": str(trap.script), "args": [str(trap.script)], "env": None, "timeout": None}
    forge(root, hooks={"poststart": [hook], "poststop": [hook]})
    restore(rootless, bundle, "--detach", "c1")
    restored = rootless.pid("c1")
    (volume / "stop").touch()
    await_end(restored)
    assert rootless("delete", "c1").returncode == 0
    assert not trap.sprung
    assert ran.exists(), "the bundle's own hook"


def test_annotations_of_the_images_do_not_configure_criu(rootless, root, bundle, volume, trap):
    begin_counting(rootless, bundle, volume)
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    ours = Trap(root.tmp / "trap")
    forge(root, annotations={"org.criu.config": str(ours.options)})
    restore(rootless, bundle, "--detach", "c1")
    assert not ours.sprung
    assert "annotations" not in rootless.state("c1")


def test_a_cgroup_named_by_the_images_is_not_used(in_cgroup2, root, bundle, volume):
    """`delete --force` ends everything in a container's cgroup."""
    begin_counting(in_cgroup2, bundle, volume)
    assert in_cgroup2("checkpoint", "--image-path", "saved", "c1").returncode == 0
    in_cgroup2.create("other", bundle)
    others = json.loads((root.tmp / "state/other/state.json").read_text())
    forge(root, cgroup=others["cgroup"])
    restore(in_cgroup2, bundle, "--detach", "c1")
    restored = json.loads((root.tmp / "state/c1/state.json").read_text())
    assert restored["cgroup"] != others["cgroup"]
    assert in_cgroup2("delete", "--force", "c1").returncode == 0
    assert in_cgroup2.status("other") == "created"


def test_a_forged_stream_is_refused(rootless, root, bundle, volume):
    begin_counting(rootless, bundle, volume)
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    path = root.tmp / "saved/rootless.json"
    for streams in (["file[1:2]\nfile[3:4]", "", ""], ["net[1]", "", ""], [""] * 4, [1, "", ""], "abc"):
        path.write_text(json.dumps({"streams": streams, "state": {}}))
        done = rootless("restore", "--bundle", bundle, "--image-path", "saved", "c1")
        assert done.returncode == 1
        assert f"cannot use {path}: it does not hold" in done.stderr
    assert rootless.list() == []


@pytest.mark.parametrize("place", ["rootfs", "layer", "relative", "another user's", "writable by others", "missing"])
def test_criu_configuration_in_an_annotation_must_be_a_trusted_file(rootless, bundle, volume, user, place):
    """Tools that unpack images turn an image's labels into annotations (image-spec, conversion.md).

    An engine keeps image layers in directories of root, whose names are predictable.
    """
    root = rootless.user
    where = {"rootfs": bundle / "rootfs/trap", "another user's": user.tmp / "trap"}.get(place, root.tmp / "trap")
    trap = Trap(where, user.uid if place == "another user's" else 0)
    if place == "writable by others":
        trap.options.chmod(0o666)
    named = {"relative": os.path.relpath(trap.options, root.tmp), "missing": f"{trap.options}.old"}
    edit_config(bundle, annotations={"org.criu.config": named.get(place, str(trap.options))})
    first = begin_counting(rootless, bundle, volume)
    done = rootless("checkpoint", "--image-path", "saved", "c1")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: cannot use ")
    assert "config.json: annotations" in done.stderr
    assert not trap.sprung
    assert rootless.pid("c1") == first


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        *itertools.product(
            ["another user's", "writable by others", "another user's link"], ["--image-path", "--work-path"]
        )
    ],
)
def test_an_image_or_work_directory_controlled_by_others_is_refused(rootless, bundle, volume, kind, flag):
    """Images restore processes with any privileges: a user who can write to them is root."""
    root = rootless.user
    first = begin_counting(rootless, bundle, volume)
    good = {"--image-path": root.tmp / "saved", "--work-path": root.tmp / "logs"}
    words = [str(word) for pair in good.items() for word in pair]
    assert rootless("checkpoint", "--leave-running", *words, "c1").returncode == 0
    bad = root.tmp / "bad"
    if kind == "another user's link":
        bad.symlink_to(good[flag])
        os.lchown(bad, 1000, 1000)
    else:
        shutil.copytree(good[flag], bad)
        bad.chmod(0o777 if kind == "writable by others" else 0o755)
        os.chown(bad, 1000 if kind == "another user's" else 0, 0)
    words = [str(word) for pair in (good | {flag: bad}).items() for word in pair]
    done = rootless("checkpoint", *words, "c1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: cannot use {bad}: ")
    assert rootless.pid("c1") == first
    assert rootless("delete", "--force", "c1").returncode == 0
    done = rootless("restore", "--bundle", bundle, *words, "c1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: cannot use {bad}: ")


def test_a_restored_container_is_in_the_cgroup_of_its_bundle(in_cgroup2, root, bundle, volume):
    """Its processes are in the cgroup that `kill --all`, `pause` and `delete --force` act on."""
    begin_counting(in_cgroup2, bundle, volume)
    assert in_cgroup2("checkpoint", "--image-path", "saved", "c1").returncode == 0
    restore(in_cgroup2, bundle, "--detach", "c2")
    state = json.loads((root.tmp / "state/c2/state.json").read_text())
    await_count(volume, len(numbers(volume)) + 3)
    assert in_cgroup2("pause", "c2").returncode == 0
    assert in_cgroup2.status("c2") == "paused"
    assert in_cgroup2("resume", "c2").returncode == 0
    assert in_cgroup2("delete", "--force", "c2").returncode == 0
    assert os.path.basename(state["cgroup"]) not in in_cgroup2.view.cgroups()
