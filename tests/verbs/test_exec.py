"""`exec`: another process in a container, observed from inside and by its caller, with runc as an oracle."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import BOTH, SHORT, config_with_maps, make_box, status_of
from tests.lib.bundles import base_config
from tests.lib.containers import Reader, await_end, executors
from tests.lib.live import FOREVER, NOT_EXECUTED, Live
from tests.lib.namespaces import FILES
from tests.lib.terminals import Typewriter

HARD_LIMIT = str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
DENY_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}],
}
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
OWN = ("Uid", "Gid", "Groups", "Umask", "NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""Lines of /proc/PID/status."""


@pytest.fixture(scope="module", params=BOTH)
def both(request, module_user, rootless_command, need):
    """A container that many tests share, then one of runc."""
    box = make_box(module_user, request.param, rootless_command, need, name=request.param)
    yield Live(box, name="both")
    box.close()


@pytest.fixture(scope="module")
def live(module_user, rootless_command, need):
    """A container of rootless that many tests share."""
    box = make_box(module_user, "rootless", rootless_command, need, name="live")
    yield Live(box, name="live")
    box.close()


def named(config, **process):
    """Return the config with these properties of the process."""
    config["process"] |= process
    return config


# --- the command ------------------------------------------------------------------------------------------------------


def test_exec_is_in_every_namespace_of_the_container(both):
    seen = both.lines(*(f"readlink /proc/self/ns/{file}" for file in FILES.values()))
    ours = dict(zip(FILES, seen, strict=True))
    of_container = {kind: os.readlink(f"/proc/{both.pid}/ns/{file}") for kind, file in FILES.items()}
    assert ours == of_container
    host = {kind for kind, file in FILES.items() if ours[kind] == os.readlink(f"/proc/self/ns/{file}")}
    assert host <= {"cgroup", "time"}


def test_the_root_is_the_containers(both):
    (both.box.rootfs / "data/file").write_text("text\n")
    assert both.lines("cat /data/file; ls /; pwd") == ["text", *sorted(os.listdir(both.box.rootfs)), "/"]


def test_its_clocks_are_the_containers(box):
    config = config_with_maps(box.user)
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 7_000_000}}
    live = Live(box, config)
    assert float(live.lines("cat /proc/uptime")[0].split()[0]) > 7_000_000


def test_exec_has_the_identity_of_the_first_process(either):
    config = config_with_maps(either.user)
    config["process"] |= {
        "user": {"uid": 1000, "gid": 1000, "umask": 0o27},
        "capabilities": {name: ["CAP_KILL", "CAP_NET_RAW"] for name in SETS},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        "cwd": "/tmp",
        "env": ["PATH=/bin", "A=1", "HOME=/data"],
        "oomScoreAdj": 500,
    }
    if not either.oracle:  # runc 1.1.15 sets no groups unless root calls it
        config["process"]["user"]["additionalGids"] = [5, 33]
    config["linux"]["seccomp"] = DENY_MKDIR
    live = Live(either, config)
    lines = live.lines("cat /proc/self/status; echo --; cat /proc/1/status; echo --; mkdir /tmp/x 2>&1 || true")
    first, second, said = "\n".join(lines).split("--\n")
    # the container's shell may have any umask; runc 1.1.15 gives exec 0022
    names = [name for name in OWN if name != "Umask"]
    assert status_of(first.splitlines(), *names) == status_of(second.splitlines(), *names)
    assert status_of(first.splitlines(), "Seccomp", "NoNewPrivs") == ("2", "1")
    assert "Multihop" in said or "Protocol error" in said
    assert live.lines("cat /proc/self/limits | grep files; cat /proc/self/oom_score_adj; pwd; env | sort") == [
        *live.lines("grep files /proc/1/limits"),
        "500",
        "/tmp",
        "A=1",
        "HOME=/data",
        "PATH=/bin",
        "PWD=/tmp",
        "SHLVL=1",
    ]
    if not either.oracle:
        assert live.lines("umask") == ["0027"]


def test_the_users_home_is_in_its_environment(both):
    assert both.lines("echo $HOME", flags=["--user", "4321"]) == ["/home/user"]


