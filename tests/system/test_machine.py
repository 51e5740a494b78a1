"""The machine has the properties that its tests require, and the command is installed in it."""

from __future__ import annotations


def test_the_user_has_a_manager_with_delegated_controllers(machine):
    done = machine.run('cat "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cgroup.controllers"', check=True)
    assert {"cpu", "io", "memory", "pids"} <= set(done.stdout.split())
    assert machine.run("systemctl --user is-system-running", check=True).stdout == "running\n"


def test_a_bundle_runs_in_the_machine(machine):
    done = machine.run("rootless new --help >/dev/null && rootless new b -- id -u && rootless run b", check=True)
    assert done.stdout.splitlines()[-1] == "0"
