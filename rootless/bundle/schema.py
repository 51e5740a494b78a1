"""Rules from which the tables in check.py and check_linux.py are built.

Each function returns a rule. A rule is called with one value; it returns None if the value is valid and raises Invalid
otherwise. A rule does not know its place in config.json: as an Invalid propagates, each enclosing rule adds its key or
index, so that a valid configuration costs no time for places.

Values have the types that jsontext.parse returns: exactly str, int, float, bool, None, list and dict.
"""

from __future__ import annotations

from rootless.errors import place, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Rule = Callable[[object], None]

MISSING = object()
"""The value of a required property that is missing."""

_WIDEST_NUMBER_SHOWN = 128
"""Bits of the widest number that an error quotes."""

HIGHEST_ID = 2**32 - 2
"""The highest user or group id: (uid_t) -1 means "unchanged" (chown(2), setresuid(2))."""


class Invalid(Exception):  # noqa: N818 - it never leaves bundle/: check() turns it into a RootlessError
    """A value violates the specification.

    Attributes:
        cause: the found and the expected value, in words.
        fix: an imperative sentence.
        path: the keys and indexes that lead to the value, innermost first.
    """

    def __init__(self, cause: str, fix: str, path: list[str | int] | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix
        self.path = path or []

    def where(self) -> str:
        """Return the place in config.json, as errors.place writes it."""
        return place(*reversed(self.path))


def string(
    expectation: str = "a string",
    *,
    fix: str = "write a string",
    accepts: Callable[[str], object] | None = None,
) -> Rule:
    """Return a rule for a string without NUL or lone surrogates for which `accepts`, if given, returns a true value."""

    def rule(value: object) -> None:
        if type(value) is not str:
            raise mismatch(value, expectation, "put it in quotes" if type(value) is int else fix)
        if "\0" in value or not value.isascii():
            _refuse_unutterable(value)
        if accepts is not None and not accepts(value):
            raise mismatch(value, expectation, fix)

    return rule


def one_of(names: str, *, or_empty: bool = False) -> Rule:
    """Return a rule for a string that is one of `names`, separated by blanks.

    `or_empty` also accepts an empty string, which Go programs such as runc write for an absent one.
    """
    accepted = frozenset(names.split())
    expectation = "one of " + ", ".join(names.split())
    if or_empty:
        accepted |= {""}

    def rule(value: object) -> None:
        if type(value) is not str or value not in accepted:
            raise mismatch(value, expectation, "write one of them")

    return rule


def integer(low: int, high: int) -> Rule:
    """Return a rule for an integer from `low` to `high`, both included."""

    def rule(value: object) -> None:
        if type(value) is not int or not low <= value <= high:
            raise mismatch(value, f"an integer from {low} to {high}", _integer_fix(value))

    return rule


def boolean(value: object) -> None:
    """Check for true or false."""
    if type(value) is not bool:
        raise mismatch(value, "true or false", "write true or false")


def strings(*, filled: bool = False) -> Rule:
    """Return a rule for an array of strings; it checks all of them at once if all are valid, for speed."""
    one_by_one = array(string(), filled=filled)

    def rule(value: object) -> None:
        if type(value) is list and (value or not filled):
            try:
                joined = "".join(value)
            except TypeError:
                pass
            else:
                if joined.isascii() and "\0" not in joined:
                    return
        one_by_one(value)

    return rule


def array(element: Rule, *, filled: bool = False, also: Callable[[list[Any]], None] | None = None) -> Rule:
    """Return a rule for an array, not empty if `filled`; `also` is called with the array if its elements are valid."""
    expectation = "an array that is not empty" if filled else "an array"

    def rule(value: object) -> None:
        if type(value) is not list:
            raise mismatch(value, expectation, "write it as [ … ]")
        if filled and not value:
            raise mismatch(value, expectation, "add an element")
        index = 0
        try:
            for index, item in enumerate(value):  # noqa: B007 - the handler needs it
                element(item)
        except Invalid as invalid:
            invalid.path.append(index)
            raise
        if also is not None:
            also(value)

    return rule


def mapping(keys: Rule, values: Rule) -> Rule:
    """Return a rule for an object whose keys are data, such as annotations."""

    def rule(value: object) -> None:
        if type(value) is not dict:
            raise mismatch(value, "an object", "write it as { … }")
        key = ""
        try:
            for key, item in value.items():
                keys(key)
                values(item)
        except Invalid as invalid:
            invalid.path.append(key)
            raise

    return rule


def record(
    *,
    required: dict[str, Rule] | None = None,
    optional: dict[str, Rule] | None = None,
    also: Callable[[dict[str, Any]], None] | None = None,
    closed: bool = False,
) -> Rule:
    """Return a rule for an object with known properties.

    Required properties are checked first, in the order of the table. Unknown properties are ignored (config.md,
    "Extensibility"), unless the record is `closed`. An optional property may be null, which some programs write for an
    absent one. `also` is called with the object if its properties are valid.
    """
    needed = required or {}
    others = optional or {}
    known = needed | others

    def rule(value: object) -> None:
        if type(value) is not dict:
            raise mismatch(value, "an object", "write it as { … }")
        for key in needed:
            require(value, key, needed[key])
        if closed:
            _refuse_others(value, known)
        key = ""
        try:
            for key, item in value.items():
                if item is not None and key in others:
                    others[key](item)
        except Invalid as invalid:
            invalid.path.append(key)
            raise
        if also is not None:
            also(value)

    return rule


def _refuse_others(properties: dict[str, Any], known: dict[str, Rule]) -> None:
    for key in properties:
        if key not in known:
            raise Invalid("found a property that is not known", "remove it, or update rootless", [key])


def require(properties: dict[str, Any], key: str, rule: Rule) -> None:
    """Apply `rule` to a required property.

    Raises:
        Invalid: the property is missing, is null, or breaks the rule.
    """
    try:
        rule(properties.get(key, MISSING))
    except Invalid as invalid:
        if key not in properties:
            invalid.fix = "add it"
        invalid.path.append(key)
        raise


def distinct(key: str) -> Callable[[list[dict[str, Any]]], None]:
    """Return an `also` that requires each object of an array to have a different value of `key`."""

    def also(elements: list[dict[str, Any]]) -> None:
        first: dict[object, int] = {}
        for index, element in enumerate(elements):
            earlier = first.setdefault(element[key], index)
            if earlier != index:
                cause = f"found {describe(element[key])} again, expected each {key} once (element {earlier} has it)"
                raise Invalid(cause, "remove one of the two", [key, index])

    return also


def mismatch(value: object, expectation: str, fix: str) -> Invalid:
    """Return the error for an unexpected value."""
    return Invalid(f"found {describe(value)}, expected {expectation}", fix)


def describe(value: object) -> str:  # noqa: PLR0911 - one per kind of value
    """Describe `value` in terms of JSON."""
    if value is MISSING:
        return "nothing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "the string " + quoted(value)
    if isinstance(value, int) and value.bit_length() > _WIDEST_NUMBER_SHOWN:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    kind = "array" if isinstance(value, list) else "object"
    return f"an {kind}" if value else f"an empty {kind}"


def _integer_fix(value: object) -> str:
    if type(value) is int:
        return "write a number in that range"
    if type(value) is float:
        return "write it without a fraction or an exponent"
    if type(value) is str and value.isascii() and value.isdigit():
        return "remove the quotes"
    return "write a number"


def _refuse_unutterable(text: str) -> None:
    if "\0" in text:
        cause = f"found a NUL character in the string {quoted(text)}, expected none: it would end the string"
        raise Invalid(cause, "remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        cause = f"found half a character (a lone surrogate) in the string {quoted(text)}, expected Unicode text"
        raise Invalid(cause, "remove it") from None


UINT16 = integer(0, 2**16 - 1)
UINT32 = integer(0, 2**32 - 1)
UINT64 = integer(0, 2**64 - 1)
INT64 = integer(-(2**63), 2**63 - 1)
ID = integer(0, HIGHEST_ID)

STRING = string()
STRINGS = strings()
NAME = string("a name that is not empty", accepts=len)
STRING_MAP = mapping(keys=NAME, values=STRING)
PATH = string("a path that is not empty", fix="write a path", accepts=len)
ABSOLUTE_PATH = string("an absolute path", fix="start it with /", accepts=lambda text: text[:1] == "/")
