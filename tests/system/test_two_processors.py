"""Limits of resources that user-mode Linux does not have: processors, their memory, huge pages, weights of a disk."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.lib.specification import RUNTIMES
from tests.system.containers import SCOPES, UNTIL, Guest
from tests.system.differences import IN_SCOPES, KEPT, MANAGERS, Difference, compare_in, unlisted_and_unseen
from tests.system.limits import MIB, config_of

DISK = {"major": 259, "minor": 0}
"""/dev/nvme0n1."""
TWO = "while :; do :; done & while :; do :; done"
BFQ = "modprobe bfq; echo bfq >/sys/block/nvme0n1/queue/scheduler"
RESERVE = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    size_t size = atoi(argv[1]) * 2ul << 20;
    void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (at == MAP_FAILED) { perror("mmap"); return 1; }
    ((char *)at)[size - 1] = 1;
    return 0;
}
"""
"""Maps the number of huge pages in its argument, and uses the last one."""


@pytest.fixture(scope="module")
def guest(two_processors):
    return Guest(two_processors)


@pytest.fixture
def box(guest):
    """The unit of a container with the name "box", which is deleted after the test."""
    yield "rootless-box.scope"
    guest("rootless delete --force box")


def used(guest, unit):
    """Return the number of processors that a scope kept busy for two seconds."""
    look = f"grep -h usage_usec {SCOPES}/user.slice/{unit}/cpu.stat; date +%s%6N"
    before, start, after, end = (int(line.split()[-1]) for line in guest(f"{look}; sleep 2; {look}").splitlines())
    return (after - before) / (end - start)


@pytest.mark.parametrize("manager", MANAGERS)
def test_processors_and_memory_nodes_are_limited_and_changed(guest, manager):
    bundle = guest.bundle("sleep 1000", {"cpu": {"cpus": "1", "mems": "0"}})
    script = f"""
        rootless --cgroup-manager {manager} run --detach --bundle {bundle} box
        dir=/sys/fs/cgroup$(cut -d: -f3 /proc/$(rootless state box | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p')/cgroup)
        inside() {{ rootless exec box grep _allowed_list /proc/1/status | cut -f2; }}
        look() {{ cat $dir/cpuset.cpus $dir/cpuset.mems; inside; }}
        look
        rootless update --cpuset-cpus 0-1 --cpuset-mems 1 box
        look
        [ {manager} = cgroupfs ] ||
            systemctl --user show --property=AllowedCPUs,AllowedMemoryNodes --value ${{dir##*/}}
        rootless events --stats box
        rootless delete --force box
    """
    *told, stats = guest(script).splitlines()
    assert told[:8] == ["1", "0", "1", "0", "0-1", "1", "0-1", "1"]
    assert told[8:] == ([] if manager == "cgroupfs" else ["0-1", "1"])
    cpuset = json.loads(stats)["data"]["cpuset"]
    assert (cpuset["cpus"], cpuset["mems"]) == ([0, 1], [1])


def test_a_cpu_quota_can_exceed_one_processor(guest, box):
    bundle = guest.bundle(TWO, {"cpu": {"quota": 50000}}, "user.slice:rootless:box")
    guest(f"rootless run --detach --bundle {bundle} box")
    assert 0.35 < used(guest, box) < 0.65
    guest("rootless update --cpus 1.5 box")
    assert 1.2 < used(guest, box) < 1.7
    guest("rootless update --cpu-quota -1 --cpuset-cpus 1 box")
    assert 0.7 < used(guest, box) < 1.1


