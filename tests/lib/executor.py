"""The executor alone: hand-written Plans, and the launcher's side of the protocol step by step."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pickle
import select
import shutil
import signal
import traceback
from pathlib import Path
from typing import NamedTuple

import pytest

from rootless.launch import run_in_userns, spawn, write_idmaps
from rootless.launch.protocol import EXECUTING, FAILED, SKIPPED, TURN, Descriptors, read_message
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.encode import encode
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import SLAVE
from tests.lib.bundles import own

PATIENCE = 30
"""Seconds after which an immediate event counts as missing."""
PR_SET_DUMPABLE = 4
MS_BIND = 0x1000
NOTHING = (0,) * 6
"""The number operands of a mount operation that changes no attribute."""


def as_user(user, function, *arguments):
    """Call `function` in a process of `user` with only the standard streams open; return its result or fail with it."""
    theirs, ours = os.pipe()
    process = os.fork()
    if process == 0:
        _become(user)
        result = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 512)
        os.closerange(3, 512)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.closerange(3, 512)
        try:
            answer = (True, function(*arguments))
        except BaseException:  # noqa: BLE001 - it is raised again on the other side
            answer = (False, traceback.format_exc())
        with open(result, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(ours)
    with open(theirs, "rb") as file:
        if not select.select([file], [], [], 2 * PATIENCE)[0]:
            os.kill(process, signal.SIGKILL)
        answer = file.read()
    os.waitpid(process, 0)
    if not answer:
        pytest.fail(f"{function.__name__} did not end")
    well, value = pickle.loads(answer)
    if not well:
        pytest.fail(value)
    return value


def _become(user):
    os.setpgid(0, 0)
    if os.geteuid() != user.uid:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    os.umask(0o022)
    os.chdir(user.tmp)
    os.environ.clear()
    os.environ.update(user.env)


def mount_here(*mounts) -> None:
    """Give this process, which as_user() made, a mount namespace with `mounts`: (source, target, type, flags)."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    assert libc.unshare(CLONE_FLAGS["user"] | CLONE_FLAGS["mount"]) == 0, os.strerror(ctypes.get_errno())
    # a process that has changed its ids does not own /proc/self
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    for source, target, kind, flags in mounts:
        done = libc.mount(*(os.fsencode(word) for word in (source, target, kind)), flags, None)
        assert done == 0, f"{target}: {os.strerror(ctypes.get_errno())}"


class Message(NamedTuple):
    """A message of the executor; `call` and `text` are the two parts of its detail."""

    kind: int
    value: int
    error: int
    call: str
    text: bytes


