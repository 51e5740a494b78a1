"""Signals that end this process: it undoes unfinished work on the way out, and keeps finished work."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

_NUMBERS = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
TERM = 15
_MAX_DIGITS = 9
_received: list[int] = []


class Interrupted(BaseException):
    """The caller wants this process to end.

    KeyboardInterrupt would not do: click takes it for its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def allow() -> None:
    """Let signals raise Interrupted from now on, except those that the caller ignores."""
    for number in _NUMBERS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _interrupt)


def fork() -> int:
    """Fork while signals wait; the child has to unblock them.

    posix.fork() calls functions that modules have registered, such as `logging`. What a signal raises in one of them is
    printed as a traceback, and forgotten.
    """
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _NUMBERS)
    pid = -1
    try:
        pid = posix.fork()
        return pid
    finally:
        if pid != 0:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def disallow() -> None:
    """Restore the default action of signals, as the last action of a process.

    Raises:
        Interrupted: one has just come. It is the only one that will.
    """
    for number in _NUMBERS:
        if _signal.getsignal(number) is _interrupt:
            _signal.signal(number, _signal.SIG_DFL)


def commit() -> None:
    """Mark the verb as done: signals have no effect any more.

    Raises:
        Interrupted: one has just come, in time.
    """
    for number in _NUMBERS:
        _signal.signal(number, _signal.SIG_IGN)


def _interrupt(number: int, _frame: object) -> None:
    """Interrupt once: a second signal does not disturb the clean-up after the first one."""
    if not _received:
        _received.append(number)
        raise Interrupted(number)


def signal_number(text: str) -> int:
    """Return the number of the signal that `text` names, or -1: ``9``, ``KILL``, ``sigkill``, ``RTMIN+3``, ``RTMAX-1``.

    0 is a signal here: it asks whether the process is there, kill(2).
    """
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= _MAX_DIGITS else -1
        return number if number < _signal.NSIG else -1
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+" if name.startswith("RTMIN") else "-")
    found = getattr(_signal, "SIG" + base, None) if base.isalnum() else None
    if found is None:
        return -1
    number = int(found)
    if sign:
        if base not in ("RTMIN", "RTMAX") or not (offset.isascii() and offset.isdigit()) or len(offset) > _MAX_DIGITS:
            return -1
        number += int(offset) if sign == "+" else -int(offset)
        if not _signal.SIGRTMIN <= number <= _signal.SIGRTMAX:
            return -1
    return number
