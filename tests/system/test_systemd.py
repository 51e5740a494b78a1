"""Containers in scopes of the user's systemd: their limits are enforced, and the scopes end with them."""

from __future__ import annotations

import json

import pytest

from tests.lib.readme import commands
from tests.system.containers import SCOPES, UNTIL, Guest

MIB = 1 << 20
DISK = {"major": 98, "minor": 0}


@pytest.fixture(scope="module")
def guest(machine):
    return Guest(machine)


def test_limits_of_a_scope_are_set_shown_and_changed(guest):
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB},
        "pids": {"limit": 20},
        "cpu": {"shares": 512, "quota": 33333, "period": 50000},
        "blockIO": {
            "throttleReadBpsDevice": [{**DISK, "rate": MIB}],
            "throttleWriteIOPSDevice": [{**DISK, "rate": 50}],
        },
        "unified": {"memory.high": "60M", "memory.oom.group": "1"},
    }
    bundle = guest.bundle("sleep 1000", resources, "user.slice:rootless:limits")
    unit = "rootless-limits.scope"
    shown = (
        "MemoryMax", "MemorySwapMax", "MemoryLow", "MemoryHigh", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec",
        "CPUQuotaPeriodUSec", "IOReadBandwidthMax", "IOWriteIOPSMax", "Delegate", "CollectMode", "Slice",
        "DefaultDependencies",
    )  # fmt: skip
    written = (
        "memory.max", "memory.swap.max", "memory.low", "memory.high", "memory.oom.group", "pids.max", "cpu.max",
        "cpu.weight", "io.max",
    )  # fmt: skip
    guest(f"rootless run --detach --bundle {bundle} limits")
    try:
        files = {
            "memory.max": str(64 * MIB),
            "memory.swap.max": str(32 * MIB),
            "memory.low": str(16 * MIB),
            "memory.high": str(60 * MIB),
            "memory.oom.group": "1",
            "pids.max": "20",
            "cpu.max": "33333 50000",
            "cpu.weight": "59",
            "io.max": f"98:0 rbps={MIB} wbps=max riops=max wiops=50",
        }
        assert guest.files(unit, *written) == files
        properties = {
            "MemoryMax": str(64 * MIB),
            "MemorySwapMax": str(32 * MIB),
            "MemoryLow": str(16 * MIB),
            "MemoryHigh": str(60 * MIB),
            "TasksMax": "20",
            "CPUWeight": "59",
            "CPUQuotaPerSecUSec": "670ms",
            "CPUQuotaPeriodUSec": "50ms",
            "IOReadBandwidthMax": f"/dev/block/98:0 {MIB}",
            "IOWriteIOPSMax": "/dev/block/98:0 50",
            "Delegate": "yes",
            "CollectMode": "inactive-or-failed",
            "Slice": "user.slice",
            "DefaultDependencies": "no",
        }
        assert guest.properties(unit, *shown) == properties
        changes = (
            "--memory 100M --memory-swap 100M --pids-limit 30 --cpu-quota 20000 --cpu-period 100000 --cpu-share 1024"
        )
        guest(f"rootless update {changes} limits")
        changed = {
            "memory.max": str(100 * MIB), "memory.swap.max": "0", "pids.max": "30", "cpu.max": "20000 100000",
            "cpu.weight": "100",
        }  # fmt: skip
        assert guest.files(unit, *written) == files | changed
        shown_now = properties | {
            "MemoryMax": str(100 * MIB), "MemorySwapMax": "0", "TasksMax": "30", "CPUQuotaPerSecUSec": "200ms",
            "CPUQuotaPeriodUSec": "100ms", "CPUWeight": "100",
        }  # fmt: skip
        assert guest.properties(unit, *shown) == shown_now
        guest("systemctl --user daemon-reload")
        assert guest.files(unit, *written) == files | changed
        assert guest.properties(unit, *shown) == shown_now
        assert "(limit: 30)" in guest(f"systemctl --user status {unit}")
    finally:
        guest("rootless delete --force limits")


