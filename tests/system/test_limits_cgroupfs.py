"""Limits without systemd: in a cgroup of the caller, which each job of the machine has."""

from __future__ import annotations

import json

import pytest

from tests.system.containers import Guest

MIB = 1 << 20
DIRECTORY = """
pid() { rootless state "$1" | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p'; }
dir() { echo "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(pid "$1")/cgroup")"; }
"""


@pytest.fixture(scope="module")
def guests(machine):
    return Guest(machine)


@pytest.fixture
def guest(guests):
    yield guests
    guests("for id in $(rootless list -q); do rootless delete --force $id; done")


def run(guest, script, resources, *, fails=False, flags=""):
    """Run a container to its end in its own job."""
    bundle = guest.bundle(script, resources)
    done = guest.machine.run(f"rootless --cgroup-manager cgroupfs run {flags} --bundle {bundle} c1")
    assert fails or done.returncode == 0, done
    return done


def test_a_program_above_the_memory_limit_is_killed(guest):
    done = run(guest, "head -c 64M /dev/zero | tail", {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}, fails=True)
    assert done.returncode == 137, done
    assert "limits" not in done.stderr


def test_the_limit_of_processes_is_enforced(guest):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
    done = run(guest, script, {"pids": {"limit": 5}}, fails=True)
    assert done.returncode
    assert "fork" in done.stderr


def test_the_cpu_quota_is_enforced(guest):
    bundle = guest.bundle("while :; do :; done", {"cpu": {"quota": 20000, "period": 100000}})
    told = guest(
        DIRECTORY
        + f"rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} c1\n"
        + "d=$(dir c1); a=$(awk '/usage_usec/ {print $2}' $d/cpu.stat); sleep 3\n"
        + "b=$(awk '/usage_usec/ {print $2}' $d/cpu.stat); echo $((b - a)); rootless delete --force c1"
    )
    assert 0.12 < int(told) / 3e6 < 0.3


ALL = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB},
    "pids": {"limit": 20},
    "cpu": {"shares": 512, "quota": 33333, "period": 50000, "burst": 1000},
    "unified": {"memory.high": "60M", "memory.oom.group": "1"},
}
FILES = "memory.max memory.swap.max memory.low memory.high memory.oom.group pids.max cpu.max cpu.max.burst cpu.weight"


def test_limits_are_written_and_changed_by_update(guest):
    bundle = guest.bundle("sleep 1000", ALL)
    show = f"(cd $(dir c1) && for f in {FILES}; do echo $f $(cat $f); done; echo .)"
    told = guest(
        DIRECTORY
        + f"rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} c1\n{show}\n"
        + "rootless update --memory 128m --memory-swap 128m --pids-limit 7 --cpu-quota 10000 --cpu-share 1024 c1\n"
        + f"{show}\n"
        + """echo '{"cpu": {"period": 20000}, "pids": {"limit": -1}}' | rootless update --resources - c1\n"""
        + f"{show}\nrootless pause c1; rootless state c1 | grep status; rootless update --memory 96m c1;"
        + "cat $(dir c1)/memory.max; rootless resume c1; rootless delete --force c1"
    )
    before, after, last, rest = told.split(".\n")[:4] if told.count("\n.\n") == 3 else (told, "", "", "")
    first = dict(line.split(" ", 1) for line in before.splitlines())
    assert first == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(16 * MIB),
        "memory.high": str(60 * MIB),
        "memory.oom.group": "1",
        "pids.max": "20",
        "cpu.max": "33333 50000",
        "cpu.max.burst": "1000",
        "cpu.weight": "59",
    }
    second = dict(line.split(" ", 1) for line in after.splitlines())
    assert second == first | {
        "memory.max": str(128 * MIB),
        "memory.swap.max": "0",
        "pids.max": "7",
        "cpu.max": "10000 50000",
        "cpu.weight": "100",
    }
    third = dict(line.split(" ", 1) for line in last.splitlines())
    assert third == second | {"cpu.max": "10000 20000", "pids.max": "max"}
    assert rest.splitlines()[:2] == ['  "status": "paused",', str(96 * MIB)]


def test_the_caller_is_moved_to_another_cgroup_once(guest):
    bundle = guest.bundle("sleep 1000", ALL)
    own, first, moved, second, still = guest(
        DIRECTORY
        + f"""
        own() {{ echo "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"; }}
        own
        for id in c1 c2; do
            rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} $id >/dev/null
            dir $id
            own
        done
        """
    ).splitlines()
    assert first.startswith(f"{own}/rootless-c1.")
    assert moved == still == f"{own}/rootless.caller"
    assert second.startswith(f"{own}/rootless-c2.")


