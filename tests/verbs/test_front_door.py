"""The front door: which verbs it carries out itself, with the same answers as Python, and which it leaves to Python."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rootless.installation.__main__ import front_door
from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.cgroup_containers import cgroup_of
from tests.lib.containers import Rootless, await_end, until

__all__ = ["cgroup2"]  # the fixture

OFF = {"ROOTLESS_FRONT": "0"}
LIST = ("list", "--format", "json")
PR_SET_CHILD_SUBREAPER = 36
NO_PYTHON = "cannot start Python: No such file or directory"


@pytest.fixture
def bundle(user):
    """A bundle whose program sleeps."""
    return make_bundle(user, base_config("sleep", "1000"))


@pytest.fixture
def front(user, rootless):
    """The front door alone, on the same containers: where it would become Python, it fails."""
    program = user.tmp / "front"
    program.write_bytes(front_door("/nonexistent/python3", "/nonexistent/script", str(CHECKOUT)))
    program.chmod(0o755)
    command = Rootless(user, str(program))
    command.root = rootless.root
    return command


def declines(front, *words, **options) -> bool:
    """Whether the front door leaves a command line to Python."""
    done = front(*words, **options)
    assert (done.returncode, done.stdout) in ((0, done.stdout), (1, "")), done
    assert (NO_PYTHON in done.stderr) is bool(done.returncode), done
    return bool(done.returncode)


def answers(rootless, *words):
    """Return the answers of the front door and of Python."""
    return [(done.returncode, done.stdout, done.stderr) for done in (rootless(*words), rootless(*words, env=OFF))]


# --- The ordinary container -------------------------------------------------------------------------------------------


def test_a_whole_life_without_python(rootless, front, bundle):
    rootless.create("c1", bundle)
    assert front.status("c1") == "created"
    assert front("list", "-q", check=True).stdout == "c1\n"
    pid = front.pid("c1")
    front.start("c1")
    assert front.status("c1") == "running"
    assert front("kill", "c1", "KILL", check=True).stdout == ""
    await_end(pid)
    assert front.state("c1") == rootless.state("c1")
    assert front.state("c1")["pid"] == 0
    assert front("delete", "c1", check=True).stderr == ""
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("moment", ["created", "running", "stopped"])
def test_forced_delete_without_python(rootless, front, bundle, moment):
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    if moment != "created":
        rootless.start("c1")
    if moment == "stopped":
        rootless("kill", "c1", "KILL", check=True)
        await_end(pid)
    front("delete", "--force", "c1", check=True)
    await_end(pid)
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("moment", ["created", "paused", "stopped"])
def test_life_in_a_cgroup_without_python(cgroup2, rootless_command, front, bundle, moment):
    user = front.user
    with InView(cgroup2, user, rootless_command) as rootless:
        front = InView(cgroup2, user, front.command)
        rootless.create("c1", bundle)
        pid = front.pid("c1")
        cgroup = cgroup2.directory / cgroup_of(cgroup2, pid)
        assert (cgroup / "cgroup.procs").read_text() == f"{pid}\n"
        if moment != "created":
            front.start("c1")
        if moment == "paused":
            rootless("pause", "c1", check=True)
        if moment == "stopped":
            front("kill", "c1", "KILL", check=True)
            await_end(pid)
        assert front.status("c1") == moment
        if moment == "paused":
            assert declines(front, "start", "c1")
            assert not declines(front, "kill", "c1", "TERM")
        front("delete", "--force", "c1", check=True)
        assert not cgroup.exists()
        assert list(rootless.root.iterdir()) == []


def test_cgroup_with_other_processes_is_removed_by_python(cgroup2, user, rootless_command, front, bundle):
    with InView(cgroup2, user, rootless_command) as rootless:
        front = InView(cgroup2, user, front.command)
        rootless.create("c1", bundle)
        cgroup = cgroup2.directory / cgroup_of(cgroup2, front.pid("c1"))
        (cgroup / "below").mkdir()
        assert declines(front, "delete", "--force", "c1")
        rootless("delete", "--force", "c1", check=True)
        assert not cgroup.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--log", "log", "--log-format", "json", "--systemd-cgroup"),
        ("--log=log", "--log-format=json", "--log-level", "info", "--debug=false", "--cgroup-manager", "cgroupfs"),
        ("--rootless", "true", "--log-level=error"),
    ],
)
def test_flags_of_engines_are_understood(rootless, front, bundle, flags):
    rootless.create("c1", bundle)
    assert json.loads(front(*flags, "state", "c1", check=True).stdout) == rootless.state("c1")
    assert json.loads(front("state", *flags, "c1", check=True).stdout) == rootless.state("c1")
    assert (rootless.user.tmp / "log").exists() is (flags[0] != "--rootless")


def test_answers_are_pythons_in_every_status(rootless, bundle, user):
    config = json.loads((bundle / "config.json").read_text())
    config["annotations"] = {'quote"d': "näh\n\ttext", "a : b": '\\" : \\'}
    (bundle / "config.json").write_text(json.dumps(config))
    rootless.create("c1", bundle)
    for status, words in (("created", ()), ("running", ("start", "c1")), ("stopped", ("kill", "c1", "9"))):
        pid = rootless.pid("c1")
        if words:
            rootless(*words, check=True)
        if status == "stopped":
            await_end(pid)
        assert rootless.status("c1") == status
        for ask in (("state", "c1"), ("list", "-q"), LIST, ("start", "c1") if words else ("state", "c1")):
            native, python = answers(rootless, *ask)
            assert native == python


def test_list_is_sorted_and_shows_what_python_shows(rootless, front, user):
    short = make_bundle(user, base_config("sleep", "1000"), name="short")
    for name in ("b", "a.1", "a+", "Z", "_x"):
        rootless.create(name, short)
    (rootless.root / "@networks").mkdir()
    (rootless.root / "file").write_text("")
    (rootless.root / "file").chmod(0o644)
    os.chown(rootless.root / "@networks", user.uid, user.gid)
    for words in (("list", "--quiet"), LIST):
        native, python = answers(rootless, *words)
        assert native == python
        assert front(*words, check=True).stdout == native[1]
    master, terminal = os.openpty()  # where people read JSON on several lines
    assert front(*LIST, stdout=terminal).returncode == 1
    os.close(master)
    os.close(terminal)


@pytest.mark.parametrize("signal", ["TERM", "SIGTERM", "sigterm", "15", "KILL", "9", "HUP", "CLD", "0", "WINCH"])
def test_signals_by_name_and_number(rootless, front, user, signal):
    script = "trap 'exit 3' TERM HUP; echo ready; while :; do sleep 0.01; done"
    rootless.create("c1", make_bundle(user, base_config("sh", "-c", script)))
    rootless.start("c1")
    assert not declines(front, "kill", "c1", signal)


# --- What is left to Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--debug", "state", "c1"),
        ("--log-level", "debug", "state", "c1"),
        ("--log-format", "xml", "state", "c1"),
        ("--log", "", "state", "c1"),
        ("--log", "journald:x", "state", "c1"),
        ("--log", "/nonexistent/log", "state", "c1"),
        ("--unknown", "state", "c1"),
        ("state",),
        ("state", "c1", "c2"),
        ("state", "--", "c1"),
        ("state", "--root"),
        ("state", "../c1"),
        ("state", "nobody"),
        ("state", "x" * 300),
        ("list",),
        ("list", "--format", "table"),
        ("list", "-q", "--format", "table"),
        ("kill", "--all", "c1"),
        ("kill", "c1", "NOTHING"),
        ("kill", "c1", "99999999999999999999"),
        ("kill", "c1", "65"),
        ("kill", "c1", "RTMIN+1"),
        ("delete", "--regex", "c1"),
        ("delete", "c1"),
        ("delete", "-f", "nobody"),
        ("--force", "delete", "c1"),
        ("start", "nobody"),
        ("pause", "c1"),
        ("--version",),
        (),
    ],
)
def test_other_words_are_pythons(rootless, front, bundle, words):
    rootless.create("c1", bundle)
    assert declines(front, *words)
    assert rootless.status("c1") == "created"


def test_python_is_started_on_request_and_without_standard_streams(rootless, front, bundle):
    rootless.create("c1", bundle)
    assert declines(front, "state", "c1", env=OFF)
    assert not declines(front, "state", "c1", env={"ROOTLESS_FRONT": "1"})
    closed = ["sh", "-c", 'exec "$@" 0<&-', "sh", *front.argv("state", "c1")]
    assert NO_PYTHON in front.user.run(closed).stderr


def _symlinked(status):
    status.rename(status.with_name("other"))
    status.symlink_to("other")


HARMS = {
    "absent": lambda status: status.unlink(),
    "empty": lambda status: status.write_bytes(b""),
    "truncated": lambda status: os.truncate(status, 100),
    "longer": lambda status: status.write_bytes(status.read_bytes() + b"x"),
    "of another release": lambda status: status.write_bytes(status.read_bytes().replace(b"RLSTAT1", b"RLSTAT9", 1)),
    "of another container": lambda status: status.write_bytes(status.read_bytes().replace(b"c1\0", b"c9\0", 1)),
    "too large": lambda status: os.truncate(status, 1 << 16),
    "writable for the group": lambda status: status.chmod(0o620),
    "another user's": lambda status: os.chown(status, 12345, 12345),
    "symlink": _symlinked,
    "fifo": lambda status: (status.unlink(), os.mkfifo(status)),
    "state changed": lambda status: os.utime(status.with_name("state.json")),
    "state replaced": lambda status: status.with_name("state.json").write_bytes(
        status.with_name("state.json").read_bytes() + b" "
    ),
    "directory writable for the group": lambda status: status.parent.chmod(0o720),
}


@pytest.mark.parametrize("harm", HARMS)
def test_record_that_cannot_be_trusted_is_ignored(rootless, front, bundle, harm, require_root):
    rootless.create("c1", bundle)
    HARMS[harm](rootless.root / "c1/status")
    for words in (("state", "c1"), ("list", "-q"), ("kill", "c1", "TERM"), ("start", "c1"), ("delete", "-f", "c1")):
        assert declines(front, *words), words
    (rootless.root / "c1").chmod(0o700)
    rootless("delete", "--force", "c1", check=True)
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_state_directory_that_others_can_write_to_is_not_used(rootless, front, bundle, mode):
    rootless.create("c1", bundle)
    rootless.root.chmod(mode)
    assert declines(front, "state", "c1")
    rootless.root.chmod(0o700)
    assert not declines(front, "state", "c1")


def test_container_of_another_boot_is_pythons(rootless, front, bundle):
    rootless.create("c1", bundle)
    record = rootless.root / "c1/status"
    boot = json.loads((rootless.root / "c1/state.json").read_text())["bootId"].encode()
    record.write_bytes(record.read_bytes().replace(boot, b"0" * 36))
    assert all(declines(front, verb, "c1") for verb in ("state", "kill", "start", "delete"))


@pytest.mark.parametrize(("kind", "verb"), [("poststart", "start"), ("poststop", "delete")])
def test_hooks_on_the_host_are_pythons(rootless, front, user, kind, verb):
    config = base_config("sleep", "1000")
    config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >{user.tmp}/{kind}"]}]}
    rootless.create("c1", make_bundle(user, config))
    pid = front.pid("c1")
    if verb == "delete":
        front("kill", "c1", "KILL", check=True)
        await_end(pid)
    assert declines(front, verb, "c1")
    rootless(verb, "c1", check=True)
    assert json.loads((user.tmp / kind).read_text())["id"] == "c1"


def test_kill_of_a_container_without_a_pid_namespace_is_pythons(rootless, front, user):
    config = base_config("sh", "-c", "sleep 1000 & exec sleep 1001")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    rootless.create("c1", make_bundle(user, config))
    rootless.start("c1")
    assert declines(front, "kill", "c1", "KILL")
    assert declines(front, "delete", "--force", "c1")
    assert not declines(front, "kill", "c1", "CONT")


def test_container_of_a_person_is_deleted_by_python(rootless, front, user, bundle):
    rootless("run", "--detach", "--network", "none", bundle, check=True)
    assert front.status("bundle") == "running"
    assert declines(front, "delete", "--force", "bundle")


# --- start ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [{}, OFF])
def test_missing_program_is_reported_as_by_python(rootless, user, env):
    bundle = make_bundle(user, base_config("/program"))
    shutil.copy(bundle / "rootfs/bin/busybox", bundle / "rootfs/program")
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    (bundle / "rootfs/program").unlink()
    done = rootless("start", "c1", env=env)
    assert done.returncode == 1
    assert done.stderr == "rootless: exec /program: no such file or directory (config.json: process.args[0])\n"
    await_end(pid)
    assert rootless.status("c1") == "stopped"
    assert not (rootless.root / "c1/start.sock").exists()


def test_failing_hook_in_the_container_removes_it(rootless, user):
    config = base_config("sleep", "1000")
    config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    bundle = make_bundle(user, config)
    found = []
    for env in ({}, OFF):
        rootless.create("c1", bundle)
        done = rootless("start", "c1", env=env)
        found.append((done.returncode, done.stderr, rootless.list()))
    assert found[0] == found[1]
    assert found[0][0] == 1
    assert found[0][2] == []


@pytest.fixture
def subreaper():
    """This process, as the parent of every created container, which stays a zombie when it has ended."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_filter_that_ends_the_program_is_a_warning_as_by_python(rootless, user, subreaper):
    config = base_config("true")
    config["process"]["noNewPrivileges"] = True
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO"}
    bundle = make_bundle(user, config)
    found = []
    for env in ({}, OFF):
        rootless.create("c1", bundle)
        pid = rootless.pid("c1")
        done = rootless("start", "c1", env=env)
        found.append((done.returncode, done.stderr))
        os.waitpid(pid, 0)
        rootless("delete", "--force", "c1", check=True)
    assert found[0] == found[1]
    assert "the seccomp filter ended the container before its program started" in found[0][1]


