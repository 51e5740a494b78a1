"""Isolation of the host: a container gets only the files, descriptors, settings and processes that config.json names,
and the seccomp filter is loaded before the program's first instruction.

Each test gives the caller something to leak, or attacks from inside, and checks the result.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import resource
import select
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from tests.lib.boxes import Box, add_mount, make_volume, mount_table, set_namespaces
from tests.lib.bundles import base_config, own, write_config
from tests.lib.containers import PATIENCE, await_end, executors
from tests.lib.intruders import EVERYTHING, add_program, hunter, intruding, namespace_paths, results
from tests.lib.traced import Stopped


@pytest.fixture
def intruder(box, need):
    """Build intruder.c into the image as /bin/intruder; return its path outside."""
    return add_program(box, need, "intruder")


def intrude(box, *words, capabilities=EVERYTHING, config=None, **options):
    """Run the intruder in the box; return its results."""
    config = config or intruding(*words, capabilities=capabilities)
    return results(box.run(config, check=True, **options).stdout)


def create(box, **options):
    """Create a container whose intruder reports its attributes; return its PID and the file with its output."""
    write_config(box.path, intruding("given"))
    output = box.user.tmp / "output"
    with output.open("wb") as file:
        words = [*box.command, "create", "--bundle", box.path, "given"]
        done = box.user.run(words, stdout=file, stderr=file, timeout=PATIENCE, **options)
    box._created.append("given")
    assert done.returncode == 0, output.read_text()
    return pid_of(box, "given"), output


def pid_of(box, name):
    return json.loads(box.user.run([*box.command, "state", name], check=True).stdout)["pid"]


def start(box, pid, output, **options):
    """Start the created container; return the intruder's results."""
    box.user.run([*box.command, "start", "given"], timeout=PATIENCE, check=True, **options)
    await_end(pid)
    return results(output.read_text())


# --- Files ------------------------------------------------------------------------------------------------------------


