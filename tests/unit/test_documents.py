"""The claims of the top-level documents about tests are true."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.lib.documents import functions

CHECKOUT = Path(__file__).resolve().parents[2]
NAMED = r"`(tests/\S+\.py)(?:::(\w+))?`"
"""A test in SECURITY.md; a file without a test name means all its tests."""


def rows():
    """Return the cells of each row of SECURITY.md's table of attacks: attack, attacker, defence, tests."""
    text = (CHECKOUT / "SECURITY.md").read_text()
    table = text.partition("## Attacks and the tests that play them")[2]
    found = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [cells for cells in found if not set(cells[0]) <= set("- ") and cells[0] != "attack"]


def advisories():
    """Return the cells of each row of docs/advisories.md: advisory, program, attack, rootless, tests."""
    lines = (CHECKOUT / "docs/advisories.md").read_text().splitlines()
    found = [line.removeprefix("| ").rstrip("|").split(" | ") for line in lines if line.startswith("| ")]
    return [cells for cells in found if not set(cells[0]) <= set("- ") and cells[0] != "advisory"]


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0][:60])
def test_each_attack_names_tests_that_exist(cells):
    assert len(cells) == 4, cells
    named = re.findall(NAMED, cells[3])
    assert named, "the row names no test"
    for file, test in named:
        assert not test or test in functions(CHECKOUT / file), f"{file} has no {test}"


def test_each_hostile_test_is_in_the_table():
    named = {each for cells in rows() for each in re.findall(NAMED, cells[3])}
    hostile = {
        (file.relative_to(CHECKOUT).as_posix(), test)
        for file in (CHECKOUT / "tests/hostile").glob("test_*.py")
        for test in functions(file)
        if test.startswith("test_")
    }
    missing = [(file, test) for file, test in hostile - named if (file, "") not in named]
    assert not missing, f"SECURITY.md does not name {sorted(missing)}"


@pytest.mark.parametrize("cells", advisories(), ids=lambda cells: cells[0])
def test_each_advisory_names_tests_that_exist_or_a_reason(cells):
    assert len(cells) == 5, cells
    assert re.search(r"CVE-\d{4}-\d{4,6}|GHSA-", cells[0])
    named = re.findall(NAMED, cells[4])
    assert cells[4].count("`") == 2 * len(named)
    assert named or cells[3].startswith("not affected: "), "the row names no test and no reason"
    for file, test in named:
        assert (CHECKOUT / file).is_file(), file
        assert not test or test in functions(CHECKOUT / file), f"{file} has no {test}"


def test_each_test_that_plays_an_advisory_is_in_the_list():
    cells = [cell for row in advisories() for cell in row]
    named = {test for cell in cells for _, test in re.findall(NAMED, cell)}
    tests = functions(CHECKOUT / "tests/hostile/test_cve.py") | functions(CHECKOUT / "tests/unit/test_edits.py")
    assert {test for test in tests if re.search(r"^test_.*cve_\d{4}", test)} <= named


def test_the_list_of_tests_names_each_folder():
    listed = subprocess.run([CHECKOUT / "tests/run", "--list"], capture_output=True, text=True, check=True).stdout
    folders = {path.parent.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "tests").glob("*/test_*.py")}
    assert {line.split()[0] for line in listed.splitlines()} == folders
