"""A container in the foreground: forwards signals, relays the terminal, waits for the end.

helpers/front/attend.c and terminal.c do the same in less memory, for a program that does not end soon.
"""

from __future__ import annotations

import errno
import posix
import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from rootless.container.terminal.console import Console
    from rootless.container.terminal.service import Reports

    HandOver = Callable[[int, "Relay | None"], None]
    """Becomes another program, which waits; given the pidfd and the relay. It returns if that fails."""
else:
    import _signal

_CHUNK = 65536
_MOMENT, _LONG_MOMENT = 0.05, 0.5
"""Seconds in which short programs end: Python waits for them itself. Another Python at the end costs 10 ms."""
_LARGEST_SETTINGS = 64
"""Bytes; a struct termios of the kernel has 36 or 44."""
_INPUT_OPEN, _LINE_ENDED, _END_SAID_TO_LINE = 1, 2, 4
"""Bits for helpers/front/terminal.c."""
_GRACE = 10
"""Seconds from SIGTERM to SIGKILL when the container's time is over."""
_TIOCGPTPEER = 0x5441
"""ioctl_tty(2); the termios module has no name for it yet."""
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


def wait_foreground(
    pid: int,
    console: Console,
    signals: int,
    reports: Reports | None = None,
    deadline: Deadline | None = None,
    *,
    hand_over: HandOver | None = None,
    comes_back: bool = False,
) -> int:
    """Stay until the process `pid` ends and return its exit status, or 128 plus the signal that ended it.

    Args:
        pid: a child of this process.
        console: the terminal to relay, if it has one.
        signals: the descriptor from catch_signals().
        reports: the program's reports to a service manager, or None.
        deadline: the end of its time, or None.
        hand_over: called once if the process has not ended after a moment, or None.
        comes_back: whether another Python is necessary at the end.
    """
    relay = Relay(console.master) if console.master >= 0 else None
    try:
        moment = monotonic() + _moment(_LONG_MOMENT if comes_back else _MOMENT)
        _stay(pid, relay, signals, reports, deadline, hand_over=hand_over, moment=moment)
        if relay:
            relay.drain()
    finally:
        if relay:
            relay.restore()
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


class Deadline:
    """The end of a container's time: SIGTERM, and `kill` some time later.

    Attributes:
        at: when to act next, in seconds of the monotonic clock.
        is_over: whether the process has had its SIGTERM.
    """

    def __init__(self, seconds: int, kill: Callable[[], None]) -> None:
        self.at = monotonic() + seconds
        self.is_over = False
        self._kill = kill

    def left(self) -> float:
        """Return the milliseconds that are left, rounded up."""
        return max(0.0, (self.at - monotonic()) * 1000 + 1)

    def act(self, process: int) -> None:
        """Signal the process of a pidfd if the time is over."""
        if monotonic() < self.at:
            return
        if self.is_over:
            self._kill()
        else:
            _forward(process, _signal.SIGTERM)
        self.is_over = True
        self.at += _GRACE


def _stay(
    pid: int,
    relay: Relay | None,
    signals: int,
    reports: Reports | None,
    deadline: Deadline | None,
    *,
    hand_over: HandOver | None,
    moment: float,
) -> None:
    """Forward signals and relay the terminal until the process ends."""
    process = posix.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(signals, select.POLLIN)
    if reports:
        poll.register(reports, select.POLLIN)
    ready: dict[int, int] = {}
    while process not in ready:
        if relay:
            relay.register(poll)
        wait = deadline.left() if deadline else None
        if hand_over and not (relay and relay.holds_bytes()):
            left = (moment - monotonic()) * 1000
            if left <= 0:
                hand_over(process, relay)
                hand_over = None
                continue
            wait = left if wait is None else min(left, wait)
        ready = dict(poll.poll(wait))
        if deadline:
            deadline.act(process)
        if signals in ready:
            forward_caught(signals, process, relay)
        if relay:
            relay.move(ready)
        if reports:
            reports.pass_on()


def _moment(seconds: float) -> float:
    """Return the seconds until a wait is handed over, which tests change."""
    asked = posix.environ.get(b"ROOTLESS_ATTEND_AFTER", b"")
    return int(asked) / 1000 if asked.isdigit() else seconds


def forward_caught(signals: int, process: int, relay: Relay | None) -> None:
    """Forward the signals that the descriptor from catch_signals() yields now."""
    try:
        numbers = posix.read(signals, _CHUNK)
    except BlockingIOError:
        return
    for number in numbers:
        if number == _signal.SIGWINCH and relay:
            relay.resize()
        else:
            _forward(process, number)


def catch_signals() -> int:
    """Return a descriptor that yields the number of every signal from now on, a byte each."""
    reader, writer = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in range(1, _signal.NSIG):
        if number not in _NOT_FORWARDED and _signal.getsignal(number) is not _signal.SIG_IGN:
            _catch(number)
    return reader


def caught_signals() -> list[int]:
    """Return the numbers of the signals that catch_signals() yields."""
    return [number for number in range(1, _signal.NSIG) if _signal.getsignal(number) is _noted]