def test_only_listed_file_systems_are_mounted(box):
    """The mount table has no trace of the host's root, which was mounted before."""
    config = base_config("cat", "/proc/self/mountinfo")
    config["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    table = mount_table(box.lines(config))
    nodes = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    assert set(table) == {"/", "/proc", "/dev", "/dev/pts", "/sys", *nodes}
    assert len(table) == len(box.lines(config)), "nothing is mounted twice"


def test_a_container_without_mounts_sees_no_process_of_the_host(box):
    config = base_config("sh", "-c", "ls / | sort; ls -A /proc /sys /tmp; ls /dev | sort")
    config["mounts"] = []
    config["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    lines = box.lines(config)
    assert not any(lines[lines.index("/proc:") + 1 : lines.index("/sys:")]), "no process of the host"


@pytest.mark.parametrize("without_pivot", [False, True])
def test_nothing_above_the_root_can_be_reached(box, intruder, without_pivot):
    """Not by `..`, chroot, umount or a namespace, with every capability that a container can have."""
    marker = box.user.tmp / "marker"
    marker.write_text("a file of the host")
    marker.chmod(0o644)
    flags = ["--no-pivot"] if without_pivot else []
    found = intrude(box, "escape", str(marker), flags=flags)
    for name in (
        "open",
        "up-marker",
        "tree-marker",
        "chroot-marker",
        "umount-marker",
        "setns-marker",
        "unshare-marker",
    ):
        assert found.get(name, ["ENOENT"]) == ["ENOENT"], name
    for name in ("up-is-root", "chroot-is-root"):
        assert found[name] == ["1"], name
    assert found["openat2"] == ["0"], "`..` of the root is the root"
    assert marker.exists()


def test_proc_links_of_container_processes_stay_inside(box):
    """Neither process 1 nor the shell's child has a directory, an executable or a descriptor of the host."""
    script = (
        "for p in 1 self; do for l in cwd root exe; do readlink /proc/$p/$l; done; done; "
        "ls -id / /proc/1/root/. | cut -d/ -f1 | sort -u | wc -l; ls /proc/1/fd; ls /proc/1/task/1/fd; true"
    )
    assert box.lines(base_config("sh", "-c", script)) == [
        *("/", "/", "/bin/busybox") * 2,
        "1",
        *("0", "1", "2") * 2,
    ]


# --- Descriptors ------------------------------------------------------------------------------------------------------


STRAYS = 50
CARELESS = f"""
import os, select, socket, sys
kept = []
makers = (
    lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    lambda: os.open("/etc", os.O_PATH),
    lambda: os.open("/etc/passwd", os.O_RDONLY),
    lambda: os.open(os.environ["HOME"], os.O_RDONLY | os.O_DIRECTORY),
    lambda: os.pipe()[0],
    lambda: os.memfd_create("stray"),
    lambda: socket.socket(socket.AF_UNIX).detach(),
    lambda: socket.socket(socket.AF_INET).detach(),
    lambda: kept.append(select.epoll()) or os.dup(kept[-1].fileno()),
    lambda: os.pidfd_open(os.getpid()),
    lambda: os.eventfd(0),
    lambda: os.open("/proc/self/ns/mnt", os.O_RDONLY),
)
for fd in range(3, {3 + STRAYS}):
    made = makers[fd % len(makers)]()
    if made != fd:
        os.dup2(made, fd)
        os.close(made)
    os.set_inheritable(fd, True)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A caller that leaks fifty descriptors of every kind, numbered from 3 without a gap."""


@pytest.fixture
def careless(box):
    """Call every command of the box from a process that leaks descriptors."""
    box.command = ["/usr/bin/python3", "-ISc", CARELESS, *box.command]
    return box


def descriptors(found):
    """Return the intruder's descriptors: {number: file}."""
    return {int(line.split(" ", 1)[0]): line.split(" ", 1)[1] for line in found["descriptor"]}


def test_no_descriptor_of_the_caller_reaches_the_program(careless, intruder):
    assert set(descriptors(intrude(careless, "given"))) == {0, 1, 2}


@pytest.mark.parametrize("count", [1, 7, 50])
def test_exactly_the_preserved_descriptors_reach_the_program(careless, intruder, count):
    """A directory among them is passed on request; the first descriptor beyond the count is not passed."""
    found = descriptors(intrude(careless, "given", flags=["--preserve-fds", str(count)]))
    assert set(found) == set(range(3 + count))
    assert found[3] == str(careless.user.home), "each descriptor keeps its number"


def test_no_descriptor_of_create_or_start_reaches_the_program(careless, intruder):
    """Neither the caller of `create` nor that of `start` leaks one."""
    pid, output = create(careless)
    # the process that waits for `start` has only its streams and the start socket
    waiting = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert {each.partition(":")[0] for each in waiting} <= {"/dev/null", "socket", str(output)}
    assert set(descriptors(start(careless, pid, output))) == {0, 1, 2}


# --- Inherited attributes ---------------------------------------------------------------------------------------------


def test_no_variable_of_the_caller_reaches_the_program(box):
    names = (
        *("SECRET", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "TMPDIR", "LISTEN_FDNAMES"),
        *("_OCI_S", "_OCI_SYNCPIPE", "_LIBCONTAINER_INITPIPE", "DBUS_SESSION_BUS_ADDRESS"),
    )
    secrets = dict.fromkeys(names, "s3cr3t") | {"LISTEN_FDS": "3", "LISTEN_PID": "1"}
    config = base_config("sh", "-c", "cat /proc/1/environ | tr '\\0' '\\n'; cat /proc/*/environ | grep -c s3cr3t")
    config["process"]["env"] = ["PATH=/bin", "OWN=value"]
    lines = box.run(config, env=secrets).stdout.splitlines()
    assert lines == ["PATH=/bin", "OWN=value", "HOME=/root", "0"]


BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE, signal.SIGRTMIN + 3}
IGNORED = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGURG, signal.SIGXFSZ, signal.SIGCONT),
    *(signal.SIGRTMIN, signal.SIGRTMAX),
}


