from __future__ import annotations

import json
import os
import subprocess

import pytest

from rootless.bundle.check import check
from rootless.errors import RootlessError
from rootless.image.bundles.spec import default_config, write_config, write_spec


@pytest.mark.parametrize("rootless", [False, True])
def test_spec_equals_that_of_runc(tmp_path, rootless, need):
    command = [need("runc"), "--root", tmp_path / "state", "spec", "--bundle", tmp_path, *["--rootless"] * rootless]
    subprocess.run(command, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    write_spec(str(tmp_path), rootless=rootless)
    ours = json.loads((tmp_path / "config.json").read_text())
    assert (theirs.pop("hostname"), ours.pop("hostname")) == ("runc", "rootless")
    assert theirs.pop("ociVersion") <= ours.pop("ociVersion") == "1.3.0"
    theirs["process"]["capabilities"].pop("ambient", None)  # of runc before 1.2
    assert ours == theirs
    assert [list(ours), list(ours["linux"])] == [list(theirs), list(theirs["linux"])]


def test_rootless_spec_maps_the_ids_of_the_user():
    linux = default_config(rootless=True, uid=1234, gid=56)["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1234, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 56, "size": 1}]


@pytest.mark.parametrize("cgroup2", [False, True])
@pytest.mark.parametrize("rootless", [False, True])
def test_the_check_finds_nothing_wrong(rootless, cgroup2):
    config = default_config(rootless=rootless, cgroup2=cgroup2)
    check(config)
    assert ({"type": "cgroup"} in config["linux"]["namespaces"]) == cgroup2
    assert ({"type": "user"} in config["linux"]["namespaces"]) == rootless


def test_changing_one_configuration_does_not_change_the_next():
    first = default_config(rootless=False)
    first["linux"]["maskedPaths"].append("/x")
    first["process"]["capabilities"]["bounding"].append("CAP_X")
    assert default_config(rootless=False) != first
    assert "CAP_X" not in first["process"]["capabilities"]["permitted"]


@pytest.mark.parametrize("there", ["file", "directory", "dangling link"])
def test_existing_files_are_not_touched(tmp_path, there):
    path = tmp_path / "config.json"
    if there == "file":
        path.write_text("mine")
    elif there == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(RootlessError) as caught:
        write_spec(str(tmp_path), rootless=False)
    assert str(caught.value) == "File config.json exists. Remove it first"
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert there != "file" or path.read_text() == "mine"


def test_another_name_and_the_mode_of_an_ordinary_file(tmp_path):
    mask = os.umask(0o027)
    try:
        write_spec(str(tmp_path), rootless=False, file_name="other.json")
    finally:
        os.umask(mask)
    assert [file.name for file in tmp_path.iterdir()] == ["other.json"]
    assert (tmp_path / "other.json").stat().st_mode & 0o777 == 0o640


def test_missing_directory_is_reported(tmp_path):
    with pytest.raises(RootlessError) as caught:
        write_spec(str(tmp_path / "missing"), rootless=False)
    assert str(caught.value) == f"writing {tmp_path}/missing/config.json: No such file or directory"


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_config(str(tmp_path / "config.json"), {"x": object()})
    assert list(tmp_path.iterdir()) == []
