"""What failed, where, why, and the fix: the one kind of error that this project raises on purpose."""

from __future__ import annotations

EXIT_FAILURE = 1
"""The operation failed; every error that has no status of its own (as runc)."""

EXIT_UNKNOWN_VERB = 3
"""The command line names a verb that does not exist (as runc)."""


class RootlessError(Exception):
    """One line for a person, one object for a machine.

    The line reads ``what: cause (config.json: where); fix: …`` and never breaks: engines show one line of it
    (podman picks the line that matches, conmon reads once). Wording that engines match on is part of `cause`.

    Attributes:
        what: the operation that failed, with its syscall and path where there is one.
        cause: the reason, in the kernel's words where the kernel said no.
        where: the place in config.json, such as ``mounts[3].destination``; empty when it is not about the bundle.
        fix: what to do about it, as an imperative; empty when nobody can say.
        code: stable identifier, such as ``RL-CONFIG``; scripts may rely on it.
        status: the exit status of the command.
    """

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
            line += f" (config.json: {self.where})"
        if self.fix:
            line += "; fix: " + self.fix
        return one_line(line)


def one_line(text: str) -> str:
    """Return `text` with every control character made visible, so that hostile input cannot start a second line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
