"""Cached Plans of `exec`: the front door executes commands in a container without Python, and with the same outcome."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.cgroup_containers import cgroup_of
from tests.lib.configurations import PODMAN_SECCOMP
from tests.lib.containers import Reader, Rootless, await_end, executors, until
from tests.lib.native import HOSTILE_ENTRIES, MOST_MEMORY, Runs, proportional_memory, warm, with_a_late_skip

__all__ = ["cgroup2"]  # the fixture

OFF = {"ROOTLESS_FRONT": "0"}
LOOK = r"""
grep -E '^(Uid|Gid|Groups|Umask|NoNewPrivs|Seccomp|Cap|Sig(Blk|Ign|Cgt))' /proc/self/status
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj
for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done
env | sort; pwd; ls /proc/self/fd; cut -d ' ' -f 4 /proc/$$/stat
test "$(cut -d ' ' -f 6 /proc/$$/stat)" = $$ && echo leader
echo "$0 $#: $@"
"""
"""A shell script that shows what its process has."""


@pytest.fixture
def runs(rootless, need):
    """The command, under strace."""
    return Runs(rootless, need)


def config_of_all():
    """Return a config.json with properties that an `exec` inherits."""
    config = base_config("sleep", "1000")
    config["process"] |= {
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}],
        "oomScoreAdj": 500,
        "cwd": "/tmp",
        "noNewPrivileges": False,
    }
    config["process"]["user"] |= {"umask": 0o27, "additionalGids": [5, 10]}
    config["process"]["env"].append("LANG=C")
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    return config


def started(rootless, config=None, name="c1", bundle="bundle"):
    """Start a container whose program sleeps."""
    rootless.create(name, make_bundle(rootless.user, config or base_config("sleep", "1000"), name=bundle))
    rootless.start(name)


def outcome(done):
    """Return what the caller sees of a command."""
    return done.returncode, done.stdout, done.stderr


def entries(rootless, name="c1") -> list[Path]:
    """Return the entries in a container's directory."""
    return sorted((rootless.root / name).glob("exec.*"))


def processes_of(rootless, name="c1") -> int:
    """Return the number of processes in the pid namespace of a container."""
    own = os.readlink(f"/proc/{rootless.pid(name)}/ns/pid")
    found = 0
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            found += os.readlink(path) == own
        except OSError:
            continue
    return found


# --- The same outcome -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-e", "A=1=2", "--env=B=", "-w", "/data", "-u", "7:8"],
        ["-i", "--user", "1000", "--cwd=/", "--env", "PATH=/bin", "-e", "HOME="],
    ],
)
def test_process_is_as_that_of_python(rootless, runs, flags):
    started(rootless, config_of_all())
    words = ["exec", *flags, "c1", "sh", "-c", LOOK, "name", "first", "", "a  b"]
    native = warm(runs, *words)
    assert native.returncode == 0
    assert outcome(native) == outcome(rootless(*words, env=OFF))
    assert "name 3: first  a  b\n" in native.stdout
    assert "\nleader\n" in native.stdout


def test_a_single_id_keeps_its_pretence(rootless, runs):
    rootless.create("c1", make_bundle(rootless.user, base_config("sleep", "1000")), "--userns", "single")
    rootless.start("c1")
    words = ["exec", "c1", "sh", "-c", "chown 33 /etc && grep Seccomp /proc/self/status"]
    native = warm(runs, *words)
    assert native.returncode == 0
    assert outcome(native) == outcome(rootless(*words, env=OFF))


def test_a_skip_after_the_start_does_not_run_the_command_twice(rootless, runs):
    rootless.create("c1", make_bundle(rootless.user, base_config("sleep", "1000")), "--userns", "single")
    rootless.start("c1")
    words = ["exec", "c1", "echo", "ran"]
    warm(runs, *words)
    done, _ = runs(*words, strace=with_a_late_skip(runs, *words))
    assert (done.returncode, done.stdout) == (0, "ran\n"), done
    assert "ENOMEM" in runs.trace.read_text()


