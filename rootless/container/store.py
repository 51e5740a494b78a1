"""Containers on disk: one directory each, named by the id.

    ROOT/ID/              its lock is what claims an id
    ROOT/ID/state.json    written as soon as there is a process, then once more when it is created
    ROOT/ID/start.sock    where the created container waits for `start`

A lock on the directory is held by whoever changes it. A directory without state.json that nobody holds is what a killed
`create` left: the next use of the id clears it away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from rootless.bundle import jsontext
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
_LONGEST_ID = 255
"""A file name has no more bytes."""
_STATE = "state.json"
_SHAPE = {
    "ociVersion": str,
    "id": str,
    "pid": int,
    "status": str,
    "startTime": int,
    "bootId": str,
    "bundle": str,
    "rootfs": str,
    "created": str,
    "annotations": dict,
    "owner": str,
    "afterStart": dict,
}
"""What state.json holds."""
START_SOCKET = "start.sock"


def state_root(asked: str) -> str:
    """Return the directory that holds the containers of this user.

    XDG_RUNTIME_DIR is not there on batch nodes, after su, or belongs to somebody else: it is used only when it is the
    caller's own, and there is a way without it.
    """
    if asked:
        return os.path.abspath(asked)
    uid = os.geteuid()
    if uid == 0 and _owned("/run", 0) and os.access("/run", os.W_OK) and not os.environ.get("XDG_RUNTIME_DIR"):
        return "/run/rootless"
    for directory in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if directory.startswith("/") and _owned(directory, uid):
            return f"{directory}/rootless"
    fallback = f"/tmp/rootless-{uid}"  # noqa: S108 - used only when it is the user's own, and no link to elsewhere
    try:
        if os.lstat(fallback).st_uid != uid:
            raise _foreign(fallback)
    except FileNotFoundError:
        pass  # whoever makes a container makes it, and looks again
    return fallback


def check_id(container_id: str) -> None:
    """Refuse what cannot be the name of a directory and of a cgroup."""
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise RootlessError(
            f"container id {container_id!r}",
            cause="invalid id format",
            fix="use letters, digits and _ + - . only",
            code="RL-ID",
        )
    if len(container_id) > _LONGEST_ID:
        raise RootlessError(
            "container id", cause=f"longer than {_LONGEST_ID} characters", fix="shorten it", code="RL-ID"
        )


class Entry:
    """The directory of one container, open and locked until close().

    Attributes:
        container_id: its id.
        path: the directory.
        fd: its descriptor; everything in it is used through that.
    """

    __slots__ = ("container_id", "fd", "path")

    def __init__(self, root: str, container_id: str, fd: int) -> None:
        self.container_id = container_id
        self.path = f"{root}/{container_id}"
        self.fd = fd

    def read(self) -> dict[str, Any] | None:
        """Return what state.json says, or None where there is none."""
        try:
            fd = os.open(_STATE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        path = f"{self.path}/{_STATE}"
        with open(fd, "rb", buffering=0) as file:
            state = jsontext.parse(file.read(), path)
        if not isinstance(state, dict) or any(type(state.get(name)) is not kind for name, kind in _SHAPE.items()):
            raise RootlessError(
                f"cannot use {path}",
                cause="it does not hold the state of a container",
                fix=f"rootless delete --force {self.container_id}",
                code="RL-STATE",
            )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace state.json, whole or not at all."""
        temporary = _STATE + ".new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            with open(fd, "wb") as file:
                file.write(jsontext.render(state, None).encode("utf-8", "surrogateescape"))
            os.rename(temporary, _STATE, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise _unusable(self.path, error) from None

    def listen(self) -> int:
        """Return the start socket, which the container waits on; it is the caller's to close."""
        import _socket

        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            listener.bind(self.socket_path())
        except OSError as error:
            raise _unusable(self.path, error) from None
        listener.listen(1)
        return listener.detach()

    def socket_path(self) -> str:
        """Return a path of the start socket that fits into a sockaddr_un, however deep the directory is."""
        return f"/proc/self/fd/{self.fd}/{START_SOCKET}"

    def has_socket(self) -> bool:
        """Whether the container still waits for its start, as far as the disk knows."""
        return os.access(START_SOCKET, os.F_OK, dir_fd=self.fd)

    def drop_socket(self) -> None:
        """Remove the start socket."""
        _unlink(START_SOCKET, self.fd)

    def clear(self) -> None:
        """Remove what is in the directory."""
        for name in os.listdir(self.fd):
            _unlink(name, self.fd)

    def remove(self) -> None:
        """Remove the directory; the id is free again."""
        self.clear()
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return

    def close(self) -> None:
        """Let others have it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        """Return itself: it is locked already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        self.close()


def claim(root: str, container_id: str) -> Entry:
    """Take an id that nobody has, atomically.

    Raises:
        RootlessError: `RL-EXISTS`, or the directory cannot be made or is somebody else's.
    """
    check_id(container_id)
    _make_root(root)
    path = f"{root}/{container_id}"
    entry = None
    while entry is None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path) and os.path.lexists(path):
                raise _unusable(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from None
        except OSError as error:
            raise _unusable(root, error) from None
        # Whoever has the lock on what lies at the path has the id; who made the directory does not matter.
        try:
            entry = _open(root, container_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(container_id) from None
    try:
        taken = entry.read() is not None
        if not taken:
            entry.clear()
    except BaseException:
        entry.close()
        raise
    if taken:
        entry.close()
        raise _taken(container_id)
    return entry


def find(root: str, container_id: str, *, lock: bool = True) -> Entry:
    """Open the directory of a container, waiting for whoever changes it.

    Raises:
        RootlessError: `RL-NOT-FOUND`: there is none.
    """
    check_id(container_id)
    entry = _open(root, container_id, fcntl.LOCK_EX if lock else 0)
    if entry is None:
        raise RootlessError(
            f"container {container_id}",
            cause="container does not exist",
            fix="`rootless list` shows yours; another --root has others",
            code="RL-NOT-FOUND",
        )
    return entry


def ids(root: str) -> list[str]:
    """Return the ids in `root`, sorted; none where there is no such directory."""
    try:
        return sorted(name for name in os.listdir(root) if name and _ID_CHARACTERS.issuperset(name))
    except OSError:
        return []


def _make_root(root: str) -> None:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        owner, link_owner = os.stat(root).st_uid, os.lstat(root).st_uid
    except OSError as error:
        raise _unusable(root, error) from None
    uid = os.geteuid()
    if uid != 0 and (owner != uid or link_owner not in (uid, 0)):
        raise _foreign(root)


def _open(root: str, container_id: str, lock: int) -> Entry | None:
    """Open and lock; None when it is not there, or was removed while waiting for the lock.

    Raises:
        BlockingIOError: LOCK_NB was asked, and somebody has the lock.
    """
    path = f"{root}/{container_id}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    if lock:
        try:
            fcntl.flock(fd, lock)
        except BaseException:
            os.close(fd)
            raise
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return None
    return Entry(root, container_id, fd)


def _unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _owned(directory: str, uid: int) -> bool:
    try:
        status = os.stat(directory)
    except OSError:
        return False
    return status.st_uid == uid and stat.S_ISDIR(status.st_mode)


def _taken(container_id: str) -> RootlessError:
    return RootlessError(
        f"container {container_id}",
        cause="container with given ID already exists",
        fix=f"choose another id, or remove it: rootless delete --force {container_id}",
        code="RL-EXISTS",
    )


def _foreign(root: str) -> RootlessError:
    return RootlessError(
        f"cannot keep state in {root}",
        cause="it belongs to another user",
        fix="give a directory of your own with --root, or set XDG_RUNTIME_DIR",
        code="RL-STATE",
    )


def _unusable(path: str, error: OSError) -> RootlessError:
    return RootlessError(
        f"cannot keep state in {path}",
        cause=(error.strerror or str(error)).lower(),
        fix="give a directory that you can write to with --root",
        code="RL-STATE",
    )
