"""`--slurm`: the command in the line of oci.conf, and the flags that a task stands for."""

from __future__ import annotations

import posix

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.bundle.edit.slurm_line import command_of
from rootless.container.edits import slurm
from rootless.errors import RootlessError
from rootless.options import Options

AS_SLURM, AS_A_SHELL = "'\"'\"''", "'\"'\"'"
BEFORE = "/bin/sh-cROOTLESS_SLURM_LINE=$(…); exec rootless run --slurm /spool/environment n1.1.2.3.4"
words = st.lists(st.text("'\" #\\a\n"), min_size=1)


def line(command, quote=AS_SLURM):
    """Return the line of oci.conf for a command."""
    return f"{BEFORE} # " + " ".join("'" + word.replace("'", quote) + "'" for word in command)


@given(words)
@example(["a # 'b"])
def test_a_command_comes_out_of_the_line_as_it_was(command):
    assert command_of(line(command)) == tuple(command)


@given(words)
def test_a_command_that_is_quoted_correctly_comes_out_too(command):
    assert command_of(line(command, AS_A_SHELL)) == tuple(command)


@pytest.mark.parametrize(
    "text", ["", BEFORE, f"{BEFORE} # ", f"{BEFORE} # 'a", f"{BEFORE} # 'a'b'", f"{BEFORE} # 'a' b"]
)
def test_a_line_without_a_command_is_refused(text):
    with pytest.raises(RootlessError, match="ROOTLESS_SLURM_LINE does not end with"):
        command_of(text)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return a function that returns the options of a task, which gets flags and variables; its user is 1000."""
    monkeypatch.setattr(posix, "environ", dict(posix.environ))
    monkeypatch.setattr(posix, "putenv", lambda *_: None)
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    monkeypatch.setattr(posix, "getegid", lambda: 100)
    monkeypatch.setattr(posix, "isatty", lambda _: False)
    monkeypatch.setattr(slurm, "SHARED", ("/dev/shm",))  # tmp_path may be in /tmp
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    file = tmp_path / "spool" / "oci-job1-0" / "task-0" / "environment"
    file.parent.mkdir(parents=True)

    def options(command=("prog", "x"), given=None, **variables):
        step = {"SLURM_CONTAINER": "docker://box", "HOME": "/home/me", "PATH": "/host", "SLURM_JOB_ID": "7"} | variables
        file.write_bytes(b"".join(f"{name}={value}\0".encode() for name, value in step.items()))
        posix.environ[b"ROOTLESS_SLURM_LINE"] = line(command).encode()
        asked = {"verb": "run", "slurm": str(file), "container": "n1.1"} | (given or {})
        return slurm.task_options(Options(**asked))

    options.directory = tmp_path
    return options


def test_a_task_is_its_user_in_its_directory(task):
    options = task()
    assert (options.container, options.name, options.args) == ("docker://box", "n1.1", ("prog", "x"))
    assert (options.userns, options.user, options.group_add) == ("keep-id", "1000:100", ("keep-groups",))
    assert (options.network, options.cgroup_manager, options.init, options.interactive) == (
        "host",
        "disabled",
        True,
        True,
    )
    work = f"{task.directory}/work"
    assert options.cwd == work
    assert {"/dev/shm:/dev/shm", f"{work}:{work}"} <= set(options.volume)
    assert options.tmpfs == ("/home/me:notmpcopyup,mode=0700,uid=1000,gid=100",)
    assert options.env == ("HOME=/home/me", f"PWD={work}")
    assert "SLURM_JOB_ID=7" in options.step_env
    assert not options.slurm


def test_variables_about_libraries_of_the_host_are_left_out(task):
    variables = {"LD_PRELOAD": "/x.so", "LD_LIBRARY_PATH": "/x"}
    assert "LD_" not in " ".join(task(**variables).step_env)
    assert "LD_LIBRARY_PATH=/x" in task(**variables, ROOTLESS_ENV="LD_LIBRARY_PATH").env


def test_flags_go_before_what_slurm_chooses(task):
    flags = {
        "network": "none",
        "userns": "root",
        "cwd": "/x",
        "hostname": "h",
        "volume": ("/srv:/dev/shm:ro",),
        "env": ("HOME=/y",),
    }
    options = task(given=flags)
    assert (options.network, options.userns, options.cwd, options.hostname) == ("none", "root", "/x", "h")
    assert [text for text in options.volume if ":/dev/shm" in text] == ["/srv:/dev/shm:ro"]
    assert options.env[-1] == "HOME=/y"
    assert not options.user


def test_wishes_of_the_user(task):
    options = task(
        ROOTLESS_MOUNTS="/usr/share,/srv:/data:ro+noexec", ROOTLESS_WORKDIR="/w", ROOTLESS_ENTRYPOINT="run",
        ROOTLESS_WRITABLE="/changes", ROOTLESS_ENV="A,PATH", ROOTLESS_REMAP_ROOT="1", A="b",
    )  # fmt: skip
    assert options.volume[:2] == ("/usr/share:/usr/share", "/srv:/data:ro,noexec")
    assert (options.cwd, options.entrypoint, options.overlay) == ("/w", ("run",), "/changes")
    assert set(options.env) == {"HOME=/home/me", "PWD=/w", "A=b", "PATH=/host"}
    assert (options.userns, options.user) == ("root", "0:0")
    assert not task(ROOTLESS_ENTRYPOINT="image").entrypoint


@pytest.mark.parametrize("directory", ["/", "/usr/share", "/etc", "/var", "/opt", "/proc/self"])
def test_directories_of_the_system_stay_those_of_the_image(task, monkeypatch, directory):
    monkeypatch.setattr(posix, "getcwd", lambda: directory)
    options = task()
    assert options.cwd == directory
    assert not [text for text in (*options.volume, *options.mount) if text.startswith(directory + ":")]


@pytest.mark.parametrize("name", ["a:b", "a,b", "a b:c,d"])
def test_any_directory_can_be_the_working_directory(task, monkeypatch, name):
    directory = task.directory / name
    directory.mkdir()
    monkeypatch.chdir(directory)
    options = task()
    texts = [text for text in (*options.volume, *options.mount) if str(directory) in text]
    assert texts == [f'type=bind,"src={directory}","dst={directory}"' if ":" in name else f"{directory}:{directory}"]


def test_the_home_is_mounted_by_policy(task, tmp_path):
    home = tmp_path / "work" / "home"
    home.mkdir()
    options = task(HOME=str(home))
    assert not options.tmpfs  # it is in the working directory, which is mounted
    posix.environ[b"ROOTLESS_MOUNT_HOME"] = b"1"  # slurmd's
    other = tmp_path / "other"
    other.mkdir()
    assert f"{other}:{other}" in task(HOME=str(other)).volume
    assert f"{other}:{other}" not in task(HOME=str(other), ROOTLESS_MOUNT_HOME="0").volume


def test_a_program_that_srun_has_found_is_looked_up_in_the_image(task, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "prog"
    program.touch(0o755)
    assert task([str(program)], PATH=f"/nowhere:{tmp_path}/bin").args == ("prog",)
    assert task([str(program)], PATH="/nowhere").args == (str(program),)
    mounted = task([str(program)], PATH=f"{tmp_path}/bin", ROOTLESS_MOUNTS=str(tmp_path))
    assert mounted.args == (str(program),)


@pytest.mark.parametrize(
    ("word", "found"), [("alpine", "alpine:latest"), ("a/b", "a/b"), ("a:1", "a:1"), ("x.sqsh", None)]
)
def test_a_name_alone_is_that_of_an_image(task, word, found):
    (task.directory / "work" / "x.sqsh").touch()
    assert task(SLURM_CONTAINER=word).container == (found or f"{task.directory}/work/{word}")


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_CONTAINER": ""},
        {"ROOTLESS_CONTAINER_NAME": "../x"},
        {"ROOTLESS_CONTAINER_NAME": "x", "SLURM_JOB_ID": "../y"},
        {"ROOTLESS_CONTAINER_NAME": "x", "ROOTLESS_WRITABLE": "/y"},
        {"ROOTLESS_REMAP_ROOT": "perhaps"},
        {"ROOTLESS_MOUNT_HOME": "perhaps"},
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(task, variables):
    with pytest.raises(RootlessError) as raised:
        task(**variables)
    assert raised.value.code == "RL-USAGE"
