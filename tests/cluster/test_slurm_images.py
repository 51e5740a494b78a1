"""`srun --container=IMAGE` on a cluster of two nodes, with helpers/slurm/oci-image.conf: `rootless run --slurm`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.cluster.slurm import Step, submitting
from tests.lib.accounts import account
from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import Reader, until
from tests.lib.enclosure import stop
from tests.lib.engines import HELPERS
from tests.lib.figures import MEASURE
from tests.lib.squashfs import make_sif
from tests.lib.terminals import Typewriter

LOOP = "while :; do sleep 0.1; done"
TASKS, AT_ONCE = 200, 16
"""Of the array."""
PORT = 5000
REGISTRY = f"""version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{inmemory: {{}}}}
http: {{addr: 127.0.0.1:{PORT}}}
"""
INSECURE = f'[[registry]]\nlocation = "127.0.0.1:{PORT}"\ninsecure = true\n'


SLOW = 120
"""Seconds: the least limit of a step is a minute, and slurmctld looks at time limits twice a minute."""
ENDED = {
    "a handler": ("trap 'echo got TERM; exit 3' TERM; echo up; while :; do sleep 1000 & wait; done", 3, "got TERM\n"),
    "SIGTERM ignored": ("trap '' TERM; echo up; sleep 1000", None, ""),
    "no handler": ("echo up; exec sleep 1000", 128 + 15, ""),
}
"""Scripts, with srun's exit status and the output at the time limit; srun does not wait for one that SIGKILL ends."""


@pytest.fixture
def submitter(user, cluster, rootless_command):
    """The ordinary user on a node; nothing is left of the user's jobs."""
    with submitting(user, cluster, "oci-image.conf") as submitter:
        yield submitter


@pytest.fixture(scope="module")
def files(module_user, rootless_command):
    """The directory of a bundle and of an image file and an archive that were made of it."""
    config = base_config("sh", "-c", "echo the command of the image")
    config["process"]["env"] += ["OF_THE_IMAGE=image"]
    bundle = make_bundle(module_user, config)
    for output in ("box.sqsh", "oci-archive:box.tar"):
        module_user.run([rootless_command, "save", "--output", output, bundle], check=True)
    return module_user.tmp


