"""config.md "Process": capabilities and noNewPrivileges, observed from inside; capabilities(7), credentials(7)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import (
    STATUS,
    add_mount,
    add_probe,
    config_with_maps,
    status_of,
)
from tests.lib.bundles import base_config, own
from tests.lib.specification import CAPABILITY_SETS

CHOWN, KILL, SETUID = 0, 5, 7
NET_BIND_SERVICE, NET_RAW, SYS_ADMIN, SYS_NICE = 10, 13, 21, 23
NAMES = {
    CHOWN: "CAP_CHOWN",
    KILL: "CAP_KILL",
    SETUID: "CAP_SETUID",
    NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
    NET_RAW: "CAP_NET_RAW",
    SYS_ADMIN: "CAP_SYS_ADMIN",
    SYS_NICE: "CAP_SYS_NICE",
}


# --- Capabilities -----------------------------------------------------------------------------------------------------

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def capabilities(**sets):
    return {name: [NAMES[number] for number in numbers] for name, numbers in sets.items()}


def mask(*numbers):
    return f"{sum(1 << number for number in numbers):016x}"


CAPABILITIES = {
    # process.capabilities, uid: the program's sets by capabilities(7), "Transformation of capabilities"
    "none": ({}, 0, ([], [], [], [], [])),
    "of root": (
        {"bounding": [CHOWN, KILL], "effective": [KILL], "permitted": [KILL]},
        0,
        ([], [CHOWN, KILL], [CHOWN, KILL], [CHOWN, KILL], []),
    ),
    "inheritable of root": (
        {"bounding": [CHOWN, KILL], "inheritable": [KILL], "permitted": [KILL], "effective": []},
        0,
        ([KILL], [CHOWN, KILL], [CHOWN, KILL], [CHOWN, KILL], []),
    ),
    "of another": (
        {"bounding": [CHOWN, KILL], "effective": [KILL], "permitted": [KILL]},
        1000,
        ([], [], [], [CHOWN, KILL], []),
    ),
    "ambient of another": (
        {
            "bounding": [CHOWN, KILL, NET_RAW],
            "permitted": [KILL, NET_RAW],
            "effective": [KILL, NET_RAW],
            "inheritable": [KILL, NET_RAW],
            "ambient": [NET_RAW],
        },
        1000,
        ([KILL, NET_RAW], [NET_RAW], [NET_RAW], [CHOWN, KILL, NET_RAW], [NET_RAW]),
    ),
    "ambient of root": (
        {"bounding": [KILL], "permitted": [KILL], "inheritable": [KILL], "ambient": [KILL], "effective": [KILL]},
        0,
        ([KILL], [KILL], [KILL], [KILL], [KILL]),
    ),
}


@pytest.mark.spec(*(f"process.capabilities.{name}" for name in CAPABILITY_SETS), "process.noNewPrivileges")
@pytest.mark.parametrize("case", CAPABILITIES)
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_capability_sets(either, case, no_new_privileges):
    sets, uid, (inheritable, gained, effective, bounding, ambient) = CAPABILITIES[case]
    if no_new_privileges:
        # then root gains nothing: the program has at most the permitted set
        gained, effective = ([number for number in each if number in sets["permitted"]] for each in (gained, effective))
    config = config_with_maps(either.user)
    config["process"]["capabilities"] = capabilities(**sets)
    config["process"]["user"] = {"uid": uid, "gid": uid}
    config["process"]["noNewPrivileges"] = no_new_privileges
    lines = either.lines(config, STATUS)
    wanted = (inheritable, gained, effective, bounding, ambient)
    assert status_of(lines, *SETS) == tuple(mask(*numbers) for numbers in wanted)
    assert status_of(lines, "NoNewPrivs") == str(int(no_new_privileges))


def test_without_capabilities_there_are_none(either):
    config = config_with_maps(either.user)
    del config["process"]["capabilities"]
    assert status_of(either.lines(config, STATUS), *SETS) == (mask(),) * 5


@pytest.mark.spec(*(f"process.capabilities.{name}" for name in CAPABILITY_SETS))
def test_every_capability(either):
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    names = (
        subprocess.run(["capsh", f"--decode={2 ** (last + 1) - 1:x}"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .partition("=")[2]
        .upper()
        .split(",")
    )
    config = config_with_maps(either.user)
    config["process"]["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective", "inheritable", "ambient"), names
    )
    assert len(names) == last + 1
    assert status_of(either.lines(config, STATUS), *SETS) == (f"{2 ** (last + 1) - 1:016x}",) * 5


def test_an_unknown_capability_is_a_warning(box):
    """ "… MUST be logged as a warning by the runtime. Runtimes SHOULD NOT fail" (config.md)."""
    config = base_config()
    config["process"]["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_NONSENSE"],
        "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"],
    }
    done = box.run(config, STATUS, check=True)
    assert status_of(done.stdout.splitlines(), "CapBnd") == mask(KILL)
    assert "CAP_NONSENSE" in done.stderr
    assert "(config.json: process.capabilities.bounding[1])" in done.stderr


@pytest.mark.parametrize(
    ("sets", "place"),
    [
        ({"bounding": [KILL], "permitted": [KILL], "effective": [KILL, CHOWN]}, "effective"),
        ({"bounding": [KILL], "permitted": [KILL], "inheritable": [CHOWN]}, "inheritable"),
        ({"bounding": [KILL], "permitted": [KILL], "inheritable": [KILL], "ambient": [CHOWN, KILL]}, "ambient"),
    ],
)
def test_a_capability_that_cannot_be_granted_is_a_warning(box, sets, place):
    """The same sentence of config.md: capset(2) and prctl(2) refuse capabilities that are missing in other sets."""
    config = base_config()
    config["process"]["capabilities"] = capabilities(**sets)
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = box.run(config, STATUS)
    assert done.returncode == 0, done.stderr
    assert status_of(done.stdout.splitlines(), "CapBnd") == mask(KILL)
    assert f"(config.json: process.capabilities.{place}" in done.stderr


# --- Privileges -------------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.noNewPrivileges")
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_setuid_program(either, need, no_new_privileges):
    """It gains its owner's privileges unless noNewPrivileges is set, in a user namespace too."""
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["process"]["noNewPrivileges"] = no_new_privileges
    assert (
        either.run(
            config, "cd /bin; cp probe other; chown 33 other; chmod 4755 other; chmod 6755 probe; mkdir /nosuid"
        ).returncode
        == 0
    )
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["capabilities"] = {}
    add_mount(config, "/nosuid", "bind", either.rootfs / "bin", "bind", "nosuid")
    same = "1000 1000 1000 1000 1000 1000"
    lines = either.lines(config, "probe ids; other ids; /nosuid/probe ids")
    assert lines == ([same] * 3 if no_new_privileges else ["1000 0 0 1000 0 0", "1000 33 33 1000 1000 1000", same])


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_program_with_capabilities(either, need, no_new_privileges):
    """File capabilities that belong to the container's root (capabilities(7), "Namespaced file capabilities")."""
    program = either.rootfs / "cat"  # busybox chooses the applet by its name
    program.write_bytes((either.rootfs / "bin/busybox").read_bytes())
    program.chmod(0o755)
    own(either.user, program)
    either.user.run(["unshare", "--map-root-user", "--map-auto", need("setcap"), "cap_kill+ep", program], check=True)
    config = config_with_maps(either.user)
    config["process"]["noNewPrivileges"] = no_new_privileges
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    lines = either.lines(config, "/cat /proc/self/status")
    assert status_of(lines, "CapEff") == mask(*([] if no_new_privileges else [KILL]))


def test_capabilities_outside_the_bounding_set_cannot_be_gained(either, need):
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["process"]["noNewPrivileges"] = False
    config["process"]["capabilities"] = capabilities(bounding=[SETUID], permitted=[SETUID], effective=[SETUID])
    assert either.run(config, "chmod 4755 /bin/busybox").returncode == 0
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert status_of(either.lines(config, STATUS), "CapBnd") == mask(SETUID)
