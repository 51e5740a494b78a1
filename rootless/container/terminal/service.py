"""A container as a service: the sockets that it inherits (sd_listen_fds(3)), and its reports (sd_notify(3))."""

from __future__ import annotations

import _socket
import os
import select

from rootless import log

_LONGEST = 65536
_MOST_AT_ONCE = 64
"""Reports, before somebody else has a turn: a container that sends without end must not keep its signals from it."""
_READY = b"READY="
_PASSED_ON = frozenset(
    (
        b"READY", b"RELOADING", b"STOPPING", b"MONOTONIC_USEC", b"STATUS", b"ERRNO", b"BUSERROR", b"VARLINKERROR",
        b"EXIT_STATUS", b"WATCHDOG",
    )
)  # fmt: skip
"""What a container may say of itself (sd_notify(3)).

The rest is left out. MAINPID and its kin, NOTIFYACCESS: which processes belong to the service, and may speak for it;
ids of the container mean nothing outside. FDSTORE and what goes with it: descriptors are not passed on. WATCHDOG_USEC
and EXTEND_TIMEOUT_USEC: the limits of time that the unit sets for the container. Variables not in sd_notify(3).
"""


class Reports:
    """The program's reports, forwarded to the service manager of this process, if it has one."""

    def __init__(self, fd: int) -> None:
        """Take the socket on which the program reports."""
        self._reports = _socket.socket(fileno=fd)
        self._reports.setblocking(False)  # noqa: FBT003 - it takes no keyword
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._manager = f"\0{address[1:]}" if address.startswith("@") else address

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._reports.fileno()

    def await_ready(self, pid: int) -> None:
        """Forward reports until the program reports that it is ready, or ends; make it the main process."""
        if not self._manager:
            return
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.register(self._reports, select.POLLIN)
            while True:
                ready = dict(poll.poll())
                if self.pass_on(f"MAINPID={pid}\n".encode()) or process in ready:
                    return
        finally:
            os.close(process)

    def pass_on(self, with_ready: bytes = b"") -> bool:
        """Forward the reports that have arrived, READY only `with_ready`; return whether one was READY."""
        ready = False
        for _ in range(_MOST_AT_ONCE):
            try:
                # descriptors that come with it are closed: sd_notify_barrier(3) waits for that
                report = self._reports.recv(_LONGEST)
            except BlockingIOError:
                break
            lines = [line for line in report.split(b"\n") if line.partition(b"=")[0] in _PASSED_ON]
            says_ready = any(line.startswith(_READY) for line in lines)
            ready = ready or says_ready
            if lines:
                self._say(b"\n".join([*lines, b""]) + (with_ready if says_ready else b""))
        return ready

    def _say(self, report: bytes) -> None:
        if not self._manager:
            return
        manager = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            manager.sendto(report, self._manager)
        except OSError as error:
            log.warning(f"NOTIFY_SOCKET {self._manager!r}: {error.strerror}")
        finally:
            manager.close()