def test_update_reads_limits_from_standard_input(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 20}}, "user.slice:rootless:file")
    guest(f"rootless run --detach --bundle {bundle} file")
    try:
        asked = json.dumps({"pids": {"limit": 40}, "unified": {"memory.high": "77000704"}})
        guest(f"echo '{asked}' | rootless update --resources - file")
        assert guest.files("rootless-file.scope", "pids.max", "memory.high") == {
            "pids.max": "40", "memory.high": "77000704",
        }  # fmt: skip
        assert guest.properties("rootless-file.scope", "TasksMax", "MemoryHigh") == {
            "TasksMax": "40", "MemoryHigh": "77000704",
        }  # fmt: skip
        error = guest.fails("rootless update --memory 100M --memory-swap 1 file")
        assert error.count("\n") == 1
        assert "--memory-swap" in error
    finally:
        guest("rootless delete --force file")


def test_a_program_above_the_memory_limit_is_killed(guest):
    resources = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}}
    # tail keeps an endless line in memory; without a limit there is enough
    bundle = guest.bundle("exec tail >/dev/null", resources, "user.slice:rootless:oom")
    done = guest.machine.run(f"head -c 100M /dev/zero | rootless run --bundle {bundle} oom")
    assert done.returncode == 137, done.stderr
    bundle = guest.bundle("exec tail >/dev/null", {}, "user.slice:rootless:oom")
    assert guest.machine.run(f"head -c 100M /dev/zero | rootless run --bundle {bundle} oom").returncode == 0


def test_out_of_memory_is_an_event(guest):
    resources = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}}
    script = "while :; do head -c 100M /dev/zero | tail >/dev/null; done"
    bundle = guest.bundle(script, resources, "user.slice:rootless:short")
    guest(f"rootless run --detach --bundle {bundle} short 2>/dev/null")
    try:
        event = json.loads(guest("timeout 60 rootless events short | grep --max-count=1 '\"oom\"'"))
        assert event["id"] == "short"
        assert event["type"] == "oom"
    finally:
        guest("rootless delete --force short")


def test_the_limit_of_processes_is_enforced(guest):
    script = "i=0; while [ $i -lt 20 ]; do sleep 30 & i=$((i+1)); done; echo all"
    bundle = guest.bundle(script, {"pids": {"limit": 8}}, "user.slice:rootless:pids")
    done = guest.machine.run(f"rootless run --bundle {bundle} pids")
    assert "all" not in done.stdout
    assert "fork" in done.stderr, done.stderr


BUSY = "while :; do :; done"


def _usage(guest, *ids):
    """Return the CPU time, in microseconds, of each container in about two seconds, and the wall time of these."""
    told = guest(
        f"cd {SCOPES}/user.slice; used() {{ for id in {' '.join(ids)}; do "
        "grep -h usage_usec rootless-$id.scope/cpu.stat; done; date +%s%6N; }; used; sleep 2; used"
    )
    numbers = [int(line.split()[-1]) for line in told.splitlines()]
    half = len(numbers) // 2
    return [after - before for before, after in zip(numbers[:half], numbers[half:], strict=True)]


def test_the_cpu_quota_is_enforced_and_changed(guest):
    bundle = guest.bundle(BUSY, {"cpu": {"quota": 20000, "period": 100000}}, "user.slice:rootless:quota")
    guest(f"rootless run --detach --bundle {bundle} quota")
    try:
        used, wall = _usage(guest, "quota")
        assert 0.1 < used / wall < 0.3
        guest("rootless update --cpu-quota 50000 quota")
        used, wall = _usage(guest, "quota")
        assert 0.35 < used / wall < 0.65
    finally:
        guest("rootless delete --force quota")


def test_cpu_time_is_shared_by_weight(guest):
    for name, shares in (("light", 1024), ("heavy", 10240)):
        bundle = guest.bundle(BUSY, {"cpu": {"shares": shares}}, f"user.slice:rootless:{name}")
        guest(f"rootless run --detach --bundle {bundle} {name}")
    try:
        weights = [
            int(guest.files(f"rootless-{name}.scope", "cpu.weight")["cpu.weight"]) for name in ("light", "heavy")
        ]
        light, heavy, _ = _usage(guest, "light", "heavy")
        assert 0.5 < (heavy / light) / (weights[1] / weights[0]) < 2
    finally:
        guest("rootless delete --force light; rootless delete --force heavy")