@pytest.mark.parametrize("nnp", [True, False])
def test_the_filter_of_the_container_is_loaded_for_a_process_object_too(either, nnp):
    config = config_with_maps(either.user)
    config["linux"]["seccomp"] = DENY_MKDIR
    live = Live(either, config)
    file = live.process_file(args=["sh", "-c", "grep -w Seccomp: /proc/self/status"], noNewPrivileges=nnp)
    assert live.exec(flags=["--process", file]).stdout.split() == ["Seccomp:", "2"]


def test_exec_joins_the_session_keyring_of_the_container(box):
    config = named(config_with_maps(box.user), user={"uid": 0, "gid": 0})
    live = Live(box, config, "grep -c _ses.held /proc/keys > /tmp/count; " + FOREVER)
    assert live.lines("grep -c _ses.held /proc/keys; cat /tmp/count") == ["1", "1"]


def test_exec_keeps_the_callers_keyring_where_the_container_does(box):
    live = Live(box, None, flags=["--no-new-keyring"])
    assert live.lines("grep -c _ses.held /proc/keys || true") == ["0"]


def test_exec_needs_no_bundle(box):
    live = Live(box)
    shutil.rmtree(live.box.path / "rootfs/data")
    (live.box.path / "config.json").unlink()
    assert live.lines("echo ran") == ["ran"]


def test_keep_id(box):
    live = Live(box, base_config(), flags=["--userns", "keep-id"])
    assert live.lines("id -u; id -g") == [str(box.user.uid), str(box.user.gid)]
    assert live.lines("id -u", flags=["--user", "0"]) == ["0"]


# --- flags ------------------------------------------------------------------------------------------------------------


def test_flags_of_the_environment(either):
    live = Live(either, named(config_with_maps(either.user), env=["PATH=/bin", "A=1", "B=2"]))
    flags = ["--cwd", "/tmp", "-e", "A=3", "-e", "C=x y", "-e", "A=4"]
    assert live.lines("pwd; echo $A; echo $B; echo $C", flags=flags) == ["/tmp", "4", "2", "x y"]


def test_flags_of_the_user(both):
    seen = status_of(both.lines("cat /proc/self/status", flags=["--user", "1000:33"]), "Uid", "Gid")
    assert [ids.split() for ids in seen] == [["1000"] * 4, ["33"] * 4]
    assert both.lines("id -u; id -g", flags=["-u", "1000"]) == ["1000", "0"]


def test_the_flag_of_supplementary_groups(live):
    """runc 1.1.15 sets no groups unless root calls it."""
    flags = ["--additional-gids", "5", "-g", "7"]
    assert status_of(live.lines("cat /proc/self/status", flags=flags), "Groups").split() == ["5", "7"]


def test_the_capability_flag(both):
    (bounding,) = status_of(both.lines("cat /proc/self/status", flags=["--cap", "CAP_NET_RAW"]), "CapBnd").split()
    assert int(bounding, 16) >> 13 & 1
    (bounding,) = status_of(both.lines("cat /proc/self/status"), "CapBnd").split()
    assert not int(bounding, 16) >> 13 & 1


def test_added_capability_for_an_ordinary_user(live):
    seen = status_of(live.lines("cat /proc/self/status", flags=["-c", "CAP_NET_RAW", "-u", "1000"]), "CapEff", "CapPrm")
    assert [int(mask, 16) for mask in seen] == [1 << 13, 1 << 13]


def test_no_new_privileges(either):
    live = Live(either, named(config_with_maps(either.user), noNewPrivileges=False))
    wanted = "grep NoNewPrivs /proc/self/status"
    assert live.lines(wanted) == ["NoNewPrivs:\t0"]
    assert live.lines(wanted, flags=["--no-new-privs"]) == ["NoNewPrivs:\t1"]


def test_flags_end_at_the_command(both):
    assert both.exec("echo", "-e", "--tty", "--", "-x").stdout == "--tty -- -x\n"


