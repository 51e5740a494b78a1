"""The executor's life: the protocol, its descriptors, waiting, starting, failing. The Plans are handwritten."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from rootless.errors import RootlessError
from rootless.launch import run_plan
from rootless.launch.protocol import FAILED, PROGRESS, READY, TURN, Descriptors
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from tests.lib.containers import until
from tests.lib.executor import PATIENCE, Executor, as_user, failure, in_user_namespace, output, refusals, rooted

PR_SET_CHILD_SUBREAPER = 36
SLEEP = (shutil.which("busybox", path="/usr/bin:/bin") or "busybox", "sleep", "1000")
"""A static program, which opens no files."""


def waiting(*operations, args=SLEEP, namespaces=("pid",)) -> list[Op]:
    """Return a Plan for a separate process that waits for its start."""
    return [
        Op(ops.NEW_USER),
        Op(ops.YIELD),
        Op(ops.UNSHARE, sum(CLONE_FLAGS[name] for name in namespaces)),
        Op(ops.FORK),
        Op(ops.BECOME, 0, 0),
        *operations,
        Op(ops.READY),
        Op(ops.WAIT_START),
        Op(ops.EXEC, list(args), []),
    ]


def created(plan=None, **options) -> Executor:
    """Return an executor that waits for its start."""
    running = Executor(plan or waiting(), **options)
    assert running.until_settled() == (READY, 0, 0, "", b"")
    return running


def listener() -> socket.socket:
    """Return a socket that listens for the start, at any address."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind("")
    listening.listen(1)
    return listening


def connect(listening: socket.socket, word: bytes = b"S") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(listening.getsockname())
    connection.send(word)
    return connection


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_messages_and_processes_follow_the_protocol(user):
    def steps():
        running = Executor(waiting(args=("/bin/sh", "-c", "exit 7")))
        assert running.message() == (TURN, 0, 0, "", b"")
        running.map_ids()
        running.answer(b"G")
        message = running.message()
        assert message == (TURN, message.value, 0, "", b"")
        running.pid = message.value
        first, pid = running.first, running.pid
        running.answer(b"G")
        assert running.message() == (READY, 0, 0, "", b"")
        # a child of the process that spawned it, not of the first stage
        assert status_of(pid)["PPid"] == str(os.getpid())
        assert status_of(pid)["NSpid"].split() == [str(pid), "1"]
        running.answer(b"S")
        assert running.until_executed() is None
        running.wait()
        assert running.statuses == {first: 0, pid: 7}
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    as_user(user, steps)


def progress_of(running) -> list[tuple[int, int]]:
    """Answer the messages up to READY or end of file; return index and errno of each PROGRESS, and check its time."""
    found = []
    while message := running.message():
        if message.kind == PROGRESS:
            microseconds = int.from_bytes(running.detail, sys.byteorder)
            assert (len(running.detail), microseconds < PATIENCE * 1_000_000) == (8, True)
            found.append((message.value, message.error))
        elif message.kind == TURN:
            running.pid = message.value
            if not message.value:
                running.map_ids()
            running.answer(b"G")
        elif message.kind == READY:
            break
    return found


@pytest.mark.parametrize("word", [b"S", b"T"])
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("socket_start", [False, True])
def test_progress_is_reported_only_on_request(user, trace, word, socket_start):
    def steps():
        listening = listener()
        absent = Op(ops.PROC_WRITE, "self/missing", "x", on_error=ops.SKIP_ABSENT)
        plan = [absent, *waiting()]
        plan[-1:-1] = [Op(ops.UMASK, 0o22), Op(ops.UMASK, 0o77)]
        running = Executor(plan, trace=trace, start=listening.fileno() if socket_start else -1)
        before = progress_of(running)
        ready = next(index for index, op in enumerate(plan) if op.kind is ops.READY)
        expected = [(index, errno.ENOENT if index == 0 else 0) for index in range(ready)] if trace else []
        assert before == expected
        caller = None
        if socket_start:
            running.leave()
            caller = connect(listening, word)
            running.report = caller.fileno()
        else:
            running.answer(word)
        after = progress_of(running)
        assert after == ([(index, 0) for index in range(ready + 2, len(plan) - 1)] if word == b"T" else [])
        os.kill(running.pid, signal.SIGKILL)
        running.report = -1 if caller else running.report
        running.wait()

    as_user(user, steps)


