"""The parser of the command line, without click: flags as Go's flag package and getopt spell them, errors in words."""

from __future__ import annotations

from rootless.cli.flags import (
    AFTER_VERB,
    ENGINE_VERBS,
    GLOBAL_FLAGS,
    HELP,
    LITERAL,
    NOT_YET,
    OPTIONAL,
    REPEATED,
    SWITCH,
    convert,
)
from rootless.lazy import lazy
from rootless.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from rootless.cli.flags import Flag, Verb, Word
    from rootless.cli.usage import needs_argument, not_yet, unknown_flag, unknown_verb, usage_error, wrong_value
else:
    needs_argument = lazy("rootless.cli.usage", "needs_argument")
    not_yet = lazy("rootless.cli.usage", "not_yet")
    unknown_flag = lazy("rootless.cli.usage", "unknown_flag")
    unknown_verb = lazy("rootless.cli.usage", "unknown_verb")
    usage_error = lazy("rootless.cli.usage", "usage_error")
    wrong_value = lazy("rootless.cli.usage", "wrong_value")


def parse(argv: Sequence[str], configure_log: Callable[[Options], None]) -> Options:
    """Return what `argv`, without the program's name, asks.

    Args:
        argv: the command line.
        configure_log: called once with all flags before the mistake, if there is one, so that the log gets the error.

    Raises:
        RootlessError: `RL-USAGE` or `RL-NOT-YET`: the command line is wrong; `fix` says how to go on.
    """
    asked: dict[str, Any] = {}
    try:
        _read(argv or ("--help",), asked)
    except BaseException:
        configure_log(Options(**asked))
        raise
    options = Options(**asked)
    configure_log(options)
    return options


def verb_named(name: str) -> Verb:
    """Return the declaration of a verb.

    Raises:
        RootlessError: `RL-USAGE`: there is no such verb.
    """
    verb = ENGINE_VERBS.get(name)
    if verb:
        return verb
    from rootless.cli.commands import HIDDEN_VERBS, VERBS

    verb = VERBS.get(name) or HIDDEN_VERBS.get(name)
    if not verb:
        raise unknown_verb(name)
    return verb


def _read(argv: Sequence[str], asked: dict[str, Any]) -> None:
    """Add the attributes of Options that `argv` sets to `asked`."""
    words = _assign("", split("", argv, GLOBAL_FLAGS, words_before_rest=0), asked)
    if asked.get("help") or asked.get("version"):
        return
    if not words:
        raise usage_error("", "missing command")
    name, *arguments = words
    if name == "help":
        asked["help"] = True
        if not arguments:
            return
        name, arguments = arguments[0], []
    verb = verb_named(name)
    asked["verb"] = name
    if not asked.get("help"):
        _read_verb(name, verb, arguments, asked)


def _read_verb(name: str, verb: Verb, arguments: Sequence[str], asked: dict[str, Any]) -> None:
    parts = split(
        name,
        arguments,
        (*AFTER_VERB, *verb.flags),
        words_before_rest=len(verb.words) if verb.rest else None,
        literal=bool(verb.rest and verb.rest.kind == LITERAL),
        more=verb.every_flag if verb.sections else None,
    )
    words = _assign(name, parts, asked)
    if asked.get("help"):
        return
    for position, word in enumerate(verb.words):
        if position < len(words):
            asked[word.dest] = _value(name, word, word.metavar, words[position])
        elif not word.optional:
            raise usage_error(name, f"{word.metavar} is missing")
    rest = words[len(verb.words) :]
    if verb.rest:
        asked[verb.rest.dest] = tuple(rest)
    elif rest:
        raise usage_error(name, f"got unexpected extra argument{'s' * (len(rest) > 1)} ({' '.join(rest)})")


