"""Values of D-Bus as text: GVariant text format, such as ``uint64 5`` or ``['a', 'b']``."""

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

    An integer without a type is an int32, as in GVariant; the type of an array's elements is that of the first one.

    Raises:
        ValueError: it is no value; the message has the reason.
    """
    reader = _Reader(text)
    found = reader.value("")
    if reader.next():
        raise ValueError(f"something follows the value: {reader.rest()}")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rest(self) -> str:
        return repr(self._text[self._at :][:20])

    def next(self) -> str:
        """Return the next character that is no blank, without taking it; nothing at the end."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def value(self, wanted: str) -> Typed:
        """Read a value; `wanted` is its signature, or empty when the text determines it."""
        character = self.next()
        if not character:
            raise ValueError("the value is missing, or does not end")
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
            raise ValueError(f"{expected} is wanted before {self.rest()}" if self.next() else f"{expected} is wanted")
        self._at += 1

    def _word(self) -> str:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and (character in _WORD):
            self._at += 1
        word = self._text[start : self._at]
        if not word:
            raise ValueError(f"this is no value: {self.rest()}")
        return word

    def _signature(self) -> str:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and character in "ybnqiuxtdsogav(){}":
            self._at += 1
        signature = self._text[start : self._at]
        if types(signature) != [signature]:
            raise ValueError(f"@{signature} is not the type of one value")
        return signature

    def _string(self, wanted: str) -> Typed:
        if wanted not in ("", "s", "o", "g"):
            raise ValueError(f"a string, where the type is {wanted}")
        quote = self._text[self._at]
        self._at += 1
        found = ""
        while (character := self._text[self._at : self._at + 1]) != quote:
            if not character:
                raise ValueError("a string does not end")
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
                raise ValueError(f"\\{character}{code} is no character") from None
        return _ESCAPES.get(character, character)

    def _nested(self, wanted: str) -> Typed:
        opening = self._text[self._at]
        self._at += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        read = {"[": self._array, "(": self._tuple, "{": self._dictionary, "<": self._variant}[opening]
        found = read(wanted)
        self._take(_BRACKETS[opening])
        self._depth -= 1
        return found

    def _array(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("a"):
            raise ValueError(f"an array, where the type is {wanted}")
        element = wanted[1:]
        found: list[Any] = []
        while self.next() != "]":
            if found:
                self._take(",")
            element, each = self.value(element)
            found.append(each)
        if not element:
            raise ValueError("an empty array has no element type: write @as []")
        return "a" + element, found

    def _tuple(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("("):
            raise ValueError(f"a tuple, where the type is {wanted}")
        kinds = types(wanted[1:-1])
        signature = ""
        found: list[Any] = []
        while self.next() != ")":
            if found:
                self._take(",")
                if self.next() == ")":
                    break
            if wanted and len(found) == len(kinds):
                raise ValueError(f"more values than {wanted} has")
            kind, each = self.value(kinds[len(found)] if wanted else "")
            signature += kind
            found.append(each)
        if not found or (wanted and len(found) < len(kinds)):
            raise ValueError(f"fewer values than {wanted} has" if wanted else "D-Bus has no empty tuples")
        return f"({signature})", tuple(found)

    def _dictionary(self, wanted: str) -> Typed:
        if wanted and not wanted.startswith("a{"):
            raise ValueError(f"a dictionary, where the type is {wanted}")
        kinds = types(wanted[2:-1]) if wanted else ["", ""]
        found: dict[Any, Any] = {}
        while self.next() != "}":
            if found:
                self._take(",")
            kinds[0], key = self.value(kinds[0])
            if len(kinds[0]) > 1 or kinds[0] == "v":
                raise ValueError("the keys of a dictionary are strings or numbers")
            self._take(":")
            kinds[1], found[key] = self.value(kinds[1])
        if not kinds[0]:
            raise ValueError("an empty dictionary has no element types: write @a{sv} {}")
        return f"a{{{''.join(kinds)}}}", found

    def _variant(self, wanted: str) -> Typed:
        return _agreed(wanted, ("v", self.value("")))


def _agreed(wanted: str, found: Typed) -> Typed:
    if wanted and wanted != found[0]:
        raise ValueError(f"the type {found[0]}, where it is to be {wanted}")
    return found


def _number(word: str, wanted: str) -> Typed:
    try:
        if wanted == "d" or (not wanted and word[:2].lower() != "0x" and any(each in ".eE" for each in word)):
            return "d", float(word)
        number = int(word, 8 if word.lstrip("+-").startswith("0") and word.lstrip("+-0").isdigit() else 0)
    except ValueError:
        raise ValueError(f"{word[:40]} is neither a number nor a word of GVariant's; strings are in quotes") from None
    kind = wanted or "i"
    if kind not in _INTEGERS:
        raise ValueError(f"a number, where the type is {wanted}")
    low, high = _INTEGERS[kind]
    if not low <= number <= high:
        raise ValueError(f"{word[:40]} is out of the range of the type {kind}")
    return kind, number