def test_a_plan_without_a_fork_is_one_process(user):
    def steps():
        running = Executor(in_user_namespace(args=["/bin/sh", "-c", "exit 9"]))
        assert running.until_settled() is None
        assert running.pid == 0
        assert running.wait() == 9

    as_user(user, steps)


@pytest.mark.parametrize("step", ["spawned", "user namespace", "mapped", "namespaces", "ready"])
def test_the_executor_ends_with_its_parent(user, step):
    def parent():
        running = Executor(waiting())
        if step == "spawned":
            return
        running.message()
        if step == "user namespace":
            return
        running.map_ids()
        running.answer(b"G")
        if step == "mapped":
            return
        running.message()
        if step == "namespaces":
            return
        running.answer(b"G")
        running.message()

    def steps():
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        process = os.fork()
        if process == 0:
            try:
                parent()
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        statuses = []
        while True:
            try:
                statuses.append(os.waitstatus_to_exitcode(os.wait()[1]))
            except ChildProcessError:
                return statuses

    parents, *others = as_user(user, steps)
    assert parents == -signal.SIGKILL
    assert len(others) == (1 if step in ("spawned", "user namespace") else 2)
    # by end of file or by a broken pipe; 0 is a first stage that has finished
    assert set(others) <= {0, 1, -signal.SIGPIPE}


def test_a_wrong_answer_ends_the_executor(user):
    def steps():
        running = Executor(waiting())
        running.message()
        running.map_ids()
        running.answer(b"S")
        assert running.message() is None
        return running.wait()

    assert as_user(user, steps) == 1


def test_the_program_gets_only_its_streams(user):
    def steps():
        for number in (3, 9, 10, 11, 77, 400):
            os.dup2(0, number)  # inheritable
        running = created()
        running.answer(b"S")
        assert running.until_executed() is None
        found = sorted(map(int, os.listdir(f"/proc/{running.pid}/fd")))
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        return found

    assert as_user(user, steps) == [0, 1, 2]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_kept_descriptors_reach_the_program(user, keep):
    def steps():
        for number in range(3, 8):
            assert os.memfd_create(f"file{number}", 0) == number  # inheritable
        os.dup2(0, 20)
        running = created(keep=keep)
        running.answer(b"S")
        assert running.until_executed() is None
        directory = f"/proc/{running.pid}/fd"
        found = {int(name): os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        return found

    found = as_user(user, steps)
    assert sorted(found) == list(range(3 + keep))
    kept = range(3, 3 + keep)
    assert [found[number] for number in kept] == [f"/memfd:file{number} (deleted)" for number in kept]


def test_a_kept_descriptor_that_is_not_open_stays_closed(user):
    def steps():
        # closed at the spawn, so that its number is free for descriptors of the executor
        assert os.dup(0) == 3
        running = created(keep=1)
        running.answer(b"S")
        assert running.until_executed() is None
        found = sorted(map(int, os.listdir(f"/proc/{running.pid}/fd")))
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        return found

    assert as_user(user, steps) == [0, 1, 2]


def test_a_waiting_container_holds_nothing_of_the_host(user):
    (user.tmp / "root").mkdir()
    os.chown(user.tmp / "root", user.uid, user.gid)

    def steps():
        listening = listener()
        plan = rooted(user.tmp / "root", last=[Op(ops.READY), Op(ops.WAIT_START)])
        running = created(plan, start=listening.fileno())
        poll = select.poll()
        poll.register(running.reply, 0)
        assert poll.poll(30_000)  # it has closed its end
        running.leave()
        found = sorted(os.readlink(f"/proc/{running.pid}/fd/{name}") for name in os.listdir(f"/proc/{running.pid}/fd"))
        memory = {name: int(status_of(running.pid)[name].split()[0]) for name in ("VmRSS", "RssAnon")}
        waits = (status_of(running.pid)["Threads"], Path(f"/proc/{running.pid}/comm").read_text())
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        return found, memory, waits

    found, memory, waits = as_user(user, steps)
    assert [name.partition(":")[0] for name in found] == ["/dev/null", "/memfd", "/memfd", "socket"]
    assert memory["VmRSS"] <= 512, memory
    assert memory["RssAnon"] <= 128, memory
    assert waits == ("1", "rootless:init\n")


def test_the_executor_cannot_be_written_to_through_proc(user):
    def steps():
        running = created()
        path = f"/proc/{running.pid}/exe"
        assert os.readlink(path) == "/memfd:rootless-init (deleted)"
        with pytest.raises(OSError, match="busy") as refused:
            os.open(path, os.O_WRONLY)
        fd = os.open(path, os.O_RDONLY)
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        running.leave()
        running.wait()
        # when no process executes it any more, only the seals protect it
        with pytest.raises(PermissionError):
            os.truncate(f"/proc/self/fd/{fd}", 0)
        writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(writable, b"x")
        return refused.value.errno, seals

    number, seals = as_user(user, steps)
    assert number == errno.ETXTBSY
    assert seals & 0xF == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGPIPE, 50],
)
def test_a_signal_ends_a_waiting_container(user, number):
    def steps():
        running = created()
        for harmless in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG):
            os.kill(running.pid, harmless)
        os.kill(running.pid, number)
        return running.wait()

    assert as_user(user, steps) == 128 + number