class Limited:
    """Jobs that run beside the tests of this file until their time limits end them: that takes up to 90 seconds."""

    def __init__(self, submitter, image) -> None:
        self.submitter = submitter
        self.steps = {name: Step(submitter, image, script) for name, (script, *_) in ENDED.items()}
        self.output = submitter.tmp / "output"
        script, *_ = ENDED["a handler"]
        words = ["sbatch", "--parsable", f"--output={self.output}", f"--container={image}", f"--wrap={script}"]
        batch = submitter.run(words, check=True).stdout.strip()
        until(lambda: self.output.exists() and "up\n" in self.output.read_text(), "the batch job runs")
        for job in (batch, *(step.job for step in self.steps.values())):
            submitter.run(["scontrol", "update", f"JobId={job}", "EndTime=now+1"], check=True)
        script = f'srun --time=1 --container={image} sh -c "$0"; echo $?; srun --container={image} echo after'
        self.allocation = submitter.popen(
            ["salloc", "--quiet", "--ntasks=2", "sh", "-c", script, ENDED["SIGTERM ignored"][0]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        reader = Reader(self.allocation.stdout)
        assert [reader.line(), reader.line()] == ["up", "up"]


@pytest.fixture(scope="module")
def other_user(request):
    """An ordinary user without subordinate IDs, with a directory for all tests."""
    yield from account(1, request)


@pytest.fixture(scope="module", autouse=True)
def limited(other_user, cluster, files, rootless_command):
    """Jobs of another user with time limits; nothing is left of them."""
    with submitting(other_user, cluster, "oci-image.conf") as submitter:
        yield Limited(submitter, files / "box.sqsh")


@pytest.fixture
def image(files):
    """An image file."""
    return files / "box.sqsh"


@pytest.fixture
def srun(submitter, image):
    """A function that runs a command in containers."""

    def run(*command, flags=(), container=image, **options):
        return submitter.run(["srun", "--quiet", f"--container={container}", *flags, *command], **options)

    return run


@pytest.fixture
def sh(srun):
    """A function that runs a shell script in containers and returns the lines of its output."""

    def run(script, *flags, **options):
        return srun("sh", "-c", script, flags=flags, check=True, **options).stdout.splitlines()

    return run


def test_a_task_is_its_user_on_its_node(submitter, sh):
    (submitter.tmp / "data").write_text("in the working directory\n")
    script = "id -u; pwd; hostname; cat data; echo $HOME; ls -A ~; echo x > ~/x; touch made; readlink /proc/self/ns/net"
    found = sh(script)
    own = submitter.run(["sh", "-c", "hostname; readlink /proc/self/ns/net"], check=True).stdout.splitlines()
    tmp = str(submitter.tmp)
    assert found == [str(submitter.uid), tmp, own[0], "in the working directory", str(submitter.home), own[1]]
    assert (submitter.tmp / "made").stat().st_uid == submitter.uid


def test_the_user_has_a_name_in_an_image(submitter, sh):
    name, home = submitter.name, str(submitter.home)
    assert sh("whoami; id -un; id -gn; eval echo ~$(whoami); stat -c %U .") == [name, name, name, home, name]


def test_tasks_share_memory_and_tmp_with_the_host(submitter, sh):
    shared = [f"/dev/shm/{submitter.tmp.name}", f"/tmp/{submitter.tmp.name}"]
    sh(f"touch {' '.join(shared)}")
    submitter.run(["rm", *shared], check=True)


def test_the_state_of_containers_is_hidden_from_images(submitter, sh):
    state = f"/tmp/rootless-{submitter.uid}"
    assert sh(f"ls -A {state}; touch {state}/x; ls {state}") == ["x"]


def test_exit_status_input_and_errors(srun):
    done = srun("sh", "-c", "cat; echo err >&2; exit 42", input="in\n")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (42, "in\n", "err")


def test_each_task_gets_the_input(sh):
    assert sh("cat", "--ntasks=4", "--nodes=2", input="in\n") == ["in"] * 4


@pytest.fixture
def registry(submitter, cluster, need):
    """A registry on the nodes without TLS, which the user's registries.conf allows."""
    settings = submitter.tmp / "registry.yml"
    settings.write_text(REGISTRY)
    process = subprocess.Popen(cluster.words(need("docker-registry"), "serve", settings))
    write = "mkdir -p ~/.config/containers && cat > ~/.config/containers/registries.conf"
    submitter.run(["sh", "-c", write], input=INSECURE, check=True)
    yield f"docker://127.0.0.1:{PORT}"
    stop(process)


def test_containers_are_bundles_files_and_references(submitter, files, srun, registry):
    archive = f"oci-archive:{files}/box.tar"
    push = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", archive]
    until(lambda: submitter.run([*push, f"{registry}/box"]).returncode == 0, "the registry has the image")
    submitter.run([*push, f"oci:{submitter.tmp}/layout:box"], check=True)
    relative = os.path.relpath(files, submitter.tmp)
    local = [f"{relative}/bundle", f"{relative}/box.sqsh", f"oci-archive:{relative}/box.tar"]
    for container in (*local, "oci:layout:box", f"{registry}/box"):
        # tasks that need an image at once pull it at once
        done = srun("printf", "in it", flags=["--nodes=2", "--ntasks=4"], container=container, check=True)
        assert (done.stdout, done.stderr) == ("in it" * 4, "")


ARGUMENTS = (
    "",
    "a  b",
    "it's",
    "''",
    "'a'b'",
    '"',
    "\\",
    "$HOME",
    "$(x)",
    "`x`",
    "#",
    " # '",
    "; x",
    "*",
    "a\nb\n",
    "é",
    "-x",
)


def test_arguments_arrive_as_they_are(srun):
    done = srun("printf", "%s|", *ARGUMENTS, check=True)
    assert done.stdout == "|".join([*ARGUMENTS, ""])


@pytest.mark.parametrize(
    "name",
    [
        "$(touch made)",
        "`touch made`",
        "x; touch made",
        "x\ntouch made",
        "a b",
        "--help",
        "-d",
        "'",
        "nothing",
        "./nothing.sqsh",
    ],
)
def test_the_name_of_a_container_is_nothing_but_a_name(submitter, srun, name):
    done = srun("true", container=name)
    assert done.returncode != 0
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["rootless", "srun"]
    assert "; fix: " in done.stderr
    assert list(submitter.tmp.iterdir()) == []


def test_a_sif_file(submitter, srun, image):
    sif = make_sif(image, submitter.tmp / "box.sif")
    assert srun("sh", "-c", "echo $0 in $SLURM_CONTAINER", container=sif, check=True).stdout == f"sh in {sif}\n"
    assert srun("sh", "-c", "exit 3", container="./box.sif").returncode == 3


@pytest.mark.parametrize("name", ["a b.sqsh", "$(x)'\"`;#.sqsh", "a\nb.sqsh", "-x.sqsh"])
def test_a_file_can_have_any_name(submitter, srun, image, name):
    shutil.copy(image, submitter.tmp / name)
    assert srun("echo", "in it", container=name, check=True).stdout == "in it\n"


def test_programs_are_those_of_the_image(srun):
    """Srun looks them up in the PATH of its own host: /usr/bin/sed there, /bin/sed in the image."""
    assert srun("sed", "s/o/0/", input="o\n", check=True).stdout == "0\n"
    assert srun("busybox", "echo", "x", check=True).stdout == "x\n"


def test_variables_of_the_image_go_before_those_of_the_step(srun):
    env = {"OF_THE_IMAGE": "host", "MINE": "two\nlines", "PATH": os.environ["PATH"]}
    script = 'echo "$OF_THE_IMAGE $MINE $SLURM_PROCID"; echo $PATH'
    done = srun("sh", "-c", script, env=env, check=True)
    assert done.stdout.startswith("image two\nlines 0\n/usr/local/sbin:")
    assert srun("sh", "-c", script, env=env | {"ROOTLESS_ENV": "OF_THE_IMAGE"}, check=True).stdout.startswith("host")


def test_a_variable_that_is_not_text_is_left_out_with_a_warning(srun):
    done = srun("sh", "-c", 'echo "$MINE$OTHER"', env={"MINE": "\udcff", "OTHER": "é"}, check=True)
    assert done.stdout == "é\n"
    assert done.stderr.startswith("rootless: warning: the variable MINE is left out: it is not UTF-8; fix: ")


def test_a_step_without_the_users_variables_has_the_users_home(submitter, sh):
    assert sh("echo $HOME $MINE", "--export=NONE", env={"MINE": "x"}) == [str(submitter.home)]


def test_the_user_chooses_mounts_the_directory_and_the_entrypoint(submitter, sh, srun):
    (submitter.tmp / "mine").mkdir()
    env = {"ROOTLESS_MOUNTS": f"{submitter.tmp}/mine:/mnt/mine:ro,/usr/share", "ROOTLESS_WORKDIR": "/some/where"}
    assert sh("pwd; ls -d /mnt/mine /usr/share/doc; touch /mnt/mine/x 2>/dev/null || echo ro", env=env) == [
        "/some/where", "/mnt/mine", "/usr/share/doc", "ro",
    ]  # fmt: skip
    assert srun("-n", "x", env={"ROOTLESS_ENTRYPOINT": "echo"}, flags=["--"], check=True).stdout == "x"
    (submitter.home / "at-home").touch()
    os.chown(submitter.home, submitter.uid, submitter.gid)
    assert sh("ls ~", env={"ROOTLESS_MOUNT_HOME": "1"}) == submitter.run(["ls", submitter.home]).stdout.splitlines()


def test_a_wish_that_is_wrong_is_refused_in_a_line(srun):
    for name, value in (("ROOTLESS_MOUNTS", "/missing:/x"), ("ROOTLESS_REMAP_ROOT", "?"), ("ROOTLESS_WORKDIR", "x")):
        done = srun("true", env={name: value})
        assert done.returncode == 1
        assert done.stderr.startswith(("rootless: --", f"rootless: {name} ")), done.stderr
        assert len(done.stderr.splitlines()) == 2


def test_a_container_with_a_name_lasts_as_long_as_the_job(submitter, image):
    step = f"srun --container={image} sh -c"
    script = f"{step} 'id -u; echo made > /made; chown 5:5 /made'; {step} 'cat /made'"
    env = {"ROOTLESS_CONTAINER_NAME": "mine", "ROOTLESS_REMAP_ROOT": "1"}
    done = submitter.run(["salloc", "--quiet", "sh", "-c", script], env=env)
    assert done.stdout == "0\nmade\n", done.stderr
    submitter.await_nothing()


def test_changes_of_one_task_are_saved_as_an_image_for_many(submitter, image):
    """Docs/cluster.md shows it; tasks with the same name do not see each other's changes."""
    named = "ROOTLESS_CONTAINER_NAME=mine"
    script = f"""
    {named} ROOTLESS_REMAP_ROOT=1 srun --ntasks=1 --container={image} sh -c 'echo made > /made; chown 0:0 /made'
    {named} srun --ntasks=2 --container={image} sh -c 'test $SLURM_LOCALID = 0 || ls /made'
    srun --ntasks=1 rootless save --overlay /tmp/rootless-slurm-{submitter.uid}/$SLURM_JOB_ID/mine.0 -o m.sqsh {image}
    srun --ntasks=2 --container=m.sqsh cat /made
    """
    done = submitter.run(["salloc", "--quiet", "--ntasks=2", "--nodes=1", "sh", "-c", script])
    assert done.stdout == "made\n" * 2
    assert "ls: /made: No such file or directory" in done.stderr
    submitter.await_nothing()


EPILOG = """
export SLURM_JOB_ID=7 SLURM_JOB_UID=$2 SLURM_JOB_USER=$3 SLURMD_NODENAME=n1
mkdir -p /run/others/7/x
"$1"
find /run/others | wc -l
"""


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /run/others $top",
        "mkdir $top; ln -s /run/others/7 $top/7",
        "mkdir $top; ln -s /run/others $top/7",
        "mkdir -p $top/7; ln -s /run/others $top/7/x",
    ],
)
def test_the_epilog_removes_nothing_of_others(submitter, cluster, script):
    top = f"/tmp/rootless-slurm-{submitter.uid}"
    submitter.run(["sh", "-euc", f"top={top}; rm -rf $top; {script}"], check=True)
    words = ["sh", "-euc", EPILOG, "sh", HELPERS / "slurm/epilog.sh", submitter.uid, submitter.name]
    done = subprocess.run(cluster.words(*words), check=True, capture_output=True, text=True)
    assert done.stdout == "3\n"
    assert submitter.run(["sh", "-c", f"ls {top}/7 2>&1; rm -rf {top}"]).stdout.endswith(
        ("No such file or directory\n", "x\n")
    )


