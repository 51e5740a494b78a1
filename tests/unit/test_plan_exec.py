"""Plans of exec: the process, its namespaces, and the order."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless import procfs
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.host import running
from rootless.host.facts import Facts
from rootless.host.running import Running
from rootless.launch import join_resctrl
from rootless.linux import CLONE_FLAGS
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.copy_plan import compile_copy
from rootless.plan.encode import encode
from rootless.plan.exec_plan import compile_exec
from rootless.plan.ops import Op
from rootless.plan.process.exec_object import flags_by_place, process_object
from rootless.plan.process.scheduling import cpu_mask
from rootless.plan.request import Request
from tests.lib.bundles import base_config
from tests.unit.planning import ROOT, chosen, the

FOR_ROOT = {"bounding", "effective", "permitted"}
IDS = ((0, 1000, 1), (1, 100000, 65536))
CONTAINER = {
    "args": ["first"],
    "cwd": "/data",
    "env": ["PATH=/bin", "A=1"],
    "terminal": True,
    "user": {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o27},
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    "noNewPrivileges": True,
    "oomScoreAdj": 10,
}


def asked(*args, **options):
    assert all(hasattr(Options, name) for name in options)
    return Options(container="c1", args=args, **options)


def exec_plan(config=None, known=None, container=None, options=None):
    config = base_config("true") if config is None else config
    container = container or Running(77, ["user", "mount", "pid"], IDS, IDS)
    return compile_exec(Bundle("/b", config), Facts(**(known or {})), Request(options or asked("true")), container)


def position(plan, kind):
    return [op.kind for op in plan.ops].index(kind)


# The process


def test_a_command_runs_like_the_containers_own_process():
    found = process_object(CONTAINER, None, asked("ls", "-l"))
    assert found == CONTAINER | {"args": ["ls", "-l"], "terminal": False}
    assert CONTAINER["args"] == ["first"]


def test_flags_change_the_process():
    options = asked(
        "ls",
        env=("A=2", "B=3"),
        cwd="/",
        user="8:9",
        additional_gids=("10",),
        tty=True,
        cap=("CAP_CHOWN",),
        apparmor="profile",
        process_label="label",
    )
    found = process_object(CONTAINER, None, options)
    assert found["env"] == ["PATH=/bin", "A=1", "A=2", "B=3"]
    assert found["cwd"] == "/"
    assert found["user"] == {"uid": 8, "gid": 9, "additionalGids": [7, 10], "umask": 0o27}
    assert found["terminal"] is True
    assert found["apparmorProfile"] == "profile"
    assert found["selinuxLabel"] == "label"
    assert CONTAINER["user"]["additionalGids"] == [7]
    assert CONTAINER["env"] == ["PATH=/bin", "A=1"]


@pytest.mark.parametrize(
    ("user", "sets"),
    [
        ("0", {"bounding", "effective", "permitted"}),
        ("1", {"bounding", "effective", "permitted", "inheritable", "ambient"}),
    ],
)
def test_added_capabilities_are_in_the_sets_that_execve_consults(user, sets):
    found = process_object(CONTAINER, None, asked("ls", user=user, cap=("CAP_CHOWN",)))["capabilities"]
    assert {name for name, names in found.items() if "CAP_CHOWN" in names} == sets
    assert found["bounding"] == ["CAP_KILL", "CAP_CHOWN"]


def test_process_object_inherits_from_the_container():
    given = {"args": ["x"], "cwd": "/", "env": None}
    assert process_object(CONTAINER, given, asked(process="file")) == {
        "args": ["x"],
        "cwd": "/",
        "user": {"umask": 0o27},
        "capabilities": CONTAINER["capabilities"],
        "oomScoreAdj": 10,
    }


def test_process_object_overrides_the_container():
    given = {"args": ["x"], "cwd": "/", "user": {"umask": 1}, "capabilities": {}, "oomScoreAdj": 0, "terminal": True}
    assert process_object(CONTAINER, given, asked(process="file")) == given


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (None, asked()),
        ({"args": ["x"], "cwd": "/"}, asked("ls")),
        (None, asked("ls", user="root")),
        (None, asked("ls", user="1:")),
        (None, asked("ls", user=":1")),
        (None, asked("ls", user="-1")),
        (None, asked("ls", additional_gids=("1,2",))),
    ],
)
def test_wrong_arguments_of_exec_are_refused(given, options):
    with pytest.raises(RootlessError) as caught:
        process_object(CONTAINER, given, options)
    assert caught.value.code == "RL-USAGE"


def test_places_of_flags():
    assert flags_by_place(asked("ls", cwd="/", user="1")) == {
        "process.args": "",
        "process.cwd": "--cwd",
        "process.user": "--user",
    }
    assert flags_by_place(asked()) == {}


# The Plan


def test_the_order():
    config = base_config("true")
    config["process"]["oomScoreAdj"] = 5
    config["process"]["terminal"] = True
    config["process"]["execCPUAffinity"] = {"initial": "0", "final": "1"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    plan = exec_plan(config)
    kinds = [op.kind for op in plan.ops]
    order = [ops.PROC_WRITE, ops.NON_DUMPABLE, ops.JOIN_PROCESS, ops.FORK, ops.BECOME, ops.SESSION, ops.TERMINAL]
    order += [ops.CHDIR, ops.IDS, ops.COMMAND, ops.READY, ops.WAIT_START, ops.NO_NEW_PRIVS, ops.SECCOMP, ops.EXEC]
    places = [kinds.index(kind) for kind in order]
    assert places == sorted(places)
    initial, final = (index for index, kind in enumerate(kinds) if kind is ops.CPU_AFFINITY)
    assert initial < kinds.index(ops.JOIN_PROCESS) < kinds.index(ops.FORK) < final < kinds.index(ops.BECOME)
    assert plan.has_terminal
    assert not set(kinds) & {ops.MOUNT, ops.BIND, ops.ROOT, ops.PIVOT, ops.NEW_USER, ops.UNSHARE, ops.JOIN}
    assert encode([op for _, op in plan.executor_part()])


@given(st.sets(st.sampled_from(sorted(CLONE_FLAGS))))
def test_the_namespaces_that_differ_are_joined(kinds):
    join = the(exec_plan(container=Running(77, kinds, IDS, IDS)), ops.JOIN_PROCESS)
    assert join.numbers == (sum(CLONE_FLAGS[kind] for kind in kinds), 0)


def test_own_root_in_a_shared_mount_namespace():
    config = base_config("true")
    config["linux"]["namespaces"] = [{"type": "mount", "path": "/proc/1/ns/mnt"}]
    assert the(exec_plan(config), ops.JOIN_PROCESS).number("root_of") == 77


@pytest.mark.parametrize(
    ("ids", "root"), [(IDS, [(0, 0)]), (((1000, 1000, 1),), [(1000, 1000)]), (((5, 1, 9), (0, 20, 2)), [(0, 0)])]
)
def test_root_of_the_user_namespace_or_the_first_id(ids, root):
    config = base_config("true")
    config["process"]["user"] = {"uid": root[0][0], "gid": root[0][0]}
    plan = exec_plan(config, container=Running(77, ["user"], ids, ids))
    assert [op.numbers for op in chosen(plan, ops.BECOME)] == root


def test_callers_user_namespace_is_not_joined():
    plan = exec_plan(known=ROOT, container=Running(77, ["mount", "pid"]))
    assert chosen(plan, ops.BECOME) == []


def test_ids_missing_in_the_container_are_refused():
    config = base_config("true")
    config["process"]["user"] = {"uid": 70_000, "gid": 0}
    with pytest.raises(RootlessError) as caught:
        exec_plan(config)
    assert (caught.value.code, caught.value.where) == ("RL-IDMAP-UNMAPPED", "process.user.uid")
    assert "0 to 0, 1 to 65536" in caught.value.cause


@pytest.mark.parametrize(("denied", "told"), [(False, False), (True, True)])
def test_groups_without_setgroups(denied, told):
    config = base_config("true")
    config["process"]["user"]["additionalGids"] = [5]
    plan = exec_plan(config, container=Running(77, ["user"], IDS, IDS, setgroups_denied=denied))
    assert bool(chosen(plan, ops.GROUPS)) is not denied
    assert any("setgroups is denied" in note.text for note in plan.notes) is told


def test_limits_are_raised_outside():
    config = base_config("true")
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 900}]
    plan = exec_plan(config, ROOT | dict(hard_limits={7: 50}))
    early, late = chosen(plan, ops.RLIMIT)
    assert plan.ops.index(early) < position(plan, ops.JOIN_PROCESS)
    assert position(plan, ops.WAIT_START) < plan.ops.index(late)
    assert (early.numbers, late.numbers) == ((7, 900, 900), (7, 5, 900))


def test_the_keyring_is_the_containers():
    assert the(exec_plan(), ops.KEYRING).strings == ("_ses.c1",)
    assert chosen(exec_plan(options=asked("true", no_new_keyring=True)), ops.KEYRING) == []


def test_without_flags_the_environment_is_passed_as_it_is():
    given = {"args": ["x"], "cwd": "/", "env": ["A=1", "A=2", "B"]}
    assert process_object(CONTAINER, given, asked())["env"] == ["A=1", "A=2", "B"]


# CPUs


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 70)), min_size=1, max_size=5), st.booleans())
def test_cpu_lists(ranges, blanks):
    text = (" , " if blanks else ",").join(f"{low}-{low + more}" if more else str(low) for low, more in ranges)
    mask = int.from_bytes(cpu_mask(text, ""), "little")
    wanted = {cpu for low, more in ranges for cpu in range(low, low + more + 1)}
    assert {cpu for cpu in range(400) if mask >> cpu & 1} == wanted
    assert len(cpu_mask(text, "")) % 8 == 0


def test_cpu_masks_are_longs_of_the_machine(monkeypatch):
    assert cpu_mask("0,64", "") == b"\1" + bytes(7) + b"\1" + bytes(7)
    monkeypatch.setattr("rootless.plan.process.scheduling.byteorder", "big")
    assert cpu_mask("0,64", "") == bytes(7) + b"\1" + bytes(7) + b"\1"


@pytest.mark.parametrize("text", ["3-1", "-1", "1-", "0-9999", "1--2", "99999999999999"])
def test_malformed_cpu_list_is_refused(text):
    with pytest.raises(RootlessError) as caught:
        cpu_mask(text, "process.execCPUAffinity.final")
    assert (caught.value.code, caught.value.where) == ("RL-CONFIG", "process.execCPUAffinity.final")


# Facts about the container, and resctrl


def test_the_namespaces_of_this_process_are_its_own():
    found = running.read(os.getpid())
    assert (found.namespaces, found.uid_map) == (frozenset(), procfs.id_maps("self")[0])


def test_a_process_in_namespaces_of_its_own(need):
    words = [need("unshare"), "--user", "--map-root-user", "--uts", "--ipc", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline() != "ready\n":
            pytest.skip("needs user namespaces")
        found = running.read(process.pid)
        process.communicate("\n")
    assert found.namespaces == {"user", "uts", "ipc"}
    assert (found.uid_map, found.gid_map) == (((0, os.getuid(), 1),), ((0, os.getgid(), 1),))
    assert found.setgroups_denied


def test_exec_joins_the_containers_resctrl_group(tmp_path):
    config = base_config("true")
    config["linux"]["intelRdt"] = {"closID": "class", "enableMonitoring": True}
    group = exec_plan(config, dict(resctrl=str(tmp_path))).first(ops.ADD_TO_RESCTRL).value("group")
    (tmp_path / "class/mon_groups/c1").mkdir(parents=True)
    files = [tmp_path / "class/tasks", tmp_path / "class/mon_groups/c1/tasks"]
    for file in files:
        file.touch()
    join_resctrl.enter_existing(group, 77)
    assert [file.read_text() for file in files] == ["77\n", "77\n"]
    files[1].unlink()
    with pytest.raises(RootlessError) as caught:
        join_resctrl.enter_existing(group, 77)
    assert caught.value.code == "RL-RESCTRL"


def test_no_plan_enters_a_directory_of_the_image_with_descriptors_of_the_host():
    """One of them could lead out of the container (CVE-2024-21626)."""
    bundle, container = Bundle("/b", base_config("true")), Running(77, ["user", "mount", "pid"], IDS, IDS)
    copy = compile_copy(bundle, Facts(), Request(asked("true")), container, Op(ops.RECEIVE_TREE, "/"))
    for plan in (exec_plan(), copy):
        kinds = [op.kind for op in plan.ops]
        assert kinds.index(ops.FORK) < kinds.index(ops.CLOSE_FDS) < kinds.index(ops.CHDIR)