def test_the_scope_has_exactly_the_processes_of_the_container(guest):
    bundle = guest.bundle("sleep 1000 & sleep 1000", {}, "user.slice:rootless:exact")
    guest(f"{UNTIL} rootless --systemd-cgroup create --bundle {bundle} exact")
    try:
        assert guest.properties("rootless-exact.scope", "Slice", "Description") == {
            "Slice": "user.slice", "Description": "rootless container exact",
        }  # fmt: skip
        scope = f"{SCOPES}/user.slice/rootless-exact.scope"
        pid = guest(
            "rootless state exact | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])'"
        ).strip()
        assert guest(f"cat {scope}/cgroup.procs").split() == [pid]
        guest(f"{UNTIL} rootless start exact; three() {{ [ $(wc -l <{scope}/cgroup.procs) = 3 ]; }}; until_ three")
        listed = json.loads(guest("rootless ps --format json exact"))
        assert sorted(listed) == sorted(map(int, guest(f"cat {scope}/cgroup.procs").split()))
        guest("rootless exec --detach exact sleep 1000")
        assert len(guest(f"cat {scope}/cgroup.procs").split()) == 4
    finally:
        guest("rootless delete --force exact")


@pytest.mark.parametrize(
    "end",
    [
        "rootless delete --force going",
        "rootless kill going KILL; until_ gone rootless-going.scope; rootless delete going",
        "kill -9 $(cat $scope/cgroup.procs); until_ gone rootless-going.scope; rootless delete going",
        "systemctl --user stop rootless-going.scope; rootless state going | grep -w stopped; rootless delete going",
    ],
    ids=["delete", "kill", "kill from outside", "systemctl stop"],
)
def test_the_scope_ends_with_the_container_and_frees_its_name(guest, end):
    bundle = guest.bundle("trap exit TERM; sleep 1000 & wait", {"pids": {"limit": 9}}, "user.slice:rootless:going")
    guest(
        f"""{UNTIL}
        scope={SCOPES}/user.slice/rootless-going.scope
        for i in 1 2; do
            rootless run --detach --bundle {bundle} going
            [ -d $scope ]
            {end}
            [ ! -d $scope ]
        done
        gone rootless-going.scope
        [ ! -e /run/user/1000/rootless/going ]
        """
    )


def test_the_scope_ends_if_rootless_and_the_container_are_killed(guest):
    """systemd removes the scope, and the next verb removes the files on disk."""
    bundle = guest.bundle("sleep 1000 & sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:killed")
    guest(
        f"""{UNTIL}
        scope={SCOPES}/user.slice/rootless-killed.scope
        rootless run --bundle {bundle} killed &
        three() {{ [ "$(wc -l <$scope/cgroup.procs)" = 3 ]; }} 2>/dev/null
        until_ three
        kill -9 $! $(cat $scope/cgroup.procs)
        until_ gone rootless-killed.scope
        [ ! -d $scope ]
        rootless state killed | grep -w stopped
        rootless delete killed
        [ ! -e /run/user/1000/rootless/killed ]
        """
    )


def test_without_systemd_update_fails_and_delete_works(guest):
    """The manager's sockets cannot be reached after the start."""
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:gone")
    guest(f"rootless run --detach --bundle {bundle} gone")
    said = guest(
        f"""{UNTIL}
        cd /run/user/1000
        mv bus bus.away; mv systemd/private systemd/private.away
        trap 'mv bus.away bus; mv systemd/private.away systemd/private' EXIT
        ! rootless update --pids-limit 5 gone 2>&1
        cat {SCOPES}/user.slice/rootless-gone.scope/pids.max
        rootless pause gone; rootless resume gone
        rootless exec gone echo here
        rootless delete --force gone
        [ ! -d {SCOPES}/user.slice/rootless-gone.scope ]
        [ ! -e /run/user/1000/rootless/gone ]
        """
    )
    error, limit, here = said.splitlines()
    assert error.startswith("rootless: cannot change rootless-gone.scope: no systemd manager answers: ")
    assert "; fix: " in error
    assert (limit, here) == ("9", "here")
    guest(f"{UNTIL} until_ gone rootless-gone.scope")


