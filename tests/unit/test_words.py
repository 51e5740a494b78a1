"""The project's prose: plain English, without phrases that readers stumble over and without spelling mistakes."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

PHRASES = {
    r"(is|are|was|were|be|been) told": "reports, prints, receives",
    r"(tell|tells|told) of": "reports, describes",
    r"leave to": "permission to",
    r"mend(s|ed|ing)?": "fix, repair",
    r"lack(s|ed|ing)?": "is missing, has no",
    r"anew": "again",
    r"for want of": "because there is no",
    r"in the place of": "instead of",
    r"but for": "except",
    r"(stand|stands|stood) still": "freeze",
    r"without a word": "reports no error",
    r"as \w+ has it": "as in, according to",
    r"of ours": "of rootless",
    r"of (its|their|his|her) own making": "that it created",
    r"whoever": "the process that, the user who",
    r"what is there": "the file, the existing directory",
    r"by (itself|themselves)": "automatically, alone",
    r"(lead|leads|led) a port": "publish a port",
    r"the word is": "the argument is",
}
"""Phrases to avoid, as regular expressions of whole words, and what to write instead."""

DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "docs/**/*.md")
CODE = ("rootless/**/*.py", "helpers/**/*.py", "tests/**/*.py")
OTHERS = ("install.sh", "tests/run", "helpers/**/*.[ch]", "helpers/**/*.sh", "helpers/**/*.conf", "helpers/**/*.toml")
NAMES = ("passt", "delte", "ot", "tru")
"""A program, and deliberate misspellings in tests, which codespell must not correct."""


def files(*patterns):
    """Return the paths of the files that match, relative to the checkout."""
    found = {path for pattern in patterns for path in CHECKOUT.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(CHECKOUT).as_posix() for path in found - {Path(__file__).resolve()})


def prose_of_python(text):
    """Yield the prose of a module: pairs of a line number and a string, a block of comments, or a test's name."""
    nodes = list(ast.walk(ast.parse(text)))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            pieces = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(pieces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    first, last, block = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if line == last + 1:
            block += " " + token.string.lstrip("# ")
        else:
            yield first, block
            first, block = line, token.string
        last = line
    yield first, block


def prose(path):
    text = (CHECKOUT / path).read_text()
    return prose_of_python(text) if path.endswith(".py") else [(1, text)]


def offences(path):
    """Return the phrases to avoid that a file has, each with the line on which its text begins."""
    found = []
    for line, text in prose(path):
        for phrase, instead in PHRASES.items():
            pattern = rf"\b{phrase}\b".replace(" ", r"[\s*#/]+")
            for match in re.finditer(pattern, text, re.IGNORECASE):
                where = line + text.count("\n", 0, match.start())
                found.append(f"{path}:{where}: {' '.join(match[0].split())!r}; write: {instead}")
    return found


@pytest.mark.parametrize("path", files(*DOCUMENTS, *CODE, *OTHERS))
def test_plain_english(path):
    assert not (found := offences(path)), "\n".join(found)


def test_spelling():
    where = [*files("*.md"), "docs", "rootless", "helpers", "tests", "install.sh"]
    words = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", ",".join(NAMES), *where]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
