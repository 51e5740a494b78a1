"""Skips on CI: pytest runs skipping tests with the hooks of tests/conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.lib.accounts import PROVIDED

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SKIPPED = {
    "in_the_test": 'import pytest\ndef test_it():\n    pytest.skip("{}")\n',
    "in_a_fixture": 'import pytest\n@pytest.fixture\ndef it():\n    pytest.skip("{}")\ndef test_it(it):\n    pass\n',
    "by_a_mark": 'import pytest\npytestmark = pytest.mark.skipif(True, reason="{}")\ndef test_it():\n    pass\n',
}


@pytest.mark.parametrize(
    ("room", "reason", "ci", "outcome"),
    [
        ("engines", "needs a better machine", "true", "1 failed, 2 errors"),
        ("system", "needs a better machine", "true", "1 failed, 2 errors"),
        ("spec", "needs a better machine", "true", "3 skipped"),
        ("spec", f"needs crun, {PROVIDED}", "true", "1 failed, 2 errors"),
        ("engines", f"needs crun, {PROVIDED}", "", "3 skipped"),
    ],
)
def test_a_skip(tmp_path, room, reason, ci, outcome):
    directory = tmp_path / "tests" / room
    directory.mkdir(parents=True)
    for name, text in SKIPPED.items():
        (directory / f"test_{name}.py").write_text(text.format(reason))
    env = os.environ | {"CI": ci, "PYTHONPATH": str(CHECKOUT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull, directory]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f" {outcome} in " in done.stdout, done.stdout + done.stderr
    assert reason in done.stdout


def test_every_exception_is_an_existing_test():
    for test in conftest.EXCEPTIONS:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (CHECKOUT / file).read_text()