@pytest.mark.parametrize("kinds", [("pid", "mount"), ("ipc", "uts", "mount")])
def test_other_namespaces_are_joined(rootless, runs, kinds):
    config = base_config("sleep", "1000")
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    started(rootless, config)
    words = ["exec", "c1", "sh", "-c", "for kind in ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done"]
    native = warm(runs, *words)
    assert native.returncode == 0
    assert outcome(native) == outcome(rootless(*words, env=OFF))


def test_arguments_are_those_of_each_call(rootless, runs):
    started(rootless)
    warm(runs, "exec", "c1", "echo", "a secret")
    (entry,) = entries(rootless)
    assert not re.search(rb"echo|secret", entry.read_bytes())
    for words in (
        ["echo", "-n", "--", "--help", "ä€𝄞"],
        ["echo", "\udcff"],
        ["/bin/echo", "x"],
        ["sh", "-c", "kill -9 $$"],
        ["sh", "-c", 'printf %s "$1" | wc -c', "sh", "x" * 100_000],
        ["sh", "-c", 'printf %s "$@" | wc -c', "sh", *["x" * 100_000] * 6],
        ["run", "--bundle"],
        ["false"],
    ):
        command = ["exec", "c1", *(os.fsencode(word) for word in words)]
        done, native = (
            runs.rootless.user.run([os.fsencode(word) for word in runs.argv()] + command, errors="surrogateescape"),
            runs.is_native(),
        )
        python = rootless.user.run(
            [os.fsencode(word) for word in rootless.argv()] + command, env=OFF, errors="surrogateescape"
        )
        assert outcome(done) == outcome(python), words
        assert native == (words[0] != "run" and words[-1] != "\udcff" and len(words) < 10), words[:3]
        warm(runs, "exec", "c1", "true")


def test_input_is_the_callers(rootless, runs):
    started(rootless)
    warm(runs, "exec", "c1", "cat", input="given")
    done, native = runs("exec", "c1", "sh", "-c", "cat; echo err >&2; exit 7", input="given")
    assert (*outcome(done), native) == (7, "given", "err\n", True)


def test_other_descriptors_and_ignored_signals_are_not_passed_on(rootless, runs):
    started(rootless)
    words = ["exec", "c1", "sh", "-c", "ls /proc/self/fd; grep ^Sig[BI] /proc/self/status"]
    plain = warm(runs, *words)
    prefix = ["sh", "-c", """trap '' HUP USR1 CHLD; exec "$@" 7<&0 8>&1""", "sh"]
    done, native = runs(*words, prefix=prefix)
    assert outcome(done) == outcome(plain) == outcome(rootless.user.run([*prefix, *rootless.argv(*words)], env=OFF))
    assert native
    assert plain.stdout.split()[:4] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["c1", "nothing"], 127),
        (["c1", "/etc"], 126),
        (["c1", "/data/none"], 127),
        (["c1", "./bin/true"], 0),
        (["c1", ""], 127),
        (["c1", "/data/script"], 126),
        (["-w", "/data/later", "c1", "true"], 255),
    ],
)
def test_error_is_that_of_python(rootless, runs, words, status):
    started(rootless)
    data = rootless.user.tmp / "bundle/rootfs/data"
    (data / "script").write_text("no program")
    (data / "script").chmod(0o755)
    (data / "later").mkdir()
    first = words[: words.index("c1") + 1]
    warm(runs, "exec", *first, "true")
    (data / "later").rmdir()
    done, native = runs("exec", *words)
    python = rootless("exec", *words, env=OFF)
    assert outcome(done) == outcome(python)
    assert native == (status == 0)
    assert (python.returncode == 0) == (status == 0)
    assert processes_of(rootless) == 1
    assert executors(rootless.user) == set()


def test_warnings_come_each_time(rootless, runs):
    started(rootless)
    words = ["exec", "-u", "0:7", "-e", "A=1", "c1", "true"]
    assert warm(runs, *words).stderr == rootless(*words, env=OFF).stderr