def test_a_process_object(either):
    live = Live(either, named(config_with_maps(either.user), env=["PATH=/bin", "SECRET=1"], cwd="/data"))
    file = live.process_file(
        args=["sh", "-c", "id -u; id -g; pwd; env | grep -v SHLVL | sort; umask; grep CapEff /proc/self/status"],
        user={"uid": 33, "gid": 1000, "umask": 0o77},
        env=["PATH=/bin", "X=1", "HOME=/tmp"],
        cwd="/tmp",
        capabilities={},
    )
    done = live.exec(flags=["--process", file])
    lines = done.stdout.splitlines()
    assert lines[:6] == ["33", "1000", "/tmp", "HOME=/tmp", "PATH=/bin", "PWD=/tmp"], done.stderr
    assert lines[6] == "X=1"
    assert lines[8] == "CapEff:\t" + "0" * 16
    if not either.oracle:
        assert lines[7] == "0077"


def test_properties_missing_in_a_process_object(either):
    """Capabilities and the OOM score come from the container; limits and environment are empty."""
    rlimits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    live = Live(either, named(config_with_maps(either.user), rlimits=rlimits, oomScoreAdj=700))
    script = "cat /proc/self/oom_score_adj; grep Cap /proc/self/status"
    file = live.process_file(args=["sh", "-c", f"{script}; ulimit -Hn"])
    assert live.exec(flags=["-p", file]).stdout.splitlines() == [*live.lines(script.replace("self", "1")), HARD_LIMIT]


def test_flags_besides_a_process_object(live):
    file = live.process_file(args=["sh", "-c", "echo $A; pwd"], env=["A=1"])
    assert live.exec(flags=["--process", file, "--env", "A=2", "--cwd", "/tmp"]).stdout == "2\n/tmp\n"


def test_cpu_affinity(box):
    cpus = sorted(os.sched_getaffinity(0))
    config = named(config_with_maps(box.user), execCPUAffinity={"initial": str(cpus[0]), "final": str(cpus[-1])})
    live = Live(box, config)
    wanted = "grep Cpus_allowed_list /proc/self/status"
    assert live.lines(wanted) == [f"Cpus_allowed_list:\t{cpus[-1]}"]
    file = live.process_file(args=["sh", "-c", wanted], execCPUAffinity={"initial": str(cpus[0])})
    assert live.exec(flags=["-p", file]).stdout == f"Cpus_allowed_list:\t{cpus[0]}\n"
    file = live.process_file(execCPUAffinity={"final": "8000"})
    done = live.exec(flags=["-p", file])
    assert done.returncode == NOT_EXECUTED
    assert f"run on CPUs 8000: sched_setaffinity: Invalid argument ({file}: execCPUAffinity.final)" in done.stderr


# --- streams, descriptors, terminals ----------------------------------------------------------------------------------


