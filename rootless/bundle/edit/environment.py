"""Environment variables from flags and files: podman-run(1), --env and --env-file; docker's rules for the files."""

from __future__ import annotations

from rootless.bundle.edit.values import misused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    from rootless.bundle.edit.values import Config

    class Caller(Protocol):
        """The variables of the caller."""

        def get(self, name: str, /) -> str | None:
            """Return the value of one, None if it is not set."""

        def items(self) -> Iterable[tuple[str, str]]:
            """Return all names and values."""


_BLANKS = " \t"


def entries(flag: str, asked: Iterable[str], caller: Caller) -> Iterator[str]:
    """Yield ``NAME=VALUE`` for each word: ``NAME=VALUE``, ``NAME`` for the caller's value, ``PREFIX*`` for all such.

    A variable that the caller does not have gives nothing, as with podman and docker.

    Raises:
        RootlessError: `RL-USAGE`: a word has no name.
    """
    for word in asked:
        name, equals, _ = word.partition("=")
        if not name:
            raise misused(flag, word, "it has no name", "write NAME=VALUE, or NAME to pass on a variable of your own")
        if equals:
            yield word
        elif name.endswith("*"):
            yield from (f"{each}={value}" for each, value in caller.items() if each.startswith(name[:-1]))
        elif (value := caller.get(name)) is not None:
            yield f"{name}={value}"


def lines_of(text: bytes, path: str) -> list[str]:
    """Return the words for entries() in a file of --env-file: a line each, without comments (#) and empty lines.

    Values are taken as they are: quotes and blanks are part of them. A byte order mark at the beginning is skipped.

    Raises:
        RootlessError: `RL-USAGE`: a line has no name, or one with blanks in it.
    """
    found = []
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        word = line.removesuffix(b"\r").decode("utf-8", "surrogateescape").lstrip(_BLANKS)
        if not word or word.startswith("#"):
            continue
        name = word.partition("=")[0]
        if not name or any(blank in name for blank in _BLANKS):
            cause = f"line {number} has a blank in the name {name!r}" if name else f"line {number} begins with ="
            raise misused("--env-file", path, cause, "write NAME=VALUE, or NAME, on a line of its own")
        found.append(word)
    return found


def records_of(text: bytes, path: str) -> list[str]:
    """Return the words for entries() in a file of --env-file0, each with a NUL after it, as in /proc/PID/environ.

    Raises:
        RootlessError: `RL-USAGE`: one has no name.
    """
    found = [word.decode("utf-8", "surrogateescape") for word in text.split(b"\0") if word]
    if any(word.startswith("=") for word in found):
        raise misused("--env-file0", path, "an entry begins with =", "write NAME=VALUE, or NAME, with a NUL after it")
    return found


def set_variables(config: Config, variables: Sequence[str]) -> Config:
    """Return the configuration with these variables, each instead of one with its name, or at the end."""
    process = config.get("process") or {}
    named = {entry.partition("=")[0]: entry for entry in process.get("env") or ()}
    named |= {entry.partition("=")[0]: entry for entry in variables}
    return config | {"process": process | {"env": list(named.values())}}


def add_variables(config: Config, variables: Sequence[str]) -> Config:
    """Return the configuration with those of the variables that it does not set itself."""
    names = {entry.partition("=")[0] for entry in (config.get("process") or {}).get("env") or ()}
    return set_variables(config, [entry for entry in variables if entry.partition("=")[0] not in names])
