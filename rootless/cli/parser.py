"""The quick parser: reads what engines call, without click. Whatever it cannot read is left to people.py."""

from __future__ import annotations

from rootless.cli.flags import AFTER_VERB, ENGINE_VERBS, GLOBAL_FLAGS, HELP, REPEATED, SWITCH, convert
from rootless.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rootless.cli.flags import Flag, Verb

UNKNOWN_FLAG = "unknown flag"
NEEDS_ARGUMENT = "flag needs an argument"
"""podman looks for these words in what `restore --lsm-mount-context` prints."""


class FlagError(ValueError):
    """A flag that is not declared, or that has no value; `problem` says which of the two, `flag` is its spelling."""

    def __init__(self, problem: str, flag: str) -> None:
        super().__init__(f"{problem}: {flag}")
        self.problem = problem
        self.flag = flag


def parse(argv: Sequence[str]) -> Options | None:
    """Return what `argv` (without the program's name) asks, or None: wrong, or a question that click answers."""
    asked: dict[str, Any] = {}
    try:
        words = _assign(split(argv, GLOBAL_FLAGS, words_before_rest=0), asked)
        if asked.get("version"):
            return Options(**asked)
        name = words[0]
        verb = ENGINE_VERBS.get(name) or _other_verb(name)
        flags = (*AFTER_VERB, *verb.flags)
        parts = split(words[1:], flags, words_before_rest=words_before_rest(verb), in_order=verb.in_order)
        words = _assign(parts, asked)
        count = len(verb.words)
        if verb.rest:
            asked[verb.rest.dest] = tuple(words[count:])
        elif len(words) > count:
            return None
        for position, word in enumerate(verb.words):
            if position < len(words):
                asked[word.dest] = convert(word, words[position])
            elif not word.optional:
                return None
    except (ValueError, KeyError, IndexError):
        return None
    return Options(**asked, verb=name)


def _other_verb(name: str) -> Verb:
    from rootless.cli.verbs import VERBS

    return VERBS[name]


def words_before_rest(verb: Verb) -> int | None:
    """Return how many words of `verb` flags may surround before the rest begins; None: they may stand anywhere."""
    return len(verb.words) if verb.rest else None


def split(
    arguments: Sequence[str], flags: Iterable[Flag], *, words_before_rest: int | None, in_order: bool = False
) -> list[tuple[Flag | None, str]]:
    """Return what `arguments` consist of, in order: ``(flag, its value)``, or ``(None, positional word)``.

    Flags are spelled as Go's flag package has them (``-bundle X``, ``--force=true``) and as getopt has them (``-bX``,
    ``-ar``); a declared name is tried first. A switch without a value reads as ``true``.

    Args:
        arguments: the command line, or the part of it after the verb.
        flags: those that may occur, besides --help; of two with one name the later one counts.
        words_before_rest: after so many words flags end and the rest are words too; None: flags end at ``--`` only.
        in_order: they end there even if what follows looks like one.

    Raises:
        FlagError: a flag is not among `flags`, or has no value.
    """
    named = {name.lstrip("-"): flag for flag in (*flags, HELP) for name in flag.names}
    parts: list[tuple[Flag | None, str]] = []
    words = 0
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":
            break
        is_word = argument[:1] != "-" or argument == "-"
        if is_word or (in_order and words == words_before_rest):
            if words == words_before_rest:
                position -= 1
                break
            words += 1
            parts.append((None, argument))
            continue
        for flag, value in _spelled(argument, named):
            if value is not None:
                parts.append((flag, value))
            elif flag.kind == SWITCH:
                parts.append((flag, "true"))
            elif position < len(arguments):
                parts.append((flag, arguments[position]))
                position += 1
            else:
                raise FlagError(NEEDS_ARGUMENT, argument)
    parts += [(None, argument) for argument in arguments[position:]]
    return parts


def _spelled(argument: str, named: dict[str, Flag]) -> list[tuple[Flag, str | None]]:
    """Return the flags that one argument spells, each with the value that is attached to it or None."""
    name, equals, value = argument[2 if argument[1] == "-" else 1 :].partition("=")
    if name in named:
        return [(named[name], value if equals else None)]
    letters = argument[1:]
    spelled: list[tuple[Flag, str | None]] = []
    while letters:
        flag = named.get(letters[0])
        if flag is None:
            raise FlagError(UNKNOWN_FLAG, argument)
        letters = letters[1:]
        if flag.kind != SWITCH:
            spelled.append((flag, letters or None))
            break
        spelled.append((flag, None))
    return spelled


def _assign(parts: Iterable[tuple[Flag | None, str]], asked: dict[str, Any]) -> list[str]:
    """Set the flags among `parts` in `asked` and return the words."""
    words = []
    for flag, text in parts:
        if flag is None:
            words.append(text)
            continue
        value = convert(flag, text)
        if flag.later or (flag is HELP and value):
            message = "for click to answer"
            raise ValueError(message)
        if flag.kind == REPEATED:
            asked[flag.dest] = (*asked.get(flag.dest, ()), value)
        elif not flag.ignored and flag is not HELP:
            asked[flag.dest] = value
    return words
