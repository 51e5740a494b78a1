"""Hooks: when, where and with which input each runs, and the effect of a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import PATIENCE, await_end, executors, until

OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
BEFORE_START = ("prestart", "createRuntime", "createContainer")
KINDS = (*BEFORE_START, "startContainer", "poststart", "poststop")
DIFFERENT = [
    ("runc", "createContainer"),  # 1.1: process.env
]
ANNOTATIONS = {"a": "b", 'c\n"é': "😀"}
FIND_PID = "state=$(cat); pid=${state#*pid?:}; pid=${pid%%[!0-9]*}"
LARGE = 300_000
"""More bytes than a pipe holds."""

RECORD = """#!/bin/sh
exec >> {directory}/$1
cat
echo "$1" >> {directory}/order
exec > {directory}/$1.facts
echo "args $0 $*"
echo "cwd $(pwd)"
echo "mnt $(readlink /proc/self/ns/mnt)"
echo "pid $(readlink /proc/self/ns/pid)"
echo "net $(readlink /proc/self/ns/net)"
echo "umask $(umask)"
echo "id $(id -u)"
ls -l /proc/self/fd | while read line; do echo "fd ${{line##* }}"; done
env
"""


class Records:
    """The records of hooks: `hook` is a script of the host that records a kind."""

    def __init__(self, user, rootfs):
        self.directory = user.tmp / "records"
        self.directory.mkdir()
        self.hook = user.tmp / "hook"
        self.hook.write_text(RECORD.format(directory=self.directory))
        self.hook.chmod(0o755)
        inside = rootfs / "bin/hook"
        inside.write_text(RECORD.format(directory="/data"))
        inside.chmod(0o755)
        self.inside = rootfs / "data"
        own(user, self.directory)

    def one(self, kind, **more):
        """Return a hook that records itself as `kind`."""
        path = "/bin/hook" if kind == "startContainer" else str(self.hook)
        return {"path": path, "args": ["recorder", kind]} | more

    def order(self):
        """Return the kinds of the hooks that have run on the host, in order."""
        file = self.directory / "order"
        return file.read_text().split() if file.exists() else []

    def _file(self, name):
        return (self.inside if name.startswith("startContainer") else self.directory) / name

    def state(self, kind):
        """Return the state that the hook received."""
        return json.loads(self._file(kind).read_text())

    def facts(self, kind):
        """Return the hook's observations: lists of words, by the first word."""
        found = {}
        for line in self._file(f"{kind}.facts").read_text().splitlines():
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
        return found


@pytest.fixture
def bundle(user):
    return make_bundle(user)


@pytest.fixture
def records(user, bundle):
    return Records(user, bundle / "rootfs")


def shell(*script):
    """Return a hook that runs the host's shell."""
    return {"path": "/bin/sh", "args": ["sh", "-c", "\n".join(script)]}


def configure(bundle, hooks, *script, annotations=None, **process):
    """Write a config with these hooks and a program that runs `script`."""
    config = base_config("sh", "-c", "\n".join(script) or "true")
    config["hooks"] = hooks
    config["process"] |= process
    if annotations:
        config["annotations"] = annotations
    write_config(bundle, config)
    return config


def memory_of(pid):
    """Return all memory of a process that it can read itself."""
    found = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_, name = line.split(maxsplit=5)
            if rights.startswith("r") and not name.startswith("[v"):
                first, last = (int(end, 16) for end in span.split("-"))
                memory.seek(first)
                found += memory.read(last - first)
    return found


def gone(rootless, user):
    """Whether no container is left."""
    return rootless.list() == [] and not executors(user)


# Input.


def test_each_has_the_state_on_its_standard_input(rootless, bundle, records):
    configure(bundle, {kind: [records.one(kind)] for kind in KINDS}, annotations=ANNOTATIONS)
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    rootless.start("c1")
    until(lambda: rootless.status("c1") == "stopped", "the program ends")
    assert rootless("delete", "c1").stderr == ""
    expected = {"ociVersion": "1.3.0", "id": "c1", "bundle": str(bundle), "annotations": ANNOTATIONS}
    states = {kind: records.state(kind) for kind in KINDS}
    assert {kind: state.pop("status") for kind, state in states.items()} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert {kind: state.pop("pid", None) for kind, state in states.items()} == {
        "prestart": pid,
        "createRuntime": pid,
        "createContainer": 1,
        "startContainer": 1,
        "poststart": pid,
        "poststop": None,
    }
    assert states == dict.fromkeys(KINDS, expected)