def inherit_signals():
    """Block and ignore signals, as nohup or a careless caller does."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, BLOCKED)


def test_the_program_starts_with_default_signals(box, intruder):
    """The caller blocks some and ignores others. An ignored SIGCHLD would hide the exit status of every child."""
    found = intrude(box, "given", preexec_fn=inherit_signals)
    assert "blocked" not in found
    assert "ignored" not in found


def test_the_program_of_a_created_container_has_default_signals(box, intruder):
    pid, output = create(box, preexec_fn=inherit_signals)
    found = start(box, pid, output, preexec_fn=inherit_signals)
    assert "descriptor" in found
    assert "blocked" not in found
    assert "ignored" not in found


def test_a_caller_that_ignores_sigchld_gets_the_exit_status(box):
    done = box.run(base_config("sh", "-c", "exit 7"), preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert (done.returncode, done.stderr) == (7, "")


def test_parent_session_umask_and_death_signal_are_not_inherited(box, intruder):
    """The program has no parent, a session of its own, no parent-death signal and the default umask."""
    found = intrude(box, "given", umask=0o777)
    assert {name: found[name] for name in ("pdeathsig", "subreaper", "parent", "leads", "umask", "terminal")} == {
        "pdeathsig": ["0"],
        "subreaper": ["0"],
        "parent": ["0"],
        "leads": ["1"],
        "umask": [str(0o022)],
        "terminal": ["ENXIO"],
    }


def test_resource_limits_are_the_callers_except_those_in_config_json(box, intruder):
    """No limit is raised or lowered."""
    before = {}

    def lower():
        for which, (soft, hard) in LOWERED.items():
            resource.setrlimit(which, (soft, hard))

    for which in range(16):
        before[which] = LOWERED.get(which) or resource.getrlimit(which)
    config = intruding("given")
    config["process"]["rlimits"] = [{"type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 21}]
    found = intrude(box, config=config, preexec_fn=lower)
    before[resource.RLIMIT_FSIZE] = (1 << 20, 1 << 21)
    told = {which: tuple(int(number) for number in found[f"limit{which}"][0].split()) for which in range(16)}
    assert told == before


LOWERED = {
    resource.RLIMIT_NOFILE: (123, 456),
    resource.RLIMIT_CORE: (0, 4096),
    resource.RLIMIT_STACK: (1 << 22, 1 << 23),
    resource.RLIMIT_FSIZE: (1 << 24, 1 << 25),
}


def test_no_group_of_the_caller_reaches_the_program(box, require_root):
    """With subordinate ids they are dropped; without, the kernel keeps them (tests/spec/test_process_user.py)."""
    config = base_config("sh", "-c", "grep ^Groups /proc/self/status; id -G")
    told, shown = box.lines(config, extra_groups=[4, 27, 100])
    assert told.split() == ["Groups:"]
    assert shown == "0"


def test_no_key_of_the_caller_reaches_the_program(box, intruder):
    """Neither by possession of its session keyring nor by the number of the key."""
    write_config(box.path, intruding("unlock", "KEY"))
    script = (
        f"sed -i s/KEY/$1/ {box.path}/config.json && {intruder} unlock $1 && "
        f"echo == && exec {box.command[0]} run -b {box.path} box"
    )
    done = box.user.run([intruder, "lock", "/bin/sh", "-c", script, "sh", "NUMBER"], timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    outside, _, inside = done.stdout.partition("==\n")
    assert all(result[0].isdigit() for (result,) in results(outside).values()), "the caller can use the key"
    found = results(inside)
    assert found["search"] in (["ENOKEY"], ["EACCES"])
    assert found["request"] == ["ENOKEY"]
    assert found["read"] in (["EACCES"], ["ENOKEY"])
    assert found["link"] in (["EACCES"], ["ENOKEY"])


# --- The terminal -----------------------------------------------------------------------------------------------------


def test_the_program_cannot_type_into_the_callers_terminal(box, intruder):
    """CVE-2017-5226: the shell that waits would read the input that the container types."""
    write_config(box.path, intruding("type"))
    master, slave = pty.openpty()
    os.fchown(slave, box.user.uid, -1)
    output = box.user.tmp / "output"
    with output.open("wb") as file:
        process = box.user.popen(
            [*box.command, "run", "--bundle", box.path, "box"],
            stdin=slave,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        assert process.wait(timeout=PATIENCE) == 0, output.read_text()
    found = results(output.read_text())
    waiting = bool(select.select([slave], [], [], 0)[0])
    os.close(master)
    os.close(slave)
    assert not waiting
    assert found.pop("TIOCSPGRP") == ["ENOTTY"]
    assert all(result in (["EPERM"], ["EIO"]) for result in found.values()), found


# --- Processes --------------------------------------------------------------------------------------------------------


def assert_repelled(found, *, joined=False):
    """Check that every attempt of an attack was refused.

    The same user can see which descriptors are open, though not their files; after a join of namespaces not even that.
    """
    assert len(found) > 20
    if not joined:
        del found["fd"]
    for name, result in found.items():
        refusals = {"EACCES", "EPERM"} | ({"ENOENT"} if name.startswith("fd/") else set())
        assert result[0] in refusals, (name, result)


def test_the_callers_processes_are_invisible(box):
    """In a container's own pid namespace, `rootless` and other processes have no PID."""
    script = f"ls /proc | grep -c '^[0-9]'; kill -9 -1; kill -9 {os.getpid()} 2>&1; kill -9 1 2>&1; echo $$ lives"
    processes, *said, last = box.lines(base_config("sh", "-c", script))
    assert int(processes) <= 4, "a shell, ls and grep"
    assert all("No such process" in line or "can't kill" in line for line in said)
    assert last == "1 lives"