def test_digits_in_flags_have_entries_of_their_own(rootless, runs):
    started(rootless)
    for digits in ("a" * 12, "b" * 12):
        assert warm(runs, "exec", "-e", f"A={digits}", "c1", "sh", "-c", "echo $A").stdout == f"{digits}\n"
    done, native = runs("exec", "-e", f"A={'a' * 12}", "c1", "sh", "-c", "echo $A")
    assert (done.stdout, native) == (f"{'a' * 12}\n", True)


def test_created_container_is_entered(rootless, runs):
    rootless.create("c1", make_bundle(rootless.user, base_config("sleep", "1000")))
    assert warm(runs, "exec", "c1", "echo", "fine").stdout == "fine\n"
    rootless.start("c1")
    done, native = runs("exec", "c1", "echo", "fine")
    assert (*outcome(done), native) == (0, "fine\n", "", True)


def test_waiting_is_small(rootless, runs, require_root):
    started(rootless)
    warm(runs, "exec", "c1", "true")
    with rootless.popen(
        "exec", "c1", "sh", "-c", "echo up; cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as waiting:
        assert Reader(waiting.stdout).line() == "up"
        size = proportional_memory(waiting.pid)
        waiting.stdin.close()
        assert waiting.wait(30) == 0
    assert 0 < size < MOST_MEMORY


# --- What makes an entry, and for how long it counts ------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "-d", "c1", "true"],
        ["exec", "--pid-file", "pid", "c1", "true"],
        ["exec", "-u", "root", "c1", "true"],
        ["exec", "-e", "HOME", "c1", "true"],
        ["exec", "-g", "5", "c1", "true"],
        ["exec", "--cap", "CAP_KILL", "c1", "true"],
        ["exec", "--no-new-privs", "c1", "true"],
        ["exec", "--preserve-fds", "0", "c1", "true"],
        ["exec", "--ignore-paused", "c1", "true"],
        ["--log", "log", "exec", "c1", "true"],
        ["--log-level", "info", "exec", "c1", "true"],
        ["exec", "c1", "--", "true"],
        ["exec", "c1", "--", "echo", "run"],
    ],
)
def test_other_words_are_pythons(rootless, runs, words):
    started(rootless)
    (rootless.user.tmp / "bundle/rootfs/etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for _ in range(3):
        done, native = runs(*words, cwd=rootless.user.tmp)
        assert (done.returncode, native) == (0, False), done
    assert entries(rootless) == []


def test_each_kind_has_an_entry_and_they_are_few(rootless, runs):
    started(rootless)
    for number in range(20):
        words = ["exec", "-e", f"A={number}", "c1", "sh", "-c", "echo $A"]
        assert warm(runs, *words).stdout == f"{number}\n"
        assert 1 <= len(entries(rootless)) <= 8
    rootless("delete", "--force", "c1", check=True)
    assert list(rootless.root.iterdir()) == []


def test_state_counts(cgroup2, user, rootless_command, need):
    with InView(cgroup2, user, rootless_command) as rootless:
        started(rootless)
        words = ["exec", "c1", "sh", "-c", "cat /proc/self/cgroup"]
        before = [outcome(rootless(*words)) for _ in range(3)]
        assert before == [outcome(rootless(*words, env=OFF))] * 3
        assert len(entries(rootless)) == 1
        rootless("pause", "c1", check=True)
        assert outcome(rootless(*words)) == outcome(rootless(*words, env=OFF))
        assert "paused" in rootless(*words).stderr
        rootless("resume", "c1", check=True)
        assert outcome(rootless(*words)) == before[0]
        pid = rootless.pid("c1")
        rootless("kill", "c1", "KILL", check=True)
        await_end(pid)
        assert outcome(rootless(*words)) == outcome(rootless(*words, env=OFF))
        assert "stopped" in rootless(*words).stderr
        rootless("delete", "c1", check=True)
        assert outcome(rootless(*words)) == outcome(rootless(*words, env=OFF))
        assert list(rootless.root.iterdir()) == []


def test_process_is_in_the_cgroup_of_the_container(cgroup2, user, rootless_command, need):
    with InView(cgroup2, user, rootless_command) as rootless:
        started(rootless)
        trace = user.tmp / "execve"
        words = Rootless.argv(rootless, "exec", "c1", "cat", "/proc/self/cgroup")
        strace = [need("strace"), "-o", str(trace), "-e", "trace=execve"]

        def execute():
            done = user.run([*cgroup2.prefix(), *strace, *words], check=True, **cgroup2.options)
            native = trace.read_text().count("execve(") == 1
            return re.search(r"^0::(.*)$", done.stdout, re.MULTILINE)[1], native

        found = [execute() for _ in range(3)]
        assert found[2][1]
        own = cgroup2.directory / cgroup_of(cgroup2, rootless.pid("c1"))
        assert {place for place, _ in found} == {f"{cgroup2.path}/{own.name}"}
        # a container that moves its processes below its cgroup: those of exec follow the first one
        below = own / "below"
        below.mkdir()
        cgroup2.delegate(below)
        (below / "cgroup.procs").write_text(str(rootless.pid("c1")))
        assert execute() == (f"{cgroup2.path}/{own.name}", True)
        available = (own / "cgroup.controllers").read_text().split()
        if available:
            (own / "cgroup.subtree_control").write_text(f"+{available[0]}")
            assert execute() == (f"{cgroup2.path}/{own.name}/below", False)
            (own / "cgroup.subtree_control").write_text(f"-{available[0]}")
        (own / "cgroup.procs").write_text(str(rootless.pid("c1")))
        below.rmdir()


def test_edited_config_counts_with_the_same_size_and_time(rootless, runs):
    started(rootless)
    warm(runs, "exec", "c1", "pwd")
    config = rootless.root / "c1/config.json"
    before = config.stat()
    text = config.read_text()
    config.write_text(text.replace('"cwd": "/"', '"cwd": "/tmp"').replace('"ociVersion": "1.0.2"', '"ociVersion":"2"'))
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    done, native = runs("exec", "c1", "pwd")
    assert (done.stdout, native) == ("/tmp\n", False)


def test_another_container_of_the_name_counts(rootless, runs):
    started(rootless)
    warm(runs, "exec", "c1", "pwd")
    (entry,) = entries(rootless)
    content = entry.read_bytes()
    rootless("delete", "--force", "c1", check=True)
    config = base_config("sleep", "1000")
    config["process"]["cwd"] = "/data"
    started(rootless, config, bundle="other")
    entry.write_bytes(content)
    os.chown(entry, rootless.user.uid, rootless.user.gid)
    assert warm(runs, "exec", "c1", "pwd").stdout == "/data\n"
    assert len(entries(rootless)) == 2


@pytest.mark.parametrize(
    "prefix",
    [
        ["prlimit", "--nofile=64:64"],
        ["nice", "-n", "5"],
        ["env", "RUN_OCI_SECCOMP_RECEIVER=/none"],
        ["choom", "-n", "600", "--"],
    ],
    ids=lambda words: words[0],
)
def test_properties_of_the_caller_count(rootless, runs, prefix):
    started(rootless)
    words = ["exec", "c1", "sh", "-c", "ulimit -Hn; nice; cat /proc/self/oom_score_adj"]
    warm(runs, *words)
    done, native = runs(*words, prefix=prefix)
    python = rootless.user.run([*prefix, *rootless.argv(*words)], env=OFF)
    assert (*outcome(done), native) == (*outcome(python), False)


def test_namespaces_of_the_caller_count(rootless, runs, require_root):
    started(rootless)
    words = ["exec", "c1", "readlink", "/proc/self/ns/net"]
    inside = warm(runs, *words).stdout
    enter = ["nsenter", f"--net=/proc/{rootless.pid('c1')}/ns/net", "setpriv", "--reuid", str(rootless.user.uid)]
    enter += ["--regid", str(rootless.user.gid), "--clear-groups", "--"]
    done, native = runs(*words, prefix=enter, user=0, group=0)
    assert (done.stdout, native) == (inside, False)


NO_DEPENDENCIES = {
    "/proc/self/status": "its capabilities are compared with those of the front door",
    "/proc/self/limits": "the hard limits are compared with those of the front door",
    "/proc/sys/kernel/cap_last_cap": "a kernel does not change it: the boot is compared",
    "/proc/sys/kernel/random/boot_id": "it is compared as the boot",
}


def test_every_file_that_planning_looks_at_is_a_dependency(rootless, runs, need):
    started(rootless, config_of_all())
    trace = rootless.user.tmp / "trace"
    for _ in range(2):
        words = rootless.argv("exec", "c1", "true")
        rootless.user.run([need("strace"), "-o", trace, "-e", "trace=%file,statfs,connect", *words], check=True)
    lines = [line for line in trace.read_text().splitlines() if '"' in line]
    first = next(index for index, line in enumerate(lines) if "/modules.archive" in line)
    last = next(index for index, line in enumerate(lines) if '"@seccomp"' in line)
    directory = str(rootless.root / "c1")
    looked = {line.split('"')[1] for line in lines[first + 1 : last]}
    looked = {f"{directory}/{path}" if path in ("config.json", "state.json") else path for path in looked}
    (entry,) = entries(rootless)
    content = entry.read_bytes()
    pid = rootless.pid("c1")
    checked_always = {f"/proc/{pid}/stat", "c1", str(rootless.root), str(rootless.root.parent), "start.sock"}
    compiled = {str(rootless.user.runtime_dir), f"{rootless.user.runtime_dir}/rootless"}
    modules = {path for path in looked if path.endswith((".archive", ".so", ".py")) or "/__pycache__" in path}
    missing = {path for path in looked - modules if os.fsencode(path) + b"\0" not in content}
    namespaces = {path for path in missing if re.fullmatch(rf"/proc/(self|{pid})/ns/[a-z]+", path)}
    assert len(namespaces) >= 14
    assert missing - namespaces - checked_always - compiled <= NO_DEPENDENCIES.keys()


# --- What others may have written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE_ENTRIES)
def test_hostile_entry_is_not_followed(rootless, runs, require_root, kind):
    started(rootless)
    warm(runs, "exec", "c1", "echo", "fine")
    HOSTILE_ENTRIES[kind](entries(rootless)[0])
    done, native = runs("exec", "c1", "echo", "fine")
    assert (*outcome(done), native) == (0, "fine\n", "", False)


def test_changed_bytes_do_no_harm(rootless, runs):
    """Whatever an entry holds, the front door survives, and the container too."""
    started(rootless)
    warm(runs, "exec", "c1", "true")
    (entry,) = entries(rootless)
    content = entry.read_bytes()
    chance = random.Random(15)
    front = rootless.argv("exec", "c1", "echo", "fine")
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 4))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        entry.write_bytes(changed)
        done = rootless.user.run(front)
        assert done.returncode >= 0, changed
    assert rootless.status("c1") == "running"
    assert processes_of(rootless) == 1


