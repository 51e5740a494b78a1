"""Differences between runtimes for the same config.json: the comparison, and the known differences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.lib.specification import RUNTIMES
from tests.system.containers import Guest
from tests.system.limits import config_of

COMPARE = Path(__file__).with_name("compare.py")


MANAGERS = ("systemd", "cgroupfs")


class Difference(NamedTuple):
    """A known difference of other runtimes, for every cgroup manager."""

    who: str
    what: str
    theirs: str
    ours: str
    why: str
    case: str = ""


REFUSED, TAKEN = "refused", "taken"


KEPT = (
    "systemd.resource-control(5): systemd writes the limits that are its properties, and no others, when it reads its "
    "units again, and systemctl show tells them; what is in the file is the property as well"
)


PROGRAM = (
    'cgroup-v2.rst, device controller: "implemented on top of cgroup BPF", which takes privileges (bpf(2)) that the '
    "manager of a user does not have: a property would name rules that nobody enforces"
)


IN_SCOPES = [
    Difference("runc crun", "CollectMode", "inactive", "inactive-or-failed",
               'systemd.unit(5): else a failed unit "is not unloaded", and its name is taken'),
    Difference("runc crun", "DevicePolicy", "strict", "auto", PROGRAM),
    Difference("runc", "DeviceAllow", "block-* m", "", PROGRAM),
    Difference("crun", "DeviceAllow", "char-* m", "", PROGRAM),
]  # fmt: skip


def compared(results):
    """Yield (manager, case, who, what, theirs, ours) for every difference."""
    for manager, cases in results.items():
        for case, runtimes in cases.items():
            ours = runtimes["rootless"]
            for who in runtimes.keys() - {"rootless"}:
                theirs = runtimes[who]
                if "refused" in theirs or "refused" in ours:
                    pair = [REFUSED if "refused" in each else TAKEN for each in (theirs, ours)]
                    if pair[0] != pair[1]:
                        yield manager, case, who, "refused", *pair
                    continue
                for what in sorted(theirs.keys() | ours.keys()):
                    pair = [each.get(what, "") for each in (theirs, ours)]
                    if pair[0] != pair[1]:
                        yield manager, case, who, what, *pair


def unlisted_and_unseen(results, listed):
    """Return the differences that are not in the list, and those of the list that do not occur."""
    unseen = {(who, each) for each in listed for who in each.who.split()}
    unlisted = []
    for manager, case, who, what, theirs, ours in compared(results):
        known = [
            each
            for each in listed
            if who in each.who.split()
            and (each.what, each.theirs, each.ours) == (what, theirs, ours)
            and each.case in ("", case)
        ]
        if not known:
            unlisted.append((manager, case, who, what, theirs, ours))
        unseen -= {(who, each) for each in known}
    return unlisted, unseen


def compare_in(machine, cases, managers):
    """Return the results of compare.py in a machine."""
    guest = Guest(machine)
    config = json.loads(guest.config(config_of(guest, {}, "cgroup.type")).read_text())
    task = {"config": config, "runtimes": {name: name for name in RUNTIMES}, "managers": managers, "cases": cases}
    (machine.shared / "compare.json").write_text(json.dumps(task))
    shutil.copy(COMPARE, machine.shared)
    script = 'cd "$(mktemp -d)" && python3 /mnt/host/compare.py /mnt/host/compare.json'
    return json.loads(machine.run(script, timeout=300, check=True).stdout)