def test_states_agree_with_runc(either, user):
    records = Records(user, either.rootfs)
    config = config_with_maps(user)
    config["hooks"] = {kind: [records.one(kind)] for kind in KINDS}
    either.run(config, "true", check=True)
    assert records.order() == [kind for kind in KINDS if kind != "startContainer"]
    for kind in KINDS:
        state = records.state(kind)
        assert (state["id"], state["bundle"]) == ("box", str(either.path))
        facts = records.facts(kind)
        if kind != "poststart":  # runc 1.1 calls it before the program, with the status created
            expected = "creating" if kind in BEFORE_START else "created" if kind == "startContainer" else "stopped"
            assert state["status"] == expected
        assert facts["args"] == [f"{records.one(kind)['path']} {kind}"]


def test_where_each_runs(rootless, bundle, records):
    configure(bundle, {kind: [records.one(kind)] for kind in KINDS}, "sleep 600")
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    rootless.start("c1")
    theirs = {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "pid", "net")}
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net")}
    rootless("delete", "--force", "c1", check=True)
    for kind in KINDS:
        facts = records.facts(kind)
        found = {name: facts[name][0] for name in ("mnt", "pid", "net")}
        assert found == (ours if kind in OUTSIDE else theirs), kind
        assert facts["cwd"] == ["/" if kind == "startContainer" else str(bundle)], kind
        assert facts["id"] == [str(rootless.user.uid) if kind in OUTSIDE else "0"], kind
        assert facts["umask"] == ["0022"], kind


@pytest.mark.parametrize("given", ["3</dev/null 4</dev/null", "4</dev/null"])
def test_hook_has_only_its_environment_and_streams(rootless, bundle, records, user, given):
    hooks = {kind: [records.one(kind, env=["ONE=1", "TWO=2=3", "PATH=/usr/bin:/bin"])] for kind in KINDS}
    configure(bundle, hooks)
    words = rootless.argv("run", "--preserve-fds", "2", "--bundle", bundle, "c1")
    opened = ["bash", "-c", f'exec {given} 77</dev/null; exec "$@"', "bash", *words]
    user.run(opened, env={"SECRET": "1"}, check=True)
    for kind in KINDS:
        facts = records.facts(kind)
        # one line for the count, three streams, and the directory that is being read
        assert len(facts["fd"]) == 1 + 3 + 1, kind
        assert "/dev/null" not in facts["fd"], kind
        named = {name for name in facts if "=" in name and not name.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))}
        assert named == {"ONE=1", "TWO=2=3", "PATH=/usr/bin:/bin"}, kind


@pytest.mark.crun
@pytest.mark.parametrize("given", [{}, {"env": []}], ids=["no environment", "an empty environment"])
def test_only_a_hook_without_an_environment_inherits_one(either, user, given):
    """It inherits the caller's, or for startContainer process.env, in which the last value of a name counts."""
    records = Records(user, either.rootfs)
    config = config_with_maps(user)
    config["process"]["env"] += ["ONE=0", "ONE=1"]
    config["process"]["cwd"] = "/data"
    config["hooks"] = {kind: [records.one(kind) | given] for kind in KINDS}
    either.run(config, "true", check=True, env={"OF_CALLER": "1"})
    kinds = [kind for kind in KINDS if (either.runtime, kind) not in DIFFERENT]
    assert all(("OF_CALLER=1" in records.facts(kind)) == (not given and kind != "startContainer") for kind in kinds)
    facts = records.facts("startContainer")
    assert facts["cwd"] == ["/data"]
    assert {"ONE=1", "HOME=/root"} & set(facts) == (set() if given else {"ONE=1", "HOME=/root"})
    assert "ONE=0" not in facts


@pytest.mark.crun
def test_poststop_has_the_environment_of_the_caller_that_deletes(either, user):
    records = Records(user, either.rootfs)
    config = config_with_maps(user)
    config["hooks"] = {"poststop": [records.one("poststop")]}
    either.create(config, "true")
    user.run([*either.command, "delete", "--force", "held"], env={"OF_DELETER": "1"}, check=True)
    assert "OF_DELETER=1" in records.facts("poststop")


