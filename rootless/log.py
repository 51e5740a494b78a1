"""The log: warnings, one error, and under --debug everything.

podman reads the whole log of a failed `create` as one JSON object; containerd lets several commands append to one log
and takes the last error in it. So nothing is written before the outcome is known: a failure is one object with the
warnings inside, a success is one object per warning. Under --debug everything is written as it happens.

Without a log file people read standard error: ``rootless: …``, or the same JSON objects where that format is asked for.
"""

from __future__ import annotations

import posix
import sys
import time

from rootless import paths
from rootless.errors import EXHAUSTED, RootlessError, one_line

LEVELS = ("error", "warning", "info", "debug")
STDERR = 2


class _Log:
    """Where to write, how, how much, and what waits for the outcome."""

    __slots__ = ("as_json", "level", "path", "said", "waiting")

    def __init__(self) -> None:
        self.path = ""
        self.as_json = False
        self.level = "warning"
        self.waiting: list[dict[str, object]] = []
        self.said: list[str] = []


_log = _Log()


def configure(path: str, *, as_json: bool, level: str) -> None:
    """Say where the log goes (a file, or standard error when `path` is empty) and the least level that is logged.

    The file is opened when there is something to write, but whether it can be opened is tried now: afterwards the
    container may already run.

    Raises:
        RootlessError: the file cannot be opened, or it is crun's journald: or syslog:.
    """
    _log.as_json = as_json
    _log.level = level
    if path.startswith(("journald:", "syslog:")):
        raise RootlessError(
            "--log " + path,
            cause="logs are written to files only",
            fix="use --log FILE",
            code="RL-LOG",
        )
    path = path.removeprefix("file:")
    if path:
        try:
            posix.close(_open(path))
        except OSError as error:
            raise RootlessError(
                "--log: open " + path,
                cause=error.strerror or str(error),
                fix=EXHAUSTED.get(error.errno or 0, "name a file that you may write"),
                code="RL-LOG",
            ) from None
        _log.path = paths.absolute(path)


def is_debug() -> bool:
    """Whether debug messages are logged."""
    return _log.level == "debug"


def flags() -> list[str]:
    """Return the flags of the command line by which another command logs in the same way."""
    asked = ["--log-format", "json" if _log.as_json else "text", "--log-level", _log.level]
    return [*asked, "--log", _log.path] if _log.path else asked


def said() -> list[str]:
    """Return the warnings that people have read on standard error."""
    return list(_log.said)


def is_plain() -> bool:
    """Whether warnings and errors go to standard error as text, and nothing else is logged."""
    return not (_log.path or _log.as_json) and _log.level == "warning"


def waits() -> bool:
    """Whether messages go to a file, and wait for the outcome."""
    return bool(_log.path) and not is_debug()


def path() -> str:
    """Return the file; empty without one."""
    return _log.path


def has_warnings() -> bool:
    """Whether a warning waits for the outcome."""
    return any(record["level"] == "warning" for record in _log.waiting)


def waiting(time: str) -> list[str]:
    """Return the lines that flush() will append to the file, as if of another time."""
    return [_line(record | {"time": time}) + "\n" for record in _log.waiting]


def debug(message: str, **fields: object) -> None:
    """Log the program's actions, for --debug."""
    _tell("debug", message, fields)


def info(message: str, **fields: object) -> None:
    """Log useful information, for --log-level info."""
    _tell("info", message, fields)


def warning(message: str, **fields: object) -> None:
    """Log a request that was not fulfilled. `where` and `fix` among the fields read as those of a RootlessError do."""
    line = RootlessError(message, where=str(fields.get("where", "")), fix=str(fields.get("fix", "")))
    _tell("warning", str(line), fields)


def fail(error: RootlessError) -> None:
    """Log the error of the command: one line on standard error, one object in the log."""
    line = str(error)
    if _log.path or not _log.as_json:
        _print("rootless: " + line)
    if _log.path or _log.as_json:
        record = _record("error", line, {})
        for name in ("code", "what", "where", "cause", "fix"):
            text = getattr(error, name)
            if text:
                record[name] = text
        if _log.as_json:
            warnings = [each for each in _log.waiting if each["level"] == "warning"]
            if warnings:
                record["warnings"] = warnings
            _log.waiting = []
        flush()
        _write(record)


def flush() -> None:
    """Write what waited for the outcome. Called once, at the very end."""
    waiting, _log.waiting = _log.waiting, []
    for record in waiting:
        _write(record)


def _tell(level: str, message: str, fields: dict[str, object]) -> None:
    if LEVELS.index(level) > LEVELS.index(_log.level):
        return
    record = _record(level, message, fields)
    to_people = not (_log.path or _log.as_json)
    if level == "warning" and (to_people or (_log.path and posix.isatty(STDERR))):
        said = "rootless: warning: " + one_line(message)
        _log.said.append(said)
        if "said" not in sys._xoptions:  # noqa: SLF001 - the front door has said it, and failed later
            _print(said)
    if to_people:
        if level != "warning":
            _print(_text(record))
    elif is_debug():
        _write(record)
    else:
        _log.waiting.append(record)


def _record(level: str, message: str, fields: dict[str, object]) -> dict[str, object]:
    return {"level": level, "msg": message, "time": timestamp(), **fields}


def timestamp(moment: float | None = None) -> str:
    """Return the time now, or another one in seconds since 1970, as Go's RFC3339Nano, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns() if moment is None else int(moment * 1e9), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}Z"


def _write(record: dict[str, object]) -> None:
    """Append one line. One write(2) per line keeps lines whole where several commands share a log."""
    line = _line(record)
    if not _log.path:
        _print(line)
        return
    data = line.encode() + b"\n"
    try:
        descriptor = _open(_log.path)
        try:
            # a full disk took only a part of the line; the next write(2) fails with the reason
            while data:
                data = data[posix.write(descriptor, data) :]
        finally:
            posix.close(descriptor)
    except OSError as error:
        _print(f"rootless: warning: --log: write {one_line(_log.path)}: {error.strerror}")


def _line(record: dict[str, object]) -> str:
    return _json(record) if _log.as_json else _text(record)


def _open(path: str) -> int:
    return posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o644)


def _print(line: str) -> None:
    try:
        posix.write(STDERR, line.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        return  # Nobody reads standard error; there is nowhere to say so.


def _json(value: object) -> str:
    """Return `value` as JSON on one line, in ASCII: undecodable bytes of a path cannot spoil it."""
    from _json import encode_basestring_ascii as quote

    if isinstance(value, dict):
        return "{" + ", ".join(f"{quote(name)}: {_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int) else quote(str(value))


def _text(record: dict[str, object]) -> str:
    """Return `record` as logrus writes it: ``time="…" level=error msg="…" code="…"``."""
    from _json import encode_basestring as quote

    ordered = {"time": record["time"], **record}
    return " ".join(
        f"{name}={value if name == 'level' else quote(one_line(str(value)))}" for name, value in ordered.items()
    )
