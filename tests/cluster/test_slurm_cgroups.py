"""Containers of a Slurm that finds the processes of a step by their cgroup: proctrack/cgroup, as most sites have it."""

from __future__ import annotations

import subprocess

import pytest

from tests.cluster.slurm import Step, submitting
from tests.lib.bundles import make_bundle
from tests.lib.containers import until

LOOP = "while :; do sleep 0.1; done"


@pytest.fixture(params=["oci.conf", "oci-image.conf"])
def submitter(request, user, cluster_with_cgroups, rootless_command):
    """The ordinary user on a node; nothing is left of the user's jobs."""
    with submitting(user, cluster_with_cgroups, request.param) as submitter:
        yield submitter


@pytest.fixture
def container(submitter, request):
    """What the file of helpers/slurm takes: a bundle or an image."""
    bundle = make_bundle(submitter)
    if request.node.callspec.params["submitter"] == "oci.conf":
        return bundle
    submitter.run(["rootless", "save", "--output", "box.sqsh", bundle], check=True)
    return submitter.tmp / "box.sqsh"


def test_a_task_is_in_the_cgroup_of_its_step(submitter, container):
    script = "cat /proc/self/cgroup; cat; exit 42"
    words = ["srun", "--quiet", "--nodes=2", "--ntasks=4", f"--container={container}", "/bin/sh", "-c", script]
    done = submitter.run(words, input="in\n")
    assert done.returncode == 42, done.stderr
    found = [line for line in done.stdout.splitlines() if "freezer" in line]
    assert len(found) == done.stdout.count("in\n") == 4
    assert all("/step_0" in line or line.endswith(":freezer:/") for line in found), found
    submitter.await_nothing()


def test_a_signal_reaches_the_program(submitter, container):
    step = Step(submitter, container, f"trap 'echo got USR1; exit 6' USR1; echo up; {LOOP}")
    submitter.run(["scancel", "--signal=USR1", step.job], check=True)
    status, rest = step.end()
    assert (status, set(rest.splitlines())) == (6, {"got USR1"})


@pytest.mark.parametrize(
    "script",
    [f"echo up; {LOOP}", f"trap '' TERM INT HUP; echo up; {LOOP}", "echo up; exec sleep 1000"],
    ids=["a shell", "SIGTERM ignored", "no handler"],
)
def test_nothing_is_left_of_a_step_that_is_cancelled(submitter, container, script):
    step = Step(submitter, container, script)
    submitter.run(["scancel", step.job], check=True)
    step.end()
    submitter.await_nothing()


@pytest.mark.parametrize("victim", ["rootless(.py)? run", "slurmstepd: \\["])
def test_nothing_is_left_when_a_process_of_slurm_or_rootless_is_killed(
    submitter, cluster_with_cgroups, container, victim
):
    step = Step(submitter, container, "echo up; exec sleep 1000")
    subprocess.run(cluster_with_cgroups.words("pkill", "-KILL", "-f", victim), check=True)
    submitter.run(["scancel", step.job])
    submitter.await_nothing()
    step.end()


def test_a_batch_job_and_its_steps(submitter, container):
    output = submitter.tmp / "output"
    words = ["sbatch", "--parsable", f"--output={output}", f"--container={container}"]
    job = submitter.run([*words, f"--wrap=echo up; trap '' TERM; {LOOP}"], check=True).stdout.strip()
    until(lambda: output.exists() and output.read_text() == "up\n", "it runs")
    submitter.run(["scancel", job], check=True)
    submitter.await_nothing()
