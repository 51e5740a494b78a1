"""Results on standard output."""

from __future__ import annotations

import posix
import sys

from rootless.errors import RootlessError

STDOUT = 1
EXIT_SIGPIPE = 128 + 13


def put(text: str) -> None:
    """Write `text` to standard output, all of it, the bytes of undecodable paths as they were.

    Raises:
        RootlessError: it cannot be written (disk full).
        SystemExit: its reader has gone; the status is that of a program ended by SIGPIPE.
    """
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[posix.write(STDOUT, data) :]
    except BrokenPipeError:
        sys.exit(EXIT_SIGPIPE)
    except OSError as error:
        raise RootlessError("write standard output", cause=error.strerror or str(error), code="RL-OUTPUT") from None
