"""containerd as root: `ctr run --runc-binary rootless`, with a containerd that the tests start."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.containers import until
from tests.lib.engines import FOREVER, IMAGE


@pytest.fixture
def run(ctr, recorder):
    """The arguments of ctr that run a container."""
    return ["run", "--runc-binary", recorder.command]


@pytest.fixture
def running(ctr, run):
    """The name of a running task."""
    ctr(*run, "--detach", IMAGE, "held", "sleep", "1000", check=True)
    yield "held"
    ctr("task", "rm", "--force", "held")
    ctr("container", "rm", "held", check=True)


def status(ctr, name):
    lines = [line.split() for line in ctr.out("task", "ls").splitlines()]
    return {task: words for task, _, words in lines}.get(name)


def left(ctr):
    """Return the containers of containerd that rootless still has."""
    return ctr.account.run(["ls", "-A", "/run/containerd/runc/default"]).stdout.split()


def test_ctr_run_passes_streams_and_exit_status(ctr, run, recorder):
    before = len(recorder)
    done = ctr(*run, "--rm", IMAGE, "once", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert len(recorder.made(before)) == 1
    assert left(ctr) == []


def test_ctr_task_exec_uses_cwd_and_passes_the_exit_status(ctr, running):
    words = ["task", "exec", "--exec-id=one", "--cwd=/tmp", running, "sh", "-c", "pwd; exit 7"]
    done = ctr(*words)
    assert (done.returncode, done.stdout) == (7, "/tmp\n")


def test_ctr_task_exec_of_a_missing_program_is_an_error(ctr, running):
    done = ctr("task", "exec", "--exec-id=one", running, "nope")
    assert done.returncode == 1
    assert 'exec: "nope": executable file not found in $PATH' in done.stderr
    assert status(ctr, running) == "RUNNING"


def test_ctr_task_ps_lists_the_processes(ctr, running):
    lines = ctr.out("task", "ps", running).splitlines()
    assert len(lines) == 2


def test_ctr_task_kill_ends_the_container(ctr, running):
    assert left(ctr) == [running]
    ctr("task", "kill", "--signal=KILL", running, check=True)
    until(lambda: status(ctr, running) == "STOPPED", "it stops")
    assert "137" in ctr("task", "rm", running, check=True).stderr
    assert left(ctr) == []


def test_ctr_task_pause_and_resume_change_the_status(ctr, running):
    ctr("task", "pause", running, check=True)
    assert status(ctr, running) == "PAUSED"
    ctr("task", "resume", running, check=True)
    assert status(ctr, running) == "RUNNING"


@pytest.mark.parametrize(("flags", "after"), [([], "RUNNING"), (["--exit"], "STOPPED")], ids=["leave running", "exit"])
def test_ctr_task_checkpoint_keeps_or_ends_the_task(ctr, run, need, flags, after):
    """containerd pauses the task first and resumes it after the checkpoint."""
    need("criu")
    images = ctr.account.tmp / f"images-{after}"
    ctr(*run, "--detach", IMAGE, "kept", *FOREVER, check=True, stdout=subprocess.DEVNULL)

    ctr("task", "checkpoint", *flags, "--image-path", images, "kept", check=True)

    assert (images / "inventory.img").exists()
    until(lambda: status(ctr, "kept") == after, f"it is {after}")
    ctr("task", "rm", "--force", "kept", check=True)
    ctr("container", "rm", "kept", check=True)
    assert left(ctr) == []


def test_ctr_task_metrics_reads_the_cgroup(ctr, running):
    assert "cpu.usage_usec" in ctr.out("task", "metrics", running)


def test_ctr_run_of_a_missing_program_is_an_error(ctr, run):
    done = ctr(*run, "--rm", IMAGE, "once", "nope")
    assert done.returncode == 1
    assert 'OCI runtime create failed: exec: "nope": executable file not found in $PATH' in done.stderr
    assert left(ctr) == []


@pytest.mark.parametrize(
    "flags", [["--read-only"], ["--privileged"], ["--cap-drop=CAP_CHOWN"], ["--net-host"]], ids=lambda f: f[0]
)
def test_ctr_run_accepts_the_option(ctr, run, flags):
    assert ctr(*run, "--rm", *flags, IMAGE, "once", "true").returncode == 0
