"""podman on a machine with systemd and cgroup v2, as an ordinary user: features that use the containers' cgroups."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.lib.engines import HELPERS, IMAGE, make_image

HELD = "sh -c 'echo up; while :; do sleep 0.2; done'"


@pytest.fixture(scope="module")
def podman(machine):
    """Return a function that runs a script inside; podman there calls rootless as configured in helpers/."""
    directory = machine.shared / "podman"
    directory.mkdir()
    make_image(directory)
    shutil.copy(HELPERS / "podman/rootless.conf", directory)
    settings = "~/.config/containers/containers.conf.d"
    machine.run(
        f"""
        set -e
        mkdir -p {settings}
        sed 's/^#runtime/runtime/' /mnt/host/podman/rootless.conf >{settings}/rootless.conf
        podman load --quiet --input /mnt/host/podman/box.tar
        """,
        check=True,
    )

    def run(script):
        return machine.run(f"set -e\n{script}", check=True).stdout

    yield run
    machine.run(f"podman rm --all --force --time=0; rm -r {settings}", check=True)


@pytest.fixture(scope="module")
def held(podman):
    """The name of a running container."""
    health = "--health-cmd='test -e /well' --health-interval=1s"
    podman(
        f"podman run --detach --name=held --network=none --memory=100m --pids-limit=50 {health} {IMAGE} {HELD}\n"
        "until podman logs held | grep up; do sleep 0.1; done"
    )
    return "held"


def test_podman_runs_the_container_with_rootless_in_a_scope(podman, held):
    assert podman("podman info --format '{{.Host.CgroupManager}} {{.Host.OCIRuntime.Name}}'") == "systemd rootless\n"
    container_id = podman("podman inspect --format '{{.Id}}' held").strip()
    assert f"libpod-{container_id}.scope" in podman("systemctl --user list-units --type=scope --plain --no-legend")


def test_podman_pause_and_unpause_freeze_the_cgroup(podman, held):
    told = podman(
        """
        status() { podman inspect --format '{{.State.Status}}' held; }
        cgroup=/sys/fs/cgroup$(podman inspect --format '{{.State.CgroupPath}}' held)
        podman pause held >&2; status; grep frozen $cgroup/cgroup.events
        podman unpause held >&2; status; grep frozen $cgroup/cgroup.events
        podman exec held echo here
        """
    )
    assert told.splitlines() == ["paused", "frozen 1", "running", "frozen 0", "here"]


def test_podman_stats_show_the_limits_of_the_cgroup(podman, held):
    stats = json.loads(podman("podman stats --no-stream --format json held"))[0]
    assert stats["mem_usage"].endswith(" / 104.9MB")
    assert int(stats["pids"]) > 0
    assert podman("podman exec held cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").split() == [
        "104857600",
        "50",
    ]


def test_podman_update_changes_the_limits(podman, held):
    podman("podman update --memory=200m --pids-limit=60 held")
    assert podman("podman exec held cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").split() == [
        "209715200",
        "60",
    ]


def test_podman_healthcheck_is_repeated_by_systemd(podman, held):
    podman("podman exec held touch /well")
    podman("until podman inspect --format '{{.State.Health.Status}}' held | grep -x healthy; do sleep 0.2; done")


def test_the_scope_is_removed_with_the_container(podman, held):
    podman("podman rm --force --time=0 held")
    assert "libpod-" not in podman("systemctl --user list-units --type=scope --plain --no-legend --all")
