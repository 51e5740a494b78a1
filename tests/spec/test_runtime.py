"""runtime.md "Operations": state, create, start, kill and delete, as every runtime performs them."""

from __future__ import annotations

import os

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import write_config
from tests.lib.containers import until
from tests.lib.oracles import SLEEP, call, state, stop


def started(box, *script):
    """Create a container and start it; return its pid."""
    pid = box.create(config_with_maps(box.user), *(script or (SLEEP,)))
    call(box, "start", "held", check=True)
    return pid


# --- Operations -------------------------------------------------------------------------------------------------------


@pytest.mark.spec(*(f"state.{name}" for name in ("ociVersion", "id", "status", "pid", "bundle", "annotations")))
def test_state(either):
    config = config_with_maps(either.user) | {"annotations": {"com.example.key": "value"}}
    pid = either.create(config, SLEEP)
    seen = state(either)
    assert seen["ociVersion"].startswith("1.")
    assert {key: seen[key] for key in ("id", "status", "pid", "bundle", "annotations")} == {
        "id": "held",
        "status": "created",
        "pid": pid,
        "bundle": str(either.path),
        "annotations": {"com.example.key": "value"},
    }
    call(either, "start", "held", check=True)
    until(lambda: state(either)["status"] == "running", "the program runs")
    stop(either)


@pytest.mark.spec("state: of a container that does not exist")
def test_state_of_an_unknown_id(either):
    done = call(either, "state", "nothing")
    assert done.returncode != 0
    assert done.stderr


@pytest.mark.spec("create: the program does not run", "start: runs the program", "create: config.json is read once")
def test_create_and_start(either):
    """ "Any changes made to the config.json file after this operation will not have an effect on the container"."""
    config = config_with_maps(either.user)
    either.create(config, "echo first > /data/made; " + SLEEP)
    assert not (either.rootfs / "data/made").exists()
    config["process"]["args"] = ["sh", "-c", "echo second > /data/made"]
    write_config(either.path, config)
    call(either, "start", "held", check=True)
    until((either.rootfs / "data/made").exists, "the program has run")
    until(lambda: (either.rootfs / "data/made").read_text() == "first\n", "the program has written")


@pytest.mark.spec("create: an id that is in use")
def test_an_id_that_is_in_use(either):
    pid = either.create(config_with_maps(either.user), SLEEP)
    done = call(either, "create", "--bundle", either.path, "held")
    assert done.returncode != 0
    assert state(either)["pid"] == pid


@pytest.mark.spec("start: a container that is not created")
def test_start_unless_created_is_refused(either):
    pid = started(either)
    for name in ("held", "nothing"):
        assert call(either, "start", name).returncode != 0
    assert (state(either)["status"], state(either)["pid"]) == ("running", pid)


@pytest.mark.spec("kill: sends the signal")
def test_kill(either):
    started(either, "trap 'touch /data/caught' USR1; touch /data/ready; while :; do sleep 0.01; done")
    until((either.rootfs / "data/ready").exists, "the program catches the signal")
    call(either, "kill", "held", "USR1", check=True)
    until((either.rootfs / "data/caught").exists, "the signal arrives")
    assert state(either)["status"] == "running"


@pytest.mark.spec("kill: a container that is not there or has stopped")
def test_kill_unless_running_is_refused(either):
    started(either)
    stop(either)
    for name in ("held", "nothing"):
        assert call(either, "kill", name, "TERM").returncode != 0


@pytest.mark.spec("delete: removes a stopped container")
def test_delete(either):
    pid = started(either)
    stop(either)
    call(either, "delete", "held", check=True)
    assert call(either, "state", "held").returncode != 0
    assert not os.path.exists(f"/proc/{pid}")
    # "the ID … MAY be reused"
    either.create(config_with_maps(either.user), SLEEP)


@pytest.mark.spec("delete: a container that has not stopped")
def test_delete_of_a_running_container_is_refused(either):
    started(either)
    for name in ("held", "nothing"):
        assert call(either, "delete", name).returncode != 0
    assert state(either)["status"] == "running"
