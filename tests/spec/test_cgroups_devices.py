"""linux.resources.devices for root of the host: an eBPF program decides about every device.

That needs no controller; the cgroup v2 tree is visible in these tests only.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.boxes import ALL, Box, add_mount, as_real_root, make_box
from tests.lib.bundles import base_config
from tests.lib.cgroup2 import cgroup2

__all__ = ["cgroup2"]  # the fixture

FORBID = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}
FULL = {"type": "c", "major": 1, "minor": 7}
KMSG = {"type": "c", "major": 1, "minor": 11}

TRY = """
try() { # NAME MAJOR MINOR
    made=- read=- write=-
    mknod /made/$1 c $2 $3 2>/made/said && made=m
    (: </made/$1) 2>>/made/said && read=r
    (: >/made/$1) 2>>/made/said && write=w
    echo $1 $made$read$write $(grep -c 'Operation not permitted' /made/said)
    rm /made/said
}
"""


def root_of_the_host(view, box):
    """Make root of the host call the box's runtime in a View."""
    box = as_real_root(box)
    words = view.prefix()
    words[-3:-1] = ["0", "0"]
    if box.runtime == "crun":
        box.command.append("--cgroup-manager=cgroupfs")
    box.command[:0] = words
    return box


def ruled(view, *rules, capabilities=("CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG")):
    config = base_config()
    config["linux"]["resources"] = {"devices": list(rules)}
    config["linux"]["cgroupsPath"] = f"{view.path}/ruled"
    config["process"]["capabilities"] = {name: list(capabilities) for name in ("bounding", "effective", "permitted")}
    add_mount(config, "/made", "tmpfs", "tmpfs")
    return config


@pytest.fixture(params=ALL)
def root_box(request, user, rootless_command, need, cgroup2):
    box = root_of_the_host(cgroup2, make_box(user, request.param, rootless_command, need))
    yield box
    box.close()


@pytest.fixture
def our_box(user, rootless_command, cgroup2):
    box = root_of_the_host(cgroup2, Box(user, [rootless_command]))
    yield box
    box.close()


@pytest.mark.crun
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([FORBID], ["null mrw 0", "kmsg m-- 2"]),
        ([FORBID, KMSG | {"allow": True, "access": "r"}], ["null mrw 0", "kmsg mr- 1"]),
        ([FORBID, {"allow": True, "type": "c", "major": 1, "access": "rw"}], ["null mrw 0", "kmsg mrw 0"]),
        ([FORBID, ALLOW_ALL, KMSG | {"allow": False, "access": "w"}], ["null mrw 0", "kmsg mr- 1"]),
        ([ALLOW_ALL, KMSG | {"allow": False, "access": "r"}], ["null mrw 0", "kmsg m-w 1"]),
        ([KMSG | {"allow": True, "access": "rw"}, FORBID], ["null mrw 0", "kmsg m-- 2"]),
        ([FORBID, FULL | FORBID, KMSG | FORBID], ["null mrw 0", "kmsg m-- 2", "full mrw 0"]),
        ([FULL | {"allow": True, "access": "r"}], ["null mrw 0", "kmsg m-- 2"]),
        ([ALLOW_ALL], ["null mrw 0", "kmsg mrw 0"]),
    ],
)
def test_forbidden_device_is_refused(root_box, cgroup2, rules, expected):
    """The error of open(2) inside; runc and crun return the same."""
    lines = root_box.lines(ruled(cgroup2, *rules), TRY, "try null 1 3", "try kmsg 1 11", "try full 1 7")
    assert lines[: len(expected)] == expected


def test_without_rules_nothing_is_refused(our_box, cgroup2):
    config = ruled(cgroup2)
    assert our_box.lines(config, TRY, "try kmsg 1 11") == ["kmsg mrw 0"]


def test_rules_apply_to_processes_of_exec(our_box, cgroup2):
    our_box.create(ruled(cgroup2, FORBID), "sleep 1000")
    command = [*our_box.command]
    assert our_box.user.run([*command, "start", "held"], **our_box.options).returncode == 0
    script = f"{TRY}\ntry null 1 3\ntry kmsg 1 11"
    done = our_box.user.run([*command, "exec", "held", "sh", "-c", script], **our_box.options)
    assert done.stdout.splitlines() == ["null mrw 0", "kmsg m-- 2"]


def test_listed_devices_exist_and_are_forbidden_by_rules(our_box, cgroup2):
    """Rules apply to the container's processes, not to the runtime's set-up."""
    config = ruled(cgroup2, FORBID)
    config["linux"]["devices"] = [{"path": "/dev/listed"} | KMSG]
    lines = our_box.lines(config, "(: </dev/listed) 2>&1", "ls /dev/listed")
    assert lines == ["sh: can't open /dev/listed: Operation not permitted", "/dev/listed"]


def test_update_keeps_the_rules(our_box, cgroup2):
    """As in runc: engines send the rules with an update of other limits, and hooks may have allowed more meanwhile."""
    our_box.create(ruled(cgroup2, FORBID), "sleep 1000")
    for rules, said in (([FORBID], ""), ([ALLOW_ALL], "rules for devices stay as they were")):
        resources = json.dumps({"devices": rules, "unified": {"cgroup.max.depth": "5"}})
        done = our_box.user.run(
            [*our_box.command, "update", "--resources", "-", "held"], input=resources, **our_box.options
        )
        assert done.returncode == 0, done
        assert said in done.stderr
        assert bool(said) == bool(done.stderr)


def test_rules_apply_on_a_hybrid_host(user, rootless_command, require_root):
    if not os.path.ismount("/sys/fs/cgroup/unified"):
        pytest.skip("this host has no hybrid layout of cgroups")
    box = as_real_root(Box(user, [rootless_command]))
    config = base_config()
    sets = ("bounding", "effective", "permitted")
    config["process"]["capabilities"] = {name: ["CAP_DAC_OVERRIDE", "CAP_SYSLOG"] for name in sets}
    config["linux"]["devices"] = [KMSG | {"path": "/dev/kmsg"}]
    told = {}
    try:
        for allow in (True, False):
            config["linux"]["resources"] = {"devices": [FORBID, KMSG | {"allow": allow, "access": "rwm"}]}
            done = box.run(config, ": </dev/null && : </dev/kmsg")
            told[allow] = (done.returncode, "Operation not permitted" in done.stderr)
    finally:
        box.close()
    assert told == {True: (0, False), False: (1, True)}
