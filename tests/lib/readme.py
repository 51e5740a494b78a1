"""The commands in README.md and in the guides of docs/, as a reader would type them."""

from __future__ import annotations

import ast
import os
import re

from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import own

README = "README.md"
GUIDES = ["docs/laptop.md", "docs/shared-node.md", "docs/administrators.md"]
IMAGE = [
    "rootless run docker://debian:13 cat /etc/os-release",
    "rootless run docker://debian:13 sh -c 'id; cat /proc/self/uid_map; ls -ld /root; grep ^PRETTY /etc/os-release'",
    "rootless images",
    "rootless explain docker://debian:13",
]
"""The commands of the first screen."""

SECTION = re.compile(r"^## (.*)$")


def blocks(document=README):
    """Return the blocks of code as pairs: the heading of the section, and the lines."""
    found: list[tuple[str, list[str]]] = []
    heading, within = "", False
    for line in (CHECKOUT / document).read_text().splitlines():
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


def commands(heading=None, document=README):
    """Return the commands of one section, or all, in order.

    In a block with a dollar sign, the lines after a dollar sign are commands. Otherwise each line is a command, up to a
    comment.
    """
    found = []
    for section, lines in blocks(document):
        if heading not in (None, section):
            continue
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        found += [re.sub(r"\s+# .*$", "", line) for line in typed]
    return found


def spans(document):
    """Return what stands between backquotes in a document."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", (CHECKOUT / document).read_text())]


def shown(command):
    """Return the lines of output that follow a command."""
    text = (CHECKOUT / README).read_text().partition(f"    $ {command}\n")[2].partition("\n\n")[0]
    return [line.strip() for line in text.partition("    $ ")[0].splitlines()]


def readers_environment(user, command):
    """Return the variables of a user who has the command, and an empty home directory."""
    home = user.tmp / "home"
    home.mkdir()
    own(user, home)
    return {"PATH": f"{os.path.dirname(command)}:{user.env['PATH']}", "HOME": str(home)}


def is_test(place):
    """Whether a test exists; `place` is ``PATH::NAME``, or ``PATH`` for all tests of a file."""
    path, _, name = place.partition("::")
    file = CHECKOUT / path
    if not (name and file.is_file()):
        return file.is_file()
    return name in {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
