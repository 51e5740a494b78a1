"""The commands of README.md, as a reader would type them."""

from __future__ import annotations

import re

from tests.lib.accounts import CHECKOUT

SECTION = re.compile(r"^## (.*)$")


def blocks():
    """Return the blocks of code, each a pair: the heading of its section, and its lines."""
    found: list[tuple[str, list[str]]] = []
    heading, within = "", False
    for line in (CHECKOUT / "README.md").read_text().splitlines():
        if section := SECTION.match(line):
            heading = section[1]
        if line.startswith("    ") and line.strip():
            if not within:
                found.append((heading, []))
            found[-1][1].append(line[4:])
            within = True
        else:
            within = False
    return found


def commands(heading=None):
    """Return the commands in their order, those of one section or all.

    In a block that shows a dialogue they follow a dollar; otherwise each line is one, up to a comment.
    """
    found = []
    for section, lines in blocks():
        if heading not in (None, section):
            continue
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        found += [re.sub(r"\s+# .*$", "", line) for line in typed]
    return found
