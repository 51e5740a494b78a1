"""Undo notes: the launcher's work is undone even if a kill, a full disk or an editor has damaged notes."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from rootless.container.operations import cgroup, cgroup_cleanup, monitor, undo
from rootless.container.operations.container_run import HANDLERS, ContainerRun
from rootless.container.state import store
from rootless.container.state.root import StateRoot
from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.procfs import boot_id
from tests.lib.bundles import base_config
from tests.lib.states import VALUES, edited, places
from tests.unit.planning import plan_for

pytestmark = pytest.mark.usefixtures("closed")


def test_every_operation_of_the_launcher_has_a_handler():
    launchers = {kind for kind in ops.KINDS if kind.by == ops.LAUNCHER}
    assert HANDLERS.keys() == launchers - {ops.DELETE}, "`delete` itself performs DELETE"


def test_every_undo_that_is_declared_is_known():
    assert undo.UNDO.keys() == {kind.undo for kind in ops.KINDS if kind.undo}
    assert not [kind for kind in ops.KINDS if kind.undo and kind.by == ops.EXECUTOR]


@pytest.fixture
def entry(tmp_path):
    """The directory of a container."""
    with store.claim(StateRoot(str(tmp_path)), "c1", undo.clear) as claimed:
        yield claimed


@pytest.fixture
def undone(monkeypatch):
    """A list that receives what is undone."""
    calls = []
    for kind in undo.UNDO:
        monkeypatch.setitem(undo.UNDO, kind, lambda _, data, kind=kind: calls.append((kind, data)))
    return calls


def test_notes_are_walked_backwards_and_the_last_of_a_kind_holds(entry, undone):
    undo.note(entry, "cgroup", {"path": "1"})
    undo.note(entry, "network", {"wait": False})
    undo.note(entry, "cgroup", {"path": "2"})
    undo.walk(entry)
    assert undone == [("network", {"wait": False}), ("cgroup", {"path": "2"})]


def test_truncated_note_is_ignored(entry, undone):
    undo.note(entry, "cgroup", {"path": "1"})
    undo.note(entry, "network", {"wait": False})
    file = Path(entry.path) / "undo"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        file.write_bytes(whole[:length])
        undone.clear()
        undo.walk(entry)
        assert undone == [("cgroup", {"path": "1"})], whole[:length]


def test_notes_of_another_boot_or_unknown_kind_are_ignored(entry, undone):
    lines = [["cgroup", "another", {}], ["unknown", boot_id(), {}], [["cgroup"], boot_id(), {}], {}, 5, ["cgroup"]]
    (Path(entry.path) / "undo").write_text("".join(json.dumps(line) + "\n" for line in lines))
    undo.walk(entry)
    assert undone == []


def test_a_note_that_does_not_fit_on_the_disk_is_refused(entry):
    """Its object would never be undone, and the next note would continue its line."""
    undo.note(entry, "cgroup", {"path": "1"})
    size = (Path(entry.path) / "undo").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(RootlessError) as caught:
            undo.note(entry, "network", {"wait": False})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "RL-STATE"
    assert [*undo.notes(entry)] == ["cgroup"]


def test_notes_that_cannot_be_read_are_an_error(entry):
    (Path(entry.path) / "undo").mkdir()
    with pytest.raises(RootlessError) as caught:
        undo.notes(entry)
    assert caught.value.code == "RL-STATE"


NOTES = {
    "cgroup": {"path": "", "parents": [""], "certainty": "own", "unit": "", "userManager": ""},
    "network": {"wait": True, "helper": [2**22, 1], "holder": [2**22, 1]},
    "resctrl": {"directories": [""]},
    "root mount": {"covered": "0", "identity": "0 0", "path": ""},
}
HARMLESS = [value for value in VALUES if value not in ("/", "no") and not isinstance(value, dict)]


@pytest.mark.parametrize("kind", NOTES)
def test_edited_note_does_not_prevent_other_undos(entry, kind, monkeypatch, capfd):
    walked = []
    first = next(each for each in undo.UNDO if each != kind)
    monkeypatch.setitem(undo.UNDO, first, lambda *_: walked.append(first))
    damaged = [{}] + [edited(NOTES[kind], path, value) for path in places(NOTES[kind]) for value in HARMLESS]
    for data in damaged:
        (Path(entry.path) / "undo").unlink(missing_ok=True)
        undo.note(entry, first, {})
        undo.note(entry, kind, data)
        walked.clear()
        try:
            undo.walk(entry)
        except RootlessError:
            continue
        assert walked == [first], data
    assert "is damaged; fix: " in capfd.readouterr().err


# --- The launcher ends between a note and its operation ---------------------------------------------------------------


def _first(kind, facts, **properties):
    """Return the operation of a kind in the Plan of a container with `properties` of linux."""
    config = base_config()
    config["linux"] |= properties
    return plan_for(config, facts).first(kind)


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def launcher_ends(tmp_path, monkeypatch, op, place):
    """Execute a launcher's operation in a launcher that is killed when it calls `place`."""
    root = StateRoot(str(tmp_path / "state"))
    process = os.fork()
    if process == 0:
        try:
            monkeypatch.setattr(place, _die)
            run = ContainerRun(Plan([op]), root, Descriptors())
            run.entry = store.claim(root, "c1", undo.clear)
            run.pid = os.getpid()
            run.until()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    return store.claim(root, "c1", undo.clear)


