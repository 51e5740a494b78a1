"""Write the manual pages, rootless.1 and one for each verb, from the tables of the command line.

Run it as ``python3 helpers/manual/gen_pages.py DIRECTORY``; the build hook does so for every wheel.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from rootless import __version__  # noqa: E402 - found by the line above
from rootless.cli.about import ABOUT, EXAMPLES, EXIT_STATUSES, WITHOUT_EFFECT  # noqa: E402
from rootless.cli.commands import EVERYDAY_VERBS, VERBS  # noqa: E402
from rootless.cli.flags import GLOBAL_FLAGS, HELP, NOT_YET, OPTIONAL, SWITCH  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.cli.flags import Flag, Verb, Word

WIDTH = 79
SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga"}
MADE = '.\\" Made by gen_pages.py of what rootless/cli declares.'
SEE_ALSO = "\\fBpodman\\fR(1), \\fBrunc\\fR(8), \\fBcrun\\fR(1), \\fBsubuid\\fR(5)"
SPECIFICATION = "https://specs.opencontainers.org/runtime-spec/"


def escaped(text: str) -> str:
    """Return `text` so that roff shows each character of it, also at the beginning of a line."""
    shown = "".join(SPECIAL.get(each, each if each.isascii() else f"\\[u{ord(each):04X}]") for each in text)
    return re.sub(r"(^|(?<=\s))\.", r"\\&.", shown)


def prose(text: str) -> list[str]:
    """Return the lines of a paragraph; words in backquotes are bold."""
    pieces = re.split("`([^`]*)`", text)
    marked = (f"\\fB{escaped(each)}\\fR" if number % 2 else escaped(each) for number, each in enumerate(pieces))
    return textwrap.wrap("".join(marked), WIDTH, break_long_words=False, break_on_hyphens=False)


def paragraphs(text: str) -> list[str]:
    """Return the lines for paragraphs that empty lines separate."""
    split = [" ".join(each.split()) for each in text.strip().split("\n\n") if each.strip()]
    return [line for number, each in enumerate(split) for line in ([".PP"] * (number > 0) + prose(each))]


def section(title: str, lines: Iterable[str]) -> list[str]:
    """Return a section of a page; none without lines."""
    found = list(lines)
    return [f".SH {escaped(title.upper())}", *found] if found else []


def spelled(flag: Flag) -> str:
    """Return all spellings of a flag, and what its value is."""
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in flag.names)
    if flag.kind == SWITCH:
        return names
    value = f"\\fI{escaped(flag.metavar)}\\fR"
    return f"{names}[={value}]" if flag.kind == OPTIONAL else f"{names} {value}"


def tagged(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a list of terms, which are roff already, and their descriptions."""
    return [line for term, text in pairs for line in (".TP", term, *prose(f"{text[0].upper()}{text[1:]}."))]


def flag_list(flags: Iterable[Flag]) -> list[str]:
    """Return the list of the flags that do something."""
    return tagged((spelled(flag), flag.help) for flag in flags if flag.kind != NOT_YET and not flag.ignored)


def ignored_list(flags: Iterable[Flag]) -> list[str]:
    """Return the list of the flags that do nothing, with the reasons."""
    return tagged((spelled(flag), f"{flag.help}: {flag.ignored}") for flag in flags if flag.ignored)


def example_lines(examples: Sequence[str]) -> list[str]:
    """Return the lines for examples, as they are typed."""
    return [".EX", *map(escaped, examples), ".EE"] if examples else []


def word(declared: Word) -> str:
    """Return a word as the synopsis shows it."""
    shown = f"\\fI{escaped(declared.metavar)}\\fR"
    return f"[{shown}]" if declared.optional else shown


def page(name: str, summary: str, synopsis: str, *sections: list[str]) -> str:
    """Return the text of the page `name`."""
    head = [
        MADE,
        f'.TH {escaped(name.upper())} 1 "" "rootless {escaped(__version__)}" "User Commands"',
        *section("Name", prose(f"{name} - {summary}")),
        *section("Synopsis", [synopsis]),
    ]
    return "\n".join([*head, *(line for lines in sections for line in lines), ""])


def verb_page(name: str, verb: Verb) -> str:
    """Return the page of a verb."""
    words = [word(each) for each in verb.words]
    rest = [f"{word(verb.rest)} ..."] if verb.rest else []
    synopsis = " ".join([f"\\fBrootless {escaped(name)}\\fR", "[\\fIFLAGS\\fR]", *words, *rest])
    return page(
        f"rootless-{name}",
        verb.summary,
        synopsis,
        section("Description", paragraphs(f"{verb.summary[0].upper()}{verb.summary[1:]}.\n\n{verb.about}")),
        *(
            section("Flags" if title == "Flags" else f"Flags: {title}", flag_list(flags))
            for title, flags in verb.every_section().items()
        ),
        section(WITHOUT_EFFECT, ignored_list(verb.every_flag())),
        section("Examples", example_lines(verb.examples)),
        section("See also", ["\\fBrootless\\fR(1), which has the flags that every verb takes"]),
    )


def main_page() -> str:
    """Return the page of the program."""
    others = {name: verb for name, verb in VERBS.items() if name not in EVERYDAY_VERBS}
    lists = {"Everyday verbs": EVERYDAY_VERBS, "Verbs that container engines call": others}
    return page(
        "rootless",
        "run containers as an ordinary user, without root",
        "\\fBrootless\\fR [\\fIFLAGS\\fR] \\fIVERB\\fR ...",
        section("Description", paragraphs(ABOUT)),
        *(
            section(
                title, tagged((f"\\fBrootless\\-{escaped(name)}\\fR(1)", each.summary) for name, each in verbs.items())
            )
            for title, verbs in lists.items()
        ),
        section("Flags", flag_list((*GLOBAL_FLAGS, HELP))),
        section(WITHOUT_EFFECT, ignored_list(GLOBAL_FLAGS)),
        section("Exit status", tagged((f"\\fB{status}\\fR", text) for status, text in EXIT_STATUSES)),
        section("Examples", example_lines(EXAMPLES)),
        section("See also", [f"{SEE_ALSO},", escaped(SPECIFICATION)]),
    )


def write(directory: Path) -> list[Path]:
    """Write all pages into `directory`, and return their paths."""
    pages = {"rootless": main_page(), **{f"rootless-{name}": verb_page(name, verb) for name, verb in VERBS.items()}}
    for name, text in pages.items():
        (directory / f"{name}.1").write_text(text)
    return [directory / f"{name}.1" for name in pages]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
