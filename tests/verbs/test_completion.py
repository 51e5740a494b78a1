"""The completion scripts in bash, fish and zsh themselves."""

from __future__ import annotations

import os
import shlex

import pytest

from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import make_bundle
from tests.lib.terminals import Typewriter

SCRIPTS = CHECKOUT / "helpers/completion"
LINES = [
    ("rootless del", ["rootless", "delete"]),
    ("rootless delete --f", ["rootless", "delete", "--force"]),
    ("rootless list --format=j", ["rootless", "list", "--format=json"]),
    ("rootless kill --root {root} box-a", ["rootless", "kill", "--root", "{root}", "box-abc.1"]),
    (r"rootless run my\ bun", ["rootless", "run", "my bundle/"]),
    ("rootless run --userns=keep-id:ui", ["rootless", "run", "--userns=keep-id:uid="]),
]
"""What is typed before the tabulator, and the words that the line then has."""
ENVIRONMENT = {"HISTFILE": "", "ZDOTDIR": "/nonexistent", "HOME": "/nonexistent"}
PROMPT = b"go> "
START = {
    "bash": f"source {SCRIPTS}/rootless.bash",
    "zsh": f"fpath=({SCRIPTS} $fpath); autoload -Uz compinit; compinit -u -D; setopt no_auto_remove_slash",
}


@pytest.fixture
def place(user, rootless):
    """A directory with a bundle whose name has a blank, and a container."""
    bundle = make_bundle(user)
    rootless.create("box-abc.1", bundle)
    user.run(["mkdir", "my bundle"], check=True)
    return user.tmp


@pytest.fixture
def environment(user, rootless_command):
    return ENVIRONMENT | {"PATH": f"{os.path.dirname(rootless_command)}:{user.env['PATH']}"}


def formatted(text, rootless):
    return text.format(root=rootless.root)


@pytest.mark.parametrize("shell", START)
@pytest.mark.usefixtures("place")
def test_the_tabulator_completes_the_line(shell, user, rootless, environment, need):
    start = {"bash": ["--norc", "--noprofile"], "zsh": ["--no-rcs"]}[shell]
    with Typewriter(user, [need(shell), *start, "-i"], size=(24, 400), env=environment) as terminal:
        terminal.type(f"{START[shell]}; PS1='go''> '\n".encode())
        terminal.until(PROMPT)
        for typed, expected in LINES:
            # ^A: the line becomes the arguments of printf
            terminal.type(formatted(typed, rootless).encode() + b"\t\x01printf '<%s>' \x05\n")
            shown = terminal.until(b"><" + formatted(expected[-1], rootless).encode() + b">")
            words = "".join(f"<{formatted(word, rootless)}>" for word in expected)
            assert shown.endswith(words.encode())
            terminal.until(PROMPT)
        terminal.type(b"exit\n")


@pytest.mark.usefixtures("place")
def test_fish_offers_words_with_descriptions(user, rootless, environment, need):
    def offered(line):
        script = f"source {SCRIPTS}/rootless.fish; complete -C {shlex.quote(line)}"
        done = user.run([need("fish"), "--no-config", "-c", script], env=environment, check=True)
        return done.stdout.splitlines()

    for typed, expected in LINES:
        [found] = offered(formatted(typed, rootless))
        assert found.partition("\t")[0].replace("\\ ", " ") == formatted(expected[-1], rootless)
    assert offered("rootless del") == ["delete\tremove a stopped container"]
    assert offered("rootless network ") == ["create", "ls", "inspect", "reload", "rm"]
    assert offered("cd /tmp; true | rootless del") == ["delete\tremove a stopped container"]


def test_a_line_that_no_verb_begins_offers_nothing_and_prints_no_error(user, rootless):
    del user
    for line in ("nope ", "run --nope=", "delete --root /nonexistent/x ", "run --root", "-- -- "):
        done = rootless.user.run([rootless.command, "__complete", *line.split(" ")])
        assert (done.returncode, done.stderr) == (0, ""), line
