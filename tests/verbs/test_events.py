"""`events --stats`: huge pages and pressure (PSI), which tests/system does not cover."""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import make_bundle
from tests.lib.cgroup2 import View
from tests.lib.scenes import stage

__all__ = ["stage"]  # the fixture

pytestmark = pytest.mark.usefixtures("require_root")


@pytest.fixture
def scene(stage):
    """A scene whose limit can be enforced; the caller is in a cgroup below."""
    scene = stage()
    scene.hand_on(scene.root, scene.view.top, scene.view.directory)
    scene.cgroup("caller")
    return scene


def stats_of(scene, user, command):
    """Return a runtime's report about a container, and the values in its cgroup's files."""
    config = config_with_maps(user, "sleep", "1000")
    config["linux"]["cgroupsPath"] = f"{scene.view.path}/box"
    config["linux"]["resources"] = scene.limit.resources
    bundle = make_bundle(user, config, name=f"bundle-{len(list(user.tmp.iterdir()))}")
    runtime = [*scene.view.prefix(path=f"{scene.view.path}/caller"), *command]

    def verb(*words):
        with open(user.tmp / "said", "w+") as said:
            done = user.run([*runtime, *words], stdout=said, stderr=said, **View.options)
        text = (user.tmp / "said").read_text()
        assert done.returncode == 0, text
        return text

    verb("create", "--bundle", bundle, "box")
    try:
        directory = scene.view.directory / "box"
        told = verb("events", "--stats", "box").splitlines()[-1]
        files = {path.name: path.read_text() for path in directory.iterdir() if path.stat().st_mode & 0o400}
        return json.loads(told)["data"], files
    finally:
        verb("delete", "--force", "box")


def test_keys_equal_runcs_with_few_controllers(scene, need, user, rootless_command):
    theirs, _ = stats_of(scene, user, [need("runc"), "--root", user.tmp / "runc"])
    ours, _ = stats_of(scene, user, [rootless_command, "--root", user.tmp / "rootless"])
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        assert type(value) is type(ours[key])
        # the others leave out zeros, and have no PSI yet
        assert not isinstance(value, dict) or value.keys() <= ours[key].keys()
    assert theirs["pids"]["current"] == ours["pids"]["current"] == 1
    assert theirs["cpuset"] == ours["cpuset"]


def test_huge_pages_are_reported_as_the_kernel_counts_them(scene, user, rootless_command):
    if scene.limit.controller != "hugetlb":
        pytest.skip("this machine has no controller hugetlb in cgroup v2")
    ours, files = stats_of(scene, user, [rootless_command, "--root", user.tmp / "rootless"])
    sizes = {name.split(".")[1] for name in files if name.startswith("hugetlb.")}
    assert "2MB" in sizes
    assert ours["hugetlb"] == {
        size: {
            "usage": int(files[f"hugetlb.{size}.rsvd.current"]),
            "failcnt": int(files[f"hugetlb.{size}.events"].split()[1]),
        }
        for size in sizes
    }


def test_waiting_is_reported_as_the_kernel_counts_it(scene, user, rootless_command):
    ours, files = stats_of(scene, user, [rootless_command, "--root", user.tmp / "rootless"])
    kinds = {"cpu": "cpu", "memory": "memory", "blkio": "io"}
    if not all(f"{file}.pressure" in files for file in kinds.values()):
        pytest.skip("this kernel has no PSI")
    for key, file in kinds.items():
        for line in files[f"{file}.pressure"].splitlines():
            whose, *pairs = line.split()
            names = dict(pair.split("=") for pair in pairs)
            told = ours[key]["psi"][whose]
            assert told.keys() == names.keys() == {"avg10", "avg60", "avg300", "total"}
            assert {name: type(value) for name, value in told.items()} == dict.fromkeys(names, float) | {"total": int}
            assert told["total"] <= int(names["total"]), "it is included in the first value"
    assert {"some", "full"} <= ours["memory"]["psi"].keys()
