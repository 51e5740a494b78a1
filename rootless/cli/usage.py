"""The words for a command line that is wrong, and the verb or flag that was probably meant."""

from __future__ import annotations

import os
from difflib import get_close_matches

from rootless.cli.commands import VERBS
from rootless.cli.compat import PROGRAM, bad_flag_status, unknown_verb_status
from rootless.cli.flags import CHOICE, GLOBAL_FLAGS
from rootless.errors import EXIT_FAILURE, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.cli.flags import Flag, Word

_COUNTERPARTS = {
    "rm": "delete",
    "ls": "list",
    "unpause": "resume",
    "stats": "events --stats",
    "rmi": "image rm",
}
"""Verbs of engines with other names here."""
_NOT_YET = ("mounts",)
"""Verbs of runc and crun that do not exist here yet."""


def usage_error(verb: str, problem: str, fix: str = "", status: int = EXIT_FAILURE) -> RootlessError:
    """Return the error for a command line; `verb` is empty where the verb is not yet known."""
    what = f"{verb}: {problem}" if verb else problem
    help_of = f"{PROGRAM} {verb} --help" if verb else f"{PROGRAM} --help"
    return RootlessError(what, fix=fix or f"see {help_of}", code="RL-USAGE", status=status)


def needs_argument(verb: str, flag: str) -> RootlessError:
    """Return the error for a flag without its value.

    podman looks for these words in the output of `restore --lsm-mount-context`.
    """
    return usage_error(verb, f"flag needs an argument: {flag}", status=bad_flag_status())


def wrong_value(verb: str, name: str, declared: Flag | Word, text: str, problem: str) -> RootlessError:
    """Return the error for a value of the flag or word `name` that it does not take."""
    alike = get_close_matches(text, declared.metavar.split("|"), 1) if declared.kind == CHOICE else ()
    return usage_error(verb, f"{name}: {problem}", f"did you mean {alike[0]}?" if alike else "")


def unknown_flag(verb: str, flag: str) -> RootlessError:
    """Return the error for a flag that `verb` does not have; `flag` is its spelling."""
    name = flag.partition("=")[0].lstrip("-")
    fix = ""
    if not verb and any(name in _names(each.every_flag()) for each in VERBS.values()):
        fix = f"it goes after the verb: {PROGRAM} VERB --{name} …"
    elif alike := get_close_matches(name, _names(VERBS[verb].every_flag() if verb else GLOBAL_FLAGS), 1):
        fix = f"did you mean --{alike[0]}?"
    return usage_error(verb, f"unknown flag: {flag}", fix, bad_flag_status())


def unknown_verb(name: str) -> RootlessError:
    """Return the error for a verb that does not exist."""
    if name in _NOT_YET:
        return not_yet(name, "", unknown_verb_status())
    alike = [_COUNTERPARTS[name]] if name in _COUNTERPARTS else [verb for verb in VERBS if _is_slip(name, verb)]
    if os.path.exists(os.path.join(name, "config.json")):
        fix = f"{PROGRAM} run {name}"
    elif alike:
        fix = f"did you mean {PROGRAM} {' or '.join(alike)}?"
    else:
        fix = f"{PROGRAM} --help lists the verbs"
    return RootlessError(f"unknown verb: {name}", fix=fix, code="RL-USAGE", status=unknown_verb_status())


def not_yet(name: str, fix: str, status: int = EXIT_FAILURE) -> RootlessError:
    """Return the error for a verb or a flag of runc or crun whose feature does not exist."""
    return RootlessError(f"{name}: not supported yet", fix=fix, code="RL-NOT-YET", status=status)


def _names(flags: Iterable[Flag]) -> list[str]:
    return [name[2:] for flag in flags for name in flag.names if name.startswith("--")]


def _is_slip(name: str, verb: str) -> bool:
    """Whether one typing mistake turns `verb` into `name`: a wrong, missing, extra or swapped letter.

    A wider search would find verbs that do something else: `prune` is not `run`, nor `save` `state`.
    """
    same = 0
    while same < min(len(name), len(verb)) and name[same] == verb[same]:
        same += 1
    typed, meant = name[same:], verb[same:]
    exchanged = meant[1:2] + meant[:1] + meant[2:]
    return typed[1:] == meant[1:] or typed == meant[1:] or typed[1:] == meant or typed == exchanged
