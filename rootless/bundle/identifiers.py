"""config.json in a cached Plan: the next time other identifiers may be in it, and podman shuffles two of its lists.

Engines give each container new identifiers, and write the rest of config.json as before. Planning treats an identifier
as a name: it compares it with others and makes paths of it. So with other identifiers it makes the same Plan, which has
these; helpers/front/holes.c puts them there. If a piece of one is in the Plan, it makes no entry (leaves_nothing).
"""

from __future__ import annotations

from rootless import jsontext
from rootless.paths import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_DIGITS = frozenset("0123456789abcdef-")
_SHORTEST, _LONGEST, _MOST = 12, 127, 32
_MOST_ELEMENTS = 256
_PIECE = 8
"""Digits that are not in an entry by accident."""


def identifiers(texts: Sequence[str], fixed: str = "") -> list[str] | None:
    """Return the identifiers in texts, each once, without those that are the beginning of another.

    One that is in the `fixed` text is left out: the host says that, whatever the next request says.

    None if there are too many, or if two begin in the same way, so that they cannot be distinguished. One that begins
    like a number is none: a number of config.json could be taken for it.
    """
    whole = " ".join(texts)
    words = whole.translate({ord(character): " " for character in {*whole} - _DIGITS}).split()
    found: list[str] = []
    for word in sorted({word.strip("-") for word in words}, key=len, reverse=True):
        begins = word[:_SHORTEST]
        if len(word) < _SHORTEST or begins.replace("-", "").isdecimal() or begins in fixed:
            continue
        if any(each.startswith(word) for each in found):
            continue
        if len(word) > _LONGEST or any(each.startswith(begins) for each in found):
            return None
        found.append(word)
    return found if len(found) <= _MOST else None


def named_in(config: dict[str, Any]) -> list[str]:
    """Return the texts in which engines write identifiers. Planning takes no number from them."""
    linux: dict[str, Any] = config.get("linux") or {}
    found = [config["root"]["path"], config.get("hostname"), linux.get("cgroupsPath")]
    found += (config.get("process") or {}).get("env") or ()
    found += [mount.get(end) for mount in config.get("mounts") or () for end in ("source", "destination")]
    found += [namespace.get("path") for namespace in linux.get("namespaces") or ()]
    return [text for text in found if text]


def hides_digits(text: str) -> bool:
    """Whether JSON has digits of identifiers as escapes, so that the front door would not find these."""
    text = text.lower()
    return any(f"\\u{ord(digit):04x}" in text for digit in _DIGITS)


def leaves_nothing(entry: bytes, found: Sequence[str]) -> bool:
    """Whether an entry has no piece of an identifier but its beginnings, which the front door replaces."""
    for each in found:
        for length in range(len(each), _SHORTEST - 1, -1):
            entry = entry.replace(each[:length].encode(), b"\0")
    return not any(each[at : at + _PIECE].encode() in entry for each in found for at in range(len(each) - _PIECE + 1))


def parts(text: str, config: dict[str, Any], messages: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return a config.json as three parts of its text, and the elements of two lists between them, in any order.

    These are the environment and the longest row of mounts of files and directories. Their order has no meaning where
    no variable is there twice, and no mount's destination lies in another's.
    """
    process = config.get("process") or {}
    variables, mounts = _list_in(text, "env", process), _list_in(text, "mounts", config)
    names = {entry.partition("=")[0] for entry in process.get("env") or ()}
    if not variables or not mounts or len(names) < len(variables[1]):
        return [text], [], []
    first, last = max(_rows(config["mounts"]), key=lambda row: row[1] - row[0])
    begin = mounts[0] + sum(len(each) + 1 for each in mounts[1][:first])
    row = mounts[1][first:last]
    end = variables[0] + len(",".join(variables[1]))
    named = ["env[", *(f"mounts[{place}]" for place in range(first, last))]
    if (
        not variables[0] < end < begin
        or max(len(row), len(variables[1])) > _MOST_ELEMENTS
        or any(name in message for name in named for message in messages)
    ):
        return [text], [], []
    return [text[: variables[0]], text[end:begin], text[begin + len(",".join(row)) :]], variables[1], row


def _list_in(text: str, name: str, owner: dict[str, Any]) -> tuple[int, list[str]] | None:
    """Return where the elements of a list begin, and their texts; None if it is not there, or not once, or empty."""
    key = f'"{name}":['
    place = text.find(key) + len(key)
    if text.count(key) != 1 or not owner.get(name):
        return None
    elements = jsontext.elements(text, place)
    return (place, elements) if len(elements) == len(owner[name]) else None


def _rows(mounts: Sequence[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield where rows of bind mounts begin and end that lie in none of each other's destinations."""
    first = 0
    for place in range(len(mounts) + 1):
        ends = place == len(mounts) or mounts[place].get("type") != "bind"
        if ends or any(_nest(_within(each), _within(mounts[place])) for each in mounts[first:place]):
            yield first, place
            first = place + ends


def _within(mount: dict[str, Any]) -> str:
    """Return with what the paths below the destination of a mount begin."""
    return normal(f"/{mount['destination'].lstrip('/')}").rstrip("/") + "/"


def _nest(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
