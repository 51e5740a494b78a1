"""Starting slirp4netns(1) and pasta(1), and knowing when they serve.

Both talk to a hostile container. Neither holds a descriptor of a directory of the host, from which a helper that is
taken over would reach every file of the caller's with openat(2) and "..", out of the empty root that it has given
itself: slirp4netns makes its API socket in its working directory, which its sandbox leaves, and pasta gets its network
namespace as a descriptor, instead of watching a directory of /proc.
"""

from __future__ import annotations

import fcntl
import posix
import select
from errno import EPERM

from rootless import files, signals
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.spawn import SIGNALS, sealed_copy
from rootless.plan.network.helpers import LINK, PASTA, SLIRP

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence

    from rootless.network.netns_holder import NetnsHolder
    from rootless.plan.network.helpers import Helper
    from rootless.plan.network.mode import Network
    from rootless.plan.network.ports import Port
else:
    import _signal

SOCKET = "network.sock"
_PATIENCE = 10_000
"""Milliseconds after which a helper that says nothing hangs; it is ready within a hundred."""
_TOLD = 400
_MOST_WORDS = 65536
"""Bytes of what a helper may say: a container can make it say a line for each packet."""
_CHATTER = ("WARNING: Support for", "child failed", "parent failed", "do_slirp", "sent tapfd", "received tapfd")
"""Lines of slirp4netns that tell no cause."""
_EXECUTE_ONLY = 0o111
_SUID_DUMPABLE = "/proc/sys/fs/suid_dumpable"
"""With 1, a program that may not be read is like any other: proc_sys_fs(5)."""
_STANDARD = 3
"""The lowest descriptor that is not one of the standard streams."""


class Program:
    """A helper that has been started.

    Attributes:
        helper: which.
        pid: its process.
    """

    def __init__(self, helper: Helper, network: Network, keeper: NetnsHolder, directory: int) -> None:
        """Start it; nothing is waited for.

        Args:
            helper: which.
            network: what it serves.
            keeper: by whom it finds the namespaces, and whose end ends it.
            directory: a descriptor of the container's directory, for slirp4netns's socket,
                open until publish() is done.

        Raises:
            RootlessError: `RL-NETWORK`: it cannot be executed.
        """
        self.helper = helper
        self.pid = 0
        self._directory = directory
        self._text = b""
        self._ready, ready = posix.pipe()
        self._words = _bounded_file() if helper.name == SLIRP else -1
        null = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
        hide = network.hides(helper)
        try:
            if helper.name == SLIRP:
                words = _slirp(network, helper, keeper, ready)
                start = _Start(directory, [null, self._words, self._words], [ready, keeper.end])
            else:
                words = _pasta(network, helper, keeper)
                posix.set_blocking(ready, False)  # pasta does not wait for anybody to read what it says
                start = _Start(-1, [keeper.namespaces.network, keeper.end, ready], [])
                start.ends_with = keeper.end
            self.pid = start.run(helper, words, hide=hide, must_hide=hide and network.exposed)
        except OSError as error:
            self._close_fds()
            raise _failed(helper, (error.strerror or "").lower(), EXHAUSTED.get(error.errno or 0, "")) from None
        finally:
            posix.close(ready)
            posix.close(null)

    def _close_fds(self) -> None:
        """Close what is of use until it is ready."""
        files.close_fds(self, "_ready", "_words")

    def await_ready(self) -> None:
        """Return when it serves.

        Raises:
            RootlessError: `RL-NETWORK`: it has ended, or says nothing; it is gone.
        """
        process = posix.pidfd_open(self.pid)
        try:
            cause = self._await(process)
            if cause:
                self.kill()
                raise _failed(self.helper, cause)
        finally:
            posix.close(process)
            self._close_fds()

    def _await(self, process: int) -> str:
        """Return nothing when it serves, or why it does not."""
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self._ready, select.POLLIN)
        while ready := dict(poll.poll(_PATIENCE)):
            said = posix.read(self._ready, _MOST_WORDS) if ready.get(self._ready, 0) & select.POLLIN else b""
            self._text = (self._text + said)[-_MOST_WORDS:]
            if self.helper.name == SLIRP and said == b"1":
                return ""
            # pasta writes its number when it serves
            if self.helper.name == PASTA and b"%d" % self.pid in self._text.split(b"\n"):
                return ""
            if not said:
                return self._said()
        return f"it is not ready after {_PATIENCE // 1000} s"

    def publish(self, ports: Sequence[Port], addresses: Sequence[str]) -> None:
        """Lead ports of the host to the container; pasta has been told when it was started.

        Raises:
            RootlessError: `RL-PUBLISH`: one is refused.
        """
        if self.helper.name == SLIRP and ports:
            from rootless.network import backlog, hostfwd

            hostfwd.add(socket_in(self._directory), ports, addresses[0])
            backlog.lengthen(self.pid)
            posix.unlink(SOCKET, dir_fd=self._directory)

    def kill(self) -> None:
        """End it and take its status."""
        self._close_fds()
        pid, self.pid = self.pid, 0
        if pid:
            try:
                posix.kill(pid, 9)
                posix.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                return

    def _said(self) -> str:
        """Return the last of its words."""
        if self._words >= 0:
            self._text = posix.pread(self._words, _MOST_WORDS, 0).rstrip(b"\0")
        text = self._text.decode("utf-8", "replace")
        told = text.partition("\nUsage:")[0]  # of a wrong option; what follows is long
        lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(_CHATTER)]
        return "; ".join(lines[-2:])[-_TOLD:] or "it ended without a word"


