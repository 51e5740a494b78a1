"""Limits that this machine cannot enforce: the warning has the true reason and a fix that works."""

from __future__ import annotations

import shutil

import pytest

from tests.lib.engines import HELPERS
from tests.system.containers import UNTIL, Guest

WARNING = "rootless: warning: limits that are not enforced: "
REFUSAL = "rootless: limits that are not enforced: "
MIB = 1 << 20
NO_CPUSET = "cpu.cpus: this kernel has no controller cpuset"
LIMITS = {"pids": {"limit": 9}, "cpu": {"shares": 512, "cpus": "0"}}
ROOTLESS = "/home/tester/.local/bin/rootless"


@pytest.fixture(scope="module")
def guest(machine):
    guest = Guest(machine)
    # for other users too, one of whom has no manager
    guest(
        """
        chmod 755 /home/tester; chmod -R a+rX /home/tester/base
        useradd --create-home --uid 1003 third
        """,
        root=True,
    )
    return guest


def told(guest, script, bundle, *flags, root=False):
    """Run a bundle that prints "ran" after a script, check that --require-limits fails, and return the only warning."""
    line = f"{script} {ROOTLESS} %s run %s --bundle {bundle} told"
    done = guest.machine.run(line % (" ".join(flags), ""), root=root, check=True)
    assert done.stdout == "ran\n", done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(WARNING)
    refused = guest.machine.run(line % (" ".join(flags), "--require-limits"), root=root)
    assert (refused.returncode, refused.stdout) == (1, ""), refused
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert refused.stderr.startswith(REFUSAL)
    reasons = done.stderr.removeprefix(WARNING).partition(" (config.json")[0]
    assert reasons in refused.stderr
    return done.stderr.rstrip("\n")


def test_a_controller_missing_in_the_kernel_is_named(guest):
    bundle = guest.bundle("echo ran", LIMITS)
    expected = f"{WARNING}{NO_CPUSET} (config.json: linux.resources); fix: boot a kernel with CONFIG_CPUSETS"
    for flags in ([], ["--systemd-cgroup"], ["--cgroup-manager", "cgroupfs"]):
        assert told(guest, "", bundle, *flags) == expected
    left = guest("systemctl --user list-units --all --plain --no-legend 'rootless-told*'; rootless list --quiet")
    assert left == ""


SECOND = "/sys/fs/cgroup/user.slice/user-1002.slice/user@1002.service"
AS_SECOND = "cd /; exec setpriv --reuid 1002 --regid 1002 --clear-groups env -i PATH=/usr/bin:/bin HOME=/home/second"


@pytest.fixture(scope="module")
def second(guest):
    """A user to whose manager only the controller pids, and those that systemd requires, are delegated."""
    guest(
        f"""{UNTIL}
        useradd --create-home --uid 1002 second
        mkdir /etc/systemd/system/user@1002.service.d
        printf '[Service]\\nDelegate=\\nDelegate=pids\\n' >/etc/systemd/system/user@1002.service.d/few.conf
        systemctl daemon-reload
        loginctl enable-linger second
        until_ [ -S /run/user/1002/bus ]
        """,
        root=True,
    )
    yield AS_SECOND
    guest("loginctl disable-linger second; systemctl stop user@1002.service; userdel --remove second", root=True)


def test_a_controller_not_delegated_to_the_users_systemd_is_named(guest, second):
    bundle = guest.bundle("echo ran", LIMITS)
    assert "cpu" not in guest(f"cat {SECOND}/cgroup.controllers").split()
    expected = (
        f"{WARNING}cpu.shares: the controller cpu is not delegated to user@1002.service; {NO_CPUSET} "
        "(config.json: linux.resources); fix: run, as root: systemctl edit user@.service with Delegate=cpu, "
        "systemctl restart user@1002.service; boot a kernel with CONFIG_CPUSETS"
    )
    assert told(guest, second, bundle, root=True) == expected
    assert told(guest, second, bundle, "--systemd-cgroup", root=True) == expected


def test_update_reports_the_same_reason(guest, second):
    bundle = guest.bundle("sleep 1000")
    guest(f"({second} {ROOTLESS} --systemd-cgroup run --detach --bundle {bundle} told)", root=True)
    try:
        update = f"{second} {ROOTLESS} update --cpu-share 512 --pids-limit 7"
        done = guest.machine.run(f"{update} told", root=True, check=True)
        assert done.stderr == (
            f"{WARNING}--cpu-share: the controller cpu is not delegated to user@1002.service; fix: run, as "
            "root: systemctl edit user@.service with Delegate=cpu, systemctl restart user@1002.service\n"
        )
        scope = f"{SECOND}/app.slice/rootless-told.scope"
        assert guest(f"cat {scope}/pids.max") == "7\n"
        update = f"{second} {ROOTLESS} update --require-limits --cpu-share 512 --pids-limit 5"
        assert "the controller cpu is not delegated" in guest.fails(f"{update} told", root=True)
        assert guest(f"cat {scope}/pids.max") == "7\n", "a refused update changes nothing"
    finally:
        guest(f"({second} {ROOTLESS} delete --force told)", root=True)