@pytest.mark.parametrize("which", ["rootless", "another container's init"])
def test_process_without_a_pid_inside_cannot_be_attacked(box, other, intruder, which):
    """From its own pid namespace, a container can neither inspect nor end `rootless` or another container's init."""
    config = intruding()
    volume = make_volume(box.user)
    os.mkfifo(volume / "pid")
    own(box.user, volume)
    add_mount(config, "/volume", "bind", volume, "rbind")
    config["process"]["args"] = ["sh", "-c", "read pid </volume/pid; intruder attack $pid; intruder end $pid"]
    write_config(box.path, config)
    victim = other.create(base_config("true"), "exit 0", name="victim")
    words = [*box.command, "run", "--bundle", box.path, "box"]
    process = box.user.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    with (volume / "pid").open("w") as fifo:
        fifo.write(f"{process.pid if which == 'rootless' else victim}\n")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found = results(out)
    assert len(found) > 20
    assert {result[0] for result in found.values()} <= {"ENOENT", "ESRCH", "EBADF"}, found
    assert other.user.run([*other.command, "start", "victim"]).returncode == 0, "it still runs"


def test_a_container_that_kills_exec_affects_only_itself(box, need):
    """The process has the container's user and namespace, so the container may kill it, and `exec` reports that."""
    box.create(base_config(), "exec sleep 1000")
    box.user.run([*box.command, "start", "held"], check=True)
    execute = Stopped(box.user, need("strace"), [*box.command, "exec", "held", "true"], ("pipe2", 3))
    script = (
        "for process in /proc/[0-9]*; do read name <$process/comm; "
        '[ "$name" = rootless:init ] && kill -9 ${process#/proc/} && echo killed; done; true'
    )
    try:
        killed = box.user.run([*box.command, "exec", "held", "sh", "-c", script], check=True).stdout
    finally:
        status, complaint = execute.go_on()
    assert killed == "killed\n"
    assert status == 255
    assert complaint.startswith("rootless: the executor was killed: ")
    assert complaint.count("\n") == 1
    assert box.user.run([*box.command, "exec", "held", "true"]).returncode == 0, "the container still works"


def test_rootless_cannot_be_entered_from_a_container_that_sees_it(box, intruder):
    """The container sees the host's processes, and the `rootless` that waits for it has the same user outside."""
    config = intruding()
    set_namespaces(config, "network", "ipc", "uts", "mount")
    volume = make_volume(box.user)
    os.mkfifo(volume / "pid")
    own(box.user, volume)
    add_mount(config, "/volume", "bind", volume, "rbind")
    config["process"]["args"] = [
        "sh",
        "-c",
        "read pid </volume/pid; intruder attack $pid; kill -0 $pid && echo visible 1",
    ]
    write_config(box.path, config)
    words = [*box.command, "run", "--bundle", box.path, "box"]
    process = box.user.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    with (volume / "pid").open("w") as fifo:
        fifo.write(f"{process.pid}\n")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found = results(out)
    assert found.pop("visible") == ["1"], "the pid was right"
    assert_repelled(found)


