"""Single limits: their effect, their update, and values out of range."""

from __future__ import annotations

import json

import pytest

from tests.system.containers import SCOPES, UNTIL, Guest
from tests.system.limits import DISK, MIB

PLACE = "linux.resources"


@pytest.fixture(scope="module")
def guest(machine):
    return Guest(machine)


# --- The scope's name and slice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "app.slice/rootless-form.scope"),
        (":some:form", "app.slice/some-form.scope"),
        ("user.slice:some:form", "user.slice/some-form.scope"),
        ("user.slice::form", "user.slice/-form.scope"),
        ("a-b.slice:some:form", "a.slice/a-b.slice/some-form.scope"),
        ("-.slice:some:form", "some-form.scope"),
    ],
)
def test_every_form_of_cgroups_path_names_a_scope(guest, path, expected):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, path)
    guest(f"rootless --systemd-cgroup run --detach --bundle {bundle} form")
    try:
        assert guest(f"cat {SCOPES}/{expected}/pids.max") == "9\n"
        unit = expected.rpartition("/")[2]
        (slice_,) = guest.properties(unit, "Slice").values()
        assert slice_ == (expected.split("/")[-2] if "/" in expected else "-.slice")
    finally:
        guest("rootless delete --force form")
    guest(f"[ ! -d {SCOPES}/{expected} ]")


@pytest.mark.parametrize("path", ["some:form", "/some/form", "user.slice:some:", "user:some:form", "a--b.slice:c:d"])
def test_a_cgroups_path_that_names_no_scope_is_refused(guest, path):
    bundle = guest.bundle("true", {"pids": {"limit": 9}}, path)
    error = guest.fails(f"rootless --systemd-cgroup run --bundle {bundle} form")
    assert error.count("\n") == 1
    assert error.startswith("rootless: cannot have systemd create ")
    assert "(config.json: linux.cgroupsPath); fix: " in error
    assert guest("rootless list --quiet") == ""


# --- The effect of limits ---------------------------------------------------------------------------------------------


def test_a_limit_of_disk_input_slows_reading(guest):
    """Three megabytes that are not cached are read at one megabyte a second, and without a limit."""
    seconds = {}
    guest("head -c 3M /dev/urandom >base/rootfs/blob; sync")
    try:
        for name, rate in (("limited", MIB), ("free", 0)):
            resources = {"blockIO": {"throttleReadBpsDevice": [DISK | {"rate": rate}]}} if rate else {}
            bundle = guest.bundle("cat /blob >/dev/null", resources, f"user.slice:rootless:{name}")
            told = guest(
                f"""
                become="runuser -u tester -- env -i PATH=/usr/bin:/bin HOME=/home/tester"
                rootless="$become /home/tester/.local/bin/rootless --root /run/user/1000/io"
                $rootless --systemd-cgroup create --bundle {bundle} {name} >/dev/null 2>&1 </dev/null
                echo 3 >/proc/sys/vm/drop_caches
                began=$(date +%s%3N)
                $rootless start {name}
                until $rootless state {name} | grep -q stopped; do sleep 0.05; done
                echo $(($(date +%s%3N) - began))
                $rootless delete {name}
                """,
                root=True,
            )
            seconds[name] = int(told) / 1000
    finally:
        guest("rm base/rootfs/blob")
    assert seconds["limited"] > 1.8
    assert seconds["free"] < seconds["limited"] / 1.5


@pytest.mark.parametrize("together", [True, False])
def test_memory_oom_group_kills_the_whole_container(guest, together):
    """Without it, only the process that exceeds the limit is killed."""
    resources = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}, "unified": {"memory.oom.group": str(int(together))}}
    script = "(head -c 100M /dev/zero | tail >/dev/null); echo $?; echo goes on"
    for flags, path in (("", "user.slice:rootless:group"), ("--cgroup-manager cgroupfs", "")):
        bundle = guest.bundle(script, resources, path)
        done = guest.machine.run(f"rootless {flags} run --bundle {bundle} group")
        assert (done.returncode, done.stdout) == ((137, "") if together else (0, "137\ngoes on\n")), done


