"""`rootless inspect` prints what is known of a container."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lib.bundles import base_config, make_bundle
from tests.lib.detached import detached

__all__ = ["detached"]


def inspected(rootless, *containers):
    done = rootless("inspect", *containers)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_container_that_has_ended(detached, rootless):
    detached("echo out; exit 7", "--timeout", "1000")
    (found,) = inspected(rootless, "bundle")
    assert found["status"] == "stopped"
    assert found["exitStatus"] == 7
    assert found["finished"] >= found["created"][:19]
    assert " out\n" in Path(found["log"]).read_text()
    assert found["asked"]["timeout"] == 1000
    assert found["asked"]["container"] == str(detached.bundle)
    assert found["process"]["args"] == ["sh", "-c", "echo out; exit 7"]
    assert {mount["destination"] for mount in found["mounts"]} >= {"/proc", "/dev"}
    assert found["resources"] == {}


def test_a_container_that_runs_has_no_exit_status(detached, rootless):
    pid = detached("sleep 1000", end=False)
    (found,) = inspected(rootless, "bundle")
    assert (found["status"], found["pid"]) == ("running", pid)
    assert "exitStatus" not in found


def test_its_first_part_is_that_of_state(rootless, user):
    config = base_config("true") | {"annotations": {"org.example": "a"}}
    config["linux"]["resources"] = {"pids": {"limit": 50}}
    rootless.create("c1", make_bundle(user, config))
    (found,) = inspected(rootless, "c1")
    assert rootless.state("c1").items() <= found.items()
    assert found["resources"] == {"pids": {"limit": 50}}
    assert found.keys().isdisjoint({"asked", "log", "exitStatus", "imageDigest"})


def test_several_in_the_order_of_the_command_line(rootless, user):
    for name in ("one", "two"):
        rootless.create(name, make_bundle(user, name=name))
    assert [each["id"] for each in inspected(rootless, "two", "one")] == ["two", "one"]
    done = rootless("inspect", "two", "none")
    assert (done.returncode, done.stdout) == (1, "")


def test_damaged_files_do_not_hide_the_rest(detached, rootless):
    detached("exit 7")
    (detached.place / "request.json").write_text("{")
    (detached.place / "exit").write_text("x" * 1000)
    (found,) = inspected(rootless, "bundle")
    assert found.keys().isdisjoint({"asked", "exitStatus"})
    assert found["status"] == "stopped"


def test_what_was_asked_is_readable_for_its_user_alone(detached):
    detached("true")
    for name in ("request.json", "log", "exit"):
        assert detached.place.joinpath(name).stat().st_mode & 0o777 == 0o600