def test_the_error_for_a_refused_value_names_its_property(guest):
    bundle = guest.bundle("true", {"unified": {"cpu.weight": "70000"}})
    said = guest.fails(f"rootless --cgroup-manager cgroupfs run --bundle {bundle} c1")
    assert "write '70000' to cpu.weight: the value is out of the range" in said
    assert "(config.json: linux.resources.unified.cpu.weight)" in said
    bundle = guest.bundle("true", {"unified": {"io.max": "259:77 rbps=1000"}})
    said = guest.fails(f"rootless --cgroup-manager cgroupfs run --bundle {bundle} c1")
    assert "there is no such device" in said
    assert guest("rootless list -q") == ""


def test_flags_of_run_set_the_limits(guest):
    bundle = guest.bundle("true")
    flags = "-m 64m --memory-reservation 16m --cpus 0.5 -c 512 --pids-limit 20"
    told = guest(
        DIRECTORY
        + f"rootless --cgroup-manager cgroupfs run --detach {flags} --bundle {bundle} c1 sleep 1000\n"
        + "cd $(dir c1); for f in memory.max memory.swap.max memory.low cpu.max cpu.weight pids.max; do cat $f; done\n"
        + "rootless delete --force c1"
    )
    limits = [str(64 * MIB), str(64 * MIB), str(16 * MIB), "50000 100000", "59", "20"]
    assert told.splitlines() == limits


def test_check_before_update_refuses_a_limit_below_the_usage(guest):
    bundle = guest.bundle(
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=33 2>/dev/null; sleep 1000", {"memory": {"limit": 64 * MIB}}
    )
    said = guest.fails(
        DIRECTORY
        + f"rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} c1\n"
        + "d=$(dir c1); for i in $(seq 100); do [ $(cat $d/memory.current) -gt 33000000 ] && break; sleep 0.1; done\n"
        + """echo '{"memory": {"limit": 8000000, "checkBeforeUpdate": true}}' | rootless update --resources - c1
        status=$?; cat $(dir c1)/memory.max >&2; rootless delete --force c1; exit $status"""
    )
    assert "more than the new limit of 8000000 (standard input: memory.limit)" in said
    assert said.splitlines()[-1] == str(64 * MIB)


def test_out_of_memory_is_an_event(guest):
    script = "while :; do (head -c 64M /dev/zero | tail) ; sleep 1; done"
    bundle = guest.bundle(script, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    told = guest(
        f"rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} c1 >/dev/null 2>&1\n"
        "timeout 60 rootless events --interval 1h c1 | head -n 1\n"
        "rootless events --stats c1; rootless delete --force c1"
    ).splitlines()
    assert json.loads(told[0]) == {"type": "oom", "id": "c1"}
    stats = json.loads(told[1])["data"]
    assert stats["memory"]["usage"]["limit"] == 16 * MIB
    assert 0 < stats["memory"]["usage"]["usage"] <= 16 * MIB
    assert stats["pids"]["current"] > 0


def test_every_container_gets_all_controllers_of_its_caller(guest):
    """Even without limits: for accounting, for cgroups inside the container, and for a later update."""
    bundle = guest.bundle("sleep 1000")
    told = guest(
        DIRECTORY
        + f"rootless --cgroup-manager cgroupfs run --detach --bundle {bundle} c1\n"
        + "d=$(dir c1); cat $d/cgroup.controllers; cat $d/memory.current $d/pids.current\n"
        + "rootless update --pids-limit 7 c1; cat $d/pids.max; rootless delete --force c1"
    ).splitlines()
    assert {"cpu", "io", "memory", "pids"} <= set(told[0].split())
    assert int(told[1]) > 0
    assert int(told[2]) > 0
    assert told[3] == "7"


SERVICE = """
install -d -m 700 -o tester -g tester /run/batch
cat >/run/batch/job <<'END'
set -e
export PATH=/home/tester/.local/bin:$PATH
rootless run --detach --bundle "$1" c1 >/dev/null
pid=$(rootless state c1 | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p')
cd "/sys/fs/cgroup$(cut -d: -f3 /proc/$pid/cgroup)"
cat cgroup.controllers pids.current
rootless delete --force c1
END
systemd-run --quiet --wait --pipe --uid tester --property Delegate=yes --setenv XDG_RUNTIME_DIR=/run/batch \\
    sh /run/batch/job BUNDLE
"""


def test_a_delegated_cgroup_is_used_automatically(guest):
    """Here it is the cgroup of a service with Delegate=yes."""
    script = SERVICE.replace("BUNDLE", guest.bundle("sleep 1000"))
    told = guest.machine.run(script, root=True, check=True).stdout.splitlines()
    assert {"cpu", "io", "memory", "pids"} <= set(told[0].split())
    assert int(told[1]) > 0
