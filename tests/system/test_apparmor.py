"""process.apparmorProfile on a kernel with AppArmor: the profile is enforced from the start of the program."""

from __future__ import annotations

import json

import pytest

from tests.lib.specification import RUNTIMES
from tests.system.containers import Guest

NAME = "rootless-test"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected, mediate_deleted) {{
  file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
  deny /forbidden rw,
  deny /proc/self/oom_score_adj w,
}}
"""
LOOK = "cat /proc/self/attr/apparmor/current; cat /allowed /forbidden"
SEEN = [f"{NAME} (enforce)", "allowed"]


@pytest.fixture(scope="module")
def guest(machine):
    guest = Guest(machine)
    machine.run(f"apparmor_parser --replace <<'END'\n{PROFILE}\nEND", root=True, check=True)
    guest("for name in allowed forbidden; do echo $name >base/rootfs/$name; done")
    yield guest
    guest("rm base/rootfs/allowed base/rootfs/forbidden")
    machine.run(f"echo -n {NAME} >/sys/kernel/security/apparmor/.remove", root=True, check=True)


def confined(guest, script, profile=NAME, **process):
    """Return a bundle whose program is confined."""
    bundle = guest.bundle(script)
    path = guest.machine.shared / bundle.rpartition("/")[2] / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"apparmorProfile": profile} | process
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user", "network")]
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ]
    path.write_text(json.dumps(config))
    return bundle


@pytest.mark.spec("process.apparmorProfile")
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_apparmor_profile_is_enforced(guest, runtime, no_new_privileges):
    bundle = confined(guest, LOOK, noNewPrivileges=no_new_privileges)
    done = guest.machine.run(f"{runtime} run --bundle {bundle} confined")
    assert done.stdout.splitlines() == SEEN, done
    assert "/forbidden: Permission denied" in done.stderr
    assert done.returncode == 1


def test_without_a_profile_the_program_is_unconfined(guest):
    bundle = confined(guest, LOOK, profile="")
    assert guest(f"rootless run --bundle {bundle} free").splitlines() == ["unconfined", "allowed", "forbidden"]


def test_processes_of_exec_are_confined_by_the_profile(guest):
    bundle = confined(guest, "sleep 1000")
    free = confined(guest, "sleep 1000", profile="")
    guest(f"rootless run --detach --bundle {bundle} confined; rootless run --detach --bundle {free} free")
    try:
        for words in ("exec confined", f"exec --apparmor {NAME} free"):
            done = guest.machine.run(f"rootless {words} sh -c '{LOOK}'")
            assert done.stdout.splitlines() == SEEN, done
    finally:
        guest("rootless delete --force confined; rootless delete --force free")


def test_a_profile_that_is_not_loaded_is_an_error(guest):
    bundle = confined(guest, "echo ran", profile="nobody-loaded-it")
    done = guest.machine.run(f"rootless run --bundle {bundle} refused")
    assert (done.returncode, done.stdout) == (1, "")
    assert "exec nobody-loaded-it" in done.stderr
    assert "(config.json: process.apparmorProfile)" in done.stderr
    assert done.stderr.count("\n") == 1