def test_start_waits_for_the_lock(rootless, front, bundle):
    rootless.create("c1", bundle)
    holder = subprocess.Popen(
        ["flock", rootless.root / "c1", "sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        starting = front.popen("start", "c1")
        with starting:
            waiting = f"-> FLOCK  ADVISORY  WRITE {starting.pid} "
            until(lambda: waiting in Path("/proc/locks").read_text(), "start waits")
            holder.stdin.write("\n")
            holder.stdin.close()
            assert starting.wait(30) == 0
    assert rootless.status("c1") == "running"


# --- Safety -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [0o4000, 0o2000])
def test_setuid_and_setgid_are_refused(user, rootless_command, require_root, bit):
    program = user.tmp / "setuid"
    program.write_bytes(Path(rootless_command).read_bytes())
    program.chmod(0o755 | bit)
    done = user.run([program, "--version"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot start Python: the program is setuid, setgid or has file capabilities"
    )


# --- Both together ----------------------------------------------------------------------------------------------------

ROUNDS = int(os.environ.get("ROOTLESS_TEST_FRONT_ROUNDS", "60"))
"""Races; a quarter as many random sequences."""
IDS = ("a1b2c3d4e5f60718", "0f1e2d3c4b5a6978")
"""One cached Plan is for both."""
STEPS = (
    ("create",),
    ("run", "--detach"),
    ("start",),
    ("start",),
    ("state",),
    ("kill", "TERM"),
    ("kill", "KILL"),
    ("kill", "0"),
    ("delete",),
    ("delete", "--force"),
    ("pause",),
    ("list",),
    ("exec", "sh", "-c", "echo out; exit 3"),
)


class Life:
    """Steps with one implementation in a state directory of its own.

    Attributes:
        seen: what each step has answered and left on disk, without process ids and times.
    """

    def __init__(self, rootless, name, bundle, env):
        self._rootless = Rootless(rootless.user, rootless.command)
        self._rootless.root = rootless.user.tmp / name
        self._bundle = bundle
        self._env = env
        self.seen = []
        for verb in (("create",), ("run", "--detach")):  # a third one follows a cached Plan
            for container in IDS:
                assert self._make(verb, container).returncode == 0
                self._rootless("delete", "--force", container, check=True)

    def _make(self, verb, container):
        """Make a container, which keeps its output open."""
        with (self._rootless.user.tmp / "err").open("w+") as err:
            words = [*verb, "--bundle", self._bundle, container]
            done = self._rootless(*words, env=self._env, stdout=subprocess.DEVNULL, stderr=err)
            err.seek(0)
            done.stderr = err.read()
        return done

    def step(self, verb, *rest, container):
        before = next((each for each in self._rootless.list() if each["id"] == container), {"pid": 0, "status": ""})
        pid = before["pid"]
        # SIGTERM ends an executor that waits for the start, and not a program that is process 1
        ends = verb == "delete" or "KILL" in rest or ("TERM" in rest and before["status"] == "created")
        if verb in ("create", "run"):
            done = self._make((verb, *rest), container)
        else:
            words = {"list": ("-q",), "delete": (*rest, container)}.get(verb, (container, *rest))
            for _ in range(3 if verb == "exec" else 1):  # the third follows a cached Plan
                done = self._rootless(verb, *words, env=self._env)
            if done.returncode == 0 and pid and ends:
                await_end(pid)
        text = f"{done.returncode}\n{done.stdout}\n{done.stderr}".replace(str(self._rootless.root), "ROOT")
        text = re.sub(r'"pid": [1-9]\d*', '"pid": PID', re.sub(r'"created": "\S+"', '"created": TIME', text))
        states = [(each["id"], each["status"]) for each in self._rootless.list()]
        paths = [path for path in self._rootless.root.rglob("*") if not path.name.startswith("exec.")]
        left = sorted(str(path.relative_to(self._rootless.root)) for path in paths)
        self.seen.append((verb, container, text, states, left))

    def close(self):
        self._rootless.__exit__()


@pytest.mark.parametrize("seed", range(ROUNDS // 4))
def test_random_sequences_have_the_same_outcomes_with_and_without_it(rootless, bundle, seed):
    chance = random.Random(seed)
    steps = [("create",), *(chance.choice(STEPS) for _ in range(12))]
    lives = [Life(rootless, "native", bundle, {}), Life(rootless, "python", bundle, OFF)]
    try:
        for step in steps:
            container = chance.choice(IDS)
            for life in lives:
                life.step(*step, container=container)
        native, python = (life.seen for life in lives)
        for index, (one, other) in enumerate(zip(native, python, strict=True)):
            assert one == other, steps[: index + 1]
    finally:
        for life in lives:
            life.close()


RACING = (
    ("state", "c1"),
    ("list", "-q"),
    LIST,
    ("start", "c1"),
    ("kill", "c1", "KILL"),
    ("delete", "c1"),
    ("delete", "--force", "c1"),
    ("exec", "c1", "true"),
)


def test_both_race_for_one_container_and_are_killed(rootless, bundle):
    chance = random.Random(ROUNDS)
    for _ in range(ROUNDS):
        rootless.create("c1", bundle)
        pid = rootless.pid("c1")
        commands = [chance.choice(RACING) for _ in range(4)]
        for _ in range(2 * any("exec" in words for words in commands)):
            rootless("exec", "c1", "true", check=True)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        racing = [rootless.popen(*words, env=chance.choice(({}, OFF)), **pipes) for words in commands]
        victim = chance.choice([*racing, None])
        if victim:
            time.sleep(chance.random() * 0.02)  # any moment
            victim.kill()
        for process in racing:
            out, err = process.communicate(timeout=30)
            assert process.returncode in (0, 1, 255, 137, -signal.SIGKILL if process is victim else 0), (out, err)
            assert "internal error" not in err, err
        rootless("delete", "--force", "c1", check=True, env=chance.choice(({}, OFF)))
        await_end(pid)
        assert list(rootless.root.iterdir()) == []
