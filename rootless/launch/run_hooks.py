"""Hooks that run outside the container: the programs of prestart, createRuntime, poststart and poststop.

Each hook reads the state of the container from standard input. It runs in the bundle's directory, with the environment
of config.json or else of the caller: poststop with that of the caller of `delete`, as in runc and crun. The error of a
failed hook repeats its output, which does not go to standard error: under an engine that is the container's.
"""

from __future__ import annotations

import errno
import fcntl
import posix
import select

from rootless import log, paths, signals
from rootless.errors import RootlessError
from rootless.jsontext import render
from rootless.plan.process.hooks import STDERR, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping
    from typing import Any
else:
    import _signal

_CANNOT_EXECUTE = 127
_LONGEST_WAIT = 2**31 - 1
"""Milliseconds; poll(2) takes no more."""
_REPEATED = 1024
"""Bytes of a hook's output that an error repeats."""
_STREAMS = 3


def run_hook(
    hook: dict[str, Any], where: str, status: Mapping[str, object], bundle: str, annotations: Mapping[str, str]
) -> None:
    """Run one hook to its end.

    Standard input and output are files rather than pipes: the hook may leave its input unread, and a daemon that it
    starts may keep its output open.

    Args:
        hook: the object in config.json.
        where: its place in config.json.
        status: the state of the container (runtime.md), which the hook reads.
        bundle: the directory that the hook runs in.
        annotations: those of config.json, which may name files for the output of hooks.

    Raises:
        RootlessError: `RL-HOOK`: it failed.
    """
    opened = [posix.memfd_create("hook"), posix.memfd_create("hook")]
    state, output = opened
    try:
        posix.write(state, render(status, None).encode())
        posix.lseek(state, 0, 0)
        streams = [state]
        for name in (STDOUT, STDERR):
            file = _output(annotations.get(name), name, bundle)
            if file >= 0:
                opened.append(file)
            streams.append(file if file >= 0 else output)
        outcome, number = _execute(hook, streams, bundle)
        text = posix.pread(output, _REPEATED, max(0, posix.fstat(output).st_size - _REPEATED))
    finally:
        for fd in opened:
            posix.close(fd)
    if number:
        raise failure(hook["path"], where, outcome, number, text)
    if text:
        log.debug(f"the hook {hook['path']} wrote: {text.decode('utf-8', 'replace')}", where=where)


def failure(path: str, where: str, outcome: str, number: int, output: bytes) -> RootlessError:
    """Return the error for a hook that failed, here or in the executor, in the words of runc 1.2.

    Args:
        path: its program.
        where: its place in config.json.
        outcome: its end (`exit status 3`, `signal 9`, a timeout), or the system call that failed.
        number: ECHILD or ETIME when it ended, else the errno of the call.
        output: the end of its output.
    """
    fix = ""
    cause = f"{outcome} ({path})"
    if number == errno.ETIME:
        fix = f"raise {where}.timeout"
    elif number != errno.ECHILD:
        cause = f"exec {path}: {posix.strerror(number).lower()}"
        place = "in the container" if "startContainer" in where else "of the host"
        fix = f"name a program {place} that can be executed"
    words = " ".join(output.decode("utf-8", "replace").split())
    kind, _, index = where.removeprefix("hooks.").rstrip("]").partition("[")
    return RootlessError(
        f"error running {kind} hook #{index}",
        cause=f"{cause}: {words}" if words else cause,
        where=where,
        fix=fix,
        code="RL-HOOK",
    )


def _output(path: str | None, name: str, bundle: str) -> int:
    """Open the file `path` of the annotation `name`; return -1 without one."""
    if not path:
        return -1
    path = paths.join(bundle, path)
    try:
        return posix.open(
            path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_NOCTTY | posix.O_CLOEXEC, 0o644
        )
    except OSError as error:
        raise RootlessError(
            f"cannot write the output of hooks to {path}",
            cause=(error.strerror or "").lower(),
            where=f'annotations["{name}"]',
            fix="name a file that you can write to",
            code="RL-HOOK",
        ) from None


def _execute(hook: dict[str, Any], streams: list[int], directory: str) -> tuple[str, int]:
    """Execute a hook and wait for its end; return its outcome and an errno, 0 for success."""
    result, report = posix.pipe()
    try:
        pid = signals.fork()
        if pid == 0:
            _become(hook, streams, directory, report)
    finally:
        posix.close(report)
    try:
        refused = posix.read(result, 16)
        in_time = not refused and _ends(pid, hook.get("timeout") or 0)
    except BaseException:
        posix.kill(pid, _signal.SIGKILL)
        posix.waitpid(pid, 0)
        raise
    finally:
        posix.close(result)
    if not in_time:
        posix.kill(pid, _signal.SIGKILL)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if refused:
        return "execve", int(refused)
    if not in_time:
        return "hook ran past specified timeout", errno.ETIME
    return f"exit status {status}" if status >= 0 else f"signal {-status}", errno.ECHILD if status else 0


def _ends(pid: int, timeout: int) -> bool:
    """Wait at most `timeout` seconds for a child, or forever if that is 0; return whether it has ended."""
    process = posix.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(min(timeout * 1000, _LONGEST_WAIT) if timeout else None))
    finally:
        posix.close(process)


def _become(hook: dict[str, Any], streams: list[int], directory: str, report: int) -> None:
    """Become the program of a hook, or write the errno to `report`."""
    number = 0
    try:
        # one of the four may have the number that another needs
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, _STREAMS + 1) for fd in (*streams, report)]
        for place, fd in enumerate(moved):
            posix.dup2(fd, place, inheritable=place < _STREAMS)
        for name in posix.listdir("/proc/self/fd"):
            if int(name) > _STREAMS:
                _close(int(name))
        for ignored in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(ignored, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        posix.chdir(directory)
        given = hook.get("env")
        env = posix.environ if given is None else dict(entry.partition("=")[::2] for entry in given)
        posix.execve(hook["path"], hook.get("args") or [hook["path"]], env)
    except OSError as error:
        number = error.errno or errno.EINVAL
    finally:
        posix.write(_STREAMS, str(number or errno.EINVAL).encode())
        posix._exit(_CANNOT_EXECUTE)  # noqa: SLF001 - public in `os`, whose import takes 3 ms


def _close(fd: int) -> None:
    try:
        posix.close(fd)
    except OSError:
        return  # the descriptor that read the directory