def test_explain_shows_what_a_task_stands_for(submitter, image):
    file = submitter.tmp / "environment"
    file.write_text(f"SLURM_CONTAINER={image}\0HOME={submitter.home}\0")
    words = ["rootless", "explain", "--slurm", file]
    found = submitter.run(words, env={"ROOTLESS_SLURM_LINE": " # 'true'"}, check=True).stdout
    assert f"[--volume {submitter.tmp}:{submitter.tmp}]" in found
    assert "and ends if rootless is killed" in found


def test_a_terminal(submitter, image):
    script = f"stty rows 31 cols 71; srun --quiet --pty --container={image} sh -c 'tty; stty size; exit 7'"
    done = submitter.run(["script", "--quiet", "--return", "--command", script, "/dev/null"])
    assert done.returncode == 7
    assert done.stdout.replace("^@", "").startswith("/dev/pts/0\n31 71\n")


def test_a_batch_job(submitter, image):
    output = submitter.tmp / "output"
    words = ["sbatch", "--quiet", "--wait", f"--output={output}", f"--container={image}", "--ntasks=2"]
    done = submitter.run([*words, "--wrap=echo out; id -u; echo err >&2; exit 4"])
    assert (done.returncode, done.stderr, output.read_text()) == (4, "", f"out\n{submitter.uid}\nerr\n")


