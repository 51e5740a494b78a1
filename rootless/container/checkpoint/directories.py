"""The directories of a checkpoint: criu's images with a note of the standard streams, and criu's log files.

    IMAGES/*.img            criu's
    IMAGES/rootless.json    which of criu's resources the container's standard streams are
    WORK/dump.log, …        criu's log files

Images are processes with any rights. They have to come from root: another user cannot write to either directory.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import cached_property

from rootless import files, jsontext
from rootless.container.state.untrusted import followed
from rootless.errors import RootlessError

_IMAGES = "checkpoint"
_NOTE = "rootless.json"
STREAMS = 3
_OTHERS_WRITE = 0o022


class Directories:
    """The two directories that criu works in, each opened once.

    Attributes:
        images: the directory of the images.
        work: the directory of the log files.
    """

    def __init__(self, images: str, work: str) -> None:
        """Take the caller's paths; the default of `images` is ./checkpoint, and the default of `work` is `images`."""
        self.images = os.path.abspath(images or _IMAGES)
        self.work = os.path.abspath(work or self.images)

    def make(self) -> None:
        """Make the directories that do not exist.

        Raises:
            RootlessError: `RL-CRIU`: one cannot be made.
        """
        for directory in (self.images, self.work):
            try:
                files.make_private(directory)
            except OSError as error:
                cause = (error.strerror or "").lower()
                raise failed(f"cannot use {directory}", cause, "name another directory") from None

    def check(self) -> None:
        """Open both directories, before criu writes to either.

        Raises:
            RootlessError: `RL-CRIU`: another user can write to one.
        """
        _ = self.images_fd, self.work_fd

    def note(self, streams: list[str]) -> None:
        """Write the note that `restore` needs besides criu's images."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_NOTE, flags, 0o600, dir_fd=self.images_fd)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(jsontext.render({"streams": streams}, None))

    def forget(self) -> None:
        """Remove the note: criu has made no checkpoint."""
        with suppress(OSError):
            os.unlink(_NOTE, dir_fd=self.images_fd)

    def noted(self) -> list[str]:
        """Return the streams that note() has written.

        Raises:
            RootlessError: `RL-CRIU`: the directory holds no checkpoint.
        """
        path = f"{self.images}/{_NOTE}"
        try:
            found = jsontext.parse(files.content(_NOTE, self.images_fd), path)
        except OSError as error:
            cause = (error.strerror or "").lower()
            raise failed(f"cannot read {path}", cause, "name a directory that checkpoint wrote") from None
        streams = found.get("streams") if isinstance(found, dict) else None
        if not (isinstance(streams, list) and len(streams) == STREAMS and all(map(_is_stream, streams))):
            cause = "it does not hold the streams of a container"
            raise failed(f"cannot use {path}", cause, "name a directory that checkpoint wrote")
        return streams

    @cached_property
    def images_fd(self) -> int:
        """The descriptor of the images' directory; opening it raises `RL-CRIU` where another user can write to it."""
        return _opened(self.images)

    @cached_property
    def work_fd(self) -> int:
        """The same for the log files."""
        return _opened(self.work)


def _opened(directory: str) -> int:
    """Return a descriptor for criu: the path may lead to another directory a moment later.

    The path may be a symlink of root's, as containerd makes it.
    """
    cause, fd = "", -1
    try:
        path = followed(directory) if os.path.islink(directory) else directory
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        cause = distrusted(os.fstat(fd))
    except RootlessError as error:
        cause = error.cause
    except OSError as error:
        cause = (error.strerror or "").lower()
    if cause:
        raise failed(f"cannot use {directory}", cause, "name a directory that only root can write to")
    return fd


def distrusted(found: os.stat_result) -> str:
    """Return why another user than root may have written a file or directory; empty if none can."""
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}"
    return "others can write to it" if found.st_mode & _OTHERS_WRITE else ""


def _is_stream(found: object) -> bool:
    """Whether `found` is criu's name of a stream (dump.py), or empty."""
    return isinstance(found, str) and bool(re.fullmatch(r"|pipe:\[\d+\]|file\[[0-9a-f]+:[0-9a-f]+\]", found))


def failed(what: str, cause: str, fix: str) -> RootlessError:
    """Return an error about criu or its directories."""
    return RootlessError(what, cause=cause, fix=fix, code="RL-CRIU")
