"""containerd as root: `ctr run --runc-binary rootless`, with a containerd of the tests' own."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.containers import until
from tests.lib.engines import FOREVER, IMAGE


@pytest.fixture
def run(ctr, recorder):
    """The words that run a container."""
    return ["run", "--runc-binary", recorder.command]


@pytest.fixture
def running(ctr, run):
    """A task that runs, by its name."""
    ctr(*run, "--detach", IMAGE, "held", "sleep", "1000", check=True)
    yield "held"
    ctr("task", "rm", "--force", "held")
    ctr("container", "rm", "held", check=True)


def status(ctr, name):
    lines = [line.split() for line in ctr.out("task", "ls").splitlines()]
    return {task: words for task, _, words in lines}.get(name)


def left(ctr):
    """What rootless knows of containerd's containers."""
    return ctr.account.run(["ls", "-A", "/run/containerd/runc/default"]).stdout.split()


def test_run(ctr, run, recorder):
    before = len(recorder)
    done = ctr(*run, "--rm", IMAGE, "once", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert len(recorder.made(before)) == 1
    assert left(ctr) == []


def test_exec(ctr, running):
    words = ["task", "exec", "--exec-id=one", "--cwd=/tmp", running, "sh", "-c", "pwd; exit 7"]
    done = ctr(*words)
    assert (done.returncode, done.stdout) == (7, "/tmp\n")


def test_exec_of_what_is_not_there(ctr, running):
    done = ctr("task", "exec", "--exec-id=one", running, "nope")
    assert done.returncode == 1
    assert 'exec: "nope": executable file not found in $PATH' in done.stderr
    assert status(ctr, running) == "RUNNING"


def test_ps(ctr, running):
    lines = ctr.out("task", "ps", running).splitlines()
    assert len(lines) == 2


def test_kill(ctr, running):
    assert left(ctr) == [running]
    ctr("task", "kill", "--signal=KILL", running, check=True)
    until(lambda: status(ctr, running) == "STOPPED", "it stops")
    assert "137" in ctr("task", "rm", running, check=True).stderr
    assert left(ctr) == []


def test_pause_and_resume(ctr, running):
    ctr("task", "pause", running, check=True)
    assert status(ctr, running) == "PAUSED"
    ctr("task", "resume", running, check=True)
    assert status(ctr, running) == "RUNNING"


@pytest.mark.parametrize(
    ("flags", "after"), [([], "RUNNING"), (["--exit"], "STOPPED")], ids=["running on", "to its end"]
)
def test_checkpoint(ctr, run, need, flags, after):
    """containerd pauses the task first, and resumes it when the checkpoint is there."""
    need("criu")
    images = ctr.account.tmp / f"images-{after}"
    ctr(*run, "--detach", IMAGE, "kept", *FOREVER, check=True, stdout=subprocess.DEVNULL)

    ctr("task", "checkpoint", *flags, "--image-path", images, "kept", check=True)

    assert (images / "inventory.img").exists()
    until(lambda: status(ctr, "kept") == after, f"it is {after}")
    ctr("task", "rm", "--force", "kept", check=True)
    ctr("container", "rm", "kept", check=True)
    assert left(ctr) == []


def test_metrics(ctr, running):
    assert "cpu.usage_usec" in ctr.out("task", "metrics", running)


def test_a_program_that_is_not_there(ctr, run):
    done = ctr(*run, "--rm", IMAGE, "once", "nope")
    assert done.returncode == 1
    assert 'OCI runtime create failed: exec: "nope": executable file not found in $PATH' in done.stderr
    assert left(ctr) == []


@pytest.mark.parametrize(
    "flags", [["--read-only"], ["--privileged"], ["--cap-drop=CAP_CHOWN"], ["--net-host"]], ids=lambda f: f[0]
)
def test_option(ctr, run, flags):
    assert ctr(*run, "--rm", *flags, IMAGE, "once", "true").returncode == 0
