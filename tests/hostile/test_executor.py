"""Images and processes that try to make the executor hang, crash or repeat an operation."""

from __future__ import annotations

import errno
import os
import pty
import resource
import select
import signal
import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from rootless.launch import spawn
from rootless.launch.failure import explained
from rootless.launch.protocol import FAILED, Descriptors
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.encode import encode
from rootless.plan.ops import Op
from tests.lib.boxes import add_mount, as_real_root, make_volume, mount_table
from tests.lib.bundles import base_config, own, write_config
from tests.lib.containers import PATIENCE
from tests.lib.executor import (
    MS_BIND,
    NOTHING,
    Executor,
    as_user,
    failure,
    in_user_namespace,
    make_root,
    mount_here,
    output,
    rooted,
)

ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
REFUSE = struct.pack("=HBBI", 0x06, 0, 0, 0x50000 | errno.EPERM)
LOAD_NUMBER = struct.pack("=HBBI", 0x20, 0, 0, 0)
NEW_LISTENER = 8
SLEEP = ("/bin/busybox", "sleep", "1000")
SYSCALLS = {"x86_64": {"execve": 59, "exit_group": 231}, "aarch64": {"execve": 221, "exit_group": 94}}
TRAPS = {-signal.SIGILL, -signal.SIGTRAP}


def refusing(*names: str) -> bytes:
    """Return a filter that refuses these system calls."""
    numbers = SYSCALLS.get(os.uname().machine) or pytest.skip("needs the system call numbers of this machine")
    program = LOAD_NUMBER
    for name in names:
        program += struct.pack("=HBBI", 0x15, 0, 1, numbers[name]) + REFUSE
    return program + ALLOW


def ended(pid: int) -> int | None:
    """Return the exit status of a child, or None if it had to be killed."""
    process = os.pidfd_open(pid)
    in_time = select.select([process], [], [], PATIENCE)[0]
    os.close(process)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if in_time else None


# --- Real-time threads ------------------------------------------------------------------------------------------------