def test_steps_of_an_allocation_run_at_once(submitter, image):
    """Each waits for the others."""
    step = f"srun --exact --ntasks=1 --container={image} sh -c"
    meet = "touch met-$0; until [ -e met-a -a -e met-b -a -e met-c ]; do sleep 0.1; done; echo $0"
    script = f'for name in a b c; do {step} "$1" $name & done; wait'
    words = ["salloc", "--quiet", "--ntasks=3", "sh", "-c", script, "sh", meet]
    done = submitter.run(words, check=True)
    assert sorted(done.stdout.split()) == ["a", "b", "c"], done.stderr
    submitter.await_nothing()


def press_ctrl_c(submitter):
    """Send SIGINT to srun and its child, as a terminal does."""
    submitter.run(["pkill", "-INT", "-U", submitter.uid, "-x", "srun"], check=True)


def test_one_ctrl_c_at_srun_leaves_the_program_alone(submitter, image):
    step = Step(
        submitter, image, f"trap 'echo got INT' INT; trap 'echo here' USR1; trap 'exit 6' USR2; echo up; {LOOP}"
    )
    errors = Reader(step.srun.stderr)
    press_ctrl_c(submitter)
    assert "one more within 1 sec to abort" in errors.line()
    submitter.run(["scancel", "--signal=USR1", step.job], check=True)
    assert step.reader.line() == "here"
    submitter.run(["scancel", "--signal=USR2", step.job], check=True)
    status, rest = step.end()
    assert (status, set(rest.split())) in ((6, set()), (6, {"here"}))