def _catch(number: int) -> None:
    try:
        _signal.signal(number, _noted)
    except (OSError, ValueError):
        return  # not a signal of this system, or one that the C library keeps for itself


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor yields the number."""


def _forward(process: int, number: int) -> None:
    try:
        _signal.pidfd_send_signal(process, number)
    except (ProcessLookupError, PermissionError):
        return


def prepare_terminal(master: int) -> None:
    """Copy settings of the caller's terminal to the container's, before a program can ask for them.

    If the output goes to a file or a pipe, line ends stay unchanged, as with runc.
    """
    import termios

    copy_size(master)
    if posix.isatty(1):
        return
    try:
        mode = termios.tcgetattr(master)
        mode[1] &= ~termios.ONLCR
        termios.tcsetattr(master, termios.TCSANOW, mode)
    except termios.error as error:  # is no OSError
        raise OSError(*error.args) from None


def copy_size(master: int) -> None:
    """Copy the size of the caller's terminal."""
    import fcntl
    import termios

    try:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
    except OSError:
        return  # the caller has no terminal: consoleSize, or the default, stays


class Relay:
    """Moves bytes between the caller's terminal (or whatever its standard streams are) and the container's.

    The caller's terminal is in raw mode until restore().
    """

    def __init__(self, master: int) -> None:
        import fcntl

        self._registered: set[int] = set()
        self._master = master
        # a program may close its terminal and open it again later (systemd does): held open here, it does not hang up
        self._other_side = fcntl.ioctl(master, _TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
        posix.set_blocking(master, False)  # its input queue may be full until its output is read
        self._to_container = b""
        self._to_caller = b""
        self._last_input = b"\n"
        self._input_open = True
        self._end_said_to_line = False
        self._saved = self._make_raw()
        self.resize()

    def holds_bytes(self) -> bool:
        """Whether there are bytes that were read and not written yet."""
        return bool(self._to_container or self._to_caller)

    def state(self) -> tuple[tuple[int, int], str, int]:
        """Return the state for a program that takes over.

        Returns:
            The descriptors to keep open, the master side first; the settings of the caller's terminal, in hexadecimal;
            bits about the input.
        """
        typed = _INPUT_OPEN if self._input_open else 0
        typed |= _LINE_ENDED if self._last_input == b"\n" else 0
        typed |= _END_SAID_TO_LINE if self._end_said_to_line else 0
        return (self._master, self._other_side), self._saved.hex(), typed

    def register(self, poll: select.poll) -> None:
        """Register the events that move() can act on now."""
        awaited = self._awaited()
        for fd in self._registered - awaited.keys():
            poll.unregister(fd)
        for fd, events in awaited.items():
            poll.register(fd, events)
        self._registered = set(awaited)

    def _awaited(self) -> dict[int, int]:
        """Return the events that move() can act on, by descriptor."""
        events: dict[int, int] = {}
        if self._input_open and not self._to_container:
            events[0] = select.POLLIN
        if self._to_caller:
            events[1] = select.POLLOUT
        master = (0 if self._to_caller else select.POLLIN) | (select.POLLOUT if self._to_container else 0)
        if master:
            events[self._master] = master
        return events

    def move(self, ready: dict[int, int]) -> None:
        """Move the bytes that can be moved without waiting."""
        if ready.get(0):
            self._to_container = _read(0)
            if self._to_container:
                self._last_input = self._to_container[-1:]
            else:
                self._input_open = False
                self._say_end_of_input()
        if self._to_container and ready.get(self._master, 0) & ~select.POLLIN:
            self._to_container = self._to_container[_write(self._master, self._to_container) :]
        if ready.get(1):
            # a pipe that can be written to takes so much without waiting, pipe(7)
            self._to_caller = self._to_caller[_write(1, self._to_caller[: select.PIPE_BUF]) :]
        elif ready.get(self._master, 0) & ~select.POLLOUT:
            self._to_caller = _read(self._master)
            if self._end_said_to_line:
                self._say_end_of_input()

    def drain(self) -> None:
        """Pass on the bytes that the container wrote before it ended."""
        data = self._to_caller or _read(self._master)
        while data:
            select.select([], [1], [])
            data = data[_write(1, data[: select.PIPE_BUF]) :] or _read(self._master)

    def _say_end_of_input(self) -> None:
        """Type the end-of-file key, twice if the last line has no end.

        A program that only then begins to edit lines itself, as a shell at its first prompt, does not see what was
        typed before; it gets the key again.
        """
        import termios

        try:
            mode = termios.tcgetattr(self._master)
        except termios.error as error:  # is no OSError
            raise OSError(*error.args) from None
        is_line = bool(mode[3] & termios.ICANON)
        if not (is_line and self._end_said_to_line):
            key: bytes = mode[6][termios.VEOF]
            self._to_container += key * (2 if is_line and self._last_input != b"\n" else 1)
            self._end_said_to_line = is_line

    def resize(self) -> None:
        """Copy the size of the caller's terminal to the container's."""
        copy_size(self._master)

    def restore(self) -> None:
        """Restore the caller's terminal."""
        if self._saved:
            import fcntl
            import termios

            saved, self._saved = self._saved, b""
            try:
                fcntl.ioctl(0, termios.TCSETSW, saved)
            except OSError:
                return  # it has been closed

    def _make_raw(self) -> bytes:
        """Return the previous settings as the kernel has them; empty if the caller has no terminal."""
        import fcntl
        import termios

        try:
            saved = fcntl.ioctl(0, termios.TCGETS, bytes(_LARGEST_SETTINGS))
        except OSError:
            return b""
        import tty

        try:
            tty.setraw(0, termios.TCSADRAIN)  # typed-ahead input is for the container
        except termios.error as error:
            raise OSError(*error.args) from None
        return saved


def _read(fd: int) -> bytes:
    """Return the available bytes; empty at the end, which for a terminal is EIO, or if there are none yet."""
    try:
        return posix.read(fd, _CHUNK)
    except BlockingIOError:
        return b""
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(fd: int, data: bytes) -> int:
    """Return the number of bytes written; bytes for a closed reader count as written."""
    try:
        return posix.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        return len(data)
