"""The two programs that wait for a foreground container: Python for a moment, then helpers/front/attend.c."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.containers import until

BY_PYTHON = {"ROOTLESS_FRONT": "0"}
AT_ONCE = {"ROOTLESS_ATTEND_AFTER": "0"}
"""Variables that choose one of them."""


@pytest.fixture(params=[BY_PYTHON, AT_ONCE], ids=["by Python", "by attend"])
def each_waiter(request, user):
    """Run the test with each of them."""
    user.env |= request.param


def is_attended(pid: int) -> bool:
    """Whether a foreground `rootless` has handed over its wait."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"rootless\0")


def until_attended(pid: int) -> None:
    """Return when a foreground `rootless` has handed over its wait."""
    until(lambda: is_attended(pid), "the hand-over")
