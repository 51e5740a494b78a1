"""How many connections may wait on the ports that slirp4netns listens on: it says one, and the kernel makes that two.

Whoever connects while two wait is answered by retransmissions, after seconds, or never. listen(2) of a socket that
listens already changes that number alone, and may be called by who holds a copy of it: pidfd_getfd(2).
"""

from __future__ import annotations

import _socket
import ctypes
import posix

_PIDFD_GETFD = 438
"""Of every architecture."""
_WAITING = 4096
"""As servers say; the kernel bounds it by net.core.somaxconn."""


def lengthen(pid: int) -> None:
    """Let more connections wait for a process; where the kernel does not let us, everything stays as it is."""
    library = ctypes.CDLL(None)
    try:
        process = posix.pidfd_open(pid)
    except OSError:
        return
    try:
        numbers = [int(name) for name in posix.listdir(f"/proc/{pid}/fd")]
        copies = [library.syscall(_PIDFD_GETFD, process, number, 0) for number in numbers]
    except OSError:
        return
    finally:
        posix.close(process)
    for fd in copies:
        if fd >= 0:
            _lengthen(fd)


def _lengthen(fd: int) -> None:
    try:
        copy = _socket.socket(fileno=fd)
    except OSError:  # it is no socket
        posix.close(fd)
        return
    try:
        if copy.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            copy.listen(_WAITING)
    except OSError:
        return
    finally:
        copy.close()
