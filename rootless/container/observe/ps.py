"""The table of `rootless ps`: the lines of the host's ps program about the processes of a container."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DEFAULT_OPTIONS = ("-ef",)
_COLUMN = "PID"


def table(pids: Iterable[int], options: Sequence[str]) -> str:
    """Return the lines of ``ps OPTIONS`` about `pids`, with their head.

    Raises:
        RootlessError: `RL-PS`: ps is missing, fails, or prints no column of process IDs.
    """
    import subprocess

    command = ["ps", *(options or _DEFAULT_OPTIONS)]
    what = " ".join(command)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        fix = "install procps, or use rootless ps --format json"
        raise _failed(what, (error.strerror or "").lower(), fix) from None
    if done.returncode:
        raise _failed(what, _first_line(done.stderr), "pass options of ps(1) after the container's id")
    return "".join(_chosen(done.stdout.decode("utf-8", "surrogateescape").splitlines(), set(pids), what))


def _chosen(lines: list[str], pids: set[int], what: str) -> Iterable[str]:
    head = lines[0].split() if lines else []
    if _COLUMN not in head:
        raise _failed(what, f"its table has no column {_COLUMN}", "add the column, as in -o pid,user,args")
    column = head.index(_COLUMN)
    yield lines[0] + "\n"
    for line in lines[1:]:
        word = (line.split(None, column + 1) + [""] * (column + 1))[column]
        if not word.isdecimal():
            fix = f"put the column {_COLUMN} before those with blanks in them"
            raise _failed(what, f"{word!r} is no process id", fix)
        if int(word) in pids:
            yield line + "\n"


def _first_line(complaint: bytes) -> str:
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines()]
    return next(filter(None, lines), "it failed and printed no error")


def _failed(what: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(what, cause=cause, fix=fix, code="RL-PS")