def test_events_report_pressure(guest, box):
    """Two processes share one processor, and one exceeds the memory above which it has to wait."""
    script = f"({TWO}) & while :; do head -c 32M /dev/zero | tail >/dev/null; done"
    resources = {"cpu": {"cpus": "1"}, "unified": {"memory.high": str(8 * MIB)}}
    bundle = guest.bundle(script, resources, "user.slice:rootless:box")
    told = guest(
        f"""{UNTIL}
        rootless run --detach --bundle {bundle} box
        waits() {{ ! grep -q "some.*total=0$" {SCOPES}/user.slice/{box}/$1.pressure; }}
        until_ waits cpu
        until_ waits memory
        rootless events --stats box
        """
    )
    stats = json.loads(told)["data"]
    for kind in ("cpu", "memory", "blkio"):
        assert set(stats[kind]["psi"]["some"]) == {"avg10", "avg60", "avg300", "total"}
    assert stats["cpu"]["psi"]["some"]["total"] > 0
    assert stats["memory"]["psi"]["full"]["total"] > 0


@pytest.fixture(scope="module")
def huge(guest, need, tmp_path_factory):
    """Return a function that returns a bundle, for all runtimes, of a script with /reserve and 4 MiB of huge pages."""
    source = tmp_path_factory.mktemp("reserve") / "reserve.c"
    source.write_text(RESERVE)
    subprocess.run([need("gcc"), "-static", "-o", guest.machine.shared / "reserve", source], check=True)
    mount = {"destination": "/reserve", "type": "bind", "source": "/mnt/host/reserve", "options": ["bind", "ro"]}

    def bundle(script):
        made = config_of(guest, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "")
        config = json.loads(guest.config(made).read_text())
        config["process"]["args"] = ["sh", "-c", script]
        config["mounts"].append(mount)
        config["linux"]["cgroupsPath"] = "box"
        guest.config(made).write_text(json.dumps(config))
        return made

    return bundle


@pytest.fixture(scope="module")
def in_delegated(guest):
    """Return a function that runs a script of the user in a cgroup that root has delegated by hand.

    systemd does not know the controller. The script starts in a cgroup below, where it blocks no controller.
    """
    enter = """
        export here=/sys/fs/cgroup/delegated/tester HOME=/home/tester PATH=/home/tester/.local/bin:$PATH
        mkdir -p $here/rootless.caller
        echo +hugetlb >/sys/fs/cgroup/cgroup.subtree_control
        echo +hugetlb >/sys/fs/cgroup/delegated/cgroup.subtree_control
        for cgroup in $here $here/rootless.caller; do
            chown tester: $cgroup $cgroup/cgroup.procs $cgroup/cgroup.subtree_control
        done
        (
            echo $BASHPID >$here/rootless.caller/cgroup.procs
            cd ~
            exec setpriv --reuid 1000 --regid 1000 --clear-groups bash -eu /mnt/host/script 2>&1
        )
    """

    def run(script):
        (guest.machine.shared / "script").write_text(UNTIL + script)
        return guest(enter, root=True)

    return run


def test_huge_pages_are_limited_and_reported(in_delegated, huge):
    bundle = huge("/reserve 2 && ! /reserve 3 && sleep 1000")
    told = in_delegated(
        f"""
        rootless run --bundle {bundle} box & runs=$!
        sleeps() {{ pgrep --exact --full "sleep 1000" >/dev/null; }}
        until_ sleeps
        cat $here/box/hugetlb.2MB.rsvd.max
        rootless events --stats box
        rootless delete --force box
        wait $runs || true
        """
    )
    refused, limit, stats = told.splitlines()
    assert refused == "mmap: Cannot allocate memory"
    assert limit == str(4 * MIB)
    assert set(json.loads(stats)["data"]["hugetlb"]) >= {"2MB"}


ACCOUNTING = '"defines the … limits for HugeTLB controller reservation accounting": what is reserved has no limit'


@pytest.mark.spec("linux.resources.hugepageLimits")
@pytest.mark.parametrize(
    "runtime", ["runc", pytest.param("crun", marks=pytest.mark.differs("crun", ACCOUNTING)), "rootless"]
)
def test_the_limit_of_huge_pages_applies_to_reservations(in_delegated, huge, runtime):
    bundle = huge("/reserve 2 && ! /reserve 3")
    assert in_delegated(f"{runtime} --root ~/root run --bundle {bundle} box") == "mmap: Cannot allocate memory\n"


