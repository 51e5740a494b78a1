"""config-linux.md "Control groups": the limits that each runtime sets, where systemd delegates the controllers."""

from __future__ import annotations

import pytest

from tests.lib.specification import RUNTIMES
from tests.system.containers import Guest
from tests.system.limits import DISK, MIB, config_of


def throttle(*names):
    return {"blockIO": {name: [DISK | {"rate": 1048576 if "Bps" in name else 120}] for name in names}}


LIMITS = {
    # linux.resources, file of the cgroup, expected content
    "memory.limit": ({"memory": {"limit": 64 * MIB}}, "memory.max", str(64 * MIB)),
    "memory.reservation": ({"memory": {"reservation": 16 * MIB}}, "memory.low", str(16 * MIB)),
    "memory.swap": ({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}}, "memory.swap.max", str(32 * MIB)),
    "cpu.quota": ({"cpu": {"quota": 20000}}, "cpu.max", "20000 100000"),
    "cpu.period": ({"cpu": {"quota": 20000, "period": 50000}}, "cpu.max", "20000 50000"),
    "cpu.burst": ({"cpu": {"quota": 20000, "burst": 1000}}, "cpu.max.burst", "1000"),
    "cpu.idle": ({"cpu": {"idle": 1}}, "cpu.idle", "1"),
    "pids.limit": ({"pids": {"limit": 20}}, "pids.max", "20"),
    "blockIO.throttleReadBpsDevice": (throttle("throttleReadBpsDevice"), "io.max", "rbps=1048576"),
    "blockIO.throttleWriteBpsDevice": (throttle("throttleWriteBpsDevice"), "io.max", "wbps=1048576"),
    "blockIO.throttleReadIOPSDevice": (throttle("throttleReadIOPSDevice"), "io.max", "riops=120"),
    "blockIO.throttleWriteIOPSDevice": (throttle("throttleWriteIOPSDevice"), "io.max", "wiops=120"),
    "unified": ({"unified": {"memory.high": str(60 * MIB)}}, "memory.high", str(60 * MIB)),
}
SHARES = "cpu.shares"
IGNORED = "it is not known, and is ignored"
DIFFERENCES = {
    "runc": {
        "cpu.burst": f'"specifies the maximum amount of accumulated time": {IGNORED}',
        "cpu.idle": f'"cgroups are configured with minimum weight": {IGNORED}',
    }
}


@pytest.fixture(scope="module")
def guest(machine):
    return Guest(machine)


@pytest.fixture(scope="module", params=RUNTIMES)
def shown(request, guest):
    """Return {property: output of this runtime's container}; one job of the machine runs all of them."""
    cases = LIMITS | {SHARES: ({"cpu": {"shares": 512}}, "cpu.weight", "")}
    lines = []
    for number, (name, (resources, file, _)) in enumerate(cases.items()):
        bundle = config_of(guest, resources, file)
        run = f"{request.param} --systemd-cgroup run --bundle {bundle} {request.param}-{number}"
        lines.append(f'printf "%s\\t%s\\n" {name} "$({run} 2>&1 | tr "\\n" " ")"')
    told = guest("\n".join(lines), timeout=300)
    return dict(line.split("\t", 1) for line in told.splitlines() if "\t" in line)


def limits(names):
    """Return a parameter for each name, marked with the property and the runtimes that differ."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.spec(f"linux.resources.{name}"),
                *(pytest.mark.differs(who, said[name]) for who, said in DIFFERENCES.items() if name in said),
            ],
        )
        for name in names
    ]


@pytest.mark.parametrize("name", limits(LIMITS))
def test_the_limit_is_in_the_containers_cgroup(shown, name):
    _, _, wanted = LIMITS[name]
    assert wanted in (shown[name].strip(), *shown[name].split())


@pytest.mark.spec("linux.resources.cpu.shares")
def test_cpu_shares_reduce_the_weight(shown):
    """ "specifies a relative share of CPU time": fewer than the usual 1024. The specification gives no conversion."""
    assert 1 <= int(shown[SHARES]) < 100