def test_the_environment_that_a_hook_inherits_is_not_left_in_the_containers_process(rootless, bundle, records):
    """Between create and start, a program of the image may read that process's memory, through exec."""
    secret = "secret-of-the-caller" * 3
    configure(bundle, {"createContainer": [records.one("createContainer")]})
    rootless.create("c1", bundle, env={"SECRET": secret})
    assert f"SECRET={secret}" in records.facts("createContainer")
    pid = rootless.pid("c1")
    assert secret.encode() not in memory_of(pid)
    # madvise(MADV_DONTNEED) would restore the file's content in a private mapping
    plans = [line.split()[1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "rootless-plan" in line]
    assert plans
    assert {flags[3] for flags in plans} == {"s"}


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_hook_without_args_has_its_path_as_name(rootless, bundle, user, kind):
    script = user.tmp / "named"
    script.write_text(f'#!/bin/sh\necho "$# $0" > {user.tmp}/said\n')
    script.chmod(0o755)
    configure(bundle, {kind: [{"path": str(script)}]})
    rootless("run", "--bundle", bundle, "c1", check=True)
    assert (user.tmp / "said").read_text() == f"0 {script}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_large_state_that_no_hook_reads(rootless, bundle, records, kind):
    ignoring = {"path": "/bin/sh", "args": ["sh", "-c", ":"]}
    configure(bundle, {kind: [ignoring, records.one(kind)]}, annotations={"large": "x" * LARGE})
    rootless("run", "--bundle", bundle, "c1", check=True)
    assert len(records.state(kind)["annotations"]["large"]) == LARGE


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_run_in_order(rootless, bundle, records, kind):
    file = "/data/several" if kind == "startContainer" else f"{records.directory}/several"
    configure(bundle, {kind: [shell(f"echo {number} >> {file}") for number in range(5)]})
    rootless("run", "--bundle", bundle, "c1", check=True)
    found = (records.inside if kind == "startContainer" else records.directory) / "several"
    assert found.read_text().split() == ["0", "1", "2", "3", "4"]


def test_empty_lists_are_no_hooks(rootless, bundle):
    configure(bundle, {kind: [] for kind in KINDS}, "echo well")
    assert rootless("run", "--bundle", bundle, "c1", check=True).stdout == "well\n"


# Order.


def test_program_starts_after_start_container_hooks(rootless, bundle, records):
    hooks = {kind: [records.one(kind)] for kind in KINDS}
    configure(bundle, hooks, "echo program >> /data/order")
    rootless.create("c1", bundle)
    assert records.order() == list(BEFORE_START)
    assert not (records.inside / "order").exists()
    rootless.start("c1")
    assert records.order() == [*BEFORE_START, "poststart"]
    until(lambda: rootless.status("c1") == "stopped", "the program ends")
    assert (records.inside / "order").read_text().split() == ["startContainer", "program"]
    rootless("delete", "c1", check=True)
    assert records.order() == [*BEFORE_START, "poststart", "poststop"]
    assert gone(rootless, rootless.user)


def test_poststart_finds_the_program(rootless, bundle, user):
    hook = shell(
        'state=$(cat); pid=${state#*\\"pid\\":}; pid=${pid%%,*}; pid=${pid%%\\}*}',
        f"cat /proc/$pid/comm > {user.tmp}/comm",
    )
    configure(bundle, {"poststart": [hook]}, "exec sleep 600")
    rootless.create("c1", bundle)
    rootless.start("c1")
    # busybox is called by the name of the applet
    assert (user.tmp / "comm").read_text() == "sh\n" or (user.tmp / "comm").read_text() == "sleep\n"


@pytest.mark.parametrize("kind", ["createRuntime", "prestart"])
def test_create_runtime_hooks_see_and_add_mounts(rootless, bundle, user, need, kind):
    """As the hooks of graphics drivers do."""
    (user.tmp / "library").write_text("driver\n")
    target = bundle / "rootfs/data/library"
    target.write_text("")
    hook = shell(
        "set -e",
        'state=$(cat); pid=${state#*\\"pid\\":}; pid=${pid%%,*}; pid=${pid%%\\}*}',
        f"{need('nsenter')} --preserve-credentials -t $pid -U -m -n /bin/sh -ec '",
        f'grep -q " {bundle}/rootfs/proc " /proc/self/mountinfo',
        f"mount --bind {user.tmp}/library {target}'",
    ) | {"env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    configure(bundle, {kind: [hook]}, "cat /data/library")
    done = rootless("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "driver\n"), done.stderr
    assert target.read_text() == ""


def test_create_container_may_mount_and_write_into_a_read_only_root(rootless, bundle, user):
    (user.tmp / "library").write_text("driver\n")
    rootfs = bundle / "rootfs"
    (rootfs / "data/library").write_text("")
    hook = shell("set -e", f"mount --bind {user.tmp}/library {rootfs}/data/library", f"echo made > {rootfs}/etc/made")
    config = configure(
        bundle, {"createContainer": [hook | {"env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]},
        "cat /data/library /etc/made",
    )  # fmt: skip
    config["root"]["readonly"] = True
    write_config(bundle, config)
    assert rootless("run", "--bundle", bundle, "c1", check=True).stdout == "driver\nmade\n"


def test_start_container_runs_as_the_program_will(rootless, bundle):
    """No program of the image may run before the seccomp filter is in force."""
    hook = shell("id -u", "cat /proc/self/status", "mkdir /tmp/denied && echo made") | {"path": "/bin/sh"}
    hook["args"][-1] = "{ " + hook["args"][-1] + "; } > /data/said 2>&1; true"
    config = configure(bundle, {"startContainer": [hook]}, user={"uid": 1000, "gid": 1000})
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    }
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 123}]
    write_config(bundle, config)
    (bundle / "rootfs/data").chmod(0o777)
    rootless("run", "--bundle", bundle, "c1", check=True)
    said = (bundle / "rootfs/data/said").read_text()
    assert said.startswith("1000\n")
    assert "Seccomp:\t2" in said
    assert "NoNewPrivs:\t1" in said
    assert "CapEff:\t0000000000000000" in said
    assert "not implemented" in said
    assert "\nmade" not in said


def test_startcontainer_orphans_cannot_ptrace_init(rootless, bundle):
    """An orphan could make init do what the seccomp filter forbids."""
    script = "{ ls /proc/1/fd/ || ls /proc/1/cwd/ || cat /proc/1/environ; echo $?; } > /data/said 2>&1"
    configure(bundle, {"startContainer": [shell(script)]}, "ls /proc/self/fd/ > /data/self; ls /proc/1/fd/ > /data/one")
    rootless("run", "--bundle", bundle, "c1", check=True)
    said = (bundle / "rootfs/data/said").read_text().splitlines()
    assert [line.endswith("Permission denied") for line in said] == [True, True, True, False], said
    assert said[-1] == "1"
    assert (bundle / "rootfs/data/one").read_text()


# Failures.


@pytest.mark.parametrize("verb", ["create", "run"])
@pytest.mark.parametrize("kind", BEFORE_START)
def test_hook_that_fails_before_start_ends_the_container(rootless, bundle, records, kind, verb):
    hooks = {each: [records.one(each)] for each in KINDS}
    hooks[kind] = [
        records.one(kind),
        shell("echo out; echo went wrong >&2; exit 13"),
        shell(f"touch {rootless.user.tmp}/next"),
    ]
    configure(bundle, hooks, "touch /data/program")
    done = rootless.create("c1", bundle, check=False) if verb == "create" else rootless("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: error running {kind} hook #1: exit status 13 (/bin/sh): out went wrong "
        f"(config.json: hooks.{kind}[1])\n"
    )
    assert records.order() == [*BEFORE_START[: BEFORE_START.index(kind) + 1], "poststop"]
    assert not (rootless.user.tmp / "next").exists()
    assert not (records.inside / "program").exists()
    assert gone(rootless, rootless.user)


@pytest.mark.parametrize("verb", ["start", "run", "run --detach"])
@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_hook_that_fails_at_start_ends_the_container(rootless, bundle, records, kind, verb):
    hooks = {each: [records.one(each)] for each in ("startContainer", "poststart", "poststop") if each != kind}
    hooks[kind] = [records.one(kind), shell("echo went wrong >&2; exit 3")]
    configure(bundle, hooks, "trap '' TERM; sleep 600 & echo $$ > /data/program; wait")
    if verb == "start":
        rootless.create("c1", bundle)
        pid = rootless.pid("c1")
        done = rootless("start", "c1")
        await_end(pid)
    else:
        with (rootless.user.tmp / "err").open("w") as err:
            done = rootless(*verb.split(), "--bundle", bundle, "c1", stdout=subprocess.DEVNULL, stderr=err)
        done.stderr = (rootless.user.tmp / "err").read_text()
    assert done.returncode == 1
    where = f"config.json: hooks.{kind}[1]"
    assert done.stderr == f"rootless: error running {kind} hook #1: exit status 3 (/bin/sh): went wrong ({where})\n"
    assert records.order() == (["poststart"] if kind == "poststart" else []) + ["poststop"]
    if kind == "startContainer":
        assert not (records.inside / "program").exists()
    assert gone(rootless, rootless.user)


def test_all_poststop_hooks_run_despite_failures(rootless, bundle, records):
    failing = [shell("echo went wrong; exit 3"), {"path": "/nowhere"}]
    configure(bundle, {"poststop": [*failing, records.one("poststop")]}, "exit 7")
    done = rootless("run", "--bundle", bundle, "c1")
    assert done.returncode == 7
    first, second = done.stderr.splitlines()
    assert first == (
        "rootless: warning: error running poststop hook #0: exit status 3 (/bin/sh): went wrong "
        "(config.json: hooks.poststop[0])"
    )
    assert second.startswith(
        "rootless: warning: error running poststop hook #1: exec /nowhere: no such file or directory (config.json: "
    )
    assert records.order() == ["poststop"]
    rootless.create("c2", bundle)
    assert rootless("delete", "--force", "c2").returncode == 0
    assert records.order() == ["poststop"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_killed_hook_is_a_failure(rootless, bundle, kind):
    configure(bundle, {kind: [shell("kill -SEGV $$")]}, "sleep 1")
    done = rootless("run", "--bundle", bundle, "c1")
    killed = f"error running {kind} hook #0: signal {int(signal.SIGSEGV)} (/bin/sh) (config.json: hooks.{kind}[0])"
    assert killed in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_hook_beyond_its_timeout_is_killed(rootless, bundle, user, kind):
    holder = user.tmp / "holder" if kind != "startContainer" else bundle / "rootfs/data/holder"
    inside = "/data/holder" if kind == "startContainer" else holder
    hook = shell("echo still here", f"echo $$ > {inside}", "exec sleep 600") | {"timeout": 1}
    configure(bundle, {kind: [hook, shell("exit 5")]}, "exit 0")
    done = rootless("run", "--bundle", bundle, "c1")
    late = f"error running {kind} hook #0: hook ran past specified timeout (/bin/sh): still here"
    assert f"{late} (config.json: hooks.{kind}[0]); fix: raise" in done.stderr
    if kind in OUTSIDE:
        assert not os.path.exists(f"/proc/{holder.read_text().strip()}")
    if kind == "poststop":
        assert "exit status 5" in done.stderr
    assert done.returncode == int(kind != "poststop")
    assert gone(rootless, user)


def test_hook_within_its_timeout_succeeds(rootless, bundle, records):
    configure(bundle, {kind: [records.one(kind, timeout=2**62)] for kind in KINDS})
    rootless("run", "--bundle", bundle, "c1", check=True)
    assert records.order() == [kind for kind in KINDS if kind != "startContainer"]


@pytest.mark.parametrize("kind", KINDS)
def test_hook_that_cannot_be_executed_is_an_error(rootless, bundle, user, kind):
    plain = bundle / "rootfs/data/plain" if kind == "startContainer" else user.tmp / "plain"
    plain.write_text("")
    plain.chmod(0o644)
    path = "/data/plain" if kind == "startContainer" else str(plain)
    for name, reason in ((path, "permission denied"), ("/nowhere/at/all", "no such file or directory")):
        configure(bundle, {kind: [{"path": name}]}, "true")
        done = rootless("run", "--bundle", bundle, "c1")
        place = "in the container" if kind == "startContainer" else "of the host"
        assert done.stderr.removeprefix("rootless: ").removeprefix("warning: ") == (
            f"error running {kind} hook #0: exec {name}: {reason} (config.json: hooks.{kind}[0]); "
            f"fix: name a program {place} that can be executed\n"
        )


def test_poststop_hooks_run_after_a_failed_set_up(rootless, bundle, records):
    """Hooks at the end can remove what earlier hooks have created."""
    config = configure(bundle, {kind: [records.one(kind)] for kind in KINDS})
    config["process"]["cwd"] = "/bin/busybox"
    write_config(bundle, config)
    assert rootless("run", "--bundle", bundle, "c1").returncode == 1
    assert records.order() == [*BEFORE_START, "poststop"]


def test_a_create_that_is_killed_while_a_hook_runs(rootless, bundle, records, user):
    waiting = shell(f"mkfifo {user.tmp}/fifo; echo > {user.tmp}/begun; read line < {user.tmp}/fifo")
    configure(bundle, {"createRuntime": [waiting], "poststop": [records.one("poststop")]})
    process = rootless.popen("create", "--bundle", bundle, "c1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until((user.tmp / "begun").exists, "the hook begins")
    process.kill()
    process.wait(PATIENCE)
    with open(user.tmp / "fifo", "w") as fifo:
        fifo.write("\n")
    assert rootless("delete", "--force", "c1").returncode == 0
    assert records.order() == ["poststop"]
    assert gone(rootless, user)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_interrupted_create_ends_the_hook_and_cleans_up(rootless, bundle, records, user, verb):
    waiting = shell(f"echo $$ > {user.tmp}/waiting.new; mv {user.tmp}/waiting.new {user.tmp}/waiting; exec sleep 600")
    configure(bundle, {"createRuntime": [waiting], "poststop": [records.one("poststop")]})
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = rootless.popen(verb, "--bundle", bundle, "c1", **streams)
    until((user.tmp / "waiting").exists, "the hook begins")
    process.terminate()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    await_end(int((user.tmp / "waiting").read_text()))
    assert records.order() == ["poststop"]
    assert gone(rootless, user)


def test_hooks_may_ask_about_the_container(rootless, bundle, user):
    """As hooks do that look up its network."""
    ask = f"{' '.join(rootless.argv('state', 'c1'))} > {user.tmp}"
    hooks = {kind: [shell(f"{ask}/{kind}")] for kind in ("createRuntime", "poststart")}
    configure(bundle, hooks, "sleep 600")
    rootless.create("c1", bundle)
    rootless.start("c1")
    found = {kind: json.loads((user.tmp / kind).read_text()) for kind in hooks}
    assert {kind: state["status"] for kind, state in found.items()} == {
        "createRuntime": "creating",
        "poststart": "running",
    }
    assert {state["pid"] for state in found.values()} == {rootless.pid("c1")}


def test_failed_start_leaves_poststop_hooks_to_delete(rootless, bundle, records):
    config = configure(bundle, {"poststop": [records.one("poststop")]})
    config["process"]["args"] = ["/data/garbage"]
    write_config(bundle, config)
    garbage = bundle / "rootfs/data/garbage"
    garbage.write_text("garbage")
    garbage.chmod(0o755)
    rootless.create("c1", bundle)
    assert rootless("start", "c1").returncode == 1
    assert records.order() == []
    assert rootless("delete", "c1").returncode == 0
    assert records.order() == ["poststop"]


# Output.


def test_output_of_a_hook_is_not_the_containers(rootless, bundle):
    hooks = {kind: [shell("echo chatter; echo chatter >&2")] for kind in KINDS}
    configure(bundle, hooks, "echo program")
    done = rootless("run", "--bundle", bundle, "c1", check=True)
    assert (done.stdout, done.stderr) == ("program\n", "")


def test_output_goes_to_the_files_of_the_annotations(rootless, bundle, user):
    hooks = {kind: [shell(f"echo out {kind}; echo err {kind} >&2")] for kind in KINDS}
    out = user.tmp / "out"
    annotations = {"run.oci.hooks.stdout": str(out), "run.oci.hooks.stderr": "relative"}
    configure(bundle, hooks, annotations=annotations)
    for number in (1, 2):
        rootless("run", "--bundle", bundle, "c1", check=True)
        assert out.read_text().splitlines() == [f"out {kind}" for kind in KINDS] * number
        assert (bundle / "relative").read_text().splitlines() == [f"err {kind}" for kind in KINDS] * number


@pytest.mark.parametrize("kind", ["createRuntime", "startContainer"])
def test_unusable_output_file_of_hooks_is_refused(rootless, bundle, kind):
    configure(bundle, {kind: [shell("true")]}, annotations={"run.oci.hooks.stdout": "/nowhere/out"})
    done = rootless("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert "/nowhere/out" in done.stderr
    assert "(config.json: annotations" in done.stderr


@pytest.mark.parametrize("kind", OUTSIDE)
def test_daemon_of_a_hook_does_not_block(rootless, bundle, user, kind):
    hook = shell(f"sleep 600 & echo $! > {user.tmp}/daemon")
    configure(bundle, {kind: [hook]}, "echo well")
    done = rootless("run", "--bundle", bundle, "c1")
    daemon = int((user.tmp / "daemon").read_text())
    os.kill(daemon, signal.SIGKILL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


# explain.


def test_explain_shows_hooks(rootless, bundle, records):
    configure(bundle, {kind: [records.one(kind)] for kind in KINDS})
    said = rootless("explain", bundle, check=True).stdout
    assert "hooks.createContainer[0]" in said
    assert "hooks.startContainer[0]" in said
    assert f"run the poststop hook {records.hook}  [hooks.poststop[0]]" in said
    assert records.order() == []
