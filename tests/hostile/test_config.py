"""Hostile config.json files, given to the command: one error line, an exit status, and nothing left behind.

tests/unit/test_config_fuzz.py tries thousands more in one process.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.lib.bundles import make_bundle, own
from tests.lib.configurations import QUICK
from tests.lib.hostile_configs import HOSTILE, WITHOUT_PROFILES, changed

REFUSED = [name for name, (_, valid) in HOSTILE.items() if valid is False]


@pytest.fixture
def bundle(user):
    return make_bundle(user)


def contents(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def tell(rootless, bundle, text, *words):
    """Write a config.json, run the command and return the finished process."""
    (bundle / "config.json").write_bytes(text)
    return rootless(*words, timeout=60)


def assert_refused(done, rootless):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rootless: ")
    assert done.stderr.endswith("\n")
    line = done.stderr[:-1]
    assert line.isprintable(), "one line, without terminal escapes"
    assert "internal error" not in line
    assert "Traceback" not in line
    assert len(line) < 1500
    assert not rootless.root.exists() or not contents(rootless.root), "no state is left"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_configuration_leaves_nothing(rootless, bundle, user, name):
    before = contents(user.tmp)
    verb = ("run", "create")[REFUSED.index(name) % 2]
    assert_refused(tell(rootless, bundle, HOSTILE[name][0], verb, "--bundle", bundle, "c1"), rootless)
    assert [path for path in contents(user.tmp) if path not in before and not path.startswith("state")] == []


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("10 MB")])
@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "truncated"])
def test_ten_megabytes_of_configuration_give_the_right_error(rootless, bundle, name, cut):
    """The whole file is valid, but its program does not exist. A truncated file is not JSON."""
    text = HOSTILE[name][0].rstrip()
    assert len(text) > 9_000_000 or name == "10 MB of blanks"
    blanks = len(HOSTILE[name][0]) - len(text)
    done = tell(rootless, bundle, text[: len(text) - cut] + b" " * blanks, "run", "--bundle", bundle, "c1")
    assert_refused(done, rootless)
    assert ('exec: "a"' if cut == 0 else "config.json: ") in done.stderr


def test_the_error_is_logged_as_json_for_engines(rootless, bundle, user):
    log = user.tmp / "log"
    own(user, user.tmp)
    text = HOSTILE["half a character in a key"][0]
    done = tell(rootless, bundle, text, "--log", log, "--log-format", "json", "run", "--bundle", bundle, "c1")
    assert_refused(done, rootless)
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["level"] == "error"


@given(text=changed(bases=WITHOUT_PROFILES))
@settings(QUICK, max_examples=30)
def test_a_mutated_configuration_is_explained_or_refused(rootless, bundle, text):
    """`explain` takes the same path as `run` and executes nothing."""
    done = tell(rootless, bundle, text.replace(b"/home/user/bundle/", b""), "explain", bundle)
    if done.returncode:
        assert_refused(done, rootless)
    else:
        assert done.stdout.startswith("Bundle ")
    assert not rootless.root.exists() or not contents(rootless.root)