class Executor:
    """A run of the executor, in the process that as_user() made.

    Attributes:
        first, pid: pids of the first stage and of the container's process if it exists; 0 once its status is collected.
        detail: the bytes of the last message's detail.
        skipped: the SKIPPED messages that until() has passed over.
        statuses: by pid, os.waitstatus_to_exitcode() of the processes that have ended.
    """

    def __init__(self, plan, *, keep=0, start=-1, console=-1, trace=False, all_ids=False, raw=b""):
        """Spawn the executor with `plan`, a list of operations, or with the bytes `raw`; output() reads its output."""
        self.all_ids = all_ids
        self.skipped = []
        self.statuses = {}
        self.pid = 0
        self.detail = b""
        self._output = os.memfd_create("output", os.MFD_CLOEXEC)
        saved = [os.dup(1), os.dup(2)]
        self.report, report = os.pipe()
        reply, self.reply = os.pipe()
        try:
            for stream in (1, 2):
                os.dup2(self._output, stream)
            given = Descriptors(start=start, console=console, keep=keep)
            self.first = spawn.spawn(raw or encode(plan), given, report=report, reply=reply, trace=trace)
        finally:
            for stream, fd in enumerate(saved, 1):
                os.dup2(fd, stream)
                os.close(fd)
            os.close(report)
            os.close(reply)

    def until_executed(self, fd=None):
        """Return the message after EXECUTING: None if the program runs, FAILED if it cannot."""
        message = self.message(fd)
        assert message == (EXECUTING, 0, 0, "", b""), message
        return self.message(fd)

    def message(self, fd=None):
        """Return the next message, or None at end of file."""
        fd = self.report if fd is None else fd
        assert select.select([fd], [], [], PATIENCE)[0], "no message comes"
        found = read_message(fd)
        if found is None:
            return None
        kind, value, number, detail = found
        self.detail = detail
        call, _, text = detail.partition(b"\0")
        return Message(kind, value, number, call.decode("utf-8", "replace"), text)

    def answer(self, word: bytes) -> None:
        os.write(self.reply, word)

    def map_ids(self) -> None:
        """Write the ID maps: all ids of the user, or root alone."""
        if self.all_ids:
            write_idmaps.wait(write_idmaps.begin(self.first, run_in_userns.own_maps()[0]))
            return
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {os.getuid()} 1"), ("gid_map", f"0 {os.getgid()} 1")):
            with open(f"/proc/{self.first}/{name}", "w") as file:
                file.write(text)

    def until_settled(self):
        """Act as the parent up to READY or FAILED, and return that message; None at end of file."""
        while message := self.message():
            if message.kind == TURN:
                if message.value:
                    self.pid = message.value
                else:
                    self.map_ids()
                self.answer(b"G")
            elif message.kind == SKIPPED:
                self.skipped.append(message)
            elif message.kind != EXECUTING:
                return message
        return None

    def leave(self) -> None:
        """Close the parent's ends of the pipes, as if the parent had died."""
        for name in ("report", "reply"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def wait(self) -> int:
        """Wait for the end of all processes; return the status of the last one."""
        status = 0
        for name in ("first", "pid"):
            pid = getattr(self, name)
            if pid:
                setattr(self, name, 0)
                await_end(pid)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                self.statuses[pid] = status
        return status

    def output(self) -> str:
        """Return the program's standard output and error."""
        return os.pread(self._output, 1 << 24, 0).decode("utf-8", "surrogateescape")


def await_end(pid: int) -> None:
    """Wait until a process has ended."""
    process = os.pidfd_open(pid)
    try:
        assert select.select([process], [], [], PATIENCE)[0], f"process {pid} does not end"
    finally:
        os.close(process)


def run(plan, **options) -> Executor:
    """Run a Plan to its end; neither it nor its program may fail."""
    running = Executor(plan, **options)
    last = running.until_settled()
    assert last is None, last
    running.leave()
    assert running.wait() == 0, running.output()[-2000:]
    return running


def output(plan, **options) -> str:
    """Run a Plan and return its program's output."""
    return run(plan, **options).output()


def failure(plan, **options) -> tuple[str, int, str]:
    """Run a Plan that fails, and return (kind of the operation, errno's name, call)."""
    running = Executor(plan, **options)
    last = running.until_settled()
    assert last, f"it did not fail; {running.output()}"
    assert last.kind == FAILED, last
    running.leave()
    assert running.wait() == 1
    return plan[last.value].kind.name, errno.errorcode[last.error], last.call


def refusals(plan) -> list[int]:
    """Run a Plan that fails at COMMAND, and return an errno for each of its candidates."""
    running = Executor(plan)
    last = running.until_settled()
    assert last, f"it did not fail; {running.output()}"
    assert (last.kind, plan[last.value].kind, last.call) == (FAILED, ops.COMMAND, "stat")
    running.leave()
    assert running.wait() == 1
    return list(last.text)


def in_user_namespace(*operations, args, env=()) -> list[Op]:
    """Return a Plan that executes `operations` and a program of the host as root of a new user namespace."""
    return [Op(ops.NEW_USER), Op(ops.YIELD), Op(ops.BECOME, 0, 0), *operations, Op(ops.EXEC, list(args), list(env))]


ENTER = (Op(ops.CLOSE_FDS), Op(ops.CHDIR, 0, "/"))
"""The choice of a working directory in tests for which it does not matter."""


def rooted(root, *operations, args=("/bin/busybox", "true"), env=(), enter=ENTER, last=()) -> list[Op]:
    """Return a Plan for a program in `root`: `operations` come before PIVOT, `enter` and `last` after it."""
    return [
        Op(ops.NEW_USER),
        Op(ops.YIELD),
        Op(ops.UNSHARE, CLONE_FLAGS["mount"]),
        Op(ops.FORK),
        Op(ops.BECOME, 0, 0),
        Op(ops.SESSION),
        Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, SLAVE),
        Op(ops.UMASK, 0),
        Op(ops.ROOT, 1 << 18, str(root)),
        *operations,
        Op(ops.PIVOT),
        Op(ops.UMASK, 0o022),
        *enter,
        *last,
        Op(ops.EXEC, list(args), list(env)),
    ]


def make_root(user, name="root"):
    """Make a root file system with only busybox and a mount point /proc."""
    root = user.tmp / name
    for directory in ("bin", "proc"):
        (root / directory).mkdir(parents=True)
    shutil.copy(shutil.which("busybox", path="/usr/bin:/bin"), root / "bin")
    own(user, root)
    return root


def mounts(root, *operations, enter=ENTER) -> dict[str, dict[str, str]]:
    """Execute `operations` in `root`; return the mounts that the program sees: {target: properties of the top mount}.

    The properties are the "source" in its file system, the mount's "options", the peer "group", and the file system's
    "type", "device" and "superblock" options.
    """
    proc = Op(ops.BIND, ops.RECURSIVE, *NOTHING[1:], "/proc", "/proc")
    show = ("/bin/busybox", "cat", "/proc/self/mountinfo")
    return parse_mounts(output(rooted(root, proc, *operations, args=show, enter=enter)))


def parse_mounts(text: str) -> dict[str, dict[str, str]]:
    """Return the lines of a mountinfo file by their mount points."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, source, target, options, *group = before.split(" ")
        kind, device, superblock = after.split(" ")
        found[target] = {
            "source": source,
            "options": options,
            "group": " ".join(group),
            "type": kind,
            "device": device,
            "superblock": superblock,
        }
    return found
