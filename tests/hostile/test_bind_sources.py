"""Bind sources of a container that joins a user namespace are opened with the caller's access only."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.boxes import add_mount, make_volume, own_mappings, set_namespaces
from tests.lib.bundles import base_config, own


@pytest.fixture
def namespace(user):
    """The path of a user namespace of the user in which the user's own IDs do not exist."""
    maps = own_mappings(user)
    subordinate = [maps[key][1] for key in ("uidMappings", "gidMappings")]
    words = [
        f"--map-{kind}={each['hostID']},0,1000" for kind, each in zip(("users", "groups"), subordinate, strict=True)
    ]
    words = ["unshare", "--user", *words, "sh", "-c", "echo ready; read line"]
    process = user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    yield f"/proc/{process.pid}/ns/user"
    process.communicate("\n", timeout=30)


@pytest.fixture
def config(namespace, box):
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    set_namespaces(config, "pid", "network", "ipc", "uts", "mount", user=namespace)
    return config


@pytest.mark.parametrize("link", [False, True])
def test_a_private_directory_of_the_caller_can_be_bound(config, box, link):
    """The container's root has none of the caller's IDs and could not search it."""
    volume = make_volume(box.user)
    (volume / "private/open").mkdir(parents=True)
    (volume / "private/open/file").write_text("text\n")
    (volume / "link").symlink_to("private")
    own(box.user, volume)
    (volume / "private").chmod(0o700)
    add_mount(config, "/data", "bind", str(volume / ("link" if link else "private") / "open"), "bind", "ro")

    lines = box.lines(config, "cat /data/file; cat /proc/self/uid_map; grep -c ' /data ro[ ,]' /proc/self/mountinfo")

    assert lines[0] == "text"
    assert lines[1].split()[0] == "0"
    assert lines[1].split()[1] != str(box.user.uid)
    assert lines[2] == "1"


@pytest.mark.parametrize("link", [False, True])
def test_a_directory_without_access_for_the_caller_is_refused(config, box, link, require_root):
    volume = make_volume(box.user)
    closed = volume / "closed"
    closed.mkdir(0o700)
    (closed / "inside").mkdir()
    (volume / "link").symlink_to("closed/inside")
    add_mount(config, "/data", "bind", str(volume / "link" if link else closed / "inside"), "rbind")

    done = box.run(config, "echo ran")

    assert (done.returncode, done.stdout) == (1, "")
    assert "open_tree: Permission denied" in done.stderr
    assert "(config.json: mounts[" in done.stderr
    assert ("(chmod +x)" if link else f"chmod o+x {closed}, or ") in done.stderr


def test_a_private_directory_of_subordinate_ids_can_be_bound(config, box, require_root):
    """The caller may enter the namespace, where these IDs exist, and search the directory."""
    volume = make_volume(box.user)
    theirs = volume / "theirs"
    (theirs / "inside").mkdir(parents=True)
    first = own_mappings(box.user)["uidMappings"][1]["hostID"]
    subprocess.run(["chown", "-R", f"{first}:{first}", theirs], check=True)
    theirs.chmod(0o700)
    add_mount(config, "/data", "bind", str(theirs / "inside"), "rbind")

    done = box.run(config, "echo ran")

    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