def test_the_delegation_of_helpers_enables_all_limits(guest, second):
    """helpers/systemd delegates enough for every limit of the kernel."""
    shutil.copy(HELPERS / "systemd/delegate.conf", guest.machine.shared)
    directory = "/etc/systemd/system/user@1002.service.d"
    guest(
        f"""{UNTIL}
        install -D -m 644 /mnt/host/delegate.conf {directory}/rootless.conf
        systemctl daemon-reload
        systemctl restart user@1002.service
        until_ [ -S /run/user/1002/bus ]
        """,
        root=True,
    )
    try:
        resources = {
            "pids": {"limit": 9},
            "cpu": {"shares": 512},
            "memory": {"limit": 64 * MIB},
            "blockIO": {"throttleReadBpsDevice": [{"major": 98, "minor": 0, "rate": MIB}]},
        }
        bundle = guest.bundle("echo ran", resources)
        done = guest.machine.run(f"{second} {ROOTLESS} run --require-limits --bundle {bundle} told", root=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    finally:
        guest(f"rm {directory}/rootless.conf; systemctl daemon-reload", root=True)
        guest(f"{UNTIL} systemctl restart user@1002.service; until_ [ -S /run/user/1002/bus ]", root=True)


def test_a_controller_disabled_by_a_slice_is_named(guest):
    bundle = guest.bundle("echo ran", {"pids": {"limit": 9}, "cpu": {"shares": 512}}, "crowded.slice:rootless:told")
    guest(
        """
        mkdir -p .config/systemd/user
        printf '[Slice]\\nDisableControllers=cpu\\n' >.config/systemd/user/crowded.slice
        systemctl --user daemon-reload
        """
    )
    try:
        line = told(guest, "", bundle)
    finally:
        guest("rm .config/systemd/user/crowded.slice; systemctl --user daemon-reload")
    place = "/user.slice/user-1000.slice/user@1000.service/crowded.slice"
    assert line == (
        f"{WARNING}cpu.shares: the controller cpu is not enabled below {place} (config.json: "
        "linux.resources); fix: remove cpu from DisableControllers= of crowded.slice "
        "(systemctl --user cat crowded.slice)"
    )


def test_a_controller_not_enabled_in_a_parent_cgroup_is_named(guest):
    """A tree of cgroups that systemd does not manage."""
    bundle = guest.bundle("echo ran", {"pids": {"limit": 9}})
    own = "own=/sys/fs/cgroup/half; mkdir -p $own/way; chown -R tester $own/way; echo $$ >$own/way/cgroup.procs"
    become = "setpriv --reuid 1000 --regid 1000 --clear-groups env -i PATH=/usr/bin:/bin HOME=/home/tester"
    try:
        line = told(guest, f"{own}; cd /; {become}", bundle, "--cgroup-manager", "cgroupfs", root=True)
    finally:
        guest("rmdir /sys/fs/cgroup/half/way /sys/fs/cgroup/half", root=True)
    assert line == (
        f"{WARNING}pids.limit: the controller pids is not enabled below /half (config.json: "
        "linux.resources); fix: run, as root: echo +pids >/sys/fs/cgroup/half/cgroup.subtree_control"
    )


READ_ONLY = "mount -o remount,bind,ro /sys/fs/cgroup"


def test_read_only_cgroups_are_named_unless_systemd_writes_the_limits(guest):
    """A user with a systemd manager has the limits: systemd itself writes them."""
    resources = {"pids": {"limit": 9}, "cpu": {"quota": 20000}, "memory": {"limit": 64 * MIB, "swap": 96 * MIB}}
    bundle = guest.bundle("echo ran", resources)

    def command(uid, flags=""):
        become = f"setpriv --reuid {uid} --regid {uid} --clear-groups env -i PATH=/usr/bin:/bin HOME=/"
        run = f"{ROOTLESS} --root /tmp/state-{uid} run {flags} --bundle {bundle} told"
        return f"unshare --mount sh -c 'cd / && {READ_ONLY} && exec {become} {run}'"

    done = guest.machine.run(command(1003), root=True, check=True)
    assert done.stdout == "ran\n"
    names = "memory.swap, memory.limit, cpu.quota, pids.limit"
    assert done.stderr == (
        f"{WARNING}{names}: /sys/fs/cgroup is mounted read-only (config.json: linux.resources); "
        "fix: run, as root: mount -o remount,rw /sys/fs/cgroup\n"
    )
    refused = guest.fails(command(1003, "--require-limits"), root=True)
    assert refused.startswith(f"{REFUSAL}{names}: /sys/fs/cgroup is mounted read-only")
    done = guest.machine.run(command(1000, "--require-limits"), root=True, check=True)
    assert (done.stdout, done.stderr) == ("ran\n", "")
    bundle = guest.bundle("sleep 1000", resources)
    guest(f"{command(1000, '--require-limits --detach')}", root=True)
    try:
        found = guest.properties("rootless-told.scope", "TasksMax", "MemoryMax", "CPUQuotaPerSecUSec")
        assert found == {"TasksMax": "9", "MemoryMax": str(64 * MIB), "CPUQuotaPerSecUSec": "200ms"}
    finally:
        guest("rootless --root /tmp/state-1000 delete --force told; rmdir /tmp/state-1000")


def test_a_missing_systemd_manager_is_named(guest):
    become = "cd /; exec setpriv --reuid 1003 --regid 1003 --clear-groups env -i PATH=/usr/bin:/bin HOME=/"
    place = guest("cut -d: -f3 /proc/self/cgroup", root=True).strip()
    for path in ("", "user.slice:rootless:told", "/docker/told"):
        assert told(guest, become, guest.bundle("echo ran", {"pids": {"limit": 9}}, path), root=True) == (
            f"{WARNING}pids.limit: your cgroup {place} belongs to root: it is not delegated to you, and user 1003 "
            "has no systemd manager to create another (config.json: linux.resources); fix: log in through PAM "
            "(machinectl shell, ssh), or have root run: loginctl enable-linger"
        )


def test_a_dead_systemd_manager_is_named(guest):
    """The sockets of a manager that has died still exist."""
    stale = "import socket, sys; [socket.socket(socket.AF_UNIX).bind(path) for path in sys.argv[1:]]"
    guest(
        f"""
        mkdir -p -m 700 /run/user/1003/systemd
        python3 -c '{stale}' /run/user/1003/systemd/private /run/user/1003/bus
        chown -R third /run/user/1003
        """,
        root=True,
    )
    become = "cd /; exec setpriv --reuid 1003 --regid 1003 --clear-groups env -i PATH=/usr/bin:/bin HOME=/"
    try:
        for path in ("", "user.slice:rootless:told"):
            bundle = guest.bundle("echo ran", {"pids": {"limit": 9}}, path)
            line = told(guest, become, bundle, root=True)
            assert line.startswith(f"{WARNING}pids.limit: your cgroup /")
            assert (
                " belongs to root: it is not delegated to you, and user 1003 has no systemd manager to create another "
                "(config.json: linux.resources); fix: log in through PAM (machinectl shell, ssh), or have root run: "
                "loginctl enable-linger" in line
            )
    finally:
        guest("rm -r /run/user/1003", root=True)


# --- A hybrid host, with cgroup v1 ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hybrid(machine, boot):
    """Another machine, whose systemd has its controllers in cgroup v1."""
    machine.run("tar -C /home/tester -cf /mnt/host/local.tar .local", root=True, check=True)
    other = boot("systemd.unified_cgroup_hierarchy=0", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    try:
        shutil.move(machine.shared / "local.tar", other.shared)
        other.run("tar -xf /mnt/host/local.tar", check=True)
        yield Guest(other)
    finally:
        other.stop()


def test_cgroup_v1_is_named_on_a_hybrid_host(hybrid):
    assert hybrid("cat /sys/fs/cgroup/unified/cgroup.controllers") == "memory\n"
    resources = {"memory": {"limit": 64 * MIB}, **LIMITS}
    fix = "fix: boot with systemd.unified_cgroup_hierarchy=1; boot a kernel with CONFIG_CPUSETS"
    for flags in ([], ["--systemd-cgroup"], ["--cgroup-manager", "cgroupfs"]):
        assert told(hybrid, "", hybrid.bundle("echo ran", resources), *flags) == (
            f"{WARNING}memory.limit: systemd delegates no controllers of cgroup v2 on a host that also has cgroup v1; "
            "cpu.shares, pids.limit: this host has the controllers for that in cgroup v1; "
            f"{NO_CPUSET} (config.json: linux.resources); {fix}"
        )
    assert hybrid("systemctl --user list-units --all --plain --no-legend 'rootless-told*'; rootless list --quiet") == ""


def test_everything_except_limits_works_on_a_hybrid_host(hybrid):
    bundle = hybrid.bundle("sleep 1000 & sleep 1000", {"pids": {"limit": 9}})
    said = hybrid(
        f"""{UNTIL}
        rootless --systemd-cgroup run --detach --bundle {bundle} told 2>/dev/null
        systemctl --user --quiet is-active rootless-told.scope
        rootless pause told; rootless state told | grep -ow paused; rootless resume told
        three() {{ [ $(rootless ps --format json told | tr , '\\n' | wc -l) = 3 ]; }}; until_ three
        rootless kill --all told KILL
        until_ gone rootless-told.scope
        rootless delete told
        """
    )
    assert said == "paused\n"
