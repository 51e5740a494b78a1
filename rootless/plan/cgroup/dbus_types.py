"""Signatures of D-Bus types (D-Bus specification, "Type System")."""

from __future__ import annotations

BASIC = "ybnqiuxtdhsog"
_CLOSING = {"(": ")", "{": "}"}
_DEEPEST = 32


def types(signature: str) -> list[str]:
    """Return the single complete types of a signature: ``sa(sv)u`` is ``s``, ``a(sv)`` and ``u``.

    Raises:
        ValueError: the text is not a valid signature.
    """
    found = []
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int, depth: int = 0) -> int:
    """Return the index just after the single complete type that begins at index `at`."""
    letter = signature[at : at + 1]
    if letter and (letter in BASIC or letter == "v"):
        return at + 1
    if depth <= _DEEPEST and letter == "a":
        return _end(signature, at + 1, depth + 1)
    if depth <= _DEEPEST and letter in _CLOSING:
        at += 1
        while signature[at : at + 1] != _CLOSING[letter]:
            at = _end(signature, at, depth + 1)
        return at + 1
    raise ValueError(f"not a D-Bus signature: {signature!r}")
