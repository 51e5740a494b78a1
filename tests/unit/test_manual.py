"""The manual pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.cli.about import EXIT_STATUSES
from rootless.cli.commands import VERBS
from rootless.cli.flags import GLOBAL_FLAGS, NOT_YET

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man1")
    subprocess.run([sys.executable, CHECKOUT / "helpers/manual/gen_pages.py", directory], check=True)
    return directory


@pytest.fixture
def shown(pages, need):
    """A function that returns the text of a page as man shows it, in one line."""
    mandoc = need("mandoc")

    def run(name):
        words = [mandoc, "-T", "utf8", "-O", "width=1000", pages / f"{name}.1"]
        overstruck = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return " ".join(re.sub(".\x08", "", overstruck).split())

    return run


def test_there_is_a_page_for_the_program_and_for_each_verb(pages):
    assert {path.name for path in pages.iterdir()} == {"rootless.1", *(f"rootless-{name}.1" for name in VERBS)}


def test_the_pages_are_well_formed(pages, need):
    done = subprocess.run(
        [need("mandoc"), "-T", "lint", *sorted(pages.iterdir())], capture_output=True, text=True, check=False
    )
    # The pages have no date, so that each build makes the same ones.
    found = [line for line in done.stdout.splitlines() if 'missing date, using "": TH' not in line]
    assert found == []
    assert done.stdout.count("missing date") == len(VERBS) + 1


@pytest.mark.parametrize("name", VERBS)
def test_the_page_of_a_verb_has_its_flags_words_and_examples(name, shown):
    text = shown(f"rootless-{name}")
    verb = VERBS[name]
    assert f"rootless-{name} - {verb.summary}" in text
    for flag in verb.every_flag():
        assert (", ".join(flag.names) in text) is (flag.kind != NOT_YET)
        assert flag.kind == NOT_YET or flag.help[1:].replace("`", "") in text
    for word in verb.words:
        assert word.metavar in text.partition("DESCRIPTION")[0]
    for line in verb.examples:
        assert " ".join(line.split()) in text
    assert " ".join(verb.about.split()).replace("`", "") in text


def test_the_page_of_the_program_names_verbs_flags_and_statuses(shown):
    text = shown("rootless")
    for name, verb in VERBS.items():
        assert f"rootless-{name}(1) {verb.summary[0].upper()}{verb.summary[1:]}." in text
    for flag in GLOBAL_FLAGS:
        assert ", ".join(flag.names) in text
    for status, meaning in EXIT_STATUSES:
        assert f"{status} {meaning[0].upper()}{meaning[1:]}." in text
