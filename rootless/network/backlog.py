"""Lengthens the connection queues of slirp4netns's ports: it asks for one waiting client, the kernel allows two.

A client that connects while two wait is answered after retransmissions, seconds later, or never. listen(2) of a
listening socket changes that number only; a process with a copy of the socket can call it: pidfd_getfd(2).
"""

from __future__ import annotations

import _socket
import ctypes
import posix

_PIDFD_GETFD = 438
"""Of every architecture."""
_WAITING = 4096
"""A common value of servers; net.core.somaxconn is the limit."""


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