@pytest.fixture
def bfq(guest):
    """The disk scheduler that supports weights."""
    guest(BFQ, root=True)


def test_the_weight_of_a_disk_is_set_and_changed_with_bfq(guest, box, bfq):
    block_io = {"weight": 200, "weightDevice": [DISK | {"weight": 300}]}
    assert shares(guest, box, "io.bfq.weight", block_io) == [
        *("default 200", "259:0 300", "1200"),
        *("default 200", "259:0 300", "1200"),
        *("default 500", "259:0 300", "4500"),
    ]


def test_the_weight_of_a_disk_is_set_and_changed_without_bfq(guest, box):
    guest("echo none >/sys/block/nvme0n1/queue/scheduler; modprobe --remove bfq", root=True)
    assert shares(guest, box, "io.weight", {"weight": 200}) == [
        *("default 1920", "1920"),
        *("default 1920", "1920"),
        *("default 4950", "4950"),
    ]


def shares(guest, box, file, block_io):
    """Return a file and the property of a container's scope: at the start, after a reload of systemd, and updated."""
    bundle = guest.bundle("sleep 1000", {"blockIO": block_io}, "user.slice:rootless:box")
    shown = f"cat {SCOPES}/user.slice/{box}/{file}; systemctl --user show --property=IOWeight --value {box}"
    return guest(
        f"""
        rootless run --detach --bundle {bundle} box
        {shown}
        systemctl --user daemon-reload
        {shown}
        rootless update --blkio-weight 500 box
        {shown}
        """
    ).splitlines()


def test_time_offsets_apply_in_a_time_namespace(guest):
    bundle = guest.bundle("cut -d. -f1 /proc/uptime")
    config = json.loads(guest.config(bundle).read_text())
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 7 * 86400}}
    guest.config(bundle).write_text(json.dumps(config))
    inside, outside = map(int, guest(f"rootless run --bundle {bundle} box; cut -d. -f1 /proc/uptime").split())
    assert 0 <= outside + 7 * 86400 - inside < 60


LIMITS = {
    "all": {
        "cpu": {"cpus": "1", "mems": "1"},
        "blockIO": {"weight": 200, "weightDevice": [DISK | {"weight": 300}]},
    }
}
SEEN = {"cpu.cpus": "1", "cpu.mems": "1", "blockIO.weight": "default 200", "blockIO.weightDevice": "259:0 300"}
DIFFERENCES = [
    *IN_SCOPES,
    Difference("runc", "io.weight", "default 100", "default 1200", KEPT),
    Difference("runc", "IOWeight", "[not set]", "1200", KEPT),
    Difference("runc", "IODeviceWeight", "", "/dev/block/259:0 2300", KEPT),
    Difference("crun", "IODeviceWeight", "259:0 2300", "/dev/block/259:0 2300",
               'systemd.resource-control(5): "a file path and a weight value"'),
]  # fmt: skip


def test_the_differences_from_runc_and_crun_are_those_in_the_list(guest, bfq):
    """See test_differences.py."""
    unlisted, unseen = unlisted_and_unseen(compare_in(guest.machine, LIMITS, MANAGERS), DIFFERENCES)
    assert not unlisted
    assert not unseen


@pytest.fixture(scope="module", params=RUNTIMES)
def seen(request, guest):
    """Return the limits that the container of each runtime sees: {property: a line}."""
    guest(BFQ, root=True)
    bundle = config_of(guest, LIMITS["all"], "io.bfq.weight; grep _allowed_list /proc/self/status | cut -f 2")
    *weights, cpus, mems = guest(f"{request.param} --systemd-cgroup run --bundle {bundle} box").splitlines()
    return dict(zip(SEEN, (cpus, mems, *weights), strict=True))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.spec(f"linux.resources.{name}")) for name in SEEN]
)
def test_the_container_sees_the_limit(seen, name):
    assert seen[name] == SEEN[name]
