"""Values of flags as podman and docker spell them, and the copy of a configuration in which something is changed."""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.options import FALSE_WORDS, TRUE_WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Config = dict[str, Any]
    """config.json as data, or a section of it."""

STEERING_ANNOTATIONS = ("run.oci.", "org.systemd.property.", "org.criu.", "module.wasm.", "org.opencontainers.runc.")
"""What the names of annotations begin with that runtimes act upon (docs/annotations.md). No label becomes one."""

_UNITS = "kmgtp"
_MOST_BYTES = 2**63 - 1


def misused(flag: str, value: str, cause: str, fix: str) -> RootlessError:
    """Return the error for a flag whose value is wrong; `fix` is an imperative."""
    return RootlessError(f"{flag} {value}" if value else f'{flag} ""', cause=cause, fix=fix, code="RL-USAGE")


def changed(config: Config, *path: str, **values: object) -> Config:
    """Return a copy of `config` in which the section at `path` has `values`; what is not on the way is shared."""
    if not path:
        return config | values
    section = config.get(path[0]) or {}
    return config | {path[0]: changed(section, *path[1:], **values)}


def size(flag: str, text: str) -> int:
    """Return the bytes that `text` stands for, as docker's units.RAMInBytes: ``100``, ``512m``, ``1.5 GiB``.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    number = text.lower().removesuffix("b").removesuffix("i")
    factor = 1
    if number[-1:] in _UNITS and number:
        factor = 1024 ** (1 + _UNITS.index(number[-1]))
        number = number[:-1].removesuffix(" ")
    whole, point, fraction = number.partition(".")
    if not (is_digits(whole) and (is_digits(fraction) or not point)):
        raise misused(flag, text, "it is not a size", "write a number of bytes, or one with a unit: 512m, 1.5g")
    found = int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if point else 0)
    if found > _MOST_BYTES:
        raise misused(flag, text, "it is more than any machine has", "write a smaller number")
    return found


def whole_number(flag: str, text: str, least: int = 0, most: int = _MOST_BYTES) -> int:
    """Return the whole number that `text` holds.

    Raises:
        RootlessError: `RL-USAGE`: it holds none, or one that is out of range.
    """
    digits = text.removeprefix("-")
    number = int(text) if is_digits(digits) else None
    if number is None or not least <= number <= most:
        upper = "" if most == _MOST_BYTES else f" to {most}"
        raise misused(flag, text, f"expected a whole number from {least}{upper}", "write one")
    return number


def is_digits(text: str) -> bool:
    """Whether `text` is a number of a reasonable length, in ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_BYTES))


def truth(flag: str, text: str, value: str) -> bool:
    """Return the truth value that `value` stands for, a part of the flag's value `text`; an empty one is true.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    if value and value not in (*TRUE_WORDS, *FALSE_WORDS):
        raise misused(flag, text, f"{value!r} is neither true nor false", "write true or false")
    return value not in FALSE_WORDS


def absolute(flag: str, text: str, path: str) -> str:
    """Return `path`, a path of the container in the flag's value `text`, if it is absolute.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    if not path.startswith("/"):
        raise misused(flag, text, f"{path or 'the path in the container'} is not absolute", "start it with /")
    return path


def pair(flag: str, text: str, form: str) -> tuple[str, str]:
    """Return what stands before and after the first ``=`` of `text`.

    Raises:
        RootlessError: `RL-USAGE`: there is none, or nothing before it; `form` is what the fix asks for.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise misused(flag, text, "there is no name, or no =", f"write {form}")
    return name, value


def names(choices: Sequence[str]) -> str:
    """Return choices for people: ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