def test_a_scope_name_of_another_container_is_refused(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:same")
    guest(f"rootless run --detach --bundle {bundle} first")
    try:
        error = guest.fails(f"rootless run --detach --bundle {bundle} second")
        assert error.count("\n") == 1
        assert "rootless-same.scope: it is that of container first (config.json: linux.cgroupsPath)" in error
        assert guest("rootless list --quiet").split() == ["first"]
        assert '"running"' in guest("rootless state first")
    finally:
        guest("rootless delete --force first")


def test_a_scope_name_of_another_unit_is_refused(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:taken")
    guest(
        f"""{UNTIL}
        systemd-run --user --quiet --scope --slice=user.slice --unit=rootless-taken.scope sleep 1000 >/dev/null 2>&1 &
        until_ systemctl --user --quiet is-active rootless-taken.scope"""
    )
    try:
        error = guest.fails(f"rootless run --detach --bundle {bundle} second")
        assert error.count("\n") == 1
        assert (
            "rootless-taken.scope: a unit of that name already has processes (config.json: linux.cgroupsPath)" in error
        )
        assert guest("rootless list --quiet") == ""
    finally:
        guest("systemctl --user stop rootless-taken.scope")


def test_a_failed_scope_of_the_same_name_is_replaced(guest):
    bundle = guest.bundle("true", {"pids": {"limit": 9}}, "user.slice:rootless:failed")
    # a failed unit stays until it is reset, unless its CollectMode says otherwise
    guest(
        f"""{UNTIL}
        as="--slice=user.slice --unit=rootless-failed.scope --property=RuntimeMaxSec=1"
        systemd-run --user --quiet --scope $as sleep 100 || true
        systemctl --user is-failed rootless-failed.scope
        rootless run --bundle {bundle} failed
        until_ gone rootless-failed.scope
        """
    )


@pytest.mark.parametrize(
    ("resources", "annotations", "expected"),
    [
        ({"unified": {"cpu.weight": "20000"}}, {}, ("linux.resources.unified", "CPUWeight")),
        (
            {},
            {"org.systemd.property.MemoryMax": "'much'"},
            ('annotations["org.systemd.property.MemoryMax"]', "MemoryMax"),
        ),
        ({}, {"org.systemd.property.Nonsense": "true"}, ('annotations["org.systemd.property.Nonsense"]', "Nonsense")),
        ({"cpu": {"cpus": "0"}, "unified": {"pids.max": "many"}}, {}, ("linux.resources.unified", "pids.max")),
    ],
)
def test_the_error_for_a_refused_property_names_it(guest, resources, annotations, expected):
    bundle = guest.bundle("sleep 1000", resources, "user.slice:rootless:refused", annotations=annotations)
    error = guest.fails(f"rootless run --detach --bundle {bundle} refused")
    assert all(each in error for each in expected), error
    assert error.splitlines()[-1].startswith("rootless: cannot ")
    guest(f'{UNTIL} until_ gone rootless-refused.scope; [ -z "$(rootless list --quiet)" ]')


def test_annotations_set_properties_of_the_scope(guest):
    annotations = {
        "org.systemd.property.TimeoutStopSec": "uint64 5",
        "org.systemd.property.Description": "'a description of its own'",
        "org.systemd.property.After": "['dbus.service']",
        "org.systemd.property.SendSIGHUP": "true",
        "org.systemd.property.KillSignal": "2",
    }
    bundle = guest.bundle("sleep 1000", {}, "user.slice:rootless:annotated", annotations=annotations)
    guest(f"rootless --systemd-cgroup run --detach --bundle {bundle} annotated")
    try:
        found = guest.properties(
            "rootless-annotated.scope", "TimeoutStopUSec", "Description", "After", "SendSIGHUP", "KillSignal"
        )
        assert "dbus.service" in found.pop("After")
        assert found == {
            "TimeoutStopUSec": "5s", "Description": "a description of its own", "SendSIGHUP": "yes", "KillSignal": "2",
        }  # fmt: skip
    finally:
        guest("rootless delete --force annotated")


def test_fifty_containers_at_once_have_their_scopes(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}})
    guest(
        f"""{UNTIL}
        for i in $(seq 50); do rootless --systemd-cgroup run --detach --bundle {bundle} many$i & all="$all $!"; done
        for one in $all; do wait $one; done
        [ $(rootless list --quiet | wc -l) = 50 ]
        [ $(systemctl --user list-units --plain 'rootless-many*.scope' | grep -c running) = 50 ]
        rootless delete --force --regex 'many.*'
        [ -z "$(rootless list --quiet)" ]
        [ -z "$(systemctl --user list-units --all --plain | grep rootless-many)" ]
        """,
        timeout=240,
    )


