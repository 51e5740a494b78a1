"""podman creates containers with rootless: limits, updates, statistics, pauses, and the clean-up."""

from __future__ import annotations

import json

import pytest

from tests.system.containers import UNTIL, Guest

MIB = 1 << 20
LIMITS = "--memory 50m --memory-swap 50m --pids-limit 33 --cpus 0.5 --cpu-shares 512"


@pytest.fixture(scope="module")
def guest(machine):
    guest = Guest(machine)
    guest(
        """
        mkdir -p image/bin && cd image && cp /bin/busybox bin/
        for name in sh sleep tail head cat echo true id; do ln -sf busybox bin/$name; done
        tar -cf - bin | podman import - box >/dev/null 2>&1
        """
    )
    return guest


@pytest.fixture(params=["systemd", "cgroupfs"])
def podman(guest, request):
    """Return the command line of podman, with each of its two cgroup managers."""
    yield f"podman --cgroup-manager {request.param} --runtime $HOME/.local/bin/rootless"
    guest('podman rm --all --force --time 0; [ -z "$(rootless list --quiet)" ]')


CGROUP = 'scope=/sys/fs/cgroup$(cut -d: -f3 /proc/$(podman inspect --format "{{.State.Pid}}" box1)/cgroup)'


def _files(guest, *names):
    told = guest(f"{CGROUP}; cd $scope; for f in {' '.join(names)}; do echo $f $(cat $f); done")
    return dict(line.partition(" ")[::2] for line in told.splitlines())


def test_limits_statistics_pause_and_removal_work_with_podman(guest, podman):
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight")
    guest(f"{podman} run --detach --name box1 --network none {LIMITS} box sleep 1000")
    assert _files(guest, *names) == {
        "memory.max": str(50 * MIB), "memory.swap.max": "0", "pids.max": "33", "cpu.max": "50000 100000",
        "cpu.weight": "59",
    }  # fmt: skip
    guest(f"{podman} update --memory 80m --memory-swap 100m --pids-limit 44 --cpus 0.25 box1")
    assert _files(guest, *names) == {
        "memory.max": str(80 * MIB), "memory.swap.max": str(20 * MIB), "pids.max": "44", "cpu.max": "25000 100000",
        "cpu.weight": "59",
    }  # fmt: skip
    if "systemd" in podman:
        unit = guest(f"{CGROUP}; basename $scope").strip()
        assert unit.startswith("libpod-")
        assert guest.properties(unit, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "Slice") == {
            "MemoryMax": str(80 * MIB), "TasksMax": "44", "CPUQuotaPerSecUSec": "250ms", "Slice": "user.slice",
        }  # fmt: skip
    (stats,) = json.loads(guest(f"{podman} stats --no-stream --format json box1"))
    assert stats["mem_usage"].endswith("/ 83.89MB")
    assert stats["pids"] == "1"
    told = guest(
        f"""
        {CGROUP}
        {podman} pause box1 >&2
        cat $scope/cgroup.freeze
        {podman} inspect --format '{{{{.State.Status}}}}' box1
        {podman} unpause box1 >&2
        cat $scope/cgroup.freeze
        {podman} exec box1 echo ran
        {podman} exec --detach box1 sleep 1000 >&2
        wc -l <$scope/cgroup.procs
        {podman} rm --force --time 0 box1 >&2
        [ ! -d $scope ]
        [ -z "$(systemctl --user list-units --all --plain | grep libpod-.*scope)" ]
        """
    )
    assert told.split() == ["1", "paused", "0", "ran", "2"]


def test_podman_reports_that_memory_has_run_out(guest):
    podman = "podman --cgroup-manager systemd --runtime $HOME/.local/bin/rootless"
    limits = "--name box1 --network none --memory 24m --memory-swap 24m"
    # tail keeps an endless line in memory; without a limit there is enough
    greedy = "box sh -c 'exec tail >/dev/null'"
    run = f"head -c 100M /dev/zero | {podman} run --rm --interactive"
    assert guest.machine.run(f"{run} {limits} {greedy}").returncode == 137
    assert guest.machine.run(f"{run} --network none {greedy}").returncode == 0
    # conmon notifies podman with a delay, and may miss the first time: the container continues meanwhile
    told = guest(
        f"""{UNTIL}
        {podman} run --detach {limits} box sh -c 'while :; do tail /dev/zero; done' >&2
        {CGROUP}
        until_ grep --quiet 'oom_kill [1-9]' $scope/memory.events
        noted() {{ [ -n "$(find $XDG_RUNTIME_DIR/libpod -name oom)" ]; }}
        until_ noted
        {podman} stop --time 0 box1 >&2
        {podman} inspect --format '{{{{.State.OOMKilled}}}}' box1
        {podman} rm box1 >&2
        """
    )
    assert told == "true\n"