# --- Signals, kills and races -----------------------------------------------------------------------------------------


def test_signals_go_to_the_program(rootless, runs):
    started(rootless)
    warm(runs, "exec", "c1", "true")
    script = "trap 'echo usr1' USR1; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    with rootless.popen("exec", "c1", "sh", "-c", script, stdout=subprocess.PIPE) as running:
        reader = Reader(running.stdout)
        assert reader.line() == "up"
        assert b"\0" + b"exec" in Path(f"/proc/{running.pid}/cmdline").read_bytes()
        running.send_signal(signal.SIGUSR1)
        assert reader.line() == "usr1"
        running.send_signal(signal.SIGTERM)
        assert (reader.line(), running.wait(30)) == ("bye", 3)
    with rootless.popen("exec", "c1", "sh", "-c", "echo up; exec sleep 100", stdout=subprocess.PIPE) as running:
        assert Reader(running.stdout).line() == "up"
        rootless("kill", "c1", "KILL", check=True)
        assert running.wait(30) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_start_ends_the_command(rootless, runs, number):
    started(rootless)
    warm(runs, "exec", "c1", "echo", "started")
    inject = ["-e", f"inject=sendfile:signal={number.name}:when=1"]
    done, native = runs("exec", "c1", "echo", "started", strace=inject)
    assert (done.returncode, done.stdout, native) == (128 + number, "", True)
    until(lambda: processes_of(rootless) == 1, "the executor has ended")


