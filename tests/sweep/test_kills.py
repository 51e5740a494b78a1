"""The executor or `rootless` is killed at any moment: nothing is left.

Each test runs commands under tracer.c, and then once more for every system call that they made (a selection of these,
unless ROOTLESS_TEST_SWEEP=full), disturbed at that call. World and Sweep list the errors.
"""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from tests.lib.sweep import (
    CONTAINER,
    ENDED_WELL,
    FIRST_STAGE,
    NOT_COME,
    PROGRAM,
    SPAWNED,
    WITHOUT_EFFECT,
    Case,
    Moment,
    Sweep,
    cgroups,
)
from tests.lib.sweep_lives import all_right, came, executor_was_killed, rootless_was_killed, sweep, tracer

__all__ = ["sweep", "tracer"]  # fixtures


@pytest.mark.parametrize(
    ("life", "role", "since", "least"),
    [
        ("create", "0", "mkdirat", 50),
        ("create", "1", "flock", 9),
        ("create", "2", "pidfd_open", 15),
        ("kill", "2", "pidfd_open", 5),
        ("run", "0", "mkdirat", 60),
        ("run attended", "0", "pidfd_open", 8),
        ("run -d", "0", "linkat", 8),
    ],
)
def test_killed_rootless_leaves_nothing(sweep, life, role, since, least):
    """`since` is the first call that changes something."""
    swept = sweep(life)
    cases = [Case(moment, role) for moment in swept.moments(role, since=since, without=WITHOUT_EFFECT)]
    all_right(swept.run_all(cases, rootless_was_killed, least=least))


def test_rootless_killed_while_filling_the_cache_leaves_nothing(sweep):
    swept = sweep("run", own_home=True)
    moments = swept.moments("0", since="mkdir", without=WITHOUT_EFFECT)  # the state directory's mkdir
    moments = moments[: [moment.name for moment in moments].index("pipe2")]
    assert {"mkdir", "linkat"} <= {moment.name for moment in moments}
    cases = [Case(moment, "0") for moment in moments]
    all_right(swept.run_all(cases, rootless_was_killed, least=9))


def test_killed_executor_leaves_nothing(sweep):
    swept = sweep("create")
    moments = swept.moments(SPAWNED + FIRST_STAGE + CONTAINER, without=WITHOUT_EFFECT)
    cases = [Case(moment, moment.role) for moment in moments]
    all_right(swept.run_all(cases, executor_was_killed, least=250))


def test_killed_executor_of_run_leaves_nothing(sweep):
    swept = sweep("run")
    cases = [Case(moment, CONTAINER) for moment in swept.moments(CONTAINER, since="rt_sigaction")]
    all_right(swept.run_all(cases, executor_was_killed, least=10))


@pytest.mark.parametrize(("life", "roles", "least"), [("create", FIRST_STAGE + CONTAINER, 70), ("run", CONTAINER, 50)])
def test_executor_killed_while_rootless_talks_to_it_leaves_nothing(sweep, life, roles, least):
    swept = sweep(life)
    talk = set(WITHOUT_EFFECT) - {"read", "poll"}
    moments = swept.moments("0", since="clone3", without=talk)
    cases = [Case(moment, victim) for moment in moments for victim in roles]
    all_right(swept.run_all(cases, executor_was_killed, least=least))


@pytest.mark.parametrize(
    ("life", "verb", "since", "least"),
    [("create", "1", "flock", 14), ("create", "2", "pidfd_open", 26), ("kill", "2", "pidfd_open", 5)],
)
def test_container_killed_during_a_verb_leaves_nothing(sweep, life, verb, since, least):
    swept = sweep(life)
    cases = [Case(moment, CONTAINER) for moment in swept.moments(verb, since=since)]
    all_right(swept.run_all(cases, executor_was_killed, least=least))


@pytest.mark.parametrize(
    ("life", "roles", "least"), [("create", SPAWNED + FIRST_STAGE + CONTAINER + PROGRAM, 240), ("run", CONTAINER, 4)]
)
def test_rootless_killed_while_the_executor_works_leaves_nothing(sweep, life, roles, least):
    """Up to the write after which `rootless` may end."""
    swept = sweep(life)
    moments = swept.moments(roles, since="rt_sigaction" if life == "run" else "", without=WITHOUT_EFFECT)
    names = [moment.name for moment in moments]
    end = names.index("accept4" if life == "create" else "execve")
    end -= names[end::-1].index("write") - 1 if life == "create" else 0
    all_right(swept.run_all([Case(moment, "0") for moment in moments[:end]], rootless_was_killed, least=least))