@pytest.mark.parametrize(
    ("script", "handled"),
    [
        (f"trap 'touch handled; exit 5' INT; echo up; {LOOP}", True),
        (f"trap '' INT TERM; echo up; {LOOP}", False),
        ("echo up; exec sleep 1000", False),
    ],
    ids=["a handler", "ignored", "no handler"],
)
def test_two_ctrl_c_at_srun_end_the_program_by_sigint(submitter, image, script, handled):
    """srun does not wait for what the program prints from then on."""
    step = Step(submitter, image, script)
    errors = Reader(step.srun.stderr)
    press_ctrl_c(submitter)
    while "sending Ctrl-C to " not in (line := errors.line()):
        if "one more within 1 sec" in line:
            press_ctrl_c(submitter)
    status, _ = step.end()
    assert status > 0
    submitter.await_nothing()
    assert (submitter.tmp / "handled").exists() is handled


def test_ctrl_c_at_a_terminal_reaches_the_program(submitter, image):
    script = f"trap 'echo got INT; exit 5' INT; echo up; {LOOP}"
    words = ["srun", "--quiet", "--pty", f"--container={image}", "sh", "-c", script]
    with Typewriter(submitter, words) as terminal:
        terminal.until(b"up")
        terminal.type(b"\x03")
        terminal.until(b"got INT")
        terminal.ends(5)
    submitter.await_nothing()


def test_a_signal_for_the_program_does_not_end_the_server_of_its_image(submitter, image):
    """Slurm sends it to each process of the step."""
    script = f"trap 'od -c /bin/busybox | tail -n1 >&2; exit 6' USR1 TERM; echo up; {LOOP}"
    for number in ("USR1", "TERM"):
        step = Step(submitter, image, script)
        submitter.run(["scancel", f"--signal={number}", step.job], check=True)
        assert step.end()[0] == 6
        submitter.await_nothing()


@pytest.mark.parametrize(
    "script",
    [f"echo up; {LOOP}", f"trap '' TERM INT HUP; echo up; {LOOP}", "echo up; exec sleep 1000"],
    ids=["a shell", "SIGTERM ignored", "no handler"],
)
def test_nothing_is_left_of_a_step_that_is_cancelled(submitter, image, script):
    step = Step(submitter, image, script)
    submitter.run(["scancel", step.job], check=True)
    step.end()
    submitter.await_nothing()