CALLS = ("openat", "memfd_create", "sendfile", "pipe2", "clone", "clone3", "write", "wait4", "signalfd4", "read")
CALLS += ("pidfd_open", "poll", "exit_group")


def calls_of(runs, *words) -> list[str]:
    """Return the names of the system calls of a command that needs no Python."""
    done, native = runs(*words, strace=["-e", "trace=all"])
    assert native, done
    return [line.partition("(")[0] for line in (runs.rootless.user.tmp / "execve").read_text().splitlines()]


def test_killed_at_any_call_the_container_is_as_before(rootless, runs):
    started(rootless)
    words = ["exec", "c1", "true"]
    warm(runs, *words)
    names = calls_of(runs, *words)
    for name in CALLS:
        for when in range(1, names.count(name) + 1):
            runs(*words, strace=["-e", f"inject={name}:signal=SIGKILL:when={when}"])
            until(lambda: processes_of(rootless) == 1, f"only the container's own process after {name} {when}")
            assert outcome(rootless(*words)) == (0, "", ""), (name, when)
    assert rootless.status("c1") == "running"
    rootless("delete", "--force", "c1", check=True)
    assert list(rootless.root.iterdir()) == []


FAILING = ("openat", "memfd_create", "sendfile", "pipe2", "write", "signalfd4", "poll", "read", "pidfd_open", "fstat")
FAILING += ("newfstatat", "fcntl", "clone", "clone3")
"""System calls of the front door of which each fails once."""


