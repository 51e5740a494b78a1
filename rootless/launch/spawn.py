"""Start the executor (helpers/init): a static program that runs from a sealed copy in memory."""

from __future__ import annotations

import errno
import fcntl
import posix

from rootless import paths
from rootless.errors import EXHAUSTED, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.launch.protocol import Descriptors

SIGNALS = tuple([number for number in range(1, 65) if number not in (9, 19, 32, 33)])
"""All but SIGKILL, SIGSTOP and those of the C library: the program does not inherit the caller's ignored signals."""
_MFD_EXEC = 0x10
"""Since Linux 6.3, memfd_create(2): requests an executable file, which older kernels always return."""

_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


def spawn(plan: bytes, given: Descriptors, *, report: int, reply: int, trace: bool) -> int:
    """Start the executor with a Plan and return its process id.

    Args:
        plan: the encoded Plan.
        given: further descriptors that it inherits.
        report: its end of the connection to the launcher.
        reply: its end of the pipe from the launcher.
        trace: whether it reports how long each operation took.

    Raises:
        RootlessError: `RL-INIT`: the executor cannot be started.
    """
    first = len(given.placed)
    own = [sealed_copy(program_path("init"), "rootless-init")]
    try:
        own.append(posix.memfd_create("rootless-plan", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING))
        _write_all(own[1], plan)
        others = (given.start, given.console, given.cgroup, given.process, given.agent, given.directory)
        passed = [report, reply, *others, own[1]]
        executable, placed = own[0], list(given.placed)
        if first:  # no other descriptor may have one of the numbers that those get
            own += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first) for fd in (executable, *passed, *placed) if fd >= 0]
            above = iter(own[2:])
            executable = next(above)
            passed = [next(above) if fd >= 0 else fd for fd in passed]
            placed = list(above)
        numbers = [str(number) for number in (given.keep, int(trace), *passed)]
        return posix.posix_spawn(
            f"/proc/self/fd/{executable}",
            ["rootless-init", *numbers],
            {},
            file_actions=[
                *[(posix.POSIX_SPAWN_DUP2, fd, fd) for fd in passed if fd >= 0],
                *[(posix.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(placed)],
            ],
            setsigmask=SIGNALS if given.masked else (),
            setsigdef=SIGNALS,
        )
    except OSError as error:
        raise RootlessError(
            f"cannot start the executor: posix_spawn: {error.strerror}",
            cause="the host forbids programs that run from memory" if error.errno == errno.EACCES else "",
            fix="set the sysctl vm.memfd_noexec to 0 or 1"
            if error.errno == errno.EACCES
            else EXHAUSTED.get(error.errno or 0, ""),
            code="RL-INIT",
        ) from None
    finally:
        for fd in own:
            posix.close(fd)


def program_path(name: str) -> str:
    """Return the path of a static program for this machine; it may be missing."""
    machine = posix.uname().machine
    return f"{paths.parent(__file__)}/bin/{name}-{_MACHINES.get(machine, machine)}"


def sealed_copy(path: str, name: str) -> int:
    """Return a memfd with a sealed, unchangeable copy of the file (CVE-2019-5736)."""
    try:
        source = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise RootlessError(
            f"cannot read {path}",
            cause=(error.strerror or "").lower(),
            fix=EXHAUSTED.get(error.errno or 0, "run ./install.sh, or make -C helpers/init in a checkout"),
            code="RL-INIT",
        ) from None
    flags = posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING
    try:
        copy = posix.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        copy = posix.memfd_create(name, flags)
    while posix.sendfile(copy, source, None, 1 << 30):
        pass
    posix.close(source)
    fcntl.fcntl(
        copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    return copy


def bounded_file(name: str, size: int) -> int:
    """Return a file in memory that does not grow beyond `size` bytes: for the messages of a program."""
    fd = posix.memfd_create(name, posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    posix.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]
