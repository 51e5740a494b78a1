"""A config.json that somebody wrote to do harm, from outside of the command: one line, an exit status, nothing left.

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
    """Give the command a config.json; return how it ended."""
    (bundle / "config.json").write_bytes(text)
    return rootless(*words, timeout=60)


def assert_refused(done, rootless):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rootless: ")
    assert done.stderr.endswith("\n")
    line = done.stderr[:-1]
    assert line.isprintable(), "one line, without anything that a terminal would obey"
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
@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "cut"])
def test_ten_megabytes(rootless, bundle, name, cut):
    """Whole it is a configuration, except for a program that is missing; cut it is none."""
    text = HOSTILE[name][0].rstrip()
    assert len(text) > 9_000_000 or name == "10 MB of blanks"
    blanks = len(HOSTILE[name][0]) - len(text)
    done = tell(rootless, bundle, text[: len(text) - cut] + b" " * blanks, "run", "--bundle", bundle, "c1")
    assert_refused(done, rootless)
    assert ('exec: "a"' if cut == 0 else "config.json: ") in done.stderr


def test_the_error_is_an_object_for_engines(rootless, bundle, user):
    log = user.tmp / "log"
    own(user, user.tmp)
    text = HOSTILE["half a character in a key"][0]
    done = tell(rootless, bundle, text, "--log", log, "--log-format", "json", "run", "--bundle", bundle, "c1")
    assert_refused(done, rootless)
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["level"] == "error"


@given(text=changed(bases=WITHOUT_PROFILES))
@settings(QUICK, max_examples=30)
def test_a_changed_configuration(rootless, bundle, text):
    """`explain` goes the same way as `run` and carries nothing out."""
    done = tell(rootless, bundle, text.replace(b"/home/user/bundle/", b""), "explain", bundle)
    if done.returncode:
        assert_refused(done, rootless)
    else:
        assert done.stdout.startswith("Bundle ")
    assert not rootless.root.exists() or not contents(rootless.root)