@pytest.mark.parametrize("verb", ["create", "run --detach"])
def test_a_container_can_start_frozen(guest, verb):
    bundle = guest.bundle("sleep 1; echo up; sleep 1000", {"unified": {"cgroup.freeze": "1"}}, "user.slice:some:frozen")
    go = "rootless start frozen" if verb == "create" else ":"
    try:
        told = guest(
            f"""{UNTIL}
            rootless --systemd-cgroup {verb} --bundle {bundle} frozen >said
            grep 'frozen' {SCOPES}/user.slice/some-frozen.scope/cgroup.events
            rootless state frozen | grep -ow paused
            [ ! -s said ]
            rootless resume frozen
            {go}
            until_ [ -s said ]
            cat said
            """
        )
    finally:
        guest("rootless delete --force frozen")
    assert told.splitlines() == ["frozen 1", "paused", "up"]


# --- Updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["systemd", "cgroupfs"])
def test_update_changes_every_section_of_resources(guest, manager):
    asked = {
        "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 8 * MIB},
        "cpu": {"shares": 2048, "quota": 40000, "period": 80000, "burst": 2000},
        "pids": {"limit": 40},
        "blockIO": {
            "throttleWriteBpsDevice": [DISK | {"rate": 2 * MIB}], "throttleReadIOPSDevice": [DISK | {"rate": 70}],
        },
        "unified": {"memory.high": str(48 * MIB), "memory.oom.group": "1", "memory.min": str(MIB)},
    }  # fmt: skip
    flags = "--systemd-cgroup" if manager == "systemd" else "--cgroup-manager cgroupfs"
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 20}})
    files = (
        "memory.max memory.swap.max memory.low memory.high memory.min memory.oom.group pids.max cpu.max cpu.max.burst "
        "cpu.weight io.max"
    )
    told = guest(
        f"""
        rootless {flags} run --detach --bundle {bundle} section
        echo '{json.dumps(asked)}' | rootless update --resources - section
        pid=$(rootless state section | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p')
        cd /sys/fs/cgroup$(cut -d: -f3 /proc/$pid/cgroup)
        for file in {files}; do echo "$file $(cat $file)"; done
        """
    )
    try:
        assert dict(line.split(" ", 1) for line in told.splitlines()) == {
            "memory.max": str(64 * MIB),
            "memory.swap.max": "0",
            "memory.low": str(8 * MIB),
            "memory.high": str(48 * MIB),
            "memory.min": str(MIB),
            "memory.oom.group": "1",
            "pids.max": "40",
            "cpu.max": "40000 80000",
            "cpu.max.burst": "2000",
            "cpu.weight": "174",
            "io.max": f"98:0 rbps=max wbps={2 * MIB} riops=70 wiops=max",
        }
        if manager == "systemd":
            shown = guest.properties(
                "rootless-section.scope", "MemoryMax", "MemorySwapMax", "MemoryLow", "MemoryHigh", "MemoryMin",
                "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "IOWriteBandwidthMax",
                "IOReadIOPSMax",
            )  # fmt: skip
            assert shown == {
                "MemoryMax": str(64 * MIB), "MemorySwapMax": "0", "MemoryLow": str(8 * MIB),
                "MemoryHigh": str(48 * MIB), "MemoryMin": str(MIB), "TasksMax": "40", "CPUWeight": "174",
                "CPUQuotaPerSecUSec": "500ms", "CPUQuotaPeriodUSec": "80ms",
                "IOWriteBandwidthMax": f"/dev/block/98:0 {2 * MIB}", "IOReadIOPSMax": "/dev/block/98:0 70",
            }  # fmt: skip
        warned = guest.machine.run("rootless update --blkio-weight 500 section", check=True).stderr
        assert "--blkio-weight: this kernel has no io.weight" in warned
    finally:
        guest("rootless delete --force section")


# --- Values out of range ----------------------------------------------------------------------------------------------

