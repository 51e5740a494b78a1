"""The directory of one container.

    ROOT/ID/              its lock is what claims an id
    ROOT/ID/config.json   a copy of the bundle's, made by create
    ROOT/ID/state.json    written when the first process exists, and again when the container is created
    ROOT/ID/status        what the front door needs of the latter (rootless/container/operations/status_record.py)
    ROOT/ID/start.sock    the socket on which the created container waits for `start`
    ROOT/ID/undo          notes of its resources on the host, which are removed with it
    ROOT/ID/request.json  the options of a person's `run`
    ROOT/ID/log           the output of a detached container, written by its monitor; log.1 is the older half
    ROOT/ID/exit          its exit status; locked by the process that will write it
    ROOT/ID/exec.KEY      a Plan of `exec` for the front door (rootless/container/cached_plan.py)
    ROOT/ID/resolv.conf   mounted over the image's, like `hosts`, if rootless makes its network

Everything in it is used through its descriptor.
"""

from __future__ import annotations

import _stat as stat
import posix
from errno import ENOSPC

from rootless import files, jsontext
from rootless.container.state.state import State
from rootless.errors import EXHAUSTED, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from rootless.container.state.root import StateRoot

_OTHERS = 0o077
NOT_AGED = stat.S_ISVTX
"""On a file: systemd-tmpfiles leaves it in /tmp, however old it is (XDG Base Directory Specification)."""
_WRITE = posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
STATE = "state.json"
CONFIG = "config.json"
START_SOCKET = "start.sock"
REQUEST = "request.json"
LOG = "log"
OLD_LOG = "log.1"
EXIT = "exit"
RESOLVER = "resolv.conf"
HOSTS = "hosts"
PLAN_OF_EXEC = "exec."
"""Beginning of a name."""
UNDO = "undo"
"""Undo notes (rootless/container/operations/undo.py)."""
_STATUS = "status"
_NEW = ".new"
_WITHOUT_STATE = frozenset(
    (
        UNDO,
        STATE + _NEW,
        _STATUS,
        CONFIG,
        START_SOCKET,
        REQUEST,
        LOG,
        OLD_LOG,
        EXIT,
        RESOLVER,
        HOSTS,
        "network.sock",
        "criu.pid",
    )
)
"""What a directory without state.json may hold; another file means that it is not a container's."""


