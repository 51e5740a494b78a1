"""The verb `logs`: the output of a detached container, as its monitor (helpers/init/monitor.c) keeps it.

The log is two files, of which the older one goes when the newer one is full. A record is a line in the format of CRI
and of podman's k8s-file: time, stream, F for a full line or P for a part of one, text. A line may be longer than
memory, so parts are passed on as they are.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from rootless.container.operations.monitor import noted_status, open_exit
from rootless.container.operations.undo import notes
from rootless.container.state import store
from rootless.container.state.directory import LOG, OLD_LOG
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.procfs import is_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.container.state.directory import ContainerDir
    from rootless.options import Options

_CHUNK = 1 << 16
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGES = fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_DELETE | fcntl.DN_MULTISHOT
_UNNOTIFIED = 200
"""Milliseconds between two looks where the kernel does not report changes of a directory."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Record(NamedTuple):
    """A piece of output.

    Attributes:
        time: when it was written, as RFC 3339 has it, in UTC with nine digits of a second: text that can be compared.
        stream: 1 or 2.
        full: whether a line ends with it.
        text: without the end of the line.
    """

    time: bytes
    stream: int
    full: bool
    text: bytes


def records(options: Options) -> Iterator[Record]:
    """Yield the output of a container; with --follow, until it ends.

    Raises:
        RootlessError: `RL-LOGS`: its output is not kept. `RL-USAGE`: --since or --tail is wrong.
    """
    since = _time_of(options.since) if options.since else b""
    with store.find(state_root(options.root), options.container, lock=False) as entry:
        store.existing_state(entry)
        log = _Log(entry)
        try:
            there = [record for record in log.read() if record.time >= since]
            if options.tail:
                there = _last_lines(there, _lines(options.tail))
            yield from there
            if options.follow:
                for record in log.follow():
                    if record.time >= since:
                        yield record
        finally:
            log.close()


class _Log:
    """The two files of a log, read once from the beginning."""

    def __init__(self, entry: ContainerDir) -> None:
        self._entry = entry
        self._rest = b""
        self._fd, self._older = _open_both(entry)
        if self._fd < 0:
            raise RootlessError(
                f"container {entry.container_id}",
                cause="its output is not kept: it went to the caller of run or create",
                fix="start the container with rootless run -d BUNDLE",
                code="RL-LOGS",
            )

    def read(self) -> Iterator[Record]:
        """Yield the records that are there and have not been read yet."""
        if self._older >= 0:
            yield from self._records(self._older)
            os.close(self._older)
            self._older = -1
        yield from self._records(self._fd)
        while (newer := self._newer()) >= 0:
            yield from self._records(self._fd)  # written before the monitor went on to the next file
            os.close(self._fd)
            self._fd, self._rest = newer, b""
            yield from self._records(self._fd)

    def _newer(self) -> int:
        """Return a descriptor of the newest file if it is another one, or -1."""
        fd = _open(self._entry, LOG)
        if fd >= 0 and os.path.sameopenfile(fd, self._fd):
            os.close(fd)
            return -1
        return fd

    def _records(self, fd: int) -> Iterator[Record]:
        while chunk := os.read(fd, _CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                words = line.split(b" ", 3)
                if len(words) == 4:  # noqa: PLR2004 - time, stream, tag, text
                    yield Record(words[0], 2 if words[1] == b"stderr" else 1, words[2] == b"F", words[3])

    def follow(self) -> Iterator[Record]:
        """Yield further records, until the container has ended or its monitor has been killed."""
        exit_fd = open_exit(self._entry)
        monitor = _open_monitor(self._entry)
        changes, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGIO, lambda *_: None)
        pause = None
        try:
            fcntl.fcntl(self._entry.fd, fcntl.F_NOTIFY, _CHANGES)
        except OSError:
            pause = _UNNOTIFIED
        poll = select.poll()
        for fd in (changes, monitor):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        while True:
            over = exit_fd < 0 or monitor < 0 or noted_status(exit_fd) is not None
            yield from self.read()
            if over:
                return
            if dict(poll.poll(pause)).get(monitor):
                poll.unregister(monitor)
                monitor = -1
            while _read_all(changes):
                pass

    def close(self) -> None:
        """Close the files."""
        for fd in (self._fd, self._older):
            if fd >= 0:
                os.close(fd)


def _read_all(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return b""


def _open_both(entry: ContainerDir) -> tuple[int, int]:
    """Return descriptors of the newer and of the older file, -1 for one that does not exist."""
    while True:
        older, newer = (_open(entry, name) for name in (OLD_LOG, LOG))
        still = _open(entry, OLD_LOG)
        same = still < 0 if older < 0 else still >= 0 and os.path.sameopenfile(older, still)
        if still >= 0:
            os.close(still)
        if same:
            return (newer, older) if newer >= 0 else (older, -1)  # the monitor is between the two files
        for fd in (older, newer):  # the monitor went on to the next file in between
            if fd >= 0:
                os.close(fd)


def _open(entry: ContainerDir, name: str) -> int:
    try:
        return os.open(name, _READ, dir_fd=entry.fd)
    except FileNotFoundError:
        return -1


def _open_monitor(entry: ContainerDir) -> int:
    """Return a pidfd of the monitor, or -1 if it has ended."""
    process = notes(entry).get("monitor", {}).get("process", (-1, 0))
    try:
        fd = os.pidfd_open(process[0])
    except OSError:
        return -1
    if not is_there(process):
        os.close(fd)
        return -1
    return fd


def _last_lines(there: list[Record], count: int) -> list[Record]:
    """Return the records of the last lines, of both streams together."""
    ends: set[int] = set()
    for index in range(len(there) - 1, -1, -1):
        record = there[index]
        if record.full or record.stream not in ends:
            if count == 0:
                return there[index + 1 :]
            count -= 1
            ends.add(record.stream)
    return there


def _lines(text: str) -> int:
    if text == "all":
        return -1
    if text.isascii() and text.isdigit():
        return int(text)
    raise RootlessError(f"--tail {text!r}", cause="it is not a number", fix="write a number of lines", code="RL-USAGE")


def _time_of(text: str) -> bytes:
    """Return the time that a time, a duration before now or seconds since 1970 stand for, as records have it."""
    try:
        moment = _moment(text)
        if moment.tzinfo is None:
            moment = moment.astimezone()  # local time
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z").encode()
    except (ValueError, OverflowError, OSError):
        raise RootlessError(
            f"--since {text!r}",
            cause="it is neither a time nor a duration",
            fix="write a time such as 2026-05-01T10:00:00 or a duration such as 10m or 1h30m",
            code="RL-USAGE",
        ) from None


def _moment(text: str) -> datetime:
    if not text.isascii():
        raise ValueError(text)
    if text.replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC)
    if text[-1] not in _UNITS:
        return datetime.fromisoformat(text)
    number, total = "", timedelta()
    for character in text:
        if character in _UNITS:
            total += timedelta(**{_UNITS[character]: float(number)})
            number = ""
        else:
            number += character
    return datetime.now(UTC) - total