def test_each_failed_call_has_the_same_outcome(rootless, runs):
    started(rootless)
    words = ["exec", "c1", "sh", "-c", "echo fine; exit 7"]
    warm(runs, *words)
    names = calls_of(runs, *words)
    for name in FAILING:
        for when in range(1, names.count(name) + 1):
            for _ in range(2):  # once more: what the first has removed is written again
                rootless(*words)
            done, _ = runs(*words, strace=["-e", f"inject={name}:error=ENOMEM:when={when}"])
            lines = [line for line in done.stderr.splitlines() if "strace" not in line]
            assert (done.returncode, done.stdout, lines) == (7, "fine\n", []), (name, when, done)
    until(lambda: processes_of(rootless) == 1, "nothing else runs in the container")


def test_races_with_delete_leave_nothing(rootless, runs):
    bundle = make_bundle(rootless.user, base_config("sleep", "1000"))
    own = rootless.argv("exec", "c1", "true")
    script = 'while "$@"; do :; done'
    loops = []
    for turn in range(12):
        rootless.create("c1", bundle)
        rootless.start("c1")
        for _ in range(3):
            assert outcome(rootless("exec", "c1", "true")) == (0, "", "")
        loops = [
            rootless.user.popen(["sh", "-c", script, "loop", *own], stderr=subprocess.PIPE, env=env)
            for env in ({}, {}, OFF)
        ]
        until(lambda: processes_of(rootless) > 1, "a process of exec")
        if turn % 2:
            pid = rootless.pid("c1")
            rootless("kill", "c1", "KILL", check=True)
            await_end(pid)
            rootless("delete", "c1", check=True)
        else:
            rootless("delete", "--force", "c1", check=True, env=OFF if turn % 4 else {})
        for loop in loops:
            said = loop.communicate(timeout=30)[1]
            assert re.search("container|killed|$^", said), said
            assert "Traceback" not in said
        assert list(rootless.root.iterdir()) == []
    assert executors(rootless.user) == set()


def test_state_is_not_changed(rootless, runs):
    started(rootless)
    before = json.dumps(rootless.state("c1"))
    files = {path.name: path.read_bytes() for path in (rootless.root / "c1").iterdir()}
    for _ in range(4):
        runs("exec", "c1", "true")
    assert json.dumps(rootless.state("c1")) == before
    after = {path.name: path.read_bytes() for path in (rootless.root / "c1").iterdir()}
    assert after == files | {path.name: path.read_bytes() for path in entries(rootless)}