class _Start:
    """How a helper is started.

    posix_spawn(3) cannot do it: the signal for the keeper's end has to be ordered before there is a helper, or a
    launcher that is killed in between leaves one that nothing ends.

    Attributes:
        ends_with: a descriptor whose hang-up kills the helper, or -1.
    """

    def __init__(self, directory: int, streams: list[int], passed: list[int]) -> None:
        """Take its working directory (-1 for the root), its standard streams, and what it gets beside them."""
        self._directory = directory
        self._streams = streams
        self._passed = passed
        self.ends_with = -1

    def run(self, helper: Helper, words: list[str], *, hide: bool, must_hide: bool) -> int:
        """Start it; return its process.

        A program that may not be read is not dumpable once it is executed, execve(2): nobody with CAP_SYS_PTRACE over
        the user namespace that it enters, and with the host's processes in view, can take it over or look through its
        descriptors.

        Raises:
            OSError: it cannot be executed.
        """
        copy = _unreadable(helper) if hide else -1
        if must_hide and copy < 0:
            raise PermissionError(EPERM, f"it cannot hide from the container: a script, or {_SUID_DUMPABLE} is 1")
        failed, fail = posix.pipe()
        try:
            pid = signals.fork()
            if pid == 0:
                self._become(f"/proc/self/fd/{copy}" if copy >= 0 else helper.program, [helper.name, *words], fail)
        finally:
            posix.close(fail)
            if copy >= 0:
                posix.close(copy)
        number = posix.read(failed, 4)
        posix.close(failed)
        if number:
            posix.waitpid(pid, 0)
            code = int.from_bytes(number, "little")
            raise OSError(code, posix.strerror(code))
        return pid

    def _become(self, program: str, words: list[str], fail: int) -> None:
        """In the child, become the helper."""
        try:
            posix.setsid()  # what the caller's terminal sends is not for it
            for number in SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            if self._directory < 0:
                posix.chdir("/")
            else:
                posix.fchdir(self._directory)
            # slirp4netns may be another user inside, and we are to connect to its socket; the directory is for us alone
            posix.umask(0)
            for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STANDARD) for fd in self._streams]):
                posix.dup2(fd, number)
            for fd in self._passed:
                posix.set_inheritable(fd, True)  # noqa: FBT003
            if self.ends_with >= 0:
                _kill_at_hang_up(self.ends_with)
            posix.execve(program, words, {})
        except OSError as error:
            posix.write(fail, (error.errno or 1).to_bytes(4, "little"))
        finally:
            posix._exit(127)  # noqa: SLF001 - it is os._exit


def _unreadable(helper: Helper) -> int:
    """Return a copy of a helper that may be executed and not read, or -1 where that does not work.

    A script has to be read by its interpreter.
    """
    try:
        copy = sealed_copy(helper.program, helper.name)
    except (RootlessError, OSError):
        return -1  # what is wrong with it, executing it tells
    if posix.pread(copy, 2, 0) == b"#!" or files.text_of(_SUID_DUMPABLE) == "1":
        posix.close(copy)
        return -1
    posix.fchmod(copy, _EXECUTE_ONLY)
    return copy


def _kill_at_hang_up(fd: int) -> None:
    """Have the kernel kill this process when the other end of a descriptor is closed: F_SETSIG of fcntl(2)."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, posix.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, 9)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | fcntl.FASYNC)


def socket_in(directory: int) -> str:
    """Return the path of slirp4netns's socket in a directory that is open."""
    return f"/proc/self/fd/{directory}/{SOCKET}"


def _bounded_file() -> int:
    """Return a file in memory that does not grow beyond _MOST_WORDS."""
    fd = posix.memfd_create("rootless-network-log", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    posix.ftruncate(fd, _MOST_WORDS)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def _slirp(network: Network, helper: Helper, keeper: NetnsHolder, ready: int) -> list[str]:
    words = [*helper.arguments, "--enable-seccomp", f"--ready-fd={ready}", f"--exit-fd={keeper.end}"]
    if network.sandbox:
        words.append("--enable-sandbox")
    if helper.addresses:
        words.append("--configure")
    if network.ports or not helper.addresses:
        words.append(f"--api-socket={SOCKET}")
    return [*words, str(keeper.pid), LINK]


def _pasta(network: Network, helper: Helper, keeper: NetnsHolder) -> list[str]:
    # in the foreground it keeps its standard streams, by which it ends, and the second of which gets its number
    words = ["--foreground", "--no-netns-quit", "--config-net", "--quiet", *helper.arguments, "--pid=/proc/self/fd/2"]
    for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
        specs = [
            f"{port.address}/{port.outside}:{port.inside}" if port.address else f"{port.outside}:{port.inside}"
            for port in network.ports
            if port.protocol == protocol
        ]
        if not specs and not any(word.startswith((flag, f"--{protocol}-ports")) for word in helper.arguments):
            specs = ["none"]
        for spec in specs:
            words += [flag, spec]
    root = posix.geteuid() == 0
    words += ["--runas", "0:0"] if root else []
    # it gives up most of root's rights, and then finds nothing that this process has open: ptrace(2)
    by_number = root or network.by_number
    user = f"/proc/{keeper.pid}/ns/user" if by_number else f"/proc/{posix.getpid()}/fd/{keeper.namespaces.user}"
    words += [f"--userns={user}"] if network.owned else ["--netns-only"]
    return [*words, "--netns=/proc/self/fd/0"]


def _failed(helper: Helper, cause: str, fix: str = "") -> RootlessError:
    other = PASTA if helper.name == SLIRP else SLIRP
    return RootlessError(
        f"{helper.name} gives the container no network",
        cause=cause,
        fix=fix or f"try --network {other}, or --network none",
        code="RL-NETWORK",
    )