def test_the_program_starts_with_default_signals(user):
    def steps():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        running = created()
        running.answer(b"S")
        assert running.until_executed() is None
        found = status_of(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        return [int(found[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")]

    assert as_user(user, steps) == [0, 0, 0]


def test_the_program_is_started_over_a_socket(user):
    def steps():
        listening = listener()
        running = created(waiting(args=("/bin/sh", "-c", "echo started")), start=listening.fileno())
        # the creator ends; the container then belongs to the process that starts it
        running.leave()
        caller = connect(listening)
        assert running.until_executed(caller.fileno()) is None
        assert running.wait() == 0
        return running.output()

    assert as_user(user, steps) == "started\n"


def test_a_start_over_a_socket_reports_why_the_program_cannot_run(user):
    (user.tmp / "script").write_text("#!/no/such/interpreter\n" + "x" * 3000)
    (user.tmp / "script").chmod(0o755)

    def steps():
        listening = listener()
        running = created(waiting(args=[str(user.tmp / "script")]), start=listening.fileno())
        running.leave()
        caller = connect(listening)
        message = running.until_executed(caller.fileno())
        assert running.message(caller.fileno()) is None
        return tuple(message), running.wait()

    message, status = as_user(user, steps)
    assert status == 1
    kind, index, number, call, head = message
    assert (kind, index, number, call) == (FAILED, 7, errno.ENOENT, "execve")
    assert head == (b"#!/no/such/interpreter\n" + b"x" * 3000)[:1024]


@pytest.mark.parametrize("word", [b"", b"S"])
def test_a_starter_that_disconnects_at_once_has_started_the_program(user, word):
    def steps():
        listening = listener()
        running = created(waiting(args=("/bin/sh", "-c", "echo started")), start=listening.fileno())
        running.leave()
        connect(listening, word).close()
        assert running.wait() == 0
        return running.output()

    assert as_user(user, steps) == "started\n"


def test_only_the_first_start_counts(user):
    def steps():
        listening = listener()
        running = created(start=listening.fileno())
        running.leave()
        address = listening.getsockname()
        callers = [connect(listening), connect(listening)]
        listening.close()
        assert running.until_executed(callers[0].fileno()) is None
        with pytest.raises(ConnectionResetError):
            callers[1].recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(address)
        os.kill(running.pid, signal.SIGKILL)
        return running.wait()

    assert as_user(user, steps) == -signal.SIGKILL


FAILURES = {
    # operation: kind, errno, call
    "join a missing namespace": (Op(ops.JOIN, 0, "/no/such/file"), "ENOENT", "open"),
    "join a file that is no namespace": (Op(ops.JOIN, 0, "/etc/passwd"), "EINVAL", "setns"),
    "join another type": (Op(ops.JOIN, CLONE_FLAGS["network"], "/proc/self/ns/uts"), "EINVAL", "setns"),
    "unshare nonsense": (Op(ops.UNSHARE, 1), "EINVAL", "unshare"),
    "become an unmapped group": (Op(ops.BECOME, 0, 5), "EINVAL", "setresgid"),
    "become an unmapped user": (Op(ops.BECOME, 5, 0), "EINVAL", "setresuid"),
    "write to a missing file of /proc": (Op(ops.PROC_WRITE, "sys/net/no_such", "1"), "ENOENT", "open"),
    "write to a symlink": (Op(ops.PROC_WRITE, "self/cwd", "1"), "ELOOP", "open"),
    "write an invalid score": (Op(ops.PROC_WRITE, "self/oom_score_adj", "x"), "EINVAL", "write"),
    "write outside of /proc": (Op(ops.PROC_WRITE, "../dev/null", "1"), "EXDEV", "open"),
    "write to an absolute path": (Op(ops.PROC_WRITE, "/dev/null", "1"), "EXDEV", "open"),
    "session twice": (Op(ops.SESSION), "EPERM", "setsid"),
    "a long hostname": (Op(ops.HOSTNAME, "x" * 65), "EINVAL", "sethostname"),
    "a long domainname": (Op(ops.DOMAINNAME, "x" * 65), "EINVAL", "setdomainname"),
    "a missing network interface": (Op(ops.LINK_UP, "nolink0"), "ENODEV", "ioctl(SIOCGIFFLAGS)"),
    "propagation of two kinds": (Op(ops.PROPAGATION, 0, 3 << 18), "EINVAL", "mount_setattr"),
    "a missing root": (Op(ops.ROOT, 1 << 18, "/no/such/directory"), "ENOENT", "open"),
    "a root that is a file": (Op(ops.ROOT, 1 << 18, "/etc/passwd"), "ENOTDIR", "open"),
    "a mount before there is a root": (Op(ops.MOUNT, *(0,) * 6, "tmpfs", "tmpfs", "/x", []), "EBADF", "openat2"),
    "a bind before there is a root": (Op(ops.BIND, *(0,) * 6, "/etc/passwd", "/x"), "EBADF", "openat2"),
    "a mask before there is a root": (Op(ops.MASK, "/x"), "EBADF", "openat2"),
    "a pivot before there is a root": (Op(ops.PIVOT), "EBADF", "fchdir"),
    "a chroot before there is a root": (Op(ops.CHROOT, 1), "EBADF", "fchdir"),
    "a missing hook": (Op(ops.HOOK, 0, 0, 0, 0, "/no/such", ["x"], [], ["", "{"]), "ENOENT", "execve"),
    "a hook without its directory": (Op(ops.HOOK, 0, 0, 0, 0, "/bin/true", ["x"], [], ["/no", "{"]), "ENOENT", "chdir"),
    "a hook without a state": (Op(ops.HOOK, 0, 0, 0, 0, "/bin/true", ["x"], [], [""]), "EINVAL", "the plan"),
    "a limit that does not exist": (Op(ops.RLIMIT, 99, 1, 1), "EINVAL", "setrlimit"),
    "a soft limit above the hard one": (Op(ops.RLIMIT, 7, 9, 8), "EINVAL", "setrlimit"),
    "a hook with more limits than the Plan has": (
        Op(ops.HOOK, 0, 0, 0, 9, "/", ["x"], [], ["", "{"]),
        "EINVAL",
        "the plan",
    ),
    "a hook with limits before the Plan": (Op(ops.HOOK, 0, 0, -9, 9, "/", ["x"], [], ["", "{"]), "EINVAL", "the plan"),
    "groups where they are denied": (Op(ops.GROUPS, "0", bytes(4)), "EPERM", "setgroups"),
    "effective beyond permitted": (Op(ops.CAPABILITIES, 3, 1, 0), "EPERM", "capset"),
    "ambient beyond inheritable": (Op(ops.AMBIENT, 1), "EPERM", "prctl(PR_CAP_AMBIENT)"),
    "a missing directory": (Op(ops.CHDIR, 0, "/no/such/directory"), "ENOENT", "chdir"),
    "no filter": (Op(ops.SECCOMP, 0, 0, b""), "EINVAL", "seccomp"),
    "a filter of 65537 instructions": (Op(ops.SECCOMP, 0, 0, b"\x06\0\0\0\0\0\xff\x7f" * 65537), "EINVAL", "seccomp"),
    "no terminal": (Op(ops.TERMINAL, 0, 0, 0), "EBADF", "openat2"),
}


@pytest.mark.parametrize(("operation", "number", "call"), FAILURES.values(), ids=FAILURES)
def test_a_failure_names_its_operation_and_call(user, operation, number, call):
    before = [
        Op(ops.UNSHARE, CLONE_FLAGS["uts"] | CLONE_FLAGS["mount"] | CLONE_FLAGS["network"]),
        Op(ops.FORK),
        Op(ops.SESSION),
    ]
    plan = in_user_namespace(*before, Op(ops.UMASK, 0o22), operation, args=["/bin/true"])
    assert as_user(user, failure, plan) == (operation.kind.name, number, call)


def test_a_hook_with_an_invalid_limit_of_the_program_is_a_failure(user):
    hook = Op(ops.HOOK, 0, 0, 0, 1, "/bin/true", ["true"], [], ["", "{"])
    plan = in_user_namespace(hook, Op(ops.RLIMIT, 99, 1, 1), args=["/bin/true"])
    assert as_user(user, failure, plan) == ("hook", "EINVAL", "setrlimit")


def test_a_hook_gets_the_limits_of_the_program_by_the_rules_of_the_plan(user):
    invalid, absent = Op(ops.RLIMIT, 99, 1, 1, on_error=ops.ELSE), Op(ops.CHDIR, 0, "/no", on_error=ops.SKIP_ABSENT)
    first, second = Op(ops.RLIMIT, 7, 100, 100, on_error=ops.ELSE, alternatives=1), Op(ops.RLIMIT, 7, 50, 50)
    path = user.tmp / "limit"
    hook = Op(ops.HOOK, 0, 0, 0, 4, "/bin/sh", ["sh", "-c", f"ulimit -n >{path}"], [], ["", "{"])
    program = ["/bin/sh", "-c", f"cat {path}; ulimit -n"]
    found = as_user(user, output, in_user_namespace(hook, invalid, absent, first, second, args=program))
    assert found.split() == ["100", "100"]


def test_a_missing_program_is_a_failure(user):
    assert as_user(user, failure, in_user_namespace(args=["/no/such/program"])) == ("exec", "ENOENT", "execve")


def test_a_program_that_is_a_fifo_is_refused_without_waiting_for_a_writer(user):
    path = user.tmp / "fifo"
    os.mkfifo(path)
    path.chmod(0o777)
    found = in_user_namespace(Op(ops.COMMAND, [str(path)], ""), args=["fifo"])
    assert as_user(user, refusals, found) == [errno.EACCES]
    assert as_user(user, failure, in_user_namespace(args=[str(path)])) == ("exec", "EACCES", "execve")


def test_kernel_message_belongs_to_its_own_operation(user):
    (user.tmp / "root").mkdir()
    os.chown(user.tmp / "root", user.uid, user.gid)

    def steps():
        wrong = Op(ops.MOUNT, *(0,) * 6, "tmpfs", "tmpfs", "/x", ["nonsense=1"], on_error=ops.ELSE)
        plan = rooted(user.tmp / "root", wrong, Op(ops.REMOUNT, *(0,) * 6, "/x", ["size=1k"]))
        running = Executor(plan)
        last = running.until_settled()
        running.leave()
        running.wait()
        return [(plan[value].kind.name, *rest) for _, value, *rest in (*running.skipped, last)]

    skipped, last = as_user(user, steps)
    assert skipped[:3] == ("mount", errno.EINVAL, "fsconfig")
    assert b"nonsense" in skipped[3]
    assert last == ("remount", errno.EINVAL, "fspick", b"")


def named(name: str, **options) -> Op:
    return Op(ops.HOSTNAME, name, **options)


def hostname_after(*operations):
    def steps():
        before = (Op(ops.UNSHARE, CLONE_FLAGS["uts"]), named("before"))
        running = Executor(in_user_namespace(*before, *operations, args=["/bin/uname", "-n"]))
        last = running.until_settled()
        assert last is None, last
        running.wait()
        return running.output().strip(), [tuple(message)[1:] for message in running.skipped]

    return steps


def test_an_alternative_is_used_if_the_first_operation_fails(user):
    wrong = named("x" * 65, on_error=ops.ELSE, alternatives=1)
    assert as_user(user, hostname_after(wrong, named("after"))) == ("after", [(5, errno.EINVAL, "sethostname", b"")])


def test_alternatives_are_left_out_if_the_first_operation_works(user):
    first = named("first", on_error=ops.ELSE, alternatives=2)
    assert as_user(user, hostname_after(first, named("one"), named("two"))) == ("first", [])
    assert as_user(user, hostname_after(first, named("one"), named("two"), named("three"))) == ("three", [])


def test_an_alternative_may_have_an_alternative(user):
    wrong = named("x" * 65, on_error=ops.ELSE, alternatives=2)
    second = named("y" * 65, on_error=ops.ELSE, alternatives=1)
    name, skipped = as_user(user, hostname_after(wrong, second, named("third")))
    assert (name, [message[0] for message in skipped]) == ("third", [5, 6])


def test_an_operation_without_alternatives_is_left_out_if_it_fails(user):
    wrong = named("x" * 65, on_error=ops.ELSE)
    assert as_user(user, hostname_after(wrong)) == ("before", [(5, errno.EINVAL, "sethostname", b"")])


def test_absent_paths_are_skipped_if_the_plan_allows_it(user):
    absent = Op(ops.CHDIR, 0, "/no/such/directory", on_error=ops.SKIP_ABSENT)
    below_a_file = Op(ops.CHDIR, 0, "/etc/passwd/x", on_error=ops.SKIP_ABSENT)
    assert as_user(user, hostname_after(absent, below_a_file)) == ("before", [])


def test_errors_other_than_absence_are_failures(user):
    os.symlink("loop", user.tmp / "loop")
    loop = Op(ops.CHDIR, 0, str(user.tmp / "loop"), on_error=ops.SKIP_ABSENT)
    assert as_user(user, failure, in_user_namespace(loop, args=["/bin/true"])) == ("chdir", "ELOOP", "chdir")


def test_joining_a_fifo_does_not_wait_for_a_writer(user):
    os.mkfifo(user.tmp / "fifo")
    plan = [Op(ops.JOIN, CLONE_FLAGS["network"], str(user.tmp / "fifo")), Op(ops.EXEC, ["/bin/true"], [])]
    assert as_user(user, failure, plan) == ("join", "EINVAL", "setns")


def test_a_thousand_arguments_and_variables_are_passed(user):
    args = ["/bin/sh", "-c", 'echo $# "$1" "${1000}"; env | grep -c "^V"', "sh", *("a" * 1000)]
    env = [f"V{number}={number}" for number in range(1000)]
    assert as_user(user, output, in_user_namespace(args=args, env=env)).split() == ["1000", "a", "a", "1000"]


def test_an_environment_beyond_the_kernels_limit_is_a_failure(user):
    env = [f"V{number}=" + "x" * 100_000 for number in range(100)]
    assert as_user(user, failure, in_user_namespace(args=["/bin/true"], env=env)) == ("exec", "E2BIG", "execve")


def test_a_process_killed_and_reaped_before_its_pidfd_is_reported(user):
    plan = [Op(ops.SPAWN), Op(ops.MONITOR, 0, 0), Op(ops.FORK), Op(ops.EXEC, ["/bin/true"], [])]

    def steps():
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
        real = os.pidfd_open

        def open_late(pid):
            os.kill(pid, signal.SIGKILL)
            until(lambda: not os.path.exists(f"/proc/{pid}"), "the process is reaped")
            return real(pid)

        run_plan.posix.pidfd_open = open_late
        run = run_plan.Run(Plan(plan), Descriptors(directory=directory))
        with pytest.raises(RootlessError) as caught:
            run.until_or_kill()
        return str(caught.value), run.pid

    said, pid = as_user(user, steps)
    assert "the executor was killed" in said
    assert pid == 0
