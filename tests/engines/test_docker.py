"""docker as root: `docker run --runtime rootless`, with a dockerd that the tests start."""

from __future__ import annotations

import json

import pytest

from tests.lib.containers import until
from tests.lib.engines import DOCKER_RUN, FOREVER, IMAGE, OPEN
from tests.lib.terminals import Typewriter

RUN = [*DOCKER_RUN, "--runtime=rootless"]


@pytest.fixture
def running(docker):
    """The name of a running container."""
    name = "running"
    docker("run", "--detach", *RUN[2:], f"--name={name}", IMAGE, *FOREVER, check=True)
    until(lambda: "up" in docker.out("logs", name), f"{name} is up")
    yield name
    docker("rm", "--force", name, check=True)


def inspect(docker, name, template):
    return docker.out("inspect", "--format", f"{{{{{template}}}}}", name)


def status(docker, name):
    return inspect(docker, name, ".State.Status")


def left(docker):
    """Return the containers of docker that rootless still has."""
    return docker.account.run(["ls", "-A", "/run/docker/runtime-runc/moby"]).stdout.split()


def test_docker_info_lists_the_runtime(docker):
    runtimes = json.loads(docker.out("info", "--format", "{{json .Runtimes}}"))
    assert runtimes["rootless"]["path"] == "rootless"
    assert "features" in str(runtimes["rootless"].get("status", {}))


