"""JSON in and out without the json module, whose import costs as much as starting Python.

`_json` is the C half of the standard library's json module: its scanner does the reading.
"""

from __future__ import annotations

import _json
import sys

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_BLANKS = " \t\n\r"
_BYTE_ORDER_MARK = "\ufeff"
_SHOWN = 60
"""Characters of a key or a number that an error repeats."""


class _RefusedError(ValueError):
    """Text that the scanner would accept although it is not JSON, or is ambiguous."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.fix = fix


def _refuse_constant(name: str) -> NoReturn:
    cause = f"{name} is not a number that JSON has"
    raise _RefusedError(cause, "write a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not _is_finite(number):
        cause = f"the number {_shortened(digits)} is too large"
        raise _RefusedError(cause, "write a smaller number")
    return number


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        cause = f"the number {_shortened(digits)} has more than {sys.get_int_max_str_digits()} digits"
        raise _RefusedError(cause, "write a smaller number") from None


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object whose keys differ: two parsers of one file must not see two configurations."""
    properties = dict(pairs)
    if len(properties) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                cause = f"the key {_json.encode_basestring(_shortened(key))} stands twice in one object"
                raise _RefusedError(cause, "remove one of the two")
            seen.add(key)
    return properties


class _Settings:
    """What the C scanner reads off its context (as json.JSONDecoder has it)."""

    strict = True
    object_hook = None
    object_pairs_hook = _object
    array_hook = None  # read by Python 3.15
    parse_float = _finite
    parse_int = _whole
    parse_constant = _refuse_constant


_scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]  # duck typed: typeshed says so itself


def parse(text: bytes, name: str) -> object:
    """Read one JSON value (RFC 8259).

    Stricter than the json module: no byte order mark, NaN, Infinity, number beyond a float or repeated key.
    Strings may hold NUL (escaped) and lone surrogates.

    Args:
        text: the whole file.
        name: what the text is, for the error: a path.

    Raises:
        RootlessError: RL-CONFIG-JSON, with line and column where they are known.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start].decode()
        cause = f"{_place(before, len(before))}: byte 0x{text[error.start]:02x} is not UTF-8"
        raise _not_valid(name, cause, "save the file as UTF-8") from None
    if decoded.startswith(_BYTE_ORDER_MARK):
        raise _not_valid(name, "it starts with a byte order mark", "save the file as UTF-8 without one")

    start = len(decoded) - len(decoded.lstrip(_BLANKS))
    try:
        value, end = _scan_explained(decoded, start)
    except StopIteration as stop:
        if start == len(decoded):
            raise _not_valid(name, "it is empty", "write a JSON object into it") from None
        raise _not_valid(name, f"{_place(decoded, stop.value)}: expecting value", "write a JSON value there") from None
    except RecursionError:
        raise _not_valid(name, "arrays or objects are nested too deeply", "flatten it") from None
    except _RefusedError as refused:
        raise _not_valid(name, str(refused), refused.fix) from None
    except ValueError as error:
        raise _not_valid(name, _scanner_cause(error, decoded), "correct it there") from None

    trailing = decoded[end:].lstrip(_BLANKS)
    if trailing:
        cause = f"{_place(decoded, len(decoded) - len(trailing))}: more text after the end of the value"
        raise _not_valid(name, cause, "remove it")
    return value


def elements(text: str, start: int) -> list[str]:
    """Return the texts of the elements of a list in valid JSON that begin at `start`; none if there are blanks."""
    found: list[str] = []
    try:
        while not found or text[start] == ",":
            begin = start + bool(found)
            _, start = _scan(text, begin)
            found.append(text[begin:start])
    except StopIteration:
        return []
    return found if text[start] == "]" else []


def _scan_explained(text: str, start: int) -> tuple[object, int]:
    """Scan, and have json at hand when the scanner wants to raise its JSONDecodeError.

    Before Python 3.13 the scanner takes the class from json.decoder only if somebody has imported that, and otherwise
    fails without an exception, which the interpreter reports as a SystemError.
    """
    try:
        return _scan(text, start)
    except SystemError:
        import json.decoder  # noqa: F401 - this is the side effect that is wanted

        return _scan(text, start)


def render(value: object, indent: int | None = 2) -> str:
    """Write `value` as JSON: str, int, finite float, bool, None, list, tuple and dict with string keys.

    The layout is that of Go's MarshalIndent, which the users of runc know. The result is always valid UTF-8: lone
    surrogates are escaped.

    Args:
        value: what to write.
        indent: blanks per level; None for one line without blanks.

    Raises:
        TypeError: something in `value` has no counterpart in JSON.
        ValueError: a float is not finite.
    """
    text = _render(value, "", "") if indent is None else _render(value, "\n", " " * indent)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _render(value: object, newline: str, step: str) -> str:  # noqa: PLR0911 - one per kind of value
    """Write `value`; `newline` is the line break and indentation of the line it starts on, empty when compact."""
    if isinstance(value, str):
        return _json.encode_basestring(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _render_float(value)
    inner = newline + step
    if isinstance(value, (list, tuple)):
        if not value:
            return "[]"
        return "[" + inner + ("," + inner).join([_render(item, inner, step) for item in value]) + newline + "]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        colon = ": " if newline else ":"
        pairs = [_json.encode_basestring(key) + colon + _render(item, inner, step) for key, item in value.items()]
        return "{" + inner + ("," + inner).join(pairs) + newline + "}"
    message = f"JSON has no counterpart of {type(value).__name__}"
    raise TypeError(message)


def _render_float(value: float) -> str:
    if not _is_finite(value):
        message = f"JSON has no counterpart of {value!r}"
        raise ValueError(message)
    return float.__repr__(value)


def _is_finite(number: float) -> bool:
    return number - number == 0.0  # infinities and NaN give NaN here; the math module is a shared object to load


def _place(text: str, index: int) -> str:
    """Return line and column, counted from 1 in characters, of the character at `index`."""
    line = text.count("\n", 0, index) + 1
    column = index - text.rfind("\n", 0, index)
    return f"line {line} column {column}"


def _scanner_cause(error: ValueError, text: str) -> str:
    """Return the cause from a json.JSONDecodeError, whose class is not imported here."""
    message = str(getattr(error, "msg", error)).removesuffix(" at").removesuffix(" starting")
    position = getattr(error, "pos", None)
    place = _place(text, position) + ": " if isinstance(position, int) else ""
    return place + message[:1].lower() + message[1:]


def _not_valid(name: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"{name}: not valid JSON", cause=cause, fix=fix, code="RL-CONFIG-JSON")