OUT_OF_RANGE = {
    # property of linux.resources: the value, the error
    "cpu.quota": ({"cpu": {"quota": 500}}, "write '500 100000' to cpu.max: the kernel does not take this value"),
    "cpu.period": ({"cpu": {"period": 5}}, "write 'max 5' to cpu.max: the kernel does not take this value"),
    "cpu.burst": ({"cpu": {"quota": 20000, "burst": 30000}}, "30000 is above quota"),
    "cpu.idle": ({"cpu": {"idle": 3}}, "cannot limit resources: 3"),
    "pids.limit": ({"pids": {"limit": 1 << 40}}, f"write '{1 << 40}' to pids.max: the kernel does not take this value"),
    "memory.limit": ({"memory": {"limit": 4096}}, "the executor was killed: "),
    "memory.swap": ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "is below limit"),
    "memory.reservation": ({"memory": {"reservation": -7}}, "-7 bytes"),
    "blockIO.weight": ({"blockIO": {"weight": 1001}}, "weight 1001"),
    "blockIO.throttleReadBpsDevice[0]": (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 9, "rate": 1}]}}, "there is no such device",
    ),
    "unified.cpu.weight": ({"unified": {"cpu.weight": "0"}}, "the value is out of the range that the kernel takes"),
    "unified.memory.high": ({"unified": {"memory.high": "-5"}}, "the kernel does not take this value"),
    "unified.io.max": ({"unified": {"io.max": "98:0 rbps=-1"}}, "the kernel does not take this value"),
    "unified.memory.oom.group": ({"unified": {"memory.oom.group": "7"}}, "the kernel does not take this value"),
    "unified.cgroup.freeze": ({"unified": {"cgroup.freeze": "2"}}, "the value is out of the range"),
}  # fmt: skip


def test_the_error_for_a_value_out_of_range_names_its_property(guest):
    """With both cgroup managers; nothing is left."""
    for place, (resources, told) in OUT_OF_RANGE.items():
        for flags in ("--systemd-cgroup", "--cgroup-manager cgroupfs"):
            error = guest.fails(f"rootless {flags} run --bundle {guest.bundle('true', resources)} range")
            assert error.count("\n") == 1, (place, flags, error)
            assert f"(config.json: {PLACE}.{place})" in error, (place, flags, error)
            assert told in error, (place, flags, error)
            assert "; fix: " in error, (place, flags, error)
    guest(
        f"""{UNTIL}
        [ -z "$(rootless list --quiet)" ]
        until_ gone rootless-range
        [ -z "$(find {SCOPES} -name '*rootless-range*')" ]
        """
    )


def test_an_update_out_of_range_names_its_flag_and_changes_nothing(guest):
    limits = {"pids": {"limit": 9}, "cpu": {"quota": 20000}}
    bundle = guest.bundle("sleep 1000", limits, "user.slice:rootless:flags")
    guest(f"rootless run --detach --bundle {bundle} flags")
    try:
        for words, named in (
            ("--pids-limit 99999999999", "--pids-limit: cannot limit resources: write '99999999999' to pids.max"),
            ("--pids-limit 7 --cpu-quota 500", "--cpu-quota: cannot limit resources: write '500 100000' to cpu.max"),
            ("--memory -5", "--memory: cannot limit resources: -5 bytes"),
            ("--cpu-idle 7", "--cpu-idle: cannot limit resources: 7"),
            ("--blkio-weight 9", "--blkio-weight: cannot limit resources: weight 9"),
            ("--cpus 1 --cpu-quota 500", "--cpus 1: --cpu-period and --cpu-quota say the same"),
        ):
            error = guest.fails(f"rootless update {words} flags")
            assert error.count("\n") == 1
            assert error.startswith(f"rootless: {named}"), error
        assert guest.files("rootless-flags.scope", "pids.max", "cpu.max") == {
            "pids.max": "9", "cpu.max": "20000 100000",
        }  # fmt: skip
        assert guest.properties("rootless-flags.scope", "TasksMax", "CPUQuotaPerSecUSec") == {
            "TasksMax": "9", "CPUQuotaPerSecUSec": "200ms",
        }  # fmt: skip
    finally:
        guest("rootless delete --force flags")
