"""unsquashfs on an untrusted image: it is confined, and its output comes through a pipe."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from rootless import log
from rootless.errors import RootlessError
from rootless.host import facts as host_facts
from rootless.host.subids import find_program
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan.plan import Plan
from rootless.plan.rootfs.confine import UNSQUASHFS_FILE, unsquash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.image.squashfs.image_file import ImageFile

_MOST_PROCESSORS = 16
"""Threads that decompress; each has a stack, and all write to one pipe."""


class Unsquashfs:
    """A process of unsquashfs that has been started.

    Attributes:
        output: a stream of its standard output.
    """

    def __init__(self, image: ImageFile, options: Sequence[str], paths: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            image: what it reads.
            options: its options, beside those that are always the same.
            paths: files in the image.

        Raises:
            RootlessError: `RL-IMAGE`: it is not installed, or the image cannot be opened.
        """
        program = find_program("unsquashfs")
        if not program:
            raise RootlessError(
                f"read the image {image.path}",
                cause="unsquashfs is not installed",
                fix="install squashfs-tools 4.6 or newer: sudo apt-get install squashfs-tools",
                code="RL-IMAGE",
            )
        threads = min(os.cpu_count() or 1, _MOST_PROCESSORS)
        words = [program, "-no-progress", "-processors", str(threads), "-offset", str(image.offset), *options]
        words += [f"/proc/self/fd/{UNSQUASHFS_FILE}", *paths]
        file, null = image.open(), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        reader, writer = os.pipe()
        try:
            self._pid = _started(words, (null, writer, null, file))
        except BaseException:
            os.close(reader)
            raise
        finally:
            for fd in (file, null, writer):
                os.close(fd)
        self._process = os.pidfd_open(self._pid)
        self.output = os.fdopen(reader, "rb")
        self._status: int | None = None

    def wait(self) -> int:
        """Return its exit status when it has ended; the number of the signal that ended it, negative."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def kill(self) -> None:
        """End it, if it has not ended. Another thread may wait for it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """End it, and forget it; no other thread uses it any more."""
        self.kill()
        self.wait()
        self.output.close()
        os.close(self._process)


def _started(words: list[str], placed: tuple[int, ...]) -> int:
    """Start it in namespaces of its own; where the host forbids those, with what needs none. Return its process."""
    facts = host_facts.read(subordinate=False)
    for namespaces in (True, False):
        operations = unsquash(words, facts.machine, namespaces=namespaces, private=not facts.privileged)
        run = Run(Plan(operations), Descriptors(keep=len(placed) - 3, placed=placed))
        try:
            run.until_or_kill()
        except RootlessError as error:
            if not namespaces:
                raise
            log.info(f"unsquashfs runs without namespaces of its own: {error}")
            continue
        assert run.executor
        pid = run.pid or run.executor.first
        run.close()
        return pid
    raise AssertionError