@contextmanager
def real_time(cpu: int):
    """Schedule this process with SCHED_FIFO on one CPU; processes that it starts meanwhile inherit this."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        yield
    except PermissionError:
        pytest.skip("needs CAP_SYS_NICE: makes itself a real-time process")
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)


def notified(plan, watch) -> int | None:
    """Run a Plan whose filter has notifications, and return its status; `watch` gets the PID and the descriptors."""
    ours, report = socket.socketpair()
    reply, answers = os.pipe()
    with ours, report:
        pid = spawn.spawn(encode(plan), Descriptors(agent=reply), report=report.fileno(), reply=reply, trace=False)
        report.close()
        received = b""
        descriptors = []
        while not descriptors and select.select([ours], [], [], PATIENCE)[0]:
            data, descriptors, *_ = socket.recv_fds(ours, 4096, 2)
            received += data
            if not data:
                break
        assert len(descriptors) == 2, f"expected the listener and the connection to its agent: {received}"
        watch(pid, descriptors[0], ours)
        status = ended(pid)
        sender = struct.unpack("=IiiI", received[-16:])[1]
        assert ended(sender) == 0
    for fd in (reply, answers, *descriptors):
        os.close(fd)
    return status


def do_nothing(*_):
    """Watch nothing."""


def with_filter(program=ALLOW, *operations, args=("/bin/true",)) -> list[Op]:
    """Return a Plan for a program with a filter that has notifications."""
    return [
        Op(ops.LISTENER),
        *operations,
        Op(ops.NO_NEW_PRIVS),
        Op(ops.SECCOMP, NEW_LISTENER, 0, program),
        Op(ops.EXEC, args, []),
    ]


def test_a_listener_is_sent_by_a_real_time_process_on_one_cpu(require_root):
    """A process that waits for another one in a loop would never let it run there."""
    with real_time(min(os.sched_getaffinity(0))):
        assert notified(with_filter(), do_nothing) == 0


def test_a_listener_is_sent_by_a_deadline_scheduled_process(require_root):
    """A process that SCHED_DEADLINE schedules can start neither a process nor a thread."""
    deadline = struct.pack("=IIQiIQQQII", 56, 6, 0, 0, 0, 10_000_000, 30_000_000, 30_000_000, 0, 0)
    plan = with_filter(ALLOW, Op(ops.SCHEDULER, "", deadline), args=["/bin/sh", "-c", "exit 7"])
    assert notified(plan, do_nothing) == 7


def test_the_agent_sees_no_system_call_of_the_executor(require_root):
    """Not even if the container process is stopped and continued before its program starts."""

    def watch(pid, listener, report):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        os.kill(pid, signal.SIGCONT)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(report, select.POLLIN)  # end of file: the program has started
        seen = poll.poll(PATIENCE * 1000)
        os.kill(pid, signal.SIGKILL)
        assert [fd for fd, _ in seen] == [report.fileno()]

    assert notified(with_filter(args=SLEEP), watch) == -signal.SIGKILL


def test_a_filter_of_maximum_length_supports_notifications(require_root):
    assert notified(with_filter(ALLOW * 4096), do_nothing) == 0


def test_the_process_that_sends_the_listener_ends_with_the_executor(user):
    """Both before and after the fork of the container process."""

    def steps(*before):
        ours, report = socket.socketpair()
        reply, answers = os.pipe()
        plan = [Op(ops.LISTENER), *before, Op(ops.READY), Op(ops.WAIT_START), Op(ops.EXEC, ["/bin/true"], [])]
        with ours, report:
            pid = spawn.spawn(encode(plan), Descriptors(), report=report.fileno(), reply=reply, trace=False)
            report.close()
            os.close(reply)
            _, value, *_ = struct.unpack("=IiiI", ours.recv(16))
            os.kill(value or pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert select.select([ours], [], [], PATIENCE)[0]
            assert ours.recv(16) == b""  # the other end is closed everywhere
        os.close(answers)

    as_user(user, steps)
    as_user(user, steps, Op(ops.FORK))


# --- Filters that forbid exit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [False, True])
def test_a_filter_that_forbids_everything_ends_the_executor(user, waiting):
    """execve, write, exit_group and exit are refused: the C library retries the last two forever."""
    wait = [Op(ops.READY), Op(ops.WAIT_START)] if waiting else []

    def steps():
        running = Executor(
            in_user_namespace(*wait, Op(ops.NO_NEW_PRIVS), Op(ops.SECCOMP, 0, 0, REFUSE), args=["/bin/true"])
        )
        last = running.until_settled()
        if waiting:
            running.answer(b"S")
            assert running.until_executed() is None
        else:
            assert last is None
        return ended(running.first)

    assert as_user(user, steps) in TRAPS | {128 + signal.SIGILL, 128 + signal.SIGTRAP}


def test_a_filter_that_forbids_execve_and_exit_group_is_a_failure(user):
    def steps():
        plan = in_user_namespace(
            Op(ops.NO_NEW_PRIVS), Op(ops.SECCOMP, 0, 0, refusing("execve", "exit_group")), args=["/bin/true"]
        )
        running = Executor(plan)
        last = running.until_settled()
        return last.kind, last.error, last.call, ended(running.first)

    assert as_user(user, steps) == (FAILED, errno.EPERM, "execve", 1)


def test_a_filter_that_prevents_the_programs_start_is_reported(box):
    config = base_config("true")
    config["process"]["noNewPrivileges"] = True
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO"}
    said = box.run(config).stderr
    assert said.count("\n") == 1
    assert "warning: the seccomp filter ended the container before its program started" in said
    assert "(config.json: linux.seccomp); fix: allow execve, and write and exit_group" in said


# --- Refused operations that are retried ------------------------------------------------------------------------------


UNMAPPED = 100
"""The ID of a group that no container maps."""


def test_a_retried_console_does_not_open_a_second_terminal(box, require_root):
    """With keep-id the caller may create /dev/console in the image, and the container's root may not."""
    (box.rootfs / "dev/pts").mkdir(parents=True)
    os.chown(box.rootfs / "dev", box.user.uid, UNMAPPED)
    (box.rootfs / "dev").chmod(0o2711)
    config = base_config("tty")
    config["process"]["terminal"] = True
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev"]
    config["linux"]["devices"] = []
    write_config(box.path, config)
    master, slave = pty.openpty()
    words = [*box.command, "run", "--userns", "keep-id", "--bundle", box.path, "box"]
    with (box.user.tmp / "log").open("w") as log:
        done = box.user.run(words, stdin=slave, stdout=slave, stderr=log, timeout=PATIENCE)
    os.close(slave)
    os.close(master)
    assert (box.user.tmp / "log").read_text() == ""
    assert done.returncode == 0


