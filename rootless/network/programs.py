"""Starts slirp4netns(1) and pasta(1), and waits until they serve.

Both parse packets of a hostile container. Neither holds a descriptor of a host directory: with openat(2) and "..", a
compromised helper would leave its empty root and reach every file of the caller. slirp4netns makes its API socket in
its working directory, which its sandbox leaves. pasta gets its network namespace as a descriptor, instead of watching a
directory of /proc.
"""

from __future__ import annotations

import fcntl
import posix
import select
from errno import EPERM

from rootless import files, signals
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.spawn import SIGNALS, bounded_file, sealed_copy
from rootless.plan.network.helpers import API_SOCKET, PASTA, SLIRP, command

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

_PATIENCE = 10_000
"""Milliseconds of silence after which a helper hangs; it is ready within a hundred."""
_TOLD = 400
_MOST_WORDS = 65536
"""Bytes of a helper's messages: a container can make it write a line for each packet."""
_CHATTER = ("WARNING: Support for", "child failed", "parent failed", "do_slirp", "sent tapfd", "received tapfd")
"""Lines of slirp4netns that name no cause."""
_EXECUTE_ONLY = 0o111
_SUID_DUMPABLE = "/proc/sys/fs/suid_dumpable"
"""With 1, an unreadable program is dumpable like any other: proc_sys_fs(5)."""
_STANDARD = 3
"""The lowest descriptor above the standard streams."""


class Program:
    """A helper that has been started.

    Attributes:
        helper: which.
        pid: its process.
    """

    def __init__(self, helper: Helper, network: Network, holder: NetnsHolder, directory: int) -> None:
        """Start it without waiting for it.

        Args:
            helper: which.
            network: the network that it serves.
            holder: leads it to the namespaces; when the holder ends, the helper ends.
            directory: a descriptor of the container's directory, for the socket of slirp4netns; open until publish()
                returns.

        Raises:
            RootlessError: `RL-NETWORK`: it cannot be executed.
        """
        self.helper = helper
        self.pid = 0
        self._directory = directory
        self._text = b""
        self._ready, ready = posix.pipe()
        self._words = bounded_file("rootless-network-log", _MOST_WORDS) if helper.name == SLIRP else -1
        null = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
        hide = network.hides(helper)
        at_run_time = {
            "{holder}": holder.pid,
            "{launcher}": posix.getpid(),
            "{end}": holder.end,
            "{ready}": ready,
            "{user}": holder.namespaces.user,
        }
        try:
            words = [_filled(word, at_run_time) for word in command(helper, network)[1:]]
            if helper.name == SLIRP:
                start = _Start(directory, [null, self._words, self._words], [ready, holder.end])
            else:
                posix.set_blocking(ready, False)  # pasta must not wait for a reader of its messages
                start = _Start(-1, [holder.namespaces.network, holder.end, ready], [])
                start.ends_with = holder.end
            self.pid = start.run(helper, words, hide=hide, must_hide=hide and network.exposed)
        except OSError as error:
            self._close_fds()
            raise _failed(helper, (error.strerror or "").lower(), EXHAUSTED.get(error.errno or 0, "")) from None
        finally:
            posix.close(ready)
            posix.close(null)

    def _close_fds(self) -> None:
        """Close the descriptors that are needed until it is ready."""
        files.close_fds(self, "_ready", "_words")

    def await_ready(self, patience: int = _PATIENCE) -> None:
        """Return when it serves.

        Args:
            patience: milliseconds of silence after which it hangs.

        Raises:
            RootlessError: `RL-NETWORK`: it ended or hangs; it is killed.
        """
        process = posix.pidfd_open(self.pid)
        try:
            cause = self._await(process, patience)
            if cause:
                self.kill()
                raise _failed(self.helper, cause)
        finally:
            posix.close(process)
            self._close_fds()

    def _await(self, process: int, patience: int) -> str:
        """Return why it does not serve; empty when it does."""
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self._ready, select.POLLIN)
        while ready := dict(poll.poll(patience)):
            said = posix.read(self._ready, _MOST_WORDS) if ready.get(self._ready, 0) & select.POLLIN else b""
            self._text = (self._text + said)[-_MOST_WORDS:]
            if self.helper.name == SLIRP and said == b"1":
                return ""
            # pasta writes its pid when it serves
            if self.helper.name == PASTA and b"%d" % self.pid in self._text.split(b"\n"):
                return ""
            if not said:
                return self._said()
        return f"it is not ready after {_PATIENCE // 1000} s"

    def publish(self, ports: Sequence[Port], addresses: Sequence[str]) -> None:
        """Publish container ports on the host; pasta has them on its command line.

        Raises:
            RootlessError: `RL-PUBLISH`: a port is refused.
        """
        if self.helper.name == SLIRP and ports:
            from rootless.network import backlog, hostfwd

            hostfwd.add(socket_in(self._directory), ports, addresses[0])
            backlog.lengthen(self.pid)
            posix.unlink(API_SOCKET, dir_fd=self._directory)

    def kill(self) -> None:
        """Kill it and reap it."""
        self._close_fds()
        pid, self.pid = self.pid, 0
        if pid:
            try:
                posix.kill(pid, 9)
                posix.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                return

    def _said(self) -> str:
        """Return its last message."""
        if self._words >= 0:
            self._text = posix.pread(self._words, _MOST_WORDS, 0).rstrip(b"\0")
        text = self._text.decode("utf-8", "replace")
        told = text.partition("\nUsage:")[0]  # the usage after a wrong option is long
        lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(_CHATTER)]
        return "; ".join(lines[-2:])[-_TOLD:] or "it exited and reported no error"


class _Start:
    """How a helper is started.

    posix_spawn(3) does not do: the signal for the end of the holder has to be requested before the helper exists.
    Otherwise a launcher that is killed in between leaves a helper that nothing ends.

    Attributes:
        ends_with: a descriptor whose hang-up kills the helper, or -1.
    """

    def __init__(self, directory: int, streams: list[int], passed: list[int]) -> None:
        """Take its working directory (-1 for the root), its standard streams, and its other descriptors."""
        self._directory = directory
        self._streams = streams
        self._passed = passed
        self.ends_with = -1

    def run(self, helper: Helper, words: list[str], *, hide: bool, must_hide: bool) -> int:
        """Start it; return its process.

        An unreadable program is not dumpable once it is executed, execve(2). A process with CAP_SYS_PTRACE over the
        user namespace that it enters, and with the host's processes in view, can neither trace it nor use its
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
            posix.setsid()  # signals of the caller's terminal are not for it
            for number in SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            if self._directory < 0:
                posix.chdir("/")
            else:
                posix.fchdir(self._directory)
            # slirp4netns may be another user inside, and the launcher connects to its socket; the directory is private
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
    """Return a copy of a helper that may be executed but not read, or -1 where that has no effect: a script is read."""
    try:
        copy = sealed_copy(helper.program, helper.name)
    except (RootlessError, OSError):
        return -1  # executing it reports the cause
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
    return f"/proc/self/fd/{directory}/{API_SOCKET}"


def _filled(word: str, values: dict[str, int]) -> str:
    """Return a word of a command line with the values of the names in it."""
    for name, value in values.items():
        word = word.replace(name, str(value))
    return word


def _failed(helper: Helper, cause: str, fix: str = "") -> RootlessError:
    other = PASTA if helper.name == SLIRP else SLIRP
    return RootlessError(
        f"{helper.name} gives the container no network",
        cause=cause,
        fix=fix or f"try --network {other}, or --network none",
        code="RL-NETWORK",
    )
