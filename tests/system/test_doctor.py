"""Conditions of a host that need its kernel, systemd or logind: `doctor` finds them, and the fix works."""

from __future__ import annotations

import json

import pytest

from tests.system.containers import UNTIL, Guest

PROFILE = """
abi <abi/4.0>,
profile rootless-test-doctor flags=(attach_disconnected, mediate_deleted) {
  file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, change_profile,
}
"""


@pytest.fixture(scope="module")
def guest(machine):
    return Guest(machine)


def problems(guest, prefix=""):
    """Return what `doctor` finds, by code."""
    done = guest.machine.run(f"{prefix} rootless doctor --json")
    return {problem["code"]: problem for problem in json.loads(done.stdout)["problems"]}


def assert_explained(done, problem):
    assert done.returncode == 1, done
    assert problem["evidence"] in done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"; fix: {problem['fix']}")


def test_unprivileged_user_namespaces_that_are_switched_off(guest):
    bundle = guest.bundle("echo ran")
    guest("sysctl -qw kernel.unprivileged_userns_clone=0", root=True)
    try:
        problem = problems(guest)["RL-HOST-USERNS-SYSCTL"]
        assert_explained(guest.machine.run(f"rootless run --bundle {bundle} off"), problem)
        guest("\n".join(problem["commands"]), root=True)
        assert "RL-HOST-USERNS-SYSCTL" not in problems(guest)
        assert guest(f"rootless run --bundle {bundle} on") == "ran\n"
    finally:
        guest("sysctl -qw kernel.unprivileged_userns_clone=1; rm -f /etc/sysctl.d/90-rootless.conf", root=True)


def test_apparmor_profile_without_user_namespaces(guest):
    bundle = guest.bundle("echo ran")
    confine = "aa-exec -p rootless-test-doctor --"
    load = f"apparmor_parser --replace <<'END'\n{PROFILE}\nEND"
    guest(load, root=True)
    try:
        problem = problems(guest, confine)["RL-HOST-USERNS-PROFILE"]
        assert_explained(guest.machine.run(f"{confine} rootless run --bundle {bundle} off"), problem)
        guest(load.replace("  file,", "  userns, file,"), root=True)
        assert "RL-HOST-USERNS-PROFILE" not in problems(guest, confine)
        assert guest(f"{confine} rootless run --bundle {bundle} on") == "ran\n"
    finally:
        guest("echo -n rootless-test-doctor >/sys/kernel/security/apparmor/.remove", root=True)


def test_lingering_gives_a_user_a_manager_and_a_runtime_directory(guest):
    other = "setpriv --reuid other --regid other --clear-groups env -u XDG_RUNTIME_DIR HOME=/home/other"

    def found():
        done = guest.machine.run(f"cd /; {other} /home/tester/.local/bin/rootless doctor --json", root=True)
        assert done.stdout, done
        return {problem["code"]: problem for problem in json.loads(done.stdout)["problems"]}

    mode = guest("stat -c %a /home/tester")
    guest("useradd --create-home other; chmod 711 /home/tester", root=True)
    try:
        before = found()
        assert before["RL-HOST-USER-MANAGER"]["commands"] == ["loginctl enable-linger other"]
        assert before["RL-HOST-RUNTIME-DIR"]["commands"] == ["loginctl enable-linger other"]
        guest(f"{UNTIL}loginctl enable-linger other; until_ test -S /run/user/$(id -u other)/bus", root=True)
        assert not {"RL-HOST-USER-MANAGER", "RL-HOST-RUNTIME-DIR", "RL-HOST-LINGER"} & found().keys()
    finally:
        stop = "loginctl disable-linger other; systemctl stop user@$(id -u other); userdel --remove other"
        guest(f"{stop}; chmod {mode.strip()} /home/tester", root=True)