def test_the_launcher_ends_before_systemd_has_made_the_scope(tmp_path, monkeypatch):
    """A unit that may belong to another program, or that ends with its process, stays."""
    wanted = _first(ops.START_SCOPE, {"user_manager": "/run/user/1000"}, cgroupsPath="user.slice:rootless:c1")
    stopped = []
    monkeypatch.setattr(cgroup_cleanup, "stop_scope", lambda *words: stopped.append(words))
    place = "rootless.container.operations.cgroup.start_systemd_scope"
    with launcher_ends(tmp_path, monkeypatch, wanted, place) as entry:
        assert not entry.has("undo")
    assert not stopped


def test_the_launcher_ends_when_systemd_has_made_the_scope(tmp_path, monkeypatch):
    wanted = _first(ops.START_SCOPE, {"user_manager": "/run/user/1000"}, cgroupsPath="user.slice:rootless:c1")
    scope = tmp_path / "rootless-c1.scope"
    scope.mkdir()
    stopped = []
    monkeypatch.setattr(cgroup, "start_systemd_scope", lambda *_: str(scope))
    monkeypatch.setattr(cgroup_cleanup, "stop_scope", lambda unit, _: stopped.append(unit) or scope.rmdir() is None)
    monkeypatch.setattr(cgroup_cleanup, "end_all", stopped.append)
    with launcher_ends(tmp_path, monkeypatch, wanted, "rootless.container.operations.cgroup.Group") as entry:
        assert not entry.has("undo")
    assert stopped == [str(scope), "rootless-c1.scope"]


@pytest.mark.parametrize("place", ["rootless.launch.join_resctrl.enter", "rootless.launch.join_resctrl._write"])
def test_the_launcher_ends_while_it_makes_a_resctrl_group(tmp_path, monkeypatch, place):
    groups = tmp_path / "groups"
    groups.mkdir()
    op = _first(ops.JOIN_RESCTRL, {"resctrl": str(groups)}, intelRdt={})
    with launcher_ends(tmp_path, monkeypatch, op, place) as entry:
        assert not entry.has("undo")
    assert list(groups.iterdir()) == []


def test_a_process_that_another_program_made_is_ended_with_the_run(tmp_path):
    """As with `restore`, whose processes criu creates."""
    run = ContainerRun(Plan([]), StateRoot(str(tmp_path)), Descriptors())
    run.pid = child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(1)
    try:
        run.kill()
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
    finally:
        if Path(f"/proc/{child}").exists():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert run.pid == 0


def test_a_run_that_is_killed_twice_closes_nothing_twice():
    run = Run(Plan([]), Descriptors())
    reader, writer = os.pipe()
    run.to_close.append(reader)
    run.passed[1] = (writer,)
    run.kill()
    again = [os.dup(0), os.dup(0)]
    assert again == [reader, writer]
    run.kill()
    for fd in again:
        os.close(fd)


def test_an_overlay_is_locked_before_its_users_are_looked_up(tmp_path, monkeypatch):
    """Another launcher cannot note its container in between, and end."""
    upper = tmp_path / "upper"
    run = ContainerRun(Plan([Op(ops.OPEN_UPPER, str(upper))]), StateRoot(str(tmp_path / "state")), Descriptors())
    run.entry = store.claim(run.root, "c1", undo.clear)
    free = []

    def look_up(_root):
        other = os.open(upper, os.O_RDONLY)
        free.append(monitor.is_free(other))
        os.close(other)
        return []

    monkeypatch.setattr(store, "ids", look_up)
    run.until()
    assert free == [False]
    assert undo.notes(run.entry).keys() == {"overlay"}
    run.entry.close()
    os.close(run.locks.pop())