class ContainerDir:
    """The directory of one container, open and locked until close().

    Attributes:
        root: the directory that it is in.
        container_id: its id.
        path: the directory, for messages and for programs that need a name.
        fd: its descriptor; open until close().
    """

    __slots__ = ("container_id", "fd", "path", "root")

    def __init__(self, root: StateRoot, container_id: str, fd: int) -> None:
        self.root = root
        self.container_id = container_id
        self.path = f"{root.path}/{container_id}"
        self.fd = fd

    @property
    def place(self) -> str:
        """The directory by its descriptor, until close(): a path for this process, and for children of its user."""
        return f"/proc/{posix.getpid()}/fd/{self.fd}"

    def read(self) -> State | None:
        """Return the state in state.json, or None if the file does not exist."""
        path = f"{self.path}/{STATE}"
        try:
            text = self.content(STATE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(path, error) from None
        return State.parse(text, self.container_id, path)

    def has(self, name: str) -> bool:
        """Whether the directory has a file of this name."""
        return posix.access(name, posix.F_OK, dir_fd=self.fd)

    def content(self, name: str) -> bytes:
        """Return the content of a file in the directory.

        Raises:
            OSError: it cannot be read.
        """
        return files.content(name, self.fd, f"{self.path}/{name}")

    def put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Write a file in the directory; overwrite an existing one in place.

        Raises:
            RootlessError: `RL-STATE`: it cannot be written.
        """
        mode |= NOT_AGED
        try:
            with open(posix.open(name, _WRITE | posix.O_TRUNC, mode, dir_fd=self.fd), "wb") as file:
                if mode & _OTHERS:
                    posix.fchmod(file.fileno(), mode)  # despite the umask
                file.write(content)
        except OSError as error:
            raise unusable(self.path, error) from None

    def append(self, name: str, line: bytes) -> None:
        """Append to a file of the directory with one write(2).

        Raises:
            RootlessError: `RL-STATE`: it cannot be written, or not as a whole.
        """
        try:
            fd = posix.open(name, _WRITE | posix.O_APPEND, NOT_AGED | 0o600, dir_fd=self.fd)
            try:
                if posix.write(fd, line) < len(line):
                    raise OSError(ENOSPC, posix.strerror(ENOSPC))
            finally:
                posix.close(fd)
        except OSError as error:
            raise unusable(self.path, error) from None

    def write(self, state: State, record: Callable[[tuple[int, int, int]], bytes] | None = None) -> None:
        """Replace state.json atomically.

        Args:
            state: its content.
            record: returns the status record for a state.json of this number, size and mtime (ns).

        Raises:
            RootlessError: `RL-STATE`: it cannot be written.
        """
        self.put(STATE + _NEW, state.render())
        if record:
            written = posix.stat(STATE + _NEW, dir_fd=self.fd)
            self.put(_STATUS, record((written.st_ino, written.st_size, written.st_mtime_ns)))
        try:
            posix.rename(STATE + _NEW, STATE, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise unusable(self.path, error) from None

    def write_config(self, text: bytes) -> None:
        """Copy config.json: users edit and remove bundles while the container runs."""
        self.put(CONFIG, text)

    def read_config(self) -> dict[str, Any]:
        """Return the copy of config.json, which `create` has checked."""
        path = f"{self.path}/{CONFIG}"
        try:
            config = jsontext.parse(self.content(CONFIG), path)
        except OSError as error:
            raise unusable(path, error) from None
        return config if isinstance(config, dict) else {}

    def read_request(self) -> dict[str, Any]:
        """Return the options and the directory of a person's `run`; empty if an engine made it or it is damaged."""
        try:
            asked = jsontext.parse(self.content(REQUEST), f"{self.path}/{REQUEST}")
        except (OSError, RootlessError):
            return {}
        return asked if isinstance(asked, dict) else {}

    def hold_exit(self) -> int:
        """Return a descriptor of the file for the exit status, locked until it is closed: who waits, waits for that."""
        import fcntl

        try:
            fd = posix.open(EXIT, _WRITE | posix.O_TRUNC, NOT_AGED | 0o600, dir_fd=self.fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            raise unusable(self.path, error) from None
        return fd

    def listen(self) -> int:
        """Return the start socket, on which the container waits; the caller closes it."""
        import _socket

        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            posix.fchmod(listener.fileno(), NOT_AGED | 0o600)  # bind(2) gives the file this mode
            listener.bind(self.socket_path())
        except OSError as error:
            raise unusable(self.path, error) from None
        listener.listen(1)
        return listener.detach()

    def socket_path(self) -> str:
        """Return a path of the start socket that fits into a sockaddr_un, independent of the directory's depth."""
        return f"/proc/self/fd/{self.fd}/{START_SOCKET}"

    def has_socket(self) -> bool:
        """Whether the start socket exists: then the container may still wait for its start."""
        return self.has(START_SOCKET)

    def drop_socket(self) -> None:
        """Remove the start socket. If that fails, status() still sees the start by the name of the process."""
        try:
            posix.unlink(START_SOCKET, dir_fd=self.fd)
        except OSError:
            return

    def own_files(self) -> list[str]:
        """Return the names of the files; a directory may be another one (`--root ~`, with an id such as Documents).

        Raises:
            RootlessError: `RL-STATE`: it has no state.json, and files that are not a container's.
        """
        try:
            names = posix.listdir(self.fd)
            other = STATE not in names and not all(self._is_left_over(each) for each in names)
        except OSError as error:
            raise irremovable(self.path, error) from None
        if other:
            raise RootlessError(
                f"cannot use {self.path} for a container",
                cause="it holds files that are not a container's",
                fix="choose another id or another --root",
                code="RL-STATE",
            )
        return names

    def _is_left_over(self, name: str) -> bool:
        """Whether a killed command leaves such a file; a config.json that put() has not made is a bundle's."""
        if name == CONFIG:
            return bool(posix.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode & NOT_AGED)
        return name in _WITHOUT_STATE or name.startswith((PLAN_OF_EXEC, ".nfs"))

    def clear(self, names: list[str]) -> None:
        """Remove the files of these names.

        Raises:
            RootlessError: `RL-STATE`: one stays.
        """
        name = ""
        try:
            # state.json last: the next `delete` needs it after a failure
            for name in sorted(names, key=lambda each: each == STATE):
                files.unlink(name, self.fd)
        except OSError as error:
            raise irremovable(f"{self.path}/{name}".rstrip("/"), error) from None

    def remove(self) -> None:
        """Remove the empty directory; the id is free again.

        Raises:
            RootlessError: `RL-STATE`: it stays.
        """
        try:
            posix.rmdir(self.container_id, dir_fd=self.root.fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise irremovable(self.path, error) from None

    def close(self) -> None:
        """Unlock and close it."""
        files.close_fds(self, "fd")

    def __enter__(self) -> Self:
        """Return the directory, which is locked already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock and close it."""
        self.close()


def unusable(path: str, error: OSError) -> RootlessError:
    """Return the error for a file or directory that cannot be read or written."""
    return RootlessError(
        f"cannot keep state in {path}",
        cause=(error.strerror or str(error)).lower(),
        fix=EXHAUSTED.get(error.errno or 0, "give a directory that you can write to with --root"),
        code="RL-STATE",
    )


def irremovable(path: str, error: OSError) -> RootlessError:
    """Return the error for a file, directory or mount that cannot be removed."""
    return RootlessError(
        f"cannot remove {path}",
        cause=(error.strerror or str(error)).lower(),
        fix=EXHAUSTED.get(error.errno or 0, "let yourself write to the directory that it is in")
        + "; then rootless delete --force",
        code="RL-STATE",
    )
