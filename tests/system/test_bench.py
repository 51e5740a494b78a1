"""How long a container with limits takes, compared with runc: in a systemd scope and in a delegated cgroup.

In the machine every system call takes about four times as long as elsewhere, so only the ratio counts. The figures fail
no test; docs/speed.md has them.
"""

from __future__ import annotations

import json
import shutil
import statistics

import pytest

from tests.lib.figures import MEASURE, ROUNDS
from tests.system.containers import Guest
from tests.system.limits import MIB, config_of

PROGRAMS = {"rootless": "/home/tester/.local/bin/rootless", "runc": "/usr/bin/runc"}
LIMITS = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 50}, "cpu": {"quota": 50000}}
OUT_OF_THE_WAY = """
own=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
mkdir "$own/rootless.caller"
for pid in $(cat "$own/cgroup.procs"); do echo "$pid" >"$own/rootless.caller/cgroup.procs"; done
"""
"""Moves the processes that prevent controllers from being enabled to the cgroup where rootless expects them."""


@pytest.mark.parametrize(
    ("path", "before", "where"),
    [
        ("user.slice:bench:box", "", "in a systemd scope"),
        ("box", OUT_OF_THE_WAY, "limited in a delegated cgroup"),
    ],
    ids=["systemd", "cgroupfs"],
)
def test_duration_of_run_true_with_limits(machine, figure, path, before, where):
    guest = Guest(machine)
    bundle = config_of(guest, LIMITS, "cgroup.type")
    config = json.loads(guest.config(bundle).read_text())
    config["process"]["args"] = ["true"]
    config["linux"]["cgroupsPath"] = path
    guest.config(bundle).write_text(json.dumps(config))
    flags = [] if before else ["--systemd-cgroup"]
    steps = [
        {"name": name, "argv": [program, *flags, "run", "--no-new-keyring", "--bundle", bundle, name]}
        for name, program in PROGRAMS.items()
    ]
    (machine.shared / "steps.json").write_text(json.dumps({"rounds": ROUNDS, "steps": steps}))
    shutil.copy(MEASURE, machine.shared)
    script = f"{before}\npython3 -I /mnt/host/{MEASURE.name} </mnt/host/steps.json"
    found = json.loads(machine.run(script, check=True, timeout=500).stdout)
    ours, theirs = (tuple(map(statistics.median, zip(*found[name], strict=True))) for name in PROGRAMS)
    figure(f"`run true`, {where}", {"rootless": ours, "runc": theirs})