def test_streams_and_status(both):
    done = both.exec("sh", "-c", "cat; echo error >&2; exit 7", input="over the pipe\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "over the pipe\n", "error\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_a_command_that_a_signal_ends(both, number):
    assert both.exec("sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


def test_program_can_reopen_its_streams(both):
    script = "read line < /dev/stdin; echo $line > /dev/stdout; echo $line > /dev/stderr"
    words = both.argv("sh", "-c", script, flags=["--user", "1000"])
    piped = 'echo text | "$@" 2>&1 | cat'  # the pipes belong to the caller
    assert both.user.run(["sh", "-c", piped, "sh", *words]).stdout == "text\ntext\n"


def test_signals_are_forwarded(both):
    script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    with both.popen("sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got TERM\n"
        assert process.wait(SHORT) == 3


def test_exec_inherits_no_descriptors(both):
    held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
    try:
        done = both.exec("sh", "-c", "ls /proc/self/fd", pass_fds=held)
        assert done.stdout.split() == ["0", "1", "2", "3"], "3 is the directory that ls is reading"
    finally:
        for fd in held:
            os.close(fd)


def test_preserved_descriptors(both):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file:
        script = "echo text >&3; ls /proc/self/fd"
        given = {"preexec_fn": lambda: os.dup2(writer, 3), "pass_fds": [3]}
        done = both.exec("sh", "-c", script, flags=["--preserve-fds", "1"], **given)
        os.close(writer)
        assert (done.stdout.split(), file.read()) == (["0", "1", "2", "3", "4"], b"text\n")


def test_preserved_descriptors_must_be_open(live):
    done = live.exec("true", flags=["--preserve-fds", "40"])
    assert done.returncode == NOT_EXECUTED
    assert "--preserve-fds 40: descriptor" in done.stderr


@pytest.fixture
def typewriter(both):
    def start(*words, flags=(), **options):
        return Typewriter(both.user, both.argv(*words, flags=["--tty", *flags]), **options)

    return start


def test_a_terminal(request, both, typewriter):
    is_late = request.node.callspec.params["both"] == "runc"  # it sets the size when the command runs already
    wait = "until stty size >/dev/null 2>&1; do :; done; " if is_late else ""
    with typewriter("sh", "-c", f"tty; {wait}stty size; read line; echo got $line; exit 4", size=(31, 97)) as terminal:
        assert terminal.until(b"\n") == b"/dev/pts/0\r\n"
        assert terminal.until(b"\n") == b"31 97\r\n"
        terminal.type(b"words\r")
        terminal.until(b"got words\r\n")
        terminal.ends(4)
        assert terminal.mode == terminal.original


def test_a_terminal_belongs_to_the_commands_user(both, typewriter):
    with typewriter("sh", "-c", "stat -c %u /dev/pts/0; : > /dev/tty; exit 0", flags=["-u", "1000"]) as terminal:
        assert terminal.until(b"\n") == b"1000\r\n"
        terminal.ends(0)


def test_the_console_of_the_container_stays_that_of_its_first_process(both, typewriter):
    before = both.lines("ls -l /dev/console 2>&1; ls /dev/pts")
    with typewriter("true") as terminal:
        terminal.ends(0)
    assert both.lines("ls -l /dev/console 2>&1; ls /dev/pts") == before


def test_a_terminal_over_a_socket(both):
    path = both.user.tmp / f"{both.box.path.name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        file = both.process_file(
            args=["sh", "-c", "stty size; exec sleep 1000"], terminal=True, consoleSize={"height": 11, "width": 22}
        )
        pid = both.detach(flags=["--process", file, "--console-socket", path])
        connection = listener.accept()[0]
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
        try:
            assert Reader(master).until(b"\n") == b"11 22\r\n"
        finally:
            os.close(master)
    await_end(pid)


def test_terminal_without_console_socket_is_refused(both):
    done = both.exec("true", flags=["--tty", "--detach"])
    assert done.returncode == NOT_EXECUTED
    assert "cannot allocate tty if" in done.stderr


# --- detached ---------------------------------------------------------------------------------------------------------


def test_a_detached_command_outlives_the_caller(both):
    pid = both.detach("sleep", "500")
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent == 1 or b"rootless" not in Path(f"/proc/{parent}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    await_end(pid)


REAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
null = os.open("/dev/null", os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=actions)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
pid = int(open(sys.argv[1]).read())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_detached_command_becomes_a_child_of_the_callers_reaper(both):
    """conmon and containerd's shim wait for it that way."""
    pid_file = both.user.tmp / "pid"
    words = both.argv("sh", "-c", "exit 9", flags=["--detach", "--pid-file", pid_file])
    words[0] = shutil.which(words[0])
    done = both.user.run(["/usr/bin/python3", "-c", REAPER, pid_file, *words], timeout=SHORT)
    assert (done.stdout, done.stderr) == ("0\n9\n", "")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_missing_command_is_reported(both, command, text):
    """The error has the words that podman and docker map to exit statuses."""
    done = both.exec(command)
    assert done.returncode == NOT_EXECUTED
    assert text in done.stderr.replace('\\"', '"')
    assert "config.json" not in done.stderr


def test_unknown_container_is_reported(both):
    done = both.user.run([*both.box.command, "exec", "nobody", "true"])
    assert done.returncode == NOT_EXECUTED
    assert "container does not exist" in done.stderr


def test_a_stopped_container(either):
    both = Live(either)
    both.user.run([*either.command, "kill", both.name, "KILL"], check=True)
    await_end(both.pid)
    done = both.exec("true")
    assert done.returncode == NOT_EXECUTED
    assert "cannot exec in a stopped container" in done.stderr or "has stopped" in done.stderr


def test_a_created_container(either):
    live = Live(either, None, "echo first > /tmp/file; exec sleep 1000", start=False)
    assert live.lines("ls /tmp; echo ran") == ["ran"]


REFUSED = {
    # flags: standard error
    "--cwd relative": '--cwd: the process is not valid: found the string "relative", expected an absolute path',
    "--cwd /nope": "--cwd: change the directory to /nope: chdir: No such file or directory",
    "--cwd /etc/passwd": "--cwd: change the directory to /etc/passwd: chdir: Not a directory",
    "--user nobody": "--user nobody: /etc/passwd has no user 'nobody'; fix: name a user of the container",
    "--user 1:users": "--user 1:users: /etc/group has no group 'users'",
    "--user \u0661": "--user \u0661: /etc/passwd has no user",
    "--user 0:\u00b2": "--user 0:\u00b2: /etc/group has no group",
    "--user 1:": "exec: --user: '' is not an id; fix: write a number in digits",
    "--user 70000": "--user: cannot run as uid 70000: the container has no such id; it has 0 to ",
    "--additional-gids \u0661": "exec: --additional-gids: '\u0661' is not an id",
    "--additional-gids x": "exec: --additional-gids: 'x' is not an id",
    "--env=": '--env "": it has no name; fix: write NAME=VALUE, or NAME to pass on a variable of your own',
    "--process /nope": "--process: cannot read /nope: no such file or directory",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_wrong_flags_are_refused(live, flags):
    words = [] if "--process" in flags else ["true"]
    done = live.exec(*words, flags=flags.split())
    assert done.returncode == NOT_EXECUTED
    assert f"rootless: {REFUSED[flags]}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", ["apparmor", "process-label"])
def test_labels_that_this_kernel_cannot_set(live, flag):
    if Path("/sys/kernel/security/lsm").exists():
        pytest.skip("needs a kernel without security modules")
    done = live.exec("true", flags=[f"--{flag}", "label"])
    assert done.returncode == NOT_EXECUTED
    assert f"--{flag}: " in done.stderr


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"user": {"uid": "x"}}, 'found the string "x", expected an integer from 0 to 4294967294 (FILE: user.uid)'),
        ({"args": []}, "(FILE: args)"),
        ({"cwd": None}, "(FILE: cwd)"),
        ({"args": ["nope"]}, 'exec: "nope": executable file not found in $PATH (FILE: args[0])'),
        ({"user": {"uid": 70_000}}, "(FILE: user.uid)"),
        ({"execCPUAffinity": {"initial": "3-1"}}, "(FILE: execCPUAffinity.initial)"),
    ],
)
def test_wrong_process_object_is_refused(live, process, text):
    file = live.process_file(**process)
    done = live.exec(flags=["--process", file])
    assert done.returncode == NOT_EXECUTED
    assert text.replace("FILE", str(file)) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_unwritable_pid_file_is_reported(live):
    before = executors(live.user)
    done = live.exec("sleep", "1000", flags=["--detach", "--pid-file", "/nope/pid"])
    assert done.returncode == NOT_EXECUTED
    assert done.stderr.startswith("rootless: --pid-file: cannot write /nope/pid: no such file or directory; fix: ")
    assert executors(live.user) == before
    assert live.lines("ps -o args | grep -c '[s]leep 1000'") == ["1"], "the container's processes"


def test_process_file_must_be_an_object(live):
    file = live.process_file()
    for text in ("[]", "{", ""):
        file.write_text(text)
        done = live.exec(flags=["--process", file])
        assert done.returncode == NOT_EXECUTED
        assert str(file) in done.stderr


def test_command_is_given_exactly_once(live):
    assert "COMMAND is missing" in live.exec().stderr
    assert "cannot be combined" in live.exec("true", flags=["--process", live.process_file()]).stderr
