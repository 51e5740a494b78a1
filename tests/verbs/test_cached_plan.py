"""Cached Plans: the front door runs a container again without Python, while nothing has changed that planning read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.configurations import PODMAN_SECCOMP
from tests.lib.containers import Reader, Rootless, until
from tests.lib.native import (
    CHANGING,
    HOSTILE_ENTRIES,
    MOST_MEMORY,
    NO_DEPENDENCIES,
    Runs,
    calls_of,
    entries_of,
    looked_at_while_planning,
    paths_of,
    plans,
    proportional_memory,
    warm,
    with_a_late_skip,
    without_numbers,
)

__all__ = ["cgroup2", "plans"]  # the fixtures

OFF = {"ROOTLESS_FRONT": "0"}
RUNS = int(os.environ.get("ROOTLESS_TEST_RUNS", "200"))
MOST_FILES = 12


@pytest.fixture
def runs(rootless, need, plans):
    """The command, whose cache is empty."""
    return Runs(rootless, need)


def config_of(*args, **linux):
    """Return a config.json with what engines ask for."""
    config = base_config(*args)
    config["linux"] |= linux
    return config


def of_shell(user, script, name="bundle", **linux):
    """Return a bundle whose program is a shell script."""
    return make_bundle(user, config_of("sh", "-c", script, **linux), name=name)


def entry_of(plans) -> Path:
    """Return the only entry of the cache."""
    (entry,) = entries_of(plans)
    return entry


# --- The same outcome -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("echo out; echo err >&2; exit 7", 7), ("kill -9 $$; exit 9", 9), ("exec /bin/nothing", 127)],
)
@pytest.mark.parametrize("seccomp", [None, PODMAN_SECCOMP], ids=["plain", "seccomp"])
def test_outcome_is_that_of_python(rootless, runs, script, status, seccomp):
    linux = {"seccomp": seccomp} if seccomp else {}
    words = ["run", "--bundle", of_shell(rootless.user, f"trap 'exit 3' TERM; {script}", **linux), "c1"]
    done = warm(runs, *words)
    python = rootless(*words, env=OFF)
    assert (done.returncode, done.stdout, done.stderr) == (python.returncode, python.stdout, python.stderr)
    assert done.returncode == status
    assert list(rootless.root.iterdir()) == []


def test_pids_user_and_input_are_the_containers(user, runs):
    script = "cat; echo $$; id -u; umask; cat /proc/self/oom_score_adj"
    words = ["run", "--bundle", of_shell(user, script), "c1"]
    done = warm(runs, *words, input="given\n")
    assert done.stdout.startswith("given\n1\n")


def test_a_single_id_keeps_its_pretence(user, rootless, runs):
    words = [
        "run",
        "--userns",
        "single",
        "--bundle",
        of_shell(user, "chown 33 /etc && mknod /null c 1 3 && echo done"),
        "c1",
    ]
    done = warm(runs, *words)
    assert done.stdout == "done\n"
    assert done.stderr.count("--fake-chown=false") == 1
    words.insert(1, "--fake-chown=false")
    done = warm(runs, *words)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_skip_after_the_start_does_not_run_the_program_twice(user, runs):
    words = ["run", "--userns", "single", "--bundle", of_shell(user, "echo ran"), "c1"]
    warm(runs, *words)
    done, _ = runs(*words, strace=with_a_late_skip(runs, *words))
    assert (done.returncode, done.stdout) == (0, "ran\n"), done
    assert "ENOMEM" in runs.trace.read_text()


def waiting(rootless, bundle, env=None):
    """Start a container that waits for the end of its input; return the command and the files in its directory."""
    running = rootless.popen("run", "--bundle", bundle, "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert Reader(running.stdout).line() == "up"
    directory = rootless.root / "c1"
    files = {path.name: (oct(path.stat().st_mode), path.read_bytes()) for path in directory.iterdir()}
    return running, files


@pytest.mark.parametrize("kinds", [("pid", "network", "ipc", "uts", "mount"), ("ipc", "uts", "mount")])
def test_files_of_a_running_container_are_those_of_python(user, rootless, runs, kinds):
    script = "echo up; cat"
    bundle = of_shell(user, script, namespaces=[{"type": kind} for kind in kinds])
    found = []
    for env in ({}, {}, {}, OFF):
        running, files = waiting(rootless, bundle, env)
        answers = [rootless("state", "c1", env=each) for each in ({}, OFF)]
        assert answers[0].stdout == answers[1].stdout
        assert json.loads(answers[0].stdout)["status"] == "running"
        running.stdin.close()
        assert running.wait(30) == 0
        running.stdout.close()
        found.append(without_numbers(files))
    assert runs("run", "--bundle", bundle, "c1")[1]
    assert found[0] == found[1] == found[2] == found[3]


def test_verbs_on_a_container_of_the_front_door_need_no_python(user, rootless, runs):
    bundle = of_shell(user, "echo up; cat")
    for _ in range(3):
        running, _ = waiting(rootless, bundle)
        found = [runs(*words) for words in (["state", "c1"], ["list", "-q"], ["kill", "c1", "CONT"])]
        running.stdin.close()
        assert running.wait(30) == 0
        running.stdout.close()
        assert [(done.returncode, native) for done, native in found] == [(0, True)] * 3, found


def test_verbs_work_on_a_container_of_the_front_door(user, rootless, runs):
    bundle = of_shell(user, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done")
    warm_up = of_shell(user, "exit 0", name="other")
    rootless("run", "--bundle", warm_up, "c2")
    for _ in range(3):
        running = rootless.popen("run", "--bundle", bundle, "c1", stdout=subprocess.PIPE)
        reader = Reader(running.stdout)
        assert reader.line() == "up"
        assert rootless("exec", "c1", "echo", "inside", check=True).stdout == "inside\n"
        taken = rootless("run", "--bundle", bundle, "c1")
        assert (taken.returncode, "already exists" in taken.stderr) == (1, True)
        assert rootless("kill", "c1", "TERM").returncode == 0
        assert (reader.line(), running.wait(30)) == ("bye", 5)
        running.stdout.close()
    assert list(rootless.root.iterdir()) == []


def test_warnings_of_the_plan_come_each_time(user, rootless, runs):
    config = config_of("true", cgroupsPath="/nowhere/box", resources={"pids": {"limit": 10}})
    words = ["run", "--bundle", make_bundle(user, config), "c1"]
    done = warm(runs, *words)
    assert done.stderr.count("rootless: warning: ") == 1
    assert rootless(*words, env=OFF).stderr == done.stderr


def test_cgroup_is_made_and_removed(cgroup2, user, rootless_command, need, plans):
    with InView(cgroup2, user, rootless_command) as rootless:
        runs = Runs(rootless, need)
        for path in ("", f"{cgroup2.path}/box"):
            script = "cat /proc/self/cgroup"
            linux = {"cgroupsPath": path} if path else {}
            namespaces = [{"type": kind} for kind in ("pid", "mount")]
            bundle = of_shell(user, script, name=f"b{len(path)}", namespaces=namespaces, **linux)
            words = ["run", "--bundle", str(bundle), "c1"]
            argv = [*cgroup2.prefix(), *Rootless.argv(rootless, *words)]
            outputs = []
            for _ in range(3):
                trace = ["strace", "-o", str(user.tmp / "execve"), "-e", "trace=execve"]
                done = user.run([*cgroup2.prefix(), *trace, *Rootless.argv(rootless, *words)], **cgroup2.options)
                assert (done.returncode, done.stderr) == (0, ""), argv
                outputs.append(done.stdout)
            assert runs.is_native()
            expected = re.escape(path or f"{cgroup2.path}/rootless-c1.") + ("" if path else "[0-9a-f]{8}")
            assert all(re.search(f"^0::{expected}$", each, re.MULTILINE) for each in outputs), outputs
            assert cgroup2.cgroups() == []
        assert list(rootless.root.iterdir()) == []


def test_cgroup_of_another_container_is_refused(cgroup2, user, rootless_command, plans):
    with InView(cgroup2, user, rootless_command) as rootless:
        bundle = of_shell(user, "exit 0", cgroupsPath=f"{cgroup2.path}/box")
        for _ in range(3):
            assert rootless("run", "--bundle", bundle, "c1").returncode == 0
        other = make_bundle(user, config_of("sleep", "1000", cgroupsPath=f"{cgroup2.path}/box"), name="other")
        rootless.create("c2", other)
        rootless("kill", "c2", "KILL", check=True)
        until(lambda: rootless.status("c2") == "stopped", "the end of c2")
        (cgroup2.directory / "box").rmdir()
        refused = [rootless("run", "--bundle", bundle, "c1", env=env) for env in ({}, OFF)]
        assert [done.returncode for done in refused] == [1, 1]
        assert refused[0].stderr == refused[1].stderr
        assert "it is that of container c2" in refused[0].stderr
        rootless("delete", "c2", check=True)


def test_many_runs_leave_nothing(user, rootless, runs, plans):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    elsewhere = [Path("/dev/shm"), Path(f"/tmp/rootless-{user.uid}")]
    before = [sorted(directory.glob("*")) for directory in elsewhere]
    loop = f'for i in $(seq {RUNS}); do "$@" || exit 1; done'
    user.run(["sh", "-c", loop, "loop", *rootless.argv(*words)], check=True, timeout=600)
    assert list(rootless.root.iterdir()) == []
    assert [sorted(directory.glob("*")) for directory in elsewhere] == before
    assert len(entries_of(plans)) == 1
    assert runs(*words)[1]


def test_few_files_are_opened_before_those_of_the_container(user, runs):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    trace = user.tmp / "trace"
    user.run([*runs.argv(*words)[:1], "-o", str(trace), "-e", "trace=%file", *runs.rootless.argv(*words)], check=True)
    lines = trace.read_text().splitlines()
    claim = next(index for index, line in enumerate(lines) if line.startswith("mkdirat("))
    files = [line for line in lines[:claim] if line.startswith("open") and " = -1 " not in line]
    assert 4 < len(files) <= MOST_FILES, files


def test_waiting_is_small(user, rootless, runs, require_root):
    bundle = of_shell(user, "echo up; cat")
    for _ in range(3):
        running, _ = waiting(rootless, bundle)
        size = proportional_memory(running.pid)
        running.stdin.close()
        assert running.wait(30) == 0
        running.stdout.close()
    assert 0 < size < MOST_MEMORY


def test_cache_is_bounded(user, rootless, plans):
    bundle = of_shell(user, "exit 0")
    script = 'for i in $(seq 80); do "$@" c$i && "$@" c$i || exit 1; done'
    user.run(["sh", "-c", script, "loop", *rootless.argv("run", "--bundle", bundle)], check=True)
    assert 32 <= len(entries_of(plans)) <= 64
    assert (plans / "seen").stat().st_size <= 256 * 8


# --- Everything that planning has read is compared --------------------------------------------------------------------


@pytest.mark.parametrize("what", ["run", "create", "run, delegated", "create, delegated"])
def test_every_file_that_planning_looks_at_is_a_dependency(rootless, need, plans, request, what):
    verb, _, delegated = what.partition(", ")
    user = rootless.user
    config = config_of("true", resources={"pids": {"limit": 10}}, seccomp=PODMAN_SECCOMP)
    config["mounts"].append({"destination": "/mnt", "source": "/tmp", "options": ["bind", "ro"]})
    config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    bundle = make_bundle(user, config)
    rootless.make_root()
    trace = user.tmp / "trace"
    words = [need("strace"), "-o", trace, "-e", "trace=%file,statfs,connect"]
    words += rootless.argv(verb, "--bundle", bundle, "c1")
    options = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)  # which a created container keeps open
    if delegated:
        view = request.getfixturevalue("cgroup2")
        words, options = [*view.prefix(), *words], options | view.options
    for _ in range(2):
        user.run(words, check=True, **options)
        rootless("delete", "--force", "c1", check=True)
    looked = looked_at_while_planning(trace)
    assert f"{bundle}/config.json" in looked
    assert looked - paths_of(entry_of(plans)) == (NO_DEPENDENCIES.keys() | {str(rootless.root)}) & looked


def test_no_entry_for_what_cannot_be_compared(user, rootless, runs, plans):
    hooked = config_of("true")
    hooked["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    bundle = of_shell(user, "exit 0", name="plain")
    for words in (
        ["run", "--bundle", make_bundle(user, hooked), "c1"],
        ["run", "--bundle", bundle, "--keep", "c1"],
        ["run", "--bundle", bundle, "--timeout", "100", "c3"],
        ["run", "--bundle", bundle, "--preserve-fds", "1", "c4"],
        ["--log", str(user.tmp / "log"), "run", "--bundle", bundle, "c5"],
    ):
        for _ in range(3):
            assert not runs(*words)[1], words
        assert entries_of(plans) == set(), words


def test_edited_config_counts_with_the_same_size_and_time(user, runs):
    bundle = of_shell(user, "echo one")
    words = ["run", "--bundle", bundle, "c1"]
    assert warm(runs, *words).stdout == "one\n"
    path = bundle / "config.json"
    before = path.stat()
    with path.open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text.replace("echo one", "echo two"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    done, native = runs(*words)
    assert (done.stdout, native) == ("two\n", False)
    assert warm(runs, *words).stdout == "two\n"


def test_another_bundle_at_the_path_counts(user, runs):
    bundle = of_shell(user, "echo one")
    words = ["run", "--bundle", bundle, "c1"]
    warm(runs, *words)
    bundle.rename(user.tmp / "away")
    done, native = runs(*words)
    assert (done.returncode, native) == (1, False)
    of_shell(user, "echo two")
    assert runs(*words)[0].stdout == "two\n"


def test_rootfs_that_became_a_symlink_is_refused(user, runs):
    bundle = of_shell(user, "echo one")
    words = ["run", "--bundle", bundle, "c1"]
    warm(runs, *words)
    (bundle / "rootfs").rename(user.tmp / "elsewhere")
    (bundle / "rootfs").symlink_to(user.tmp / "elsewhere")
    done, native = runs(*words)
    assert (done.returncode, native, "is a symlink" in done.stderr) == (1, False, True)


def test_current_directory_counts(user, runs):
    first, second = user.tmp / "first", user.tmp / "second"
    for directory in (first, second):
        directory.mkdir()
        of_shell(user, f"echo {directory.name}", name=f"{directory.name}/bundle")
        own(user, directory)
    words = ["run", "--bundle", "bundle", "c1"]
    assert warm(runs, *words, cwd=first).stdout == "first\n"
    done, native = runs(*words, cwd=second)
    assert (done.stdout, native) == ("second\n", False)
    assert runs(*words, cwd=first)[1]


@pytest.mark.parametrize(
    "prefix",
    [
        ["nice", "-n", "5"],
        ["prlimit", "--nofile=512:512"],
        ["env", "RUN_OCI_SECCOMP_RECEIVER=/nowhere"],
        ["env", "LISTEN_FDS=0"],
        ["env", "PMIX_NAMESPACE="],
        ["setarch", "--uname-2.6"],
    ],
    ids=lambda words: words[-1],
)
def test_properties_of_the_caller_count(user, runs, prefix):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    assert not runs(*words, prefix=prefix)[1]


def test_lower_hard_limit_is_the_containers(user, runs):
    config = config_of("sh", "-c", "ulimit -Hn")
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 600, "hard": 600}]
    words = ["run", "--bundle", make_bundle(user, config), "c1"]
    assert warm(runs, *words).stdout == "600\n"
    done, native = runs(*words, prefix=["prlimit", "--nofile=512:512"])
    assert (done.stdout, native) == ("512\n", False)


def test_groups_of_the_caller_count(user, runs, require_root):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    assert not runs(*words, extra_groups=[54321])[1]


def test_ambient_and_bounding_capabilities_count(user, runs, require_root):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    drop = ["setpriv", "--bounding-set", "-net_raw", "--reuid", user.uid, "--regid", user.gid, "--clear-groups"]
    assert not runs(*words, prefix=[*map(str, drop), "--"], user=0, group=0)[1]
    keep = ["setpriv", "--inh-caps", "+net_raw", "--ambient-caps", "+net_raw", *map(str, drop[3:])]
    assert not runs(*words, prefix=[*keep, "--"], user=0, group=0)[1]


COVERED = """
file=$1 other=$2 uid=$3 gid=$4
shift 4
mount --bind "$other" "$file"
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
"""


def covering(user, file, text) -> list[str]:
    """Return the words before a command for which `file` has this text, in a mount namespace of its own."""
    other = user.tmp / "covering"
    other.write_text(text)
    return ["unshare", "--mount", "sh", "-ec", COVERED, "cover", file, str(other), str(user.uid), str(user.gid)]


@pytest.mark.parametrize("file", ["/etc/subuid", "/etc/subgid", "/etc/passwd", "/etc/nsswitch.conf"])
def test_files_of_the_host_count(user, runs, require_root, file):
    words = ["run", "--bundle", of_shell(user, "cat /proc/self/uid_map /proc/self/gid_map"), "c1"]
    before = warm(runs, *words).stdout
    text = re.sub(rf"^({user.name}:\d+):\d+$", r"\1:1000", Path(file).read_text(), flags=re.MULTILINE)
    done, native = runs(*words, prefix=covering(user, file, text), user=0, group=0)
    assert (done.returncode, done.stderr, native) == (0, "", False) or "sub" in file
    assert (done.stdout != before) is ("sub" in file)


def test_another_boot_counts(user, runs, require_root):
    words = ["run", "--bundle", of_shell(user, "exit 0"), "c1"]
    warm(runs, *words)
    path = "/proc/sys/kernel/random/boot_id"
    other = "00000000-0000-4000-8000-000000000000\n"
    assert not runs(*words, prefix=covering(user, path, other), user=0, group=0)[1]


def test_another_cgroup_counts(cgroup2, user, rootless_command, need, plans):
    with InView(cgroup2, user, rootless_command) as rootless:
        bundle = of_shell(user, "cat /proc/self/cgroup", namespaces=[{"type": kind} for kind in ("pid", "mount")])
        words = ["run", "--bundle", bundle, "c1"]
        for _ in range(3):
            assert f"0::{cgroup2.path}/rootless-c1." in rootless(*words, check=True).stdout
        below = cgroup2.directory / "below"
        below.mkdir()
        cgroup2.delegate(below)
        argv = [*cgroup2.prefix(path=f"{cgroup2.path}/below"), *Rootless.argv(rootless, *words)]
        assert f"0::{cgroup2.path}/below/rootless-c1." in user.run(argv, check=True, **cgroup2.options).stdout
        assert f"0::{cgroup2.path}/rootless-c1." in rootless(*words, check=True).stdout


# --- What others may have written -------------------------------------------------------------------------------------


def swap_for_pipe(entry):
    """Replace the entry by a named pipe."""
    entry.unlink()
    os.mkfifo(entry, 0o600)
    os.chown(entry, entry.parent.stat().st_uid, entry.parent.stat().st_gid)


HOSTILE = HOSTILE_ENTRIES | {
    "directory for others": lambda entry: entry.parent.chmod(0o777),
    "pipe": swap_for_pipe,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_entry_is_not_followed(user, runs, plans, require_root, kind):
    words = ["run", "--bundle", of_shell(user, "echo fine"), "c1"]
    warm(runs, *words)
    HOSTILE[kind](entry_of(plans))
    done, native = runs(*words)
    assert (done.returncode, done.stdout, done.stderr, native) == (0, "fine\n", "", False)


def test_entry_of_another_command_line_is_not_followed(user, runs, plans):
    first, second = (["run", "--bundle", of_shell(user, f"echo {name}", name=name), name] for name in ("b1", "b2"))
    warm(runs, *first)
    one = entry_of(plans)
    warm(runs, *second)
    (two,) = entries_of(plans) - {one}
    one.write_bytes(two.read_bytes())
    done, native = runs(*first)
    assert (done.stdout, native) == ("b1\n", False)


# --- Failures, signals and kills --------------------------------------------------------------------------------------


def test_failure_after_the_claim_is_that_of_python(user, rootless, runs):
    config = config_of("/bin/program", cgroupsPath="/nowhere/box", resources={"pids": {"limit": 10}})
    bundle = make_bundle(user, config)
    program = bundle / "rootfs/bin/program"
    program.write_text("#!/bin/sh\necho fine\n")
    program.chmod(0o755)
    words = ["run", "--bundle", bundle, "c1"]
    warm(runs, *words)
    program.unlink()
    done, native = runs(*words)
    python = rootless(*words, env=OFF)
    assert not native
    assert (done.returncode, done.stdout, done.stderr) == (python.returncode, "", python.stderr)
    assert done.stderr.count("rootless: warning: ") == 1
    assert list(rootless.root.iterdir()) == []
    program.write_bytes(b"\x7fELF nothing")
    program.chmod(0o755)
    done = runs(*words)[0]
    assert (done.stderr, done.stderr.count("warning: ")) == (rootless(*words, env=OFF).stderr, 1)


def test_signals_go_to_the_program(user, rootless, runs):
    script = "trap 'echo usr1' USR1; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    words = ["run", "--bundle", of_shell(user, script), "c1"]
    for _ in range(3):
        with rootless.popen(*words, stdout=subprocess.PIPE) as running:
            reader = Reader(running.stdout)
            assert reader.line() == "up"
            running.send_signal(signal.SIGUSR1)
            assert reader.line() == "usr1"
            running.send_signal(signal.SIGTERM)
            assert (reader.line(), running.wait(30)) == ("bye", 3)
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", ["mkdirat", "sendfile", "renameat"])
def test_signal_before_the_start_ends_the_command(user, rootless, runs, number, call):
    words = ["run", "--bundle", of_shell(user, "echo started"), "c1"]
    warm(runs, *words)
    inject = ["-e", f"inject={call}:signal={number.name}:when=1"]
    done, native = runs(*words, strace=inject)
    assert (done.returncode, done.stdout, native) == (128 + number, "", True)
    assert list(rootless.root.iterdir()) == []


def test_killed_at_any_call_nothing_stays_that_delete_does_not_remove(cgroup2, user, rootless_command, need, plans):
    with InView(cgroup2, user, rootless_command) as rootless:
        bundle = of_shell(user, "exit 0", cgroupsPath=f"{cgroup2.path}/box")
        words = ["run", "--bundle", bundle, "c1"]
        own_words = Rootless.argv(rootless, *words)
        trace = user.tmp / "trace"
        strace = [*cgroup2.prefix(), need("strace"), "-o", str(trace)]
        for _ in range(3):
            user.run([*strace, *own_words], check=True, **cgroup2.options)
        counts = calls_of(trace)
        assert set(CHANGING) - counts.keys() <= {"clone", "clone3"}
        for name, count in counts.items():
            for when in range(1, count + 1):
                inject = ["-e", f"inject={name}:signal=SIGKILL:when={when}"]
                user.run([*strace, *inject, *own_words], **cgroup2.options)
                done = rootless("delete", "--force", "c1")
                assert done.returncode == 0 or "does not exist" in done.stderr, (name, when, done)
                assert list(rootless.root.iterdir()) == [], (name, when)
                until(lambda: cgroup2.cgroups() == [], f"no cgroup after {name} {when}")
                again = user.run([*strace, *own_words], **cgroup2.options)
                assert (again.returncode, again.stdout, again.stderr) == (0, "", ""), (name, when)


FAILING = ("mkdirat", "openat", "flock", "memfd_create", "sendfile", "pipe2", "write", "renameat", "signalfd4", "poll")
FAILING += (
    "read",
    "socketpair",
    "recvmsg",
    "pidfd_open",
    "unlinkat",
    "getdents64",
    "fstat",
    "newfstatat",
    "fcntl",
    "clone",
    "clone3",
)
"""System calls of the front door of which each fails once."""


def test_each_failed_call_has_the_same_outcome(user, rootless, runs, need, plans):
    script = "echo fine; exit 7"
    words = rootless.argv("run", "--bundle", of_shell(user, script), "c1")
    trace = user.tmp / "trace"
    strace = [need("strace"), "-o", str(trace)]
    for _ in range(3):
        user.run([*strace, *words])
    names = [line.partition("(")[0] for line in trace.read_text().splitlines()]
    assert names.count("execve") == 1
    entry = entry_of(plans)
    content = entry.read_bytes()
    for name in FAILING:
        for when in range(1, names.count(name) + 1):
            done = user.run([*strace, "-e", f"inject={name}:error=ENOMEM:when={when}", *words])
            lines = [line for line in done.stderr.splitlines() if "strace" not in line]
            assert (done.returncode, done.stdout, lines) == (7, "fine\n", []), (name, when, done)
            assert list(rootless.root.iterdir()) == [], (name, when)
            entry.write_bytes(content)  # a failure removes it
            os.chown(entry, user.uid, user.gid)
    assert runs(*words[words.index("run") :])[1]


def test_killed_run_is_cleared_by_the_next_use(user, rootless, runs):
    words = ["run", "--bundle", of_shell(user, "echo fine"), "c1"]
    warm(runs, *words)
    for call in ("sendfile", "pipe2"):
        runs(*words, strace=["-e", f"inject={call}:signal=SIGKILL:when=1"])
        assert [path.name for path in rootless.root.iterdir()] == ["c1"]
        assert runs(*words)[0].stdout == "fine\n"
        assert list(rootless.root.iterdir()) == []


def test_one_of_two_runs_gets_the_id(user, rootless, runs):
    words = ["run", "--bundle", of_shell(user, "cat"), "c1"]
    warm(runs, *words)
    for _ in range(20):
        both = [
            rootless.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
            for env in ({}, OFF)
        ]
        first = next(filter(None, (each.poll() is not None and each for each in _until_one_ends(both))))
        second = both[both[0] is first]
        assert (first.returncode, "already exists" in first.stderr.read()) == (1, True)
        assert second.communicate("", timeout=30) == ("", "")
        assert second.returncode == 0
        for pipe in (first.stdin, first.stdout, first.stderr):
            pipe.close()
    assert list(rootless.root.iterdir()) == []


def _until_one_ends(processes):
    until(lambda: any(each.poll() is not None for each in processes), "the end of one")
    return processes
