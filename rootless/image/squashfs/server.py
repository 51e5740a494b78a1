"""The server of one container's image: squashfuse_ll(1), on a connection that the executor made inside the container.

It parses a hostile file as the caller, outside the container: rootless/plan/rootfs/confine.py confines it. It ends with
the mount, and nothing else has to end it. If it is killed, the container gets I/O errors. Batch systems and service
managers send signals to all processes of a job: those that are meant for the program do not reach the server.
"""

from __future__ import annotations

import _stat as stat
import posix
import select

from rootless import files
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.launch.spawn import bounded_file
from rootless.plan.plan import Plan
from rootless.plan.rootfs.confine import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.rootfs.image import Image

_PATIENCE = 30_000
"""Milliseconds; the first bytes of the image may be on a slow file server."""
_MOST_WORDS = 4096
"""Bytes of its messages that are kept."""
_SERVES = b"s"
_MAGIC = b"hsqs"
"""The first bytes of a squashfs."""


class ImageServer:
    """A server that has been started.

    Attributes:
        identity: the status of the file.
        pid: its process.
        run: the Plan that started it.
    """

    def __init__(self, image: Image, file: int, connection: int) -> None:
        """Start it without waiting until it serves.

        Args:
            image: which.
            file: a descriptor of it.
            connection: that to the kernel; both are the caller's to close.

        Raises:
            RootlessError: `RL-IMAGE`: the file is no image; `RL-INIT`, `RL-EXEC`: the server cannot be executed.
        """
        self._image = image
        self.identity = posix.fstat(file)
        self._words = bounded_file("rootless-image-log", _MOST_WORDS)
        self._ready, ready = posix.pipe()
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            placed = (null, self._words, self._words, connection, file, ready)
            operations = serve(image, _offset(file, image.path), posix.uname().machine)
            self.run = Run(Plan(operations), Descriptors(keep=len(placed) - 3, placed=placed, masked=True))
            self.run.until_or_kill()
        except BaseException:
            self._close_fds()
            raise
        finally:
            posix.close(ready)
            posix.close(null)
        self.run.close()
        self.pid = self.run.pid

    def await_ready(self) -> None:
        """Return when it serves.

        Raises:
            RootlessError: `RL-IMAGE`: it ended, or hangs; it is killed.
        """
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        # end of file: its last process that could report has ended
        if not poll.poll(_PATIENCE):
            cause = f"{self._image.program} does not answer after {_PATIENCE // 1000} s"
        elif posix.read(self._ready, 1) == _SERVES:
            self._close_fds()
            return
        else:
            said = posix.pread(self._words, _MOST_WORDS, 0).rstrip(b"\0").decode("utf-8", "replace").split("\n")
            cause = "; ".join(line.strip() for line in said if line.strip())[:400]
            cause = cause or f"{self._image.program} exited and reported no error"
        self.kill()
        raise _failed(self._image.path, cause)

    def kill(self) -> None:
        """End it, and reap it."""
        self._close_fds()
        self.run.kill()

    def _close_fds(self) -> None:
        files.close_fds(self, "_ready", "_words")


def open_file(path: str) -> int:
    """Return a descriptor of a regular file that may hold an image.

    Raises:
        RootlessError: `RL-IMAGE`: there is none.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC)
    except OSError as error:
        fix = EXHAUSTED.get(error.errno or 0, "name a file that you can read")
        raise _failed(path, (error.strerror or "").lower(), fix) from None
    if not stat.S_ISREG(posix.fstat(fd).st_mode):
        posix.close(fd)
        raise _failed(path, "it is not a file")
    return fd


def _offset(file: int, path: str) -> int:
    """Return the byte of the file at which the squashfs begins.

    Raises:
        RootlessError: `RL-IMAGE`: it holds none.
    """
    if posix.pread(file, len(_MAGIC), 0) == _MAGIC:
        return 0
    from rootless.image.squashfs.image_file import open_image

    try:
        return open_image(f"/proc/self/fd/{file}").offset
    except RootlessError as error:
        raise _failed(path, error.cause, error.fix or "name a directory, or an image that mksquashfs made") from None


def _failed(path: str, cause: str, fix: str = "") -> RootlessError:
    return RootlessError(
        f"cannot mount {path}",
        cause=cause,
        where="root.path",
        fix=fix or "check the file (unsquashfs -stat), or make it again",
        code="RL-IMAGE",
    )
