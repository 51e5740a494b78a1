"""D-Bus values as text, in GVariant text format: ``uint64 5``, ``['a', 'b']``."""

from __future__ import annotations

from rootless.plan.cgroup.dbus_types import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Typed = tuple[str, Any]
    """The D-Bus signature of one complete type, and a value."""

_INTEGERS = {
    "y": (0, 255),
    "n": (-(1 << 15), (1 << 15) - 1),
    "q": (0, (1 << 16) - 1),
    "i": (-(1 << 31), (1 << 31) - 1),
    "u": (0, (1 << 32) - 1),
    "x": (-(1 << 63), (1 << 63) - 1),
    "t": (0, (1 << 64) - 1),
}
_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x",
    "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CODES = {"u": 4, "U": 8}
_BRACKETS = {"[": "]", "(": ")", "{": "}", "<": ">"}
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-.")
_DEEPEST = 16


def parse(text: str) -> Typed:
    """Return the D-Bus signature and the value of a text.

    As in GVariant, an integer without a type is an int32, and an array has the type of its first element.

    Raises:
        ValueError: the text is not one value; the message gives the reason.
    """
    reader = _Reader(text)
    found = reader.value("")
    if reader.next():
        raise ValueError(f"unexpected text after the value: {reader.rest()}")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rest(self) -> str:
        return repr(self._text[self._at :][:20])

    def next(self) -> str:
        """Return the next character that is not white space, without consuming it; empty at the end."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def value(self, wanted: str) -> Typed:
        """Read a value; `wanted` is its signature, or empty when the text determines it."""
        character = self.next()
        if not character:
            raise ValueError("the value is missing or incomplete")
        if character in _BRACKETS:
            return self._nested(wanted)
        if character in "'\"":
            return self._string(wanted)
        if character == "@":
            self._at += 1
            return _agreed(wanted, self.value(self._signature()))
        word = self._word()
        if word in _KEYWORDS:
            return _agreed(wanted, self.value(_KEYWORDS[word]))
        if word in ("true", "false"):
            return _agreed(wanted, ("b", word == "true"))
        return _number(word, wanted)

    def _take(self, expected: str) -> None:
        if self.next() != expected:
            raise ValueError(f"expected {expected} " + (f"before {self.rest()}" if self.next() else "at the end"))
        self._at += 1

    def _word(self) -> str:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and (character in _WORD):
            self._at += 1
        word = self._text[start : self._at]
        if not word:
            raise ValueError(f"expected a value, found {self.rest()}")
        return word

    def _signature(self) -> str:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and character in "ybnqiuxtdsogav(){}":
            self._at += 1
        signature = self._text[start : self._at]
        if types(signature) != [signature]:
            raise ValueError(f"@{signature} is not the signature of one type")
        return signature

    def _string(self, wanted: str) -> Typed:
        if wanted not in ("", "s", "o", "g"):
            raise ValueError(f"found a string, expected type {wanted}")
        quote = self._text[self._at]
        self._at += 1
        found = ""
        while (character := self._text[self._at : self._at + 1]) != quote:
            if not character:
                raise ValueError("the closing quote of a string is missing")
            self._at += 1
            found += self._escape() if character == "\\" else character
        self._at += 1
        return wanted or "s", found

    def _escape(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        if character in _CODES:
            code = self._text[self._at : self._at + _CODES[character]]
            self._at += len(code)
            try:
                return chr(
                    int(code, 16) if len(code) == _CODES[character] and code.isascii() and code.isalnum() else -1
                )
            except (ValueError, OverflowError):
                raise ValueError(f"\\{character}{code} is not a character") from None
        return _ESCAPES.get(character, character)

    def _nested(self, wanted: str) -> Typed:
        opening = self._text[self._at]
        self._at += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("the value is nested too deeply")
        read = {"[": self._array, "(": self._tuple, "{": self._dictionary, "<": self._variant}[opening]
        found = read(wanted)
        self._take(_BRACKETS[opening])
        self._depth -= 1
        return found

    def _array(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("a"):
            raise ValueError(f"found an array, expected type {wanted}")
        element = wanted[1:]
        found: list[Any] = []
        while self.next() != "]":
            if found:
                self._take(",")
            element, each = self.value(element)
            found.append(each)
        if not element:
            raise ValueError("an empty array needs a type, such as @as []")
        return "a" + element, found

    def _tuple(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("("):
            raise ValueError(f"found a tuple, expected type {wanted}")
        kinds = types(wanted[1:-1])
        signature = ""
        found: list[Any] = []
        while self.next() != ")":
            if found:
                self._take(",")
                if self.next() == ")":
                    break
            if wanted and len(found) == len(kinds):
                raise ValueError(f"found more values than {wanted} has")
            kind, each = self.value(kinds[len(found)] if wanted else "")
            signature += kind
            found.append(each)
        if not found or (wanted and len(found) < len(kinds)):
            raise ValueError(f"found fewer values than {wanted} has" if wanted else "D-Bus has no empty tuples")
        return f"({signature})", tuple(found)

    def _dictionary(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("a{"):
            raise ValueError(f"found a dictionary, expected type {wanted}")
        kinds = types(wanted[2:-1]) if wanted else ["", ""]
        found: dict[Any, Any] = {}
        while self.next() != "}":
            if found:
                self._take(",")
            kinds[0], key = self.value(kinds[0])
            if len(kinds[0]) > 1 or kinds[0] == "v":
                raise ValueError("a dictionary key must be a string or a number")
            self._take(":")
            kinds[1], found[key] = self.value(kinds[1])
        if not kinds[0]:
            raise ValueError("an empty dictionary needs a type, such as @a{sv} {}")
        return f"a{{{''.join(kinds)}}}", found

    def _variant(self, wanted: str) -> Typed:
        return _agreed(wanted, ("v", self.value("")))


def _agreed(wanted: str, found: Typed) -> Typed:
    if wanted and wanted != found[0]:
        raise ValueError(f"found type {found[0]}, expected type {wanted}")
    return found


def _number(word: str, wanted: str) -> Typed:
    try:
        if wanted == "d" or (not wanted and word[:2].lower() != "0x" and any(each in ".eE" for each in word)):
            return "d", float(word)
        number = int(word, 8 if word.lstrip("+-").startswith("0") and word.lstrip("+-0").isdigit() else 0)
    except ValueError:
        raise ValueError(f"{word[:40]} is neither a number nor a keyword; write a string in quotes") from None
    kind = wanted or "i"
    if kind not in _INTEGERS:
        raise ValueError(f"found a number, expected type {wanted}")
    low, high = _INTEGERS[kind]
    if not low <= number <= high:
        raise ValueError(f"{word[:40]} is out of range for type {kind}")
    return kind, number