def test_special_characters_in_a_scope_name_are_escaped(guest):
    bundle = guest.bundle("true", {"pids": {"limit": 9}})
    guest(
        f"""
        rootless --systemd-cgroup create --bundle {bundle} a+b
        [ "$(systemctl --user show --property=TasksMax --value 'rootless-a\\x2bb.scope')" = 9 ]
        rootless delete --force a+b
        """
    )


SHOW = "tail -n 1 /proc/self/cgroup"
"""Shows the container's cgroup, in the cgroup namespace of the caller."""


def scope_shown(told):
    """Return the scope of a container that ran SHOW; fails if it is not in the user's manager."""
    path = told.strip()
    assert path.startswith(f"0::{SCOPES.removeprefix('/sys/fs/cgroup')}/user.slice/"), told
    return path.rpartition("/")[2]


def test_the_environment_does_not_select_another_systemd(guest):
    bundle = guest.bundle(SHOW, {"pids": {"limit": 9}}, "user.slice:rootless:environment", shared=["cgroup"])
    wrong = "unix:path=/run/dbus/system_bus_socket"
    for before in (
        "env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS",
        f"env XDG_RUNTIME_DIR=/tmp DBUS_SESSION_BUS_ADDRESS={wrong}",
        f"env DBUS_SESSION_BUS_ADDRESS={wrong}",
    ):
        told = guest(f"{before} rootless --root /tmp/state run --bundle {bundle} environment")
        assert scope_shown(told) == "rootless-environment.scope"


def test_the_message_bus_is_used_if_the_private_socket_is_missing(guest):
    script = f"{SHOW}; exec sleep 1000"
    bundle = guest.bundle(script, {"pids": {"limit": 9}}, "user.slice:rootless:bus", shared=["cgroup"])
    told = guest(
        f"""{UNTIL}
        private=/run/user/1000/systemd/private
        mv $private $private.away
        trap 'mv $private.away $private' EXIT
        rootless run --detach --bundle {bundle} bus >said
        until_ [ -s said ]
        cat said
        rootless update --pids-limit 7 bus
        cat {SCOPES}/user.slice/rootless-bus.scope/pids.max
        rootless delete --force bus
        [ ! -d {SCOPES}/user.slice/rootless-bus.scope ]
        """
    )
    where, limit = told.splitlines()
    assert scope_shown(where) == "rootless-bus.scope"
    assert limit == "7"


