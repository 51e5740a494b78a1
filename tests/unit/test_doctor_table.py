"""docs/doctor.md and the codes in docs/errors.md, which are made from the conditions and their tests."""

from __future__ import annotations

import os

import pytest

from rootless.doctor.report import CONDITIONS
from tests.lib.accounts import CHECKOUT
from tests.lib.doctor_table import ELSEWHERE, SECTION, TABLE, WRITE, codes, table
from tests.lib.documents import functions
from tests.lib.host_conditions import CASES

ERRORS = CHECKOUT / "docs/errors.md"
WRITES = os.environ.get("ROOTLESS_WRITE_TABLE", "") == "1"


def test_every_condition_has_a_test():
    tested = {case.code for case in CASES}
    assert {condition.code for condition in CONDITIONS} == tested | ELSEWHERE.keys()
    assert not tested & ELSEWHERE.keys()
    for where in ELSEWHERE.values():
        file, _, test = where.test.partition("::")
        assert test in functions(CHECKOUT / file), where.test


def test_the_table_is_up_to_date():
    if WRITES:
        (CHECKOUT / TABLE).write_text(table())
    if (CHECKOUT / TABLE).read_text() != table():
        pytest.fail(f"{TABLE} is out of date; fix: {WRITE}", pytrace=False)


def test_the_codes_are_up_to_date():
    text = ERRORS.read_text()
    before, _, rest = text.partition(SECTION)
    section, following, after = rest.partition("\n## ")
    if WRITES:
        ERRORS.write_text(before + codes() + following + after)
    elif (SECTION + section).strip() != codes().strip():
        pytest.fail(f"{ERRORS} is out of date; fix: {WRITE}", pytrace=False)