def split(
    verb: str,
    arguments: Sequence[str],
    flags: Iterable[Flag],
    *,
    words_before_rest: int | None,
    literal: bool = False,
    more: Callable[[], Iterable[Flag]] | None = None,
) -> Iterator[tuple[Flag | None, str]]:
    """Yield the parts of `arguments`, in order: ``(flag, its value)``, or ``(None, positional word)``.

    Flags are spelled as Go's flag package does (``-bundle X``, ``--force=true``) and as getopt does (``-bX``, ``-ar``);
    a declared name is tried first. A switch without a value reads as ``true``.

    Args:
        verb: the verb, for errors; empty before it.
        arguments: the command line, or the part of it after the verb.
        flags: the accepted flags, besides --help; of two with one name the later one counts.
        words_before_rest: after so many words flags end and the rest are words; None: flags end at ``--`` only.
        literal: whether they end there even if the next argument looks like a flag.
        more: returns further flags; it is called for an argument that is not the plain name of one of `flags`.

    Raises:
        RootlessError: `RL-USAGE`: a flag is not among `flags`, or has no value.
    """
    named = {name.lstrip("-"): flag for flag in (*flags, HELP) for name in flag.names}
    words = 0
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":
            break
        is_word = argument[:1] != "-" or argument == "-"
        if is_word or (literal and words == words_before_rest):
            if words == words_before_rest:
                position -= 1
                break
            words += 1
            yield None, argument
            continue
        if more and not _is_plain(argument, named):
            named |= {name.lstrip("-"): flag for flag in more() for name in flag.names}
            more = None
        for flag, value in spelled(verb, argument, named):
            alone = value_alone(flag)
            if value is None and not alone:
                if position == len(arguments):
                    raise needs_argument(verb, argument)
                yield flag, arguments[position]
                position += 1
            else:
                yield flag, alone if value is None else value
    for argument in arguments[position:]:
        yield None, argument


def _is_plain(argument: str, named: dict[str, Flag]) -> bool:
    """Whether an argument has no reading but that of a declared name: letters in one word could be another flag's."""
    return argument[2 if argument[1] == "-" else 1 :].partition("=")[0] in named


def value_alone(flag: Flag) -> str:
    """Return the value of a flag that has none attached; empty if the next argument is its value."""
    if flag.kind == OPTIONAL:
        return flag.metavar.partition("|")[0]
    return "true" if flag.kind in (SWITCH, NOT_YET) else ""


def spelled(verb: str, argument: str, named: dict[str, Flag]) -> list[tuple[Flag, str | None]]:
    """Return the flags that one argument spells, each with the value that is attached to it or None.

    Raises:
        RootlessError: `RL-USAGE`: a flag is not in `named`, or has no value.
    """
    name, equals, value = argument[2 if argument[1] == "-" else 1 :].partition("=")
    if name in named:
        if equals and not value and named[name].kind == OPTIONAL:  # an empty variable of a script is not "no value"
            raise needs_argument(verb, argument)
        return [(named[name], value if equals else None)]
    letters = argument[1:]
    found: list[tuple[Flag, str | None]] = []
    while letters:
        flag = named.get(letters[0])
        if flag is None:
            raise unknown_flag(verb, argument)
        letters = letters[1:]
        if flag.kind != SWITCH:
            found.append((flag, letters or None))
            break
        found.append((flag, None))
    return found


def _assign(verb: str, parts: Iterable[tuple[Flag | None, str]], asked: dict[str, Any]) -> list[str]:
    """Set the flags among `parts` in `asked` and return the words; a question for help ends it."""
    words = []
    for flag, text in parts:
        if flag is None:
            words.append(text)
        elif flag.kind == NOT_YET:
            raise not_yet(flag.names[-1], f"call {verb} without it")
        else:
            value = _value(verb, flag, flag.names[-1], text)
            if flag is HELP and value:
                asked["help"] = True
                break
            if flag.kind == REPEATED:
                asked[flag.dest] = (*asked.get(flag.dest, ()), value)
            elif not flag.ignored and flag is not HELP:
                asked[flag.dest] = value
    return words


def _value(verb: str, declared: Flag | Word, name: str, text: str) -> bool | int | str:
    try:
        return convert(declared, text)
    except ValueError as error:
        raise wrong_value(verb, name, declared, text, str(error)) from None