def test_a_lost_connection_to_systemd_is_an_error_and_leaves_nothing(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:half")
    # a manager that reads the request and closes the connection
    stand_in = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
heard = b""
while not heard:
    # a client that only checks for a listener sends nothing
    connection, _ = listener.accept()
    while not heard.endswith(b"BEGIN\\r\\n") and (data := connection.recv(4096)):
        heard += data
connection.sendall(b"DATA\\r\\nOK 0123\\r\\n")
connection.recv(65536)
"""
    error = guest.fails(
        f"""{UNTIL}
        private=/run/user/1000/systemd/private
        mv $private $private.away
        trap 'rm -f $private; mv $private.away $private' EXIT
        python3 -c '{stand_in}' $private &
        until_ [ -S $private ]
        rootless run --detach --bundle {bundle} half
        """
    )
    assert error.count("\n") == 1
    assert "rootless: cannot make rootless-half.scope: the connection to systemd broke off" in error
    guest(
        """
        [ -z "$(rootless list --quiet)" ]
        [ -z "$(pgrep --exact --full 'sleep 1000')" ]
        [ ! -e /run/user/1000/rootless/half ]
        """
    )


def test_a_user_namespace_of_an_engine_uses_the_users_systemd(guest):
    # rootless is root there, and the user's manager belongs to another UID
    bundle = guest.bundle(SHOW, {"pids": {"limit": 9}}, "user.slice:rootless:engine", shared=["cgroup"])
    run = f"rootless --systemd-cgroup run --bundle {bundle} engine"
    assert scope_shown(guest(f"podman unshare {run}")) == "rootless-engine.scope"
    private = "unshare --user --map-root-user --map-users auto --map-groups auto"
    told = guest(f"{private} unshare --user --map-root-user {run}")
    assert scope_shown(told) == "rootless-engine.scope"


def test_root_uses_the_systemd_of_the_host(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "system.slice:rootless:host")
    told = guest(
        f"""
        PATH=/home/tester/.local/bin:$PATH
        rootless run --detach --bundle {bundle} host
        systemctl show --property=TasksMax --value rootless-host.scope
        cat /sys/fs/cgroup/system.slice/rootless-host.scope/pids.max
        rootless delete --force host
        [ "$(systemctl is-active rootless-host.scope)" = inactive ]
        """,
        root=True,
    )
    assert told.split() == ["9", "9"]


def test_missing_lingering_is_a_warning(guest):
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:logout")
    run = f"rootless run --detach --bundle {bundle} logout; rootless delete --force logout"
    linger = "/var/lib/systemd/linger/tester"
    assert guest.machine.run(run, check=True).stderr == ""
    guest(f"mv {linger} {linger}.away", root=True)
    try:
        warned = guest.machine.run(run, check=True).stderr
    finally:
        guest(f"mv {linger}.away {linger}", root=True)
    assert warned.startswith("rootless: warning: the container ends when you log out: ")
    assert warned.endswith("fix: loginctl enable-linger\n")


def test_a_container_started_in_a_login_session_has_its_limits(guest):
    # the process is in a cgroup of root there, and only the system's manager can move it
    bundle = guest.bundle("sleep 1000", {"pids": {"limit": 9}}, "user.slice:rootless:session")
    script = f"""
        grep -q session- /proc/self/cgroup
        PATH=$HOME/.local/bin:$PATH
        rootless run --detach --bundle {bundle} session
        cat {SCOPES}/user.slice/rootless-session.scope/pids.max
        rootless delete --force session
    """
    told = guest.machine.run(f"su --login tester <<'END'\nset -e\n{script}\nEND", root=True, check=True).stdout
    assert told.split()[-1] == "9"


def test_device_rules_of_roots_container_are_enforced(guest):
    """The rules are attached to the scope of the host's systemd, which has no device rules for it."""
    said = []
    for number, access in enumerate(("", "r")):
        rules = [
            {"allow": False},
            *([{"allow": True, "type": "c", "major": 1, "minor": 11, "access": access}] * bool(access)),
        ]
        bundle = guest.bundle("(: </dev/null) && (: </dev/kmsg) && echo read", {"devices": rules}, f":rules:{number}")
        path = guest.machine.shared / bundle.rpartition("/")[2] / "config.json"
        config = json.loads(path.read_text())
        config["linux"]["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
        path.write_text(json.dumps(config))
        done = guest.machine.run(
            f"/home/tester/.local/bin/rootless --systemd-cgroup run --bundle {bundle} ruled", root=True
        )
        said.append((done.stdout.strip(), "Operation not permitted" in done.stderr))
    assert said == [("", True), ("read", False)]


def test_the_commands_of_the_readme(guest):
    bundle = guest.bundle("sleep 1000")
    begin, change, show, stop_and_go = commands("Limit memory")
    guest(f"cd && ln -sfn {bundle} web && {begin} >/dev/null 2>&1 </dev/null")
    try:
        guest(change)
        [unit] = guest("systemctl --user list-units --plain --no-legend '*web1*' | cut -d ' ' -f 1").split()
        assert guest.properties(unit, "MemoryMax", "TasksMax") == {"MemoryMax": str(256 * MIB), "TasksMax": "50"}
        assert json.loads(guest(show))["data"]["pids"]["limit"] == 50
        guest(stop_and_go)
        assert json.loads(guest("rootless state web1"))["status"] == "running"
    finally:
        guest("rootless delete --force web1")
