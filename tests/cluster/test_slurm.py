"""`srun --container` and `sbatch --container` on a cluster of two nodes, with helpers/slurm/oci.conf."""

from __future__ import annotations

import pytest

from tests.cluster.slurm import Step, submitting
from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import until

LOOP = "while :; do sleep 0.1; done"


@pytest.fixture
def submitter(user, cluster, rootless_command):
    """The ordinary user on a node; at the end nothing of the user's jobs may be left."""
    with submitting(user, cluster, "oci.conf") as submitter:
        yield submitter


@pytest.fixture
def bundle(submitter):
    """A bundle, whose command Slurm replaces."""
    return make_bundle(submitter, base_config("sh", "-c", "echo the command of the bundle"))


@pytest.fixture
def srun(submitter, bundle):
    """Return a function that runs a shell script in containers."""

    def run(script, *flags, **options):
        return submitter.run(["srun", "--quiet", f"--container={bundle}", *flags, "/bin/sh", "-c", script], **options)

    return run


@pytest.fixture
def sbatch(submitter, bundle):
    """Return a function that runs a batch script in a container and returns its exit status and its output."""

    def run(script, *flags):
        output = submitter.tmp / "output"
        words = ["sbatch", "--quiet", "--wait", f"--output={output}", f"--container={bundle}", *flags]
        done = submitter.run([*words, f"--wrap={script}"])
        assert done.stderr == ""
        return done.returncode, output.read_text()

    return run


def test_srun_passes_streams_and_exit_status(srun):
    done = srun("cat; echo err >&2; exit 42", input="in\n")
    assert (done.returncode, done.stdout) == (42, "in\n"), done.stderr
    assert done.stderr.splitlines()[0] == "err"
    assert srun("true").returncode == 0


def test_srun_passes_the_status_of_a_signal(srun):
    assert srun("sh -c 'kill -SEGV $$'; exit $?").returncode == 128 + 11


def test_tasks_run_on_two_nodes(srun):
    done = srun("echo $SLURM_PROCID on $SLURMD_NODENAME; test -z $SLURM_CONF", "--nodes=2", "--ntasks=4", check=True)
    found = sorted(done.stdout.splitlines())
    assert [line.split()[0] for line in found] == ["0", "1", "2", "3"]
    assert {line.split()[-1] for line in found} == {"n1", "n2"}


def test_a_batch_job_has_the_output_and_status_of_its_container(sbatch):
    assert sbatch("echo out; echo err >&2; exit 4") == (4, "out\nerr\n")


def test_steps_of_a_job_run_in_parallel(submitter, bundle):
    output = submitter.tmp / "output"
    step = f"srun --ntasks=1 --exact --container={bundle} /bin/sh -c"
    script = f"{step} 'echo one' & {step} 'echo two' & wait; {step} 'echo three'"
    words = ["sbatch", "--quiet", "--wait", "--ntasks=2", f"--output={output}", f"--wrap={script}"]
    submitter.run(words, check=True)
    assert sorted(output.read_text().split()) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (f"echo up; {LOOP}", ()),
        (f"trap '' TERM INT HUP; echo up; {LOOP}", ()),
        ("echo up; exec sleep 1000", ()),
        (f"echo up; {LOOP}", ("--signal=KILL",)),
    ],
    ids=["a shell", "SIGTERM ignored", "process 1 without a handler", "SIGKILL"],
)
def test_a_cancelled_step_leaves_nothing(submitter, bundle, script, flags):
    step = Step(submitter, bundle, script)
    assert len([line for line in submitter.processes() if "rootless" in line]) > 0
    submitter.run(["scancel", *flags, step.job], check=True)
    step.end()
    submitter.await_nothing()


def test_a_cancelled_batch_job_leaves_nothing(submitter, bundle):
    output = submitter.tmp / "output"
    words = ["sbatch", "--parsable", f"--output={output}", f"--container={bundle}"]
    job = submitter.run([*words, f"--wrap=trap '' TERM; echo up; {LOOP}"], check=True).stdout.strip()
    until(lambda: output.exists() and output.read_text() == "up\n", "it runs")
    submitter.run(["scancel", job], check=True)
    submitter.await_nothing()


def test_a_failed_task_ends_the_others(submitter, srun):
    done = srun(f"test $SLURM_PROCID = 1 && exit 3; {LOOP}", "--kill-on-bad-exit", "--nodes=2", "--ntasks=4")
    assert done.returncode != 0
    submitter.await_nothing()


def test_signals_of_scancel_reach_the_program(submitter, bundle):
    step = Step(submitter, bundle, f"trap 'echo got USR1' USR1; trap 'exit 6' USR2; echo up; {LOOP}")
    submitter.run(["scancel", "--signal=USR1", step.job], check=True)
    assert step.reader.line() == "got USR1"
    submitter.run(["scancel", "--signal=USR2", step.job], check=True)
    # Slurm signals each process of a step: the program can get the signal twice, directly and from rootless
    status, rest = step.end()
    assert (status, set(rest.splitlines()) - {"got USR1"}) == (6, set())


def test_a_signal_of_scancel_reaches_the_batch_script(submitter, bundle):
    output = submitter.tmp / "output"
    words = ["sbatch", "--parsable", f"--output={output}", f"--container={bundle}"]
    script = f"trap 'echo got USR1; exit 6' USR1; echo up; {LOOP}"
    job = submitter.run([*words, f"--wrap={script}"], check=True).stdout.strip()
    until(lambda: output.exists() and output.read_text() == "up\n", "it runs")
    submitter.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    submitter.await_nothing()
    assert output.read_text() == "up\ngot USR1\n"


def test_a_job_array_leaves_nothing(submitter, bundle):
    words = ["sbatch", "--quiet", "--wait", "--array=0-11", "--output=array-%a", f"--container={bundle}"]
    done = submitter.run([*words, "--wrap=echo task $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID % 2))"])
    assert done.returncode == 1
    found = {path.name: path.read_text() for path in submitter.tmp.glob("array-*")}
    assert found == {f"array-{number}": f"task {number}\n" for number in range(12)}
    submitter.await_nothing()


def test_srun_pty_provides_a_terminal(submitter, bundle):
    script = f"stty rows 31 cols 71; srun --quiet --pty --container={bundle} /bin/sh -c 'tty; stty size; exit 7'"
    done = submitter.run(["script", "--quiet", "--return", "--command", script, "/dev/null"])
    assert done.returncode == 7
    # script(1) types the key for the end of its input, which the terminal echoes
    assert done.stdout.replace("^@", "").startswith("/dev/pts/0\n31 71\n")


def test_a_bundle_cannot_inject_commands_that_root_runs():
    """Slurm inserts some values into command lines without quotes; the user chooses %b, %r and %@."""
    lines = (CHECKOUT / "helpers/slurm/oci.conf").read_text().splitlines()
    by_root = [line for line in lines if line.startswith(("RunTimeQuery=", "RunTimeKill=", "RunTimeDelete="))]
    assert len(by_root) == 3
    used = {line[index + 1] for line in by_root for index, letter in enumerate(line) if letter == "%"}
    assert used <= set("jnstuU")
