"""A container in the foreground: signals go to it, its terminal is relayed, its end is waited for."""

from __future__ import annotations

import _signal
import errno
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.console import Console

_CHUNK = 65536
_NOT_FORWARDED = (
    # cannot be caught
    _signal.SIGKILL,
    _signal.SIGSTOP,
    # are about this process
    _signal.SIGCHLD,
    _signal.SIGPIPE,
    _signal.SIGSEGV,
    _signal.SIGBUS,
    _signal.SIGFPE,
    _signal.SIGILL,
    # means nothing here
    _signal.SIGURG,
)


def attend(pid: int, console: Console) -> int:
    """Stay until the process `pid` ends and return its exit status, or 128 plus the signal that ended it."""
    relay = Relay(console.master) if console.master >= 0 else None
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    for number in range(1, _signal.NSIG):
        if number not in _NOT_FORWARDED and _signal.getsignal(number) is not _signal.SIG_IGN:
            _catch(number)
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(wake_reader, select.POLLIN)
    try:
        while True:
            wanted = relay.wanted() if relay else {}
            for fd in relay.descriptors if relay else ():
                if fd in wanted:
                    poll.register(fd, wanted[fd])
                else:
                    _forget(poll, fd)
            ready = dict(poll.poll())
            if wake_reader in ready:
                for number in os.read(wake_reader, _CHUNK):
                    if number == _signal.SIGWINCH and relay:
                        relay.resize()
                    else:
                        _forward(process, number)
            if relay:
                relay.move(ready)
            if process in ready:
                break
        if relay:
            relay.drain()
    finally:
        if relay:
            relay.restore()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _catch(number: int) -> None:
    try:
        _signal.signal(number, _noted)
    except (OSError, ValueError):
        return  # not a signal of this system, or one that the C library keeps for itself


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor has the number."""


def _forward(process: int, number: int) -> None:
    try:
        _signal.pidfd_send_signal(process, number)
    except (ProcessLookupError, PermissionError):
        return


def _forget(poll: select.poll, fd: int) -> None:
    try:
        poll.unregister(fd)
    except KeyError:
        return


class Relay:
    """Moves bytes between the caller's terminal (or whatever its standard streams are) and the container's.

    The caller's terminal is in raw mode meanwhile, and as it was before afterwards.
    """

    def __init__(self, master: int) -> None:
        self.descriptors = (0, 1, master)
        self._master = master
        self._to_container = b""
        self._to_caller = b""
        self._input_open = True
        self._output_open = True
        self._saved = self._make_raw()
        self.resize()

    def wanted(self) -> dict[int, int]:
        """Return the events that there is something to do for, by descriptor."""
        events: dict[int, int] = {}
        if self._input_open and not self._to_container:
            events[0] = select.POLLIN
        if self._to_caller:
            events[1] = select.POLLOUT
        if self._output_open:
            events[self._master] = (0 if self._to_caller else select.POLLIN) | (
                select.POLLOUT if self._to_container else 0
            )
        return events

    def move(self, ready: dict[int, int]) -> None:
        """Move what can be moved without waiting."""
        if ready.get(0) and not self._to_container:
            self._to_container = _read(0)
            if not self._to_container:
                self._input_open = False
                self._to_container = b"\x04"  # end of input, as a terminal says it
        happened = ready.get(self._master, 0)
        if happened & select.POLLOUT and self._to_container:
            self._to_container = self._to_container[_write(self._master, self._to_container) :]
        if happened & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._to_caller:
            self._to_caller = _read(self._master)
            self._output_open = bool(self._to_caller)
        if self._to_caller and (ready.get(1) or self._to_caller):
            self._to_caller = self._to_caller[_write(1, self._to_caller) :]

    def drain(self) -> None:
        """Pass on what the container wrote before it ended."""
        os.set_blocking(self._master, False)
        while self._output_open or self._to_caller:
            if not self._to_caller:
                self._to_caller = _read(self._master)
                self._output_open = bool(self._to_caller)
            wrote = _write(1, self._to_caller) if self._to_caller else 0
            self._to_caller = self._to_caller[wrote:]

    def resize(self) -> None:
        """Give the container's terminal the size of the caller's."""
        import fcntl
        import termios

        try:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            return  # the caller has no terminal: consoleSize, or the default, stays

    def restore(self) -> None:
        """Put the caller's terminal back as it was."""
        if self._saved:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._saved = None

    def _make_raw(self) -> list[object] | None:
        import termios

        try:
            saved = termios.tcgetattr(0)
        except termios.error:
            return None
        import tty

        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is for the container
        return saved


def _read(fd: int) -> bytes:
    """Return what there is; nothing at the end, which for a terminal is EIO, or when there is none yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return b""
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(fd: int, data: bytes) -> int:
    """Return how much was written; what nobody reads any more counts as written."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        return len(data)
