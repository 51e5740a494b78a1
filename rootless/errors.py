"""The one kind of error that this project raises on purpose: operation, cause, place and fix."""

from __future__ import annotations

import errno
from _json import encode_basestring

EXIT_FAILURE = 1
"""The operation failed; every error that has no status of its own (as runc)."""

EXIT_UNKNOWN_VERB = 3
"""The command line names a verb that does not exist (as runc)."""

EXIT_SIGPIPE = 128 + 13
"""The reader of standard output has gone: the status of a program that SIGPIPE ended."""

EXHAUSTED = {
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "raise the host's limit of open files, as root: sysctl -w fs.file-max=1000000",
    errno.EAGAIN: "raise the limit of processes: ulimit -u, or pids.max of the cgroup",
    errno.ENOMEM: "free memory, or raise the limit of memory: ulimit -v, or memory.max of the cgroup",
    errno.ENOSPC: "free some space, or inodes, on that file system",
    errno.EDQUOT: "free some of your quota on that file system",
    errno.EROFS: "mount that file system for writing, or use another",
}
"""The fix for each errno of a resource that has run out."""


_SHOWN = 60
"""Characters of a string that an error repeats."""


class RootlessError(Exception):
    """One line for a person, one object for a machine.

    The line reads ``what: cause (config.json: where); fix: …`` and never breaks: engines show one line of it
    (podman picks the line that matches, conmon reads once). Wording that engines match on is part of `cause`.

    Attributes:
        what: the operation that failed, with its syscall and path where there is one.
        cause: the reason, in the kernel's words if the kernel refused.
        where: the place in config.json, such as ``mounts[3].destination``, or the flag that edited it, such as
            ``--volume .:/src``; empty when it is not about the bundle.
        fix: an imperative sentence; empty if there is no known fix.
        code: stable identifier, such as ``RL-CONFIG``; scripts may rely on it.
        status: the exit status of the command.
        document: the file that `where` is in.
        number: the errno of an operation that failed in the executor; else 0.
        path: the file of the host that the caller may not reach; empty for another error.
    """

    document = "config.json"
    number = 0
    path = ""

    def __init__(
        self,
        what: str,
        *,
        cause: str = "",
        where: str = "",
        fix: str = "",
        code: str = "RL-FAILED",
        status: int = EXIT_FAILURE,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.where = where
        self.fix = fix
        self.code = code
        self.status = status

    def __str__(self) -> str:
        """Return the whole sentence on one line."""
        line = self.what
        if self.cause:
            line += ": " + self.cause
        if self.where:
            line += f" ({self.where})" if self.where.startswith("--") else f" ({self.document}: {self.where})"
        if self.fix:
            line += "; fix: " + self.fix
        return one_line(line)


def refused(error: OSError | MemoryError) -> RootlessError:
    """Return the error for a system call that failed anywhere, without better words."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, "Cannot allocate memory")
    place = f"{error.filename}: " if error.filename else ""
    fix = EXHAUSTED.get(error.errno or 0, "")
    return RootlessError(
        "cannot continue",
        cause=place + (error.strerror or str(error)).lower(),
        fix=fix or "rerun with --debug to see where it failed",
        code="RL-LIMIT" if fix else "RL-SYSTEM",
    )


def one_line(text: str) -> str:
    """Return `text` with every control character made visible, so that hostile input cannot start a second line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def place(*steps: str | int) -> str:
    """Return a path in config.json as a person writes it: ``linux.sysctl["net.core.somaxconn"]``."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif len(step) <= _SHOWN and step.isascii() and step.isidentifier():
            text += "." + step if text else step
        else:
            text += f"[{quoted(step)}]"
    return text


def quoted(text: str) -> str:
    """Return `text` as a JSON string, shortened when it is long."""
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "…"
    return encode_basestring(text)
