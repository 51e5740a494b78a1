"""The fixtures of the tests that go through the specification."""

from __future__ import annotations

import pytest

from tests.user.boxes import BOTH, Box, make_box


@pytest.fixture
def box(user, rootless_command):
    """A bundle made for root, and rootless to run it."""
    box = Box(user, [rootless_command])
    yield box
    box.close()


@pytest.fixture(params=BOTH)
def either(request, user, rootless_command, need):
    """The same, then with runc, which says whether the test is right."""
    box = make_box(user, request.param, rootless_command, need)
    yield box
    box.close()
