"""The command of a step of Slurm, out of the line that slurmstepd gives to the shell: oci.conf(5), RunTimeRun, %@.

slurmstepd puts each argument between single quotes, but writes a quote inside as ``'"'"''``, one quote too many: the
shell would misread it (_pattern_argv() in Slurm's src/slurmd/slurmstepd/container.c, seen in 24.11.5). The
administrator's line has the arguments in a comment, which the shell never reads, and they are decoded here.
"""

from __future__ import annotations

from rootless.errors import RootlessError

_MARK = " # '"
"""Where the comment begins: nothing before it in the line is the user's."""
_QUOTES = ("'\"'\"''", "'\"'\"'")
"""A single quote in an argument: as Slurm writes it, and as the shell would understand it."""


def command_of(line: str) -> tuple[str, ...]:
    """Return the arguments that follow ``#`` in the line.

    Raises:
        RootlessError: `RL-USAGE`: there are none, or they are quoted in an unknown way.
    """
    _, mark, text = line.partition(_MARK)
    for quote in _QUOTES if mark else ():
        if words := _decoded(text, quote):
            return tuple(words)
    raise RootlessError(
        "read the command of the step",
        cause="ROOTLESS_SLURM_LINE does not end with # and quoted arguments",
        fix="take RunTimeRun from helpers/slurm/oci-image.conf",
        code="RL-USAGE",
    )


def _decoded(text: str, quote: str) -> list[str]:
    """Return the arguments in `text`, which begins after the first one's opening quote; none if it does not fit."""
    words = [""]
    at = 0
    while (end := text.find("'", at)) >= 0:
        words[-1] += text[at:end]
        if text.startswith(quote, end):
            words[-1] += "'"
            at = end + len(quote)
        elif text.startswith("' '", end):
            words.append("")
            at = end + 3
        else:
            return words if end + 1 == len(text) else []
    return []