@pytest.fixture
def other(box, rootless_command, need):
    """A second bundle of the same user."""
    other = Box(box.user, [rootless_command], name="other")
    add_program(other, need, "intruder")
    yield other
    other.close()


def inner_pid(pid):
    """Return the PID of a process in its innermost pid namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("NSpid:")[2].partition("\n")[0].split()[-1])


@pytest.mark.parametrize("shared", ["pid and user namespace", "the host's processes"])
def test_a_waiting_container_cannot_be_entered_by_another(box, other, intruder, shared):
    """CVE-2016-9962: another container's root sees the executor before it becomes the program."""
    attacker = intruding()
    volume = make_volume(box.user)
    os.mkfifo(volume / "pid")
    own(box.user, volume)
    add_mount(attacker, "/volume", "bind", volume, "rbind")
    script = "read pid </volume/pid; cat /proc/$pid/comm >/volume/comm; intruder attack $pid >/volume/out"
    if shared == "the host's processes":
        set_namespaces(attacker, "network", "ipc", "uts", "mount")
    first = box.create(attacker, script, name="attacker")
    config = base_config("true")
    if shared == "the host's processes":
        set_namespaces(config, "network", "ipc", "uts", "mount")
    else:
        set_namespaces(
            config, "network", "ipc", "uts", "mount", user=f"/proc/{first}/ns/user", pid=f"/proc/{first}/ns/pid"
        )
    victim = other.create(config, "exit 0", name="victim")
    box.user.run([*box.command, "start", "attacker"], check=True)
    with (volume / "pid").open("w") as fifo:
        fifo.write(f"{victim if shared.startswith('the host') else inner_pid(victim)}\n")
    await_end(first)
    found = results((volume / "out").read_text())
    assert (volume / "comm").read_text() == "rootless:init\n"
    assert_repelled(found, joined=shared == "pid and user namespace")


@pytest.mark.parametrize("shared", ["pid and user namespace", "the host's processes"])
def test_a_container_cannot_be_entered_during_creation(box, other, intruder, shared):
    """A race: the first container attacks while others join its namespaces, are created, start and end."""
    shares_pids = shared == "the host's processes"
    kinds = ["user"] if shares_pids else ["user", "pid"]
    with hunter(box, shares_pids=shares_pids, tries=10) as pid:
        config = base_config("true")
        set_namespaces(config, "network", "ipc", "uts", "mount", **namespace_paths(pid, *kinds))
        for _ in range(10):
            other.run(config, check=True)
    assert not executors(box.user)


# --- Seccomp ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("again",), ("in", "child")], ids=["first", "after execve", "in a child"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("capabilities", [[], EVERYTHING], ids=["no capability", "every capability"])
def test_the_seccomp_filter_is_loaded_before_the_first_instruction(box, need, words, no_new_privileges, capabilities):
    add_program(box, need, "first_call", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
    config = intruding(capabilities=capabilities)
    config["process"] |= {"args": ["/bin/first_call", *words], "noNewPrivileges": no_new_privileges}
    assert box.run(config).returncode == 1, "without a filter the call works"
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EOWNERDEAD}],
    }
    assert box.run(config).returncode == errno.EOWNERDEAD
    config["linux"]["seccomp"]["syscalls"][0] = {"names": ["getpid"], "action": "SCMP_ACT_KILL_PROCESS"}
    assert box.run(config).returncode == 128 + signal.SIGSYS


def test_the_seccomp_filter_applies_to_child_processes(box, need):
    """Without no_new_privs too."""
    add_program(box, need, "first_call", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
    config = intruding()
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EOWNERDEAD}],
    }
    status = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; /bin/first_call; echo $?"
    assert [line.split()[-1] for line in box.lines(config, status)] == ["0", "2", str(errno.EOWNERDEAD)]
