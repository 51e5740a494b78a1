"""The words that can follow on a command line, for the completion scripts of shells (helpers/completion)."""

from __future__ import annotations

import signal

from rootless.cli.commands import VERBS
from rootless.cli.flags import (
    AFTER_VERB,
    CHOICE,
    GLOBAL_FLAGS,
    HELP,
    NETWORK_MODES,
    NOT_YET,
    SIGNAL,
    SWITCH,
    USERNS,
    Flag,
    Verb,
    Word,
)
from rootless.cli.parser import spelled, value_alone
from rootless.errors import RootlessError
from rootless.linux import CAPABILITIES, RLIMITS
from rootless.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FILES = "\tfiles"
DIRECTORIES = "\tdirectories"
"""Lines that stand for names of files, which the shell completes."""

_NEW = ("create", "restore", "run")
"""Verbs whose container does not exist yet."""
_WORDS = {
    # by metavar: what such a value may be, or begin with
    USERNS.metavar: ("keep-id", "keep-id:uid=", "root", "single", "systemd"),
    "CAPABILITY": ("ALL", *sorted(CAPABILITIES)),
    "NAME=SOFT[:HARD]": ("host", *(f"{name.lower()}=" for name in sorted(RLIMITS))),
    "type=TYPE,…": tuple(f"type={kind}," for kind in ("bind", "devpts", "ramfs", "tmpfs")),
    "OPTION": (
        *("apparmor=", "label=disable", "mask=", "no-new-privileges", "proc-opts=", "seccomp=", "seccomp=unconfined"),
        *("systempaths=unconfined", "unmask="),
    ),
}
_FILE_NAMES = ("BUNDLE", "DIR", "FILE", "IMAGE", "PATH", "PROGRAM", "SOCKET", "SOURCE", "SRC", "TARGET", "COMMAND")
_DIRECTORY_NAMES = ("BUNDLE", "DIR")


def complete(options: Options) -> None:
    """Print what can be typed for the last of the words, which may be empty: a line for each, with a description.

    The first of `options.args` is the first word behind the name of the program.
    """
    from rootless.cli.output import put

    *before, current = options.args or ("",)
    put("".join(f"{line}\n" for line in _Line(before).candidates(current)))


class _Line:
    """What the words before the current one mean.

    Attributes:
        verb: the name of the verb; empty before it.
        declared: its declaration.
        flags: the flags that are accepted now, by name without dashes.
        pending: the flag whose value comes next.
        count: the number of positional words behind the verb.
        ended: whether flags have ended.
        given: values of flags, by dest.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.verb = ""
        self.declared: Verb | None = None
        self.flags = _named((*GLOBAL_FLAGS, HELP))
        self.pending: Flag | None = None
        self.count = 0
        self.ended = False
        self.given: dict[str, str] = {}
        for word in words:
            self._read(word)

    def _read(self, word: str) -> None:
        if self.pending:
            self.given[self.pending.dest] = word
            self.pending = None
        elif word[:1] == "-" and word != "-" and not self.ended:
            self._read_flag(word)
        elif not self.verb:
            self.verb = word
            self.declared = VERBS.get(word)
            self.flags = _named((*AFTER_VERB, *self.declared.every_flag(), HELP)) if self.declared else {}
        else:
            self.count += 1
            self._end_flags_at_rest()

    def _read_flag(self, word: str) -> None:
        if word == "--":
            self.ended = True
            return
        try:
            flag, value = spelled(self.verb, word, self.flags)[-1]
        except RootlessError:
            return
        if value is not None:
            self.given[flag.dest] = value
        elif not value_alone(flag):
            self.pending = flag

    def _end_flags_at_rest(self) -> None:
        if self.declared and self.declared.rest and self.count > len(self.declared.words):
            self.ended = True

    def candidates(self, current: str) -> Iterator[str]:
        """Yield the lines for the word `current`, which is not complete."""
        if self.pending:
            yield from self._values(self.pending, current)
        elif current[:1] == "-" and not self.ended:
            yield from self._flags(current)
        elif not self.verb:
            yield from (f"{name}\t{verb.summary}" for name, verb in VERBS.items() if name.startswith(current))
        elif self.declared:
            words = self.declared.words
            word = words[self.count] if self.count < len(words) else self.declared.rest
            if word:
                yield from self._values(word, current)

    def _flags(self, current: str) -> Iterator[str]:
        name, equals, value = current.partition("=")
        if equals:
            flag = self.flags.get(name.lstrip("-"))
            if flag and flag.kind != SWITCH:
                yield from self._values(flag, value, f"{name}=")
            return
        for flag in dict.fromkeys(self.flags.values()):
            if flag.kind != NOT_YET and not flag.ignored:
                yield from (f"{name}\t{flag.help}" for name in flag.names if name.startswith(current))

    def _values(self, declared: Flag | Word, current: str, prefix: str = "") -> Iterator[str]:
        """Yield the lines for a value; `prefix` precedes it in the same word."""
        yield from (f"{prefix}{word}" for word in self._known(declared, current))
        kinds = declared.metavar.split("[")[0].split(":")[0].split("|")
        if declared.kind != CHOICE and not prefix:
            if all(kind in _DIRECTORY_NAMES for kind in kinds):
                yield DIRECTORIES
            elif any(kind in _FILE_NAMES for kind in kinds):
                yield FILES

    def _known(self, declared: Flag | Word, current: str) -> Iterator[str]:
        """Yield the values of a flag or a word that are known here and begin with `current`."""
        metavar = declared.metavar
        if declared.kind == CHOICE:
            found: Sequence[str] = metavar.split("|")
        elif declared.kind == SIGNAL:
            found = [each.name.removeprefix("SIG") for each in signal.Signals]
        elif metavar in _WORDS:
            found = _WORDS[metavar]
            current = current.upper() if metavar == "CAPABILITY" else current
        else:
            found = [name for kind in metavar.split("|") for name in self._names(kind, declared, current)]
        yield from (word for word in found if word.startswith(current))

    def _names(self, kind: str, declared: Flag | Word, current: str) -> Sequence[str]:
        """Return the names of the user's containers, networks or images; none if the value is none of these."""
        if kind == "CONTAINER":
            return [] if self.verb in _NEW else _without_errors(self._container_ids)
        if kind in ("SOURCE", "TARGET"):
            return [f"{name}:" for name in _without_errors(self._container_ids)]
        if kind == "NETWORK":
            return [*([] if isinstance(declared, Word) else NETWORK_MODES), *_without_errors(_networks)]
        if kind == "IMAGE":
            scheme = "docker://" if current.startswith("docker://") else ""
            return [f"{scheme}{name}" for name in _without_errors(self._images)]
        return []

    def _container_ids(self) -> list[str]:
        from rootless.container.observe.listing import list_containers

        return [str(each["id"]) for each in list_containers(Options(root=self.given.get("root", "")))]

    def _images(self) -> list[str]:
        from rootless.image.store.contents import list_images

        return [each.reference for each in list_images(self.given.get("store", "")) if each.is_name]


def _named(flags: Sequence[Flag]) -> dict[str, Flag]:
    return {name.lstrip("-"): flag for flag in flags for name in flag.names}


def _networks() -> list[str]:
    from rootless.container.network import registry

    return registry.names()


def _without_errors(names: Callable[[], list[str]]) -> list[str]:
    """Return the names, or none: an error would be in the way of the line that is typed."""
    try:
        return names()
    except RootlessError:
        return []
