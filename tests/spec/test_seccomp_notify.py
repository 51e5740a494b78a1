"""SCMP_ACT_NOTIFY: the agent receives the descriptor and the state before the program starts, and decides calls."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from tests.lib.boxes import as_real_root, config_with_maps
from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import PATIENCE, executors, until
from tests.lib.seccomp_agent import CONTINUE, Agent, notifying

DONE = (0, 0, 0)

EVERYTHING = [
    "execve", "execveat", "write", "writev", "sendmsg", "sendto", "close", "read", "exit", "exit_group", "futex",
    "openat", "mmap", "rt_sigaction", "nanosleep", "clone", "clone3", "getpid", "brk",
]  # fmt: skip


def refused(number):
    """Return the answer that makes the call fail with this errno."""
    return (0, -number, 0)


@pytest.fixture
def bundle(user):
    return make_bundle(user)


def configure(bundle, *script, names=("mkdir", "mkdirat"), config=None, **more):
    """Write a config whose program runs `script`."""
    config = config or base_config()
    config["process"]["args"] = ["sh", "-c", "\n".join(script)]
    write_config(bundle, notifying(config, *names, **more))
    return config


MAKE_THREE = "for name in a b c; do mkdir /tmp/$name 2>&1; test -d /tmp/$name; echo $?; done"
MADE_THREE = ["mkdir: can't create directory '/tmp/a': Operation not permitted", "1", "1", "0"]
THREE_ANSWERS = (refused(errno.EPERM), DONE, CONTINUE)


@pytest.mark.spec("linux.seccomp.listenerPath")
def test_the_agent_decides(either, user):
    with Agent(user, *THREE_ANSWERS) as agent:
        config = notifying(config_with_maps(user), "mkdir", "mkdirat", listenerPath=str(agent.path))
        assert either.lines(config, MAKE_THREE) == MADE_THREE
    assert len(agent.states) == 1
    assert len(agent.pids) == 3


@pytest.mark.parametrize("privileges", [True, False])
@pytest.mark.parametrize("verb", ["run", "run --detach", "create"])
def test_agent_decides_in_every_way_of_starting(rootless, bundle, verb, privileges):
    user = rootless.user
    with Agent(user, *THREE_ANSWERS) as agent:
        config = base_config()
        config["process"]["noNewPrivileges"] = not privileges
        config["process"]["user"] = {"uid": 1000, "gid": 1000}
        (bundle / "rootfs/data").chmod(0o777)
        configure(bundle, f"{{ {MAKE_THREE}; }} > /data/said", config=config, listenerPath=str(agent.path))
        if verb == "create":
            rootless.create("c1", bundle)
            assert agent.states == []
            rootless.start("c1")
        else:
            rootless(*verb.split(), "--bundle", bundle, "c1", check=True)
        said = bundle / "rootfs/data/said"
        until(lambda: said.exists() and said.read_text().splitlines() == MADE_THREE, "the agent's answers")


def test_state_that_the_agent_receives(rootless, bundle, user):
    annotations = {"what": 'a "large"\none', "more": "x" * 300_000}
    config = base_config() | {"annotations": annotations}
    with Agent(user) as agent:
        configure(
            bundle, "sleep 600", config=config, listenerPath=str(agent.path), listenerMetadata="for\nyou: é",
            flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        )  # fmt: skip
        rootless.create("c1", bundle)
        pid = rootless.pid("c1")
        rootless.start("c1")
        until(lambda: agent.states, "the state arrives")
        assert agent.states == [
            (
                {
                    "ociVersion": "1.3.0",
                    "fds": ["seccompFd"],
                    "pid": pid,
                    "metadata": "for\nyou: é",
                    "state": {
                        "ociVersion": "1.3.0",
                        "id": "c1",
                        "status": "creating",
                        "pid": pid,
                        "bundle": str(bundle),
                        "annotations": annotations,
                    },
                },
                1,
            )
        ]
        # the program has neither the descriptor nor a thread of the executor
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        assert not any("seccomp" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("verb", ["run", "create"])
def test_no_call_of_the_runtime_waits_for_an_impossible_answer(rootless, bundle, user, verb):
    with Agent(user) as agent:
        configure(bundle, "echo well > /data/said", names=EVERYTHING, listenerPath=str(agent.path))
        if verb == "run":
            rootless("run", "--bundle", bundle, "c1", check=True)
        else:
            rootless.create("c1", bundle)
            rootless.start("c1")
            until(lambda: rootless.status("c1") == "stopped", "the program ends")
        assert (bundle / "rootfs/data/said").read_text() == "well\n"
        assert agent.pids


def test_a_refused_execve_is_reported_by_its_errno(rootless, bundle, user):
    with Agent(user, refused(errno.ENOMEM)) as agent:
        configure(bundle, "true", names=["execve"], listenerPath=str(agent.path))
        done = rootless("run", "--bundle", bundle, "c1")
        assert done.returncode == 1
        assert "cannot allocate memory" in done.stderr
    assert not executors(user)


def test_an_agent_that_leaves(rootless, bundle, user):
    """Then the kernel returns ENOSYS; no process waits forever."""
    with Agent(user, leave=True) as agent:
        configure(bundle, "mkdir /tmp/a 2>&1", "echo went on", listenerPath=str(agent.path))
        done = rootless("run", "--bundle", bundle, "c1")
        assert done.stdout.splitlines() == [
            "mkdir: can't create directory '/tmp/a': Function not implemented",
            "went on",
        ]


@pytest.mark.crun
@pytest.mark.parametrize("privileges", [True, False])
def test_an_absent_agent_fails_create(either, user, privileges):
    config = notifying(config_with_maps(user), "mkdir", listenerPath=f"{user.tmp}/nowhere.sock")
    config["process"]["noNewPrivileges"] = not privileges
    write_config(either.path, config)
    done = user.run([*either.command, "create", "--bundle", either.path, "box"])
    assert done.returncode == 1
    assert "/nowhere.sock" in done.stderr
    assert user.run([*either.command, "state", "box"]).returncode == 1


@pytest.mark.crun
def test_the_state_that_the_agent_gets_says_creating(either, user):
    with Agent(user) as agent:
        pid = either.create(notifying(config_with_maps(user), "mkdir", listenerPath=str(agent.path)), "sleep 600")
        user.run([*either.command, "start", "held"], check=True)
        until(lambda: agent.states, "the state arrives")
    (told, _), *_ = agent.states
    assert (told["pid"], told["state"]["pid"], told["state"]["status"]) == (pid, pid, "creating")


def test_missing_agent_at_start_ends_the_container(rootless, bundle, user):
    with Agent(user) as agent:
        configure(bundle, "touch /data/program", listenerPath=str(agent.path))
        rootless.create("c1", bundle)
        until(lambda: agent.connections, "it is connected")
    done = rootless("start", "c1")
    assert done.returncode == 1
    assert "(config.json: linux.seccomp.listenerPath)" in done.stderr
    assert rootless.status("c1") == "stopped"
    assert not (bundle / "rootfs/data/program").exists()


def test_programs_of_the_image_cannot_take_the_connection_to_the_agent(rootless, bundle, user):
    """The waiting process has it open; a process of exec has the same ids and capabilities."""
    with Agent(user) as agent:
        configure(bundle, "sleep 600", listenerPath=str(agent.path))
        rootless.create("c1", bundle)
        pid = rootless.pid("c1")
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2}
        assert len([link for link in links if link.startswith("socket:")]) == 2, "start pipe, agent's connection"
        assert rootless("exec", "c1", "ls", "/proc/1/fd/").returncode != 0
        assert user.run(["ls", f"/proc/{pid}/fd"]).returncode != 0
        rootless.start("c1")
        assert "socket:" not in rootless("exec", "c1", "ls", "-l", "/proc/1/fd", check=True).stdout


@pytest.mark.parametrize("verb", ["run", "create"])
def test_no_agent(rootless, bundle, user, verb):
    configure(bundle, "touch /data/program", listenerPath=f"{user.tmp}/nowhere.sock")
    done = rootless(verb, "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: failed to connect with seccomp agent specified in the seccomp profile: "
        f"connect {user.tmp}/nowhere.sock: no such file or directory (config.json: linux.seccomp.listenerPath); "
        "fix: start the program that answers the notifications, or correct the path\n"
    )
    assert not (bundle / "rootfs/data/program").exists()
    assert rootless.list() == []
    assert not executors(user)


def test_notify_without_an_agent_is_refused(rootless, bundle):
    configure(bundle, "true")
    done = rootless("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert "listenerPath" in done.stderr
    assert "(config.json: linux.seccomp.syscalls[0].action)" in done.stderr


def test_the_annotation_names_the_agent(rootless, bundle, user):
    with Agent(user, refused(errno.EXDEV)) as agent:
        config = base_config() | {"annotations": {"run.oci.seccomp.receiver": str(agent.path)}}
        configure(bundle, "mkdir /tmp/a 2>&1", config=config)
        assert "Invalid cross-device link" in rootless("run", "--bundle", bundle, "c1").stdout


def test_the_callers_environment_names_the_agent(rootless, bundle, user):
    """As in crun(1); config.json takes precedence."""
    with Agent(user, refused(errno.EXDEV), refused(errno.EXDEV)) as agent:
        env = {"RUN_OCI_SECCOMP_RECEIVER": str(agent.path)}
        configure(bundle, "mkdir /tmp/a 2>&1; sleep 600")
        rootless.create("c1", bundle, env=env)
        rootless.start("c1")
        until(lambda: "Invalid cross-device link" in rootless.output("c1"), "the agent answers")
        done = rootless("exec", "c1", "mkdir", "/tmp/a", env=env)
        assert "Invalid cross-device link" in done.stderr
    config = base_config() | {"annotations": {"run.oci.seccomp.receiver": "/nowhere"}}
    configure(bundle, "mkdir /tmp/a", config=config)
    assert "/nowhere" in rootless("run", "--bundle", bundle, "c2", env=env).stderr


def test_listener_without_a_notifying_rule(rootless, bundle):
    config = base_config("echo", "well")
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere"}
    write_config(bundle, config)
    assert rootless("run", "--bundle", bundle, "c1", check=True).stdout == "well\n"


def test_exec_has_its_own_listener(rootless, bundle, user):
    with Agent(user, refused(errno.EXDEV)) as agent:
        configure(bundle, "sleep 600", listenerPath=str(agent.path), listenerMetadata="m")
        rootless.create("c1", bundle)
        rootless.start("c1")
        done = rootless("exec", "c1", "mkdir", "/tmp/a")
        assert (done.returncode, done.stderr) == (
            1,
            "mkdir: can't create directory '/tmp/a': Invalid cross-device link\n",
        )
        (first, _), (second, _) = agent.states
        assert second["pid"] != first["pid"]
        assert second["metadata"] == "m"
        assert (second["state"]["pid"], second["state"]["status"]) == (first["pid"], "running")


def test_hooks_cannot_notify_the_agent(rootless, bundle, user):
    config = base_config()
    script = "mkdir /data/made 2> /data/said; true"
    config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    with Agent(user) as agent:
        configure(bundle, "mkdir /data/program", config=config, listenerPath=str(agent.path))
        rootless("run", "--bundle", bundle, "c1", check=True, timeout=PATIENCE)
    assert "not implemented" in (bundle / "rootfs/data/said").read_text()
    assert not (bundle / "rootfs/data/made").exists()
    assert (bundle / "rootfs/data/program").exists()


@pytest.mark.spec("linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata")
def test_state_and_metadata_reach_the_agent(either, user):
    """The agent receives "the container process state" with the descriptor."""
    with Agent(user) as agent:
        config = notifying(
            config_with_maps(user), "mkdir", "mkdirat", listenerPath=str(agent.path), listenerMetadata="for you"
        )
        either.lines(config, "mkdir /tmp/made")
    ((told, descriptors),) = agent.states
    assert (told["metadata"], told["fds"], descriptors) == ("for you", ["seccompFd"], 1)
    assert (told["state"]["id"], told["state"]["bundle"]) == ("box", str(either.path))


def test_a_real_time_program_on_one_cpu(box, require_root):
    """The executor yields the only CPU while its second thread, with the same policy, sends the descriptor."""
    begin = ["timeout", "-s", "KILL", str(PATIENCE), "taskset", "-c", "0"]
    probe = subprocess.run([*begin, "chrt", "-f", "1", "true"], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"root may not use SCHED_FIFO here: {probe.stderr.strip()}")
    config = base_config()
    config["process"]["scheduler"] = {"policy": "SCHED_FIFO", "priority": 10}
    # microseconds of real time without a sleep: the kernel may throttle only if sched_rt_runtime_us is not -1
    config["process"]["rlimits"] = [{"type": "RLIMIT_RTTIME", "soft": 10_000, "hard": 10_000}]
    as_real_root(box)
    box.command = [*begin, *box.command]
    with Agent(box.user, *THREE_ANSWERS) as agent:
        lines = box.lines(notifying(config, "mkdir", "mkdirat", listenerPath=str(agent.path)), MAKE_THREE)
    assert lines == MADE_THREE
    assert len(agent.pids) == 3