@pytest.mark.parametrize(
    "victim", ["rootless(.py)? run --slurm .*[.]{}[.]", "slurmstepd: \\[{}[.]"], ids=["rootless", "slurmstepd"]
)
def test_nothing_is_left_when_a_process_of_slurm_or_rootless_is_killed(submitter, cluster, image, victim):
    step = Step(submitter, image, "echo up; exec sleep 1000")
    subprocess.run(cluster.words("pkill", "-KILL", "-f", victim.format(step.job)), check=True)
    submitter.run(["scancel", step.job])
    submitter.await_nothing()
    step.end()


def test_a_task_that_fails_ends_the_others(submitter, srun):
    script = f"test $SLURM_PROCID = 1 && exit 3; {LOOP}"
    assert srun("sh", "-c", script, flags=["--kill-on-bad-exit", "--nodes=2", "--ntasks=4"]).returncode != 0
    submitter.await_nothing()


PAIRS, MOST, PYTHON = 15, 40, 6.2
"""Of measurements; milliseconds; those that Python's own start takes where MOST holds."""


def test_an_image_adds_at_most_40_ms_to_srun(submitter, image):
    """Measured in turns, from the start of srun to its end: the fastest with the image, less the fastest without it.

    Other work of the machine makes any of them slower and none faster, so the fastest show the cost without it, if each
    has had a quiet moment: up to four series give them the chance. A slower machine gets more time, by its Python.
    """
    host = ["/usr/bin/srun", "--quiet", "/bin/true"]
    steps = [
        {"name": "host", "argv": host},
        {"name": "image", "argv": [*host[:2], f"--container={image}", "true"]},
        {"name": "python", "argv": ["/usr/bin/python3", "-IS", "-c", "pass"]},
    ]
    task = json.dumps({"rounds": PAIRS, "steps": steps})
    found = {"host": [], "image": [], "python": []}
    for _ in range(4):
        figures = json.loads(submitter.run(["python3", "-I", MEASURE], input=task, check=True).stdout)
        for name, series in found.items():
            series += [wall for _, wall in figures[name]]
        if min(found["image"]) - min(found["host"]) <= MOST * max(1, min(found["python"]) / PYTHON):
            return
    pytest.fail(f"milliseconds: { ({name: sorted(map(round, series)) for name, series in found.items()}) }")


def test_nothing_is_left_of_an_array(submitter, image):
    words = ["sbatch", "--quiet", "--wait", f"--array=0-{TASKS - 1}%{AT_ONCE}", "--output=array-%a"]
    script = "--wrap=echo task $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID % 2))"
    assert submitter.run([*words, f"--container={image}", script], timeout=900).returncode == 1
    found = {path.name: path.read_text() for path in submitter.tmp.glob("array-*")}
    assert found == {f"array-{number}": f"task {number}\n" for number in range(TASKS)}
    submitter.await_nothing()


@pytest.mark.parametrize("script", ENDED)
def test_at_its_time_limit_a_step_gets_sigterm_and_then_sigkill(limited, script):
    _, status, said = ENDED[script]
    step = limited.steps[script]
    rest, errors = step.srun.communicate(timeout=SLOW)
    assert "DUE TO TIME LIMIT" in errors
    assert rest == said
    assert status in (None, step.srun.returncode), errors


def test_at_its_time_limit_a_batch_job_gets_sigterm(limited):
    until(lambda: "DUE TO TIME LIMIT" in limited.output.read_text(), "it ends")
    assert "got TERM\n" in limited.output.read_text()


def test_a_step_ends_after_its_minute_and_the_allocation_goes_on(limited):
    said, errors = limited.allocation.communicate(timeout=SLOW)
    status, *rest = said.splitlines()
    assert status != "0"
    assert rest == ["after", "after"]
    assert re.search(r"STEP \d+[.]0 ON n[12] CANCELLED AT \S+ DUE TO TIME LIMIT", errors), errors
    limited.submitter.await_nothing()