@pytest.mark.parametrize("error", [0, errno.EIO, errno.ENOENT])
def test_a_killed_or_missing_id_map_program_is_an_error(sweep, error):
    swept = sweep("create")
    cases = [Case(moment, "" if error else PROGRAM, error) for moment in swept.moments(PROGRAM)]
    if not cases:
        pytest.skip("needs subordinate ids: no program maps a single one")
    all_right(swept.run_all(cases, _fails, least=2))


def _fails(outcome):
    return came(outcome) if outcome.last == 1 and outcome.complaint else ["it did not fail"]


SOCKET = f'{sys.executable} -c \'import os, socket; socket.socket(socket.AF_UNIX).bind(os.environ["TMPDIR"] + "/x")\''
LEFT = {
    "a process": ("sleep 1000 &", "left a process: left "),
    "a file": ('echo > "$TMPDIR/x"', "left on disk: tmp/x "),
    "a socket": (SOCKET, "left on disk: tmp/x "),
    "a state directory": ('mkdir -p "$XDG_RUNTIME_DIR/rootless/c1"', "left on disk: run/rootless/c1 "),
    "a cache file": ('mkdir -p "$HOME/.cache"; echo > "$HOME/.cache/x"', "left on disk: home/.cache/x "),
    "an id": ('echo > "$XDG_RUNTIME_DIR/x"', "the second container ended with 1: "),
    "a traceback": ("echo Traceback >&2; exit 1", "that is no clear line "),
    "two errors": ("echo rootless: x >&2; echo rootless: y >&2; exit 1", "that is no clear line "),
    "an internal error": ("echo rootless: internal error: x >&2; exit 1", "that is no clear line "),
}
NO_ROOTLESS = """#!/bin/sh
case $1 in
create)
    true
    {script}
    ;;
run)
    [ ! -e "$XDG_RUNTIME_DIR/x" ] || exit 1
    exit {status}
    ;;
esac
"""


def _broken(user, tracer, script):
    """Return a Sweep whose command runs `script` instead of `create`, except in the first run, which is recorded."""
    command = user.tmp / "command"
    command.write_text(NO_ROOTLESS.format(script="", status=ENDED_WELL))
    command.chmod(0o755)
    swept = Sweep(user, tracer, command, [["create", "ID"]], second=["run", "ID"], patience=1, own_home=True)
    command.write_text(NO_ROOTLESS.format(script=script, status=ENDED_WELL))
    return swept


ANY_MOMENT = Case(Moment("0", "getppid", 1))


@pytest.mark.parametrize("left", LEFT)
def test_the_sweep_detects_leftovers(user, tracer, left):
    """The sweep is tested with a faulty command."""
    script, complaint = LEFT[left]
    wrong = _broken(user, tracer, script).run(ANY_MOMENT, came)
    assert any(complaint in line for line in wrong), wrong
    assert _broken(user, tracer, "").run(ANY_MOMENT, came) == []


def test_the_sweep_detects_a_leftover_mount(user, tracer, require_root):
    place = user.tmp / "mounted"
    place.mkdir()

    def mount(_):
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        return []

    try:
        wrong = _broken(user, tracer, "").run(ANY_MOMENT, mount)
    finally:
        subprocess.run(["umount", place], check=True)
    assert ["left a mount" in line for line in wrong] == [True]


def test_the_sweep_reports_a_moment_that_does_not_occur(user, tracer):
    (line,) = _broken(user, tracer, "").run(Case(Moment("0", "getppid", 1000)), came)
    assert NOT_COME in line


def test_the_sweep_detects_a_leftover_cgroup(user):
    (user.tmp / "user.slice/app-sweep-7.scope").mkdir(parents=True)
    assert cgroups("sweep-7", user.tmp) == [user.tmp / "user.slice/app-sweep-7.scope"]
    assert cgroups("sweep-8", user.tmp) == []
