"""docs/conformance.md and the marks from which it is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lib.conformance import TABLE, TESTS, UNTESTED, Conformance, files_with_marks, rows
from tests.lib.specification import DOCUMENTS, PROPERTIES, RUNTIMES


def test_every_property_has_a_test_that_is_marked_with_it():
    words = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", *files_with_marks()]
    done = subprocess.run(words, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_property_is_named_twice():
    assert len(set(PROPERTIES)) == len(PROPERTIES)


def test_the_table_has_every_property_in_order():
    text = (TESTS.parent / TABLE).read_text()
    assert list(rows(text)) == PROPERTIES
    assert all(len(cells) == len(RUNTIMES) for cells in rows(text).values())
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(DOCUMENTS)


def test_notes_and_references_of_the_table_match():
    text = (TESTS.parent / TABLE).read_text()
    used = {word.rstrip("]") for cells in rows(text).values() for cell in cells for word in cell.split("[^")[1:]}
    made = {line[2:].partition("]")[0] for line in text.splitlines() if line.startswith("[^")}
    assert {each.strip().rstrip("]") for each in used} == made


WHY = "there is none here"


@pytest.mark.parametrize(
    ("results", "cell"),
    [
        ({("yes", "")}, "yes"),
        ({("yes", ""), (UNTESTED, WHY)}, "yes"),
        ({("no", WHY)}, "no [^1]"),
        ({("refused", WHY)}, "refused [^1]"),
        ({("yes", ""), ("refused", WHY)}, "partly [^1]"),
        ({("yes", ""), ("no", "a"), ("no", "b")}, "partly [^1] [^2]"),
        ({(UNTESTED, WHY)}, f"{UNTESTED} [^1]"),
    ],
)
def test_words_of_a_cell(results, cell):
    plugin = Conformance(None)
    plugin._results["hostname", "rootless"] = results
    assert plugin._cell("hostname", "rootless", {}) == cell


def test_a_runtime_without_a_test_has_the_reason_of_the_others():
    plugin = Conformance(None)
    plugin._results["hostname", "rootless"] = {(UNTESTED, WHY)}
    notes = {}
    assert plugin._cell("hostname", "runc", notes) == f"{UNTESTED} [^1]"
    assert notes == {WHY: 1}


@pytest.fixture
def found(monkeypatch):
    """The plugin after a run in which every property of every runtime was `yes`, with the table written."""
    plugin = Conformance(None)
    plugin._versions = {"runc": "runc version 1.1.15", "crun": "crun version 1.21"}
    plugin._results = {(name, runtime): {("yes", "")} for name in PROPERTIES for runtime in RUNTIMES}
    written = plugin._made()
    monkeypatch.setattr(Conformance, "_old", written)
    return plugin


@pytest.mark.parametrize("on_ci", ["", "true"])
@pytest.mark.parametrize(
    ("result", "everywhere"), [(("no", WHY), True), (("refused", WHY), True), ((UNTESTED, WHY), False)]
)
def test_another_result_is_a_difference(found, monkeypatch, on_ci, result, everywhere):
    """Outside CI, a machine may be unable to test some properties of the table."""
    monkeypatch.setenv("CI", on_ci)
    assert found._compared(found._made()) == []
    found._results["hostname", "runc"] = {result}
    said = [f"hostname: it says yes, the tests {result[0]}"] if everywhere or on_ci else []
    assert found._compared(found._made()) == said


@pytest.mark.parametrize("on_ci", ["", "true"])
def test_another_version_counts_on_ci(found, monkeypatch, on_ci):
    monkeypatch.setenv("CI", on_ci)
    found._versions["crun"] = "crun version 9"
    found._results["hostname", "crun"] = {("no", WHY)}
    assert bool(found._compared(found._made())) == bool(on_ci)
