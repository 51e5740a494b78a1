"""A directory beside the containers that several of them share: ROOT/@SORT/NAME, with a record in state.json.

Only a process that has locked it changes it. The first container makes it and the last one removes it: after a wait for
the lock, the directory may be gone. Only a container that joins makes it again.
"""

from __future__ import annotations

import fcntl
import posix

from rootless import files, jsontext
from rootless.container.state.directory import NOT_AGED
from rootless.container.state.state import FORMAT, is_newer
from rootless.errors import RootlessError
from rootless.procfs import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from rootless.container.state.root import StateRoot

_STATE, _NEW = "state.json", "state.json.new"
_NEWER = "RL-STATE"
"""The code of the error for a record of a newer release."""
_held: dict[str, list[int]] = {}
"""Locks of directories, by path. An interrupted command may leave its own open, and would wait for itself."""


class SharedDirectory:
    """One of them: open and locked until close().

    Attributes:
        name: its own.
        root: the state directory.
        path: for messages.
        fd: its descriptor.
    """

    SORT = ""
    """The directory beside the containers; no container can have that name."""

    def __init__(self, root: StateRoot, name: str, *, create: bool) -> None:
        """See opened() and existing().

        Raises:
            OSError: it cannot be made or opened, or is another user's; FileNotFoundError: there is none to open.
        """
        self.name = name
        self.root = root
        self.path = f"{root.path}/{self.SORT}/{name}"
        self._above = -1
        _release(self.path)
        try:
            while not self._lock(create=create):  # another process is removing a directory
                self.close()
        except BaseException:
            self.close()
            raise

    def _lock(self, *, create: bool) -> bool:
        """Open and lock it, and make it before if asked to; return whether it is still there."""
        try:
            if create:
                make(self.SORT, self.root.fd)
            self._above = files.open_own(self.SORT, self.root.fd)
            if create:
                make(self.name, self._above)
            self.fd = self.lock(files.open_own(self.name, self._above))
        except FileNotFoundError:
            if not create:
                raise
            return False
        return posix.fstat(self.fd).st_nlink > 0

    def lock(self, fd: int) -> int:
        """Lock a descriptor until close(), which closes it; return it."""
        _held.setdefault(self.path, []).append(fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    @classmethod
    def opened(cls, root: StateRoot, name: str) -> Self:
        """Make one unless it is there; return it, locked, after waiting for other processes that change it.

        Raises:
            RootlessError: it cannot be made or opened, or is another user's.
        """
        try:
            return cls(root, name, create=True)
        except OSError as error:
            raise cls.unusable(name, error) from None

    @classmethod
    def existing(cls, root: StateRoot, name: str) -> Self | None:
        """Return one as opened() does, or None if there is none.

        Raises:
            RootlessError: it cannot be opened, or is another user's.
        """
        if root.fd < 0:
            return None
        try:
            return cls(root, name, create=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cls.unusable(name, error) from None

    @classmethod
    def to_leave(cls, root: StateRoot, name: str) -> Self | None:
        """Do as existing(); return None also if a newer release wrote the record: it forgets those that have ended."""
        try:
            return cls.existing(root, name)
        except RootlessError as error:
            if error.code == _NEWER:
                return None
            raise

    @classmethod
    def names(cls, root: StateRoot) -> list[str]:
        """Return the names of those that may be in use, sorted.

        Raises:
            RootlessError: they cannot be read.
        """
        if root.fd < 0:
            return []
        try:
            directory = files.open_own(cls.SORT, root.fd)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cls.unusable(cls.SORT, error) from None
        try:
            return sorted(posix.listdir(directory))
        finally:
            posix.close(directory)

    @staticmethod
    def unusable(name: str, error: OSError) -> RootlessError:
        """Return the error for one that cannot be used."""
        raise NotImplementedError

    def read(self) -> Any:  # noqa: ANN401 - JSON
        """Return the record of this boot as JSON data; None without one, or if it cannot be read.

        Raises:
            RootlessError: `RL-STATE`: a newer release has written it, and its containers may run.
        """
        try:
            found = jsontext.parse(files.content(_STATE, self.fd), self.path)
        except (FileNotFoundError, RootlessError):
            return None
        if not isinstance(found, dict) or found.get("bootId") != boot_id():
            return None
        if is_newer(found):
            raise RootlessError(
                f"cannot use {self.path}/{_STATE}",
                cause="a newer release has written it",
                fix="use that release until its containers have ended",
                code=_NEWER,
            )
        return found

    def put(self, record: dict[str, Any]) -> None:
        """Write the record; a process that is killed meanwhile leaves the previous one."""
        text = jsontext.render(record | {"bootId": boot_id(), "format": FORMAT}, None)
        files.put(_NEW, text.encode(), NOT_AGED | 0o600, dir_fd=self.fd)
        posix.rename(_NEW, _STATE, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def remove(self) -> None:
        """Remove it, and the directory above it if that is empty."""
        for name in posix.listdir(self.fd):
            posix.unlink(name, dir_fd=self.fd)
        posix.rmdir(self.name, dir_fd=self._above)
        try:
            posix.rmdir(self.SORT, dir_fd=self.root.fd)
        except OSError:  # there are others
            return

    def close(self) -> None:
        """Unlock it."""
        _release(self.path)
        files.close_fds(self, "_above")

    def __enter__(self) -> Self:
        """Return itself: it is locked already."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Unlock it; an OSError becomes the error for one that cannot be used."""
        self.close()
        if isinstance(error, OSError):
            raise self.unusable(self.name, error) from None


def make(name: str, above: int) -> None:
    """Make a private directory unless it is there."""
    try:
        posix.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        return


def _release(path: str) -> None:
    for fd in _held.pop(path, ()):
        posix.close(fd)