def test_docker_run_passes_streams_and_exit_status(docker):
    done = docker(*RUN, "--interactive", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")

    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    until(lambda: left(docker) == [], "nothing is left")


def test_docker_containers_are_run_by_rootless(docker, running, rootless_command):
    assert inspect(docker, running, ".HostConfig.Runtime") == "rootless"
    words = [rootless_command, "--root=/run/docker/runtime-runc/moby", "state", *left(docker)]
    state = docker.account.run(words, check=True)
    assert json.loads(state.stdout)["status"] == "running"


def test_docker_logs_stop_start_kill_and_wait(docker):
    docker("run", "--detach", *RUN[2:], "--name=logged", IMAGE, *FOREVER, check=True)
    until(lambda: docker.out("logs", "logged") == "up", "output is logged")

    docker("stop", "logged", check=True)

    assert (status(docker, "logged"), inspect(docker, "logged", ".State.ExitCode")) == ("exited", "9")
    docker("start", "logged", check=True)
    assert status(docker, "logged") == "running"
    docker("kill", "logged", check=True)
    assert docker.out("wait", "logged") == "137"
    docker("rm", "logged", check=True)


def test_docker_rm_force_removes_a_running_container(docker):
    docker("run", "--detach", *RUN[2:], "--name=removed", IMAGE, "sleep", "1000", check=True)
    docker("rm", "--force", "removed", check=True)
    until(lambda: left(docker) == [], "nothing is left")


def test_docker_exec_uses_user_workdir_env_and_stdin(docker, running):
    script = "id -u; id -g; pwd; echo $THIS; cat; exit 7"
    flags = ["--interactive", "--user=1000:33", "--workdir=/tmp", "--env=THIS=that"]

    done = docker("exec", *flags, running, "sh", "-c", script, input="in\n")

    assert (done.returncode, done.stdout, done.stderr) == (7, "1000\n33\n/tmp\nthat\nin\n", "")


def test_docker_exec_with_a_terminal_has_its_size(docker, running):
    with Typewriter(docker, docker.argv("exec", "-it", running, "sh"), size=(33, 77)) as terminal:
        terminal.until(b"/ # ")
        terminal.type(b"tty; until [ \"$(stty size)\" = '33 77' ]; do :; done; echo size-$((6*7)); exit 5\n")
        terminal.until(b"/dev/pts/")
        terminal.until(b"size-42")
        terminal.ends(5)


def test_docker_attach_reaches_the_terminal(docker):
    docker("run", "--detach", *RUN[2:], "-it", "--name=attached", IMAGE, "sh", check=True)
    with Typewriter(docker, docker.argv("attach", "attached"), size=(33, 77)) as terminal:
        terminal.type(b"until [ \"$(stty size)\" = '33 77' ]; do :; done; echo size-$((6*7)); exit 5\n")
        terminal.until(b"size-42")
        terminal.ends(5)
    docker("rm", "attached", check=True)


def test_docker_start_attach_passes_stdin(docker):
    docker(
        "create",
        *RUN[1:],
        "--interactive",
        "--name=attached",
        IMAGE,
        "sh",
        "-c",
        "read line; echo got $line",
        check=True,
    )
    done = docker("start", "--attach", "--interactive", "attached", input="this\n")
    assert (done.returncode, done.stdout) == (0, "got this\n")


def test_docker_top_and_healthcheck_work(docker):
    health = ["--health-cmd=test -e /well", "--health-interval=100ms", "--health-retries=1"]
    docker("run", "--detach", *RUN[2:], *health, "--name=healthy", IMAGE, *FOREVER, check=True)
    until(lambda: inspect(docker, "healthy", ".State.Health.Status") == "unhealthy", "it is unhealthy")
    docker("exec", "healthy", "touch", "/well", check=True)
    until(lambda: inspect(docker, "healthy", ".State.Health.Status") == "healthy", "it is healthy")
    assert "sleep 0.1" in docker.out("top", "healthy")
    docker("rm", "--force", "healthy", check=True)


def test_docker_pause_and_unpause_change_the_status(docker, running):
    docker("pause", running, check=True)
    assert status(docker, running) == "paused"
    docker("unpause", running, check=True)
    assert status(docker, running) == "running"
    assert docker("exec", running, "true").returncode == 0


def test_docker_starts_a_container_from_a_checkpoint(docker, need):
    need("criu")
    docker("run", "--detach", *RUN[2:], "--name=kept", IMAGE, *FOREVER, check=True)
    until(lambda: docker.out("logs", "kept") == "up", "it is up")

    docker("checkpoint", "create", "--leave-running", "kept", "first", check=True)
    assert status(docker, "kept") == "running"
    until(lambda: ends_with(docker, "last", "kept"), "it ends with its checkpoint")

    assert docker.out("checkpoint", "ls", "kept").split()[2:] == ["first", "last"]
    until(lambda: starts_from(docker, "last", "kept"), "it starts again")
    assert status(docker, "kept") == "running"
    docker("rm", "--force", "kept", check=True)
    until(lambda: left(docker) == [], "nothing is left")


def test_docker_starts_a_container_with_a_terminal_from_a_checkpoint(docker, need):
    need("criu")
    docker("run", "--detach", *RUN[2:], "-it", "--name=kept", IMAGE, "sh", check=True)
    with Typewriter(docker, docker.argv("attach", "kept")) as terminal:
        terminal.type(b"A=41; echo is-$((A+1))\n")
        terminal.until(b"is-42")
        docker("checkpoint", "create", "kept", "last", check=True)
    until(lambda: status(docker, "kept") == "exited", "it ends with its checkpoint")

    until(lambda: starts_from(docker, "last", "kept"), "it starts again")

    with Typewriter(docker, docker.argv("attach", "kept")) as terminal:
        terminal.type(b"echo is-$((A+2)); exit 5\n")
        terminal.until(b"is-43")
        terminal.ends(5)
    docker("rm", "--force", "kept", check=True)


def ends_with(docker, checkpoint, name):
    """Return whether a container has ended with a checkpoint.

    Without one it has, and is started again, if containerd still has the container's specification from the first.
    """
    done = docker("checkpoint", "create", name, checkpoint)
    assert done.returncode == 0 or "already exists" in done.stderr, done.stderr
    until(lambda: status(docker, name) == "exited", "it has ended")
    if done.returncode:
        docker("start", name, check=True)
    return done.returncode == 0


def starts_from(docker, checkpoint, name):
    """Return whether a container starts from a checkpoint; it cannot while containerd still has dockerd's copy."""
    done = docker("start", f"--checkpoint={checkpoint}", name)
    assert done.returncode == 0 or "already exists" in done.stderr, done.stderr
    return done.returncode == 0


def test_docker_stats_finds_the_containers_cgroup(docker, running):
    """The enclosure has no controllers, so there are no numbers with any runtime."""
    container_id, pid = (inspect(docker, running, template) for template in (".Id", ".State.Pid"))

    assert docker.out("stats", "--no-stream", "--format={{.Name}}", running) == running
    members = docker.account.run(["cat", f"/sys/fs/cgroup/docker/{container_id}/cgroup.procs"], check=True).stdout
    assert pid in members.split()


OPTIONS = {
    "read-only": (["--read-only", "--tmpfs=/tmp"], "touch /x; touch /tmp/x && echo tmp"),
    "user": (["--user=1000:33", "--group-add=5"], "id; grep Cap /proc/self/status"),
    "cap-drop all": (["--cap-drop=all"], "grep Cap /proc/self/status"),
    "no-new-privileges": (["--security-opt=no-new-privileges"], "grep NoNew /proc/self/status"),
    "seccomp unconfined": (["--security-opt=seccomp=unconfined"], "grep Seccomp: /proc/self/status"),
    "privileged": (
        ["--privileged"],
        "grep -e Cap -e Seccomp: /proc/self/status; ls /dev/mapper; stat -c %t,%T /dev/net/tun",
    ),
    "volume": (["--volume=/etc/passwd:/passwd:ro"], "wc -l </passwd; touch /passwd"),
    "init": (["--init"], "cat /proc/1/comm"),
    "device": (["--device=/dev/fuse"], "stat -c %t,%T,%a /dev/fuse; : </dev/fuse"),
    "device with another name": (["--device=/dev/null:/dev/nul2"], "stat -c %t,%T /dev/nul2; echo x >/dev/nul2"),
    "a device that is not allowed": ([], OPEN),
    "a device that is allowed": (["--device-cgroup-rule=c 10:229 r"], OPEN),
    "devices": ([], "ls /dev; mknod /tmp/null c 1 3 && stat -c %t,%T /tmp/null"),
    "sysctl": (["--sysctl=net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward"),
    "ulimit": (["--ulimit=nofile=123:456"], "ulimit -n; ulimit -Hn"),
    "host namespaces": (
        ["--network=host", "--pid=host", "--ipc=host", "--uts=host", "--cgroupns=host"],
        "for n in net pid ipc uts cgroup; do readlink /proc/self/ns/$n; done",
    ),
    "mounts": ([], 'awk \'{print $5, $5 ~ "^/proc/" ? "" : $6}\' /proc/self/mountinfo | sort'),
    "oom-score-adj": (["--oom-score-adj=500"], "cat /proc/self/oom_score_adj"),
    "the shim's oom-score-adj": ([], "cat /proc/self/oom_score_adj"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_the_same_effect_as_with_runc(docker, need, option):
    need("runc")
    flags, script = OPTIONS[option]
    command = [*flags, IMAGE, "sh", "-c", script]
    words = [word for word in DOCKER_RUN if not (word == "--network=none" and "--network=host" in flags)]

    for _ in range(5):  # docker loses the output of short programs on a busy machine, with runc too
        ours, theirs = (docker(*words, f"--runtime={runtime}", *command) for runtime in ("rootless", "runc"))
        if ours.stdout and (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr):
            break
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.stdout


@pytest.mark.parametrize("builder", ["classic builder", "BuildKit"])
def test_docker_build_runs_its_steps_with_rootless(docker, builder, recorder):
    before = len(recorder)
    context = docker.account.tmp / "context"
    context.mkdir(exist_ok=True)
    (context / "file").write_text("from the context\n")
    (context / "Dockerfile").write_text(
        f'FROM {IMAGE}\nRUN id -u >/who\nCOPY file /\nWORKDIR /work\nUSER 1000:33\nRUN ["sh", "-c", "id -u; id -g"]\n'
    )
    kit = builder == "BuildKit"
    words = ["build", "--network=none", "--no-cache", "--tag=localhost/built", *(["--progress=plain"] if kit else [])]
    done = docker.account.run(docker.argv(*words, context), env=docker.env | {"DOCKER_BUILDKIT": str(int(kit))})

    assert done.returncode == 0, done.stderr
    assert "1000" in done.stdout + done.stderr
    verb = "run" if kit else "create"
    assert [verb in call.split() for call in recorder.made(before)] == [True, True], "one call for each RUN step"
    for _ in range(5):  # as above
        lines = docker.out(*RUN, "localhost/built", "sh", "-c", "pwd; cat /who /file").splitlines()
        if lines:
            break
    assert lines == ["/work", "0", "from the context"]


def test_docker_build_fails_with_its_step(docker):
    context = docker.account.tmp / "failing"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 42\n")
    done = docker("build", "--network=none", context)
    assert done.returncode != 0
    assert "exit code: 42" in done.stderr
