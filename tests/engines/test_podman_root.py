"""podman as root, and with user namespaces that its user requests."""

from __future__ import annotations

import pytest

from tests.lib.containers import until
from tests.lib.engines import IMAGE, OPEN


@pytest.fixture
def running(root_podman):
    """The name of a running container."""
    name = root_podman.detach("running")
    yield name
    root_podman("rm", "--force", "--time=0", name, check=True)


def test_root_podman_run_passes_streams_and_exit_status(root_podman):
    done = root_podman.run("--interactive", IMAGE, "sh", "-c", "cat; cat /proc/self/uid_map; exit 7", input="in\n")

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.split() == ["in", "0", "0", "4294967295"]
    until(lambda: root_podman.left() == [], "nothing is left")


def test_root_podman_containers_are_run_by_rootless(root_podman, recorder):
    before = len(recorder)
    root_podman.with_runtime(recorder.command, "run", "--rm", IMAGE, "true", check=True)
    assert len(recorder.made(before)) == 1


def test_root_podman_exec_and_stop_have_their_exit_status(root_podman, running):
    assert root_podman("exec", running, "sh", "-c", "exit 5").returncode == 5
    root_podman("stop", running, check=True)
    assert root_podman.inspect(running, ".State.ExitCode") == "9"


def test_root_podman_pause_and_unpause_change_the_status(root_podman, running):
    root_podman("pause", running, check=True)
    assert root_podman.inspect(running, ".State.Status") == "paused"
    root_podman("unpause", running, check=True)
    assert root_podman("exec", running, "true").returncode == 0


def test_root_podman_restores_a_checkpointed_container(root_podman, need):
    need("criu")
    script = "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo up $i; sleep 0.1; done"
    name = root_podman.detach("kept", command=("sh", "-c", script))
    until(lambda: "up 3" in root_podman.out("logs", name), "it counts")

    root_podman("container", "checkpoint", name, check=True)
    assert root_podman.inspect(name, ".State.Checkpointed") == "true"
    before = len(root_podman.out("logs", name).splitlines())
    root_podman("container", "restore", name, check=True)

    until(lambda: f"up {before + 3}" in root_podman.out("logs", name).splitlines(), "it continues where it was")
    root_podman("stop", name, check=True)
    assert root_podman.inspect(name, ".State.ExitCode") == "9"
    root_podman("rm", name, check=True)


@pytest.mark.parametrize("first", [1, 100000])
def test_a_user_namespace_with_other_ids_reads_its_bind_mounts(first, root_podman, podman_in_cgroup2):
    """Its root may have no access to the caller's bind sources, such as /etc/hosts."""
    podman = podman_in_cgroup2 if first == 1 else root_podman
    ids = [f"--{kind}map=0:{first}:5000" for kind in ("uid", "gid")]

    lines = podman.run(*ids, IMAGE, "cat", "/proc/self/uid_map", "/etc/hosts", check=True).stdout.splitlines()

    assert lines[0].split() == ["0", str(first), "5000"]
    assert any("localhost" in line for line in lines)


OPTIONS = {
    "plain": ([], "id; grep -E '^(Cap|Seccomp:)' /proc/self/status; ls /dev"),
    "privileged": (["--privileged"], "grep -E '^(Cap|Seccomp:)' /proc/self/status; ls /dev | wc -l"),
    "device": (["--device=/dev/fuse"], "stat -c %t,%T,%a /dev/fuse; : </dev/fuse"),
    "a device that is not allowed": (["--cap-add=mknod"], OPEN),
    "a device that is allowed": (["--cap-add=mknod", "--device-cgroup-rule=c 10:229 r"], OPEN),
    "mounts": ([], 'awk \'{print $5, $5 ~ "^/proc/" ? "" : $6}\' /proc/self/mountinfo | sort'),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_the_same_effect_as_with_runc(root_podman, need, option):
    need("runc")
    flags, script = OPTIONS[option]
    words = ["run", "--rm", *flags, IMAGE, "sh", "-c", script]

    ours, theirs = (root_podman.with_runtime(runtime, *words) for runtime in ("rootless", "runc"))

    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 0
