"""The statistics of `events`, `top` and runc agree, and running out of memory is an event."""

from __future__ import annotations

import json

import pytest

from tests.lib.accounts import CHECKOUT
from tests.system.containers import UNTIL, Guest
from tests.system.limits import DISK, MIB, config_of

LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB},
    "pids": {"limit": 20},
    "cpu": {"quota": 50000, "period": 100000},
    "blockIO": {"throttleReadBpsDevice": [DISK | {"rate": 64 * MIB}]},
}
BUSY = """
cat /blob >/dev/null
dd if=/dev/zero of=/dev/shm/file bs=1M count=20 2>/dev/null
sleep 1000 &
i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done
touch /dev/shm/done
wait
"""
STATS = f"""
import json, sys
sys.path.insert(0, "{CHECKOUT}")
from rootless.cgroup.group import Group
from rootless.cgroup.stats import stats
print(json.dumps(stats(Group(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def guest(machine):
    guest = Guest(machine)
    guest("head -c 3M /dev/urandom >base/rootfs/blob; sync")
    yield guest
    guest("rm base/rootfs/blob")


def bundle_of(guest, name):
    """Write a bundle that runc can run too; /dev/shm/done appears when it has used some of every resource."""
    bundle = config_of(guest, LIMITS, "")
    path = guest.machine.shared / bundle.rpartition("/")[2] / "config.json"
    config = json.loads(path.read_text())
    config["process"]["args"] = ["sh", "-c", BUSY]
    config["linux"]["cgroupsPath"] = f"user.slice:events:{name}"
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "cgroup"]
    config["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64m"]})
    path.write_text(json.dumps(config))
    return bundle


def started(guest, command, name):
    """Run a container until it has used some of every resource, freeze it, and return its cgroup."""
    bundle = bundle_of(guest, name)
    guest("echo 3 >/proc/sys/vm/drop_caches", root=True)
    return guest(
        f"""{UNTIL}
        {command} --systemd-cgroup run --detach --bundle {bundle} {name} >/dev/null 2>&1 </dev/null
        pid=$({command} state {name} | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p')
        until_ [ -e /proc/$pid/root/dev/shm/done ]
        {command} pause {name} 2>/dev/null
        echo "/sys/fs/cgroup$(cut -d: -f3 /proc/$pid/cgroup)"
        """
    ).strip()


def flat(document, place=""):
    """Return the values of a document by their paths."""
    if not isinstance(document, dict | list) or not document:
        return {place: document}
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    return {where: value for key, each in pairs for where, value in flat(each, f"{place}.{key}").items()}


def differences(theirs, ours):
    """Return the paths where two documents differ; theirs omits some numbers that are zero."""
    theirs, ours = flat(theirs), flat(ours)
    places = [place for place in theirs.keys() | ours.keys() if theirs.get(place, 0) != ours.get(place, 0)]
    return {place: (theirs.get(place, 0), ours.get(place, 0)) for place in places}


def are_close(place, theirs, ours):
    """Return whether two numbers differ by no more than the kernel's delayed accounting."""
    if type(theirs) is not int or type(ours) is not int:
        return False
    return abs(theirs - ours) <= max(0.02 * theirs, 1 << 17 if place.startswith(".memory") else 0)


def test_statistics_agree_with_those_of_runc(guest):
    """For the same frozen container, and for a container of rootless with the same load."""
    directory = started(guest, "runc", "theirs")
    started(guest, "rootless", "other")
    try:
        theirs = json.loads(guest("runc events --stats theirs"))
        ours = json.loads(guest(f"python3 -c '{STATS}' {directory}"))
        frozen = guest(f"cat {directory}/memory.current {directory}/pids.current").split()
        told = guest("rootless events --stats other")
    finally:
        guest("rootless delete --force other; runc resume theirs 2>/dev/null; runc delete --force theirs")
    found = {each: pair for each, pair in differences(theirs["data"], ours).items() if not are_close(each, *pair)}
    assert found == {}
    # the numbers are not trivial
    assert ours["memory"]["cache"] >= 20 * MIB
    assert ours["memory"]["usage"]["usage"] == int(frozen[0])
    assert ours["memory"]["usage"]["limit"] == 64 * MIB
    assert ours["memory"]["swap"]["limit"] == 96 * MIB
    assert ours["pids"] == {"current": int(frozen[1]), "limit": 20}
    assert ours["cpu"]["usage"]["total"] > 0
    assert ours["cpu"]["throttling"]["periods"] > 0
    read = [each["value"] for each in ours["blkio"]["ioServiceBytesRecursive"] if each["op"] == "Read"]
    assert sum(read) > MIB
    # `rootless events` of its own container: one line, equal except for numbers that change over time
    assert told.count("\n") == 1
    event = json.loads(told)
    assert (event["type"], event["id"], event.keys()) == ("stats", "other", theirs.keys())
    pairs = differences(ours, event["data"]).values()
    assert [pair for pair in pairs if {type(each) for each in pair} != {int}] == []
    assert event["data"]["memory"]["raw"]["shmem"] == ours["memory"]["raw"]["shmem"] == 20 * MIB
    assert event["data"]["pids"] == ours["pids"]


def test_out_of_memory_events_agree_with_those_of_runc(guest):
    """One event for each process that the kernel kills; `events` ends with the container."""
    resources = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}}
    script = "until [ -e /dev/shm/go ]; do sleep 0.1; done; head -c 100M /dev/zero | tail >/dev/null; sleep 1"
    found = {}
    for command in ("runc", "rootless"):
        bundle = bundle_of(guest, "short")
        path = guest.machine.shared / bundle.rpartition("/")[2] / "config.json"
        config = json.loads(path.read_text())
        config["process"]["args"] = ["sh", "-c", script]
        config["linux"]["resources"] = resources
        path.write_text(json.dumps(config))
        told = guest(
            f"""{UNTIL}
            {command} --systemd-cgroup run --detach --bundle {bundle} short >/dev/null 2>&1 </dev/null
            pid=$({command} state short | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p')
            {command} events --interval 1h short >told &
            watching() {{ ls -l /proc/$!/fd | grep -q -e memory.events -e inotify; }}
            until_ watching
            touch /proc/$pid/root/dev/shm/go
            wait $!
            cat told
            {command} delete --force short
            """
        )
        found[command] = [json.loads(line) for line in told.splitlines()]
    event = {"type": "oom", "id": "short"}
    assert found["rootless"] == [event]
    # runc sometimes reports one kill twice: once per change of the file
    assert found["runc"]
    assert all(each == event for each in found["runc"])


def test_top_shows_the_numbers_of_the_cgroup(guest):
    started(guest, "rootless", "watched")
    try:
        guest("rootless resume watched")
        (shown,) = json.loads(guest("rootless top --json watched"))
        table = guest("rootless top --once watched").splitlines()
        (unlimited,) = json.loads(
            guest(f"rootless run --detach --bundle {guest.bundle('sleep 1000')} plain; rootless top --json plain")
        )
    finally:
        guest("rootless delete --force watched; rootless delete --force plain")
    assert (shown["id"], shown["status"], shown["processes"]) == ("watched", "running", 2)
    assert 20 * MIB <= shown["memory"] <= shown["memoryLimit"] == 64 * MIB
    assert shown["read"] > MIB
    assert shown["cpuSeconds"] > 0
    assert table[1].split()[:3] == ["watched", "running", "2"]
    assert "64M" in table[1].split()
    assert unlimited["memoryLimit"] == 0