def test_a_retried_bind_mount_keeps_its_own_source(box, require_root):
    """The caller, root, creates the mount points in a directory whose group the container does not have."""
    sources = [make_volume(box.user, f"source{number}") for number in range(3)]
    places = box.rootfs / "places"
    places.mkdir()
    as_real_root(box)
    os.chown(places, 0, UNMAPPED)
    places.chmod(0o700)
    config = base_config("cat", "/proc/self/mountinfo")
    config["linux"]["namespaces"].append({"type": "user"})
    mappings = [
        {"containerID": 0, "hostID": 200000, "size": 50},
        {"containerID": 1000, "hostID": 0, "size": 1},
    ]
    config["linux"] |= {"uidMappings": mappings, "gidMappings": mappings}
    config["mounts"][2]["options"].remove("gid=5")
    for number, source in enumerate(sources):
        add_mount(config, f"/places/{number}", "bind", source, "rbind")
    lines = box.lines(config)
    roots = {line.split()[4]: line.split()[3] for line in lines if " /places/" in line}
    assert set(mount_table(lines)) >= set(roots)
    assert {target: Path(root).name for target, root in roots.items()} == {
        f"/places/{number}": source.name for number, source in enumerate(sources)
    }


# --- Files that change ------------------------------------------------------------------------------------------------


def test_a_passwd_file_that_shrinks_during_reading_does_not_crash(user):
    """Another container that shares the volume truncates it; access to a page beyond the end raises SIGBUS."""
    root = make_root(user)
    (root / "etc").mkdir()
    passwd = root / "etc/passwd"
    passwd.touch()
    own(user, root)
    over = threading.Event()

    def shrink():
        while not over.is_set():
            os.truncate(passwd, 16 << 20)
            os.truncate(passwd, 0)

    racer = threading.Thread(target=shrink)
    racer.start()
    plan = rooted(root, args=["/bin/busybox", "sh", "-c", 'echo "$HOME"'], last=[Op(ops.HOME, 0, "/etc/passwd", "/")])
    try:
        for _ in range(30):
            assert as_user(user, output, plan) == "/\n"
    finally:
        over.set()
        racer.join()


def test_a_sysctl_covered_by_another_file_is_not_written(user):
    """A mount covers it in the caller's /proc (CVE-2025-52881)."""
    write = Op(ops.PROC_WRITE, "sys/kernel/domainname", "mine")
    plan = [Op(ops.UNSHARE, CLONE_FLAGS["uts"]), write, Op(ops.EXEC, ["/bin/true"], [])]

    def steps():
        mount_here(("/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "none", MS_BIND))
        return failure(plan)

    assert as_user(user, steps) == ("proc_write", "EXDEV", "open")


# --- Depth and count --------------------------------------------------------------------------------------------------


def nest(directory: Path, depth: int) -> None:
    """Make `depth` directories, each inside the previous one."""
    fd = os.open(directory, os.O_PATH)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def copied_up(user, depth: int):
    root = make_root(user)
    (root / "data").mkdir()
    own(user, root)

    def steps():
        nest(root / "data", depth)
        up = Op(ops.MOUNT, ops.COPY_UP, *NOTHING[1:], "tmpfs", "tmpfs", "/data", [])
        plan = rooted(root, up, args=["/bin/busybox", "find", "/data", "-type", "d"])
        running = Executor(plan)
        last = running.until_settled()
        running.leave()
        running.wait()
        if last:
            return plan[last.value].kind.name, errno.errorcode[last.error], last.call
        return len(running.output().splitlines())

    return as_user(user, steps)


@pytest.mark.parametrize("depth", [256, 5000])
def test_copying_up_a_tree_that_is_too_deep_fails(user, depth):
    assert copied_up(user, depth) == ("mount", "ENAMETOOLONG", "copy a deep tree")


def test_a_deep_tree_is_copied_up_with_few_descriptors(user):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
    try:
        assert copied_up(user, 255) == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_error_for_a_deep_tree_has_a_fix():
    error = explained(
        Op(ops.MOUNT, *NOTHING, "tmpfs", "tmpfs", "/data", []), "copy a deep tree", errno.ENAMETOOLONG, b""
    )
    assert error.fix == "leave tmpcopyup out: it copies directories up to 256 levels deep"


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.E2BIG, "use at most 512 binds"), (errno.EMFILE, "raise the limit of open files")]
)
def test_the_error_for_too_many_mounts_names_the_limit(number, fix):
    assert explained(Op(ops.TREE, *NOTHING, "/source"), "open_tree", number, b"").fix.startswith(fix)


def test_limits_of_the_executor_are_reported_as_e2big(user):
    root = make_root(user)
    trees = [Op(ops.TREE, *NOTHING, "/etc/passwd") for _ in range(513)]
    kept = [Op(ops.MOUNT, ops.PLAIN_TARGET, *NOTHING[1:], "tmpfs", "tmpfs", f"/{name}", []) for name in "abcdefghi"]
    plan = rooted(root)
    plan[3:3] = trees
    assert as_user(user, failure, plan) == ("tree", "E2BIG", "open_tree")
    assert as_user(user, failure, rooted(root, *kept)) == ("mount", "E2BIG", "pin a mount")
