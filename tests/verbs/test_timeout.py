"""`run --timeout`: a container ends when its time is over."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import PATIENCE, await_end
from tests.lib.detached import detached
from tests.lib.waiting import AT_ONCE, BY_PYTHON, each_waiter

__all__ = ["detached", "each_waiter"]

POLITE = "trap 'exit 3' TERM; while :; do sleep 0.05; done"


@pytest.mark.usefixtures("each_waiter")
@pytest.mark.parametrize("form", [[], ["--bundle"]])
def test_in_the_foreground(rootless, user, form):
    bundle = make_bundle(user, base_config("sh", "-c", POLITE))
    begin = time.monotonic()
    done = rootless("run", "--timeout", "1", *form, bundle, *["c1"] * len(form))
    assert (done.returncode, done.stderr) == (3, "")
    assert time.monotonic() - begin >= 1
    assert rootless.list() == []


def test_detached(detached, rootless):
    begin = time.monotonic()
    detached(POLITE, "--timeout=1")
    assert time.monotonic() - begin >= 1
    assert rootless("wait", "bundle").stdout == "3\n"


def test_detached_with_the_callers_streams(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", POLITE))
    rootless("run", "-d", "--timeout", "1", "--bundle", bundle, "c1", stdout=-3, stderr=-3, check=True)
    await_end(rootless.pid("c1"))
    assert rootless("wait", "c1").stdout == "3\n"


def test_deaf_programs_are_killed_ten_seconds_later(rootless, user):
    """In the foreground, detached, and with processes outside a pid namespace."""
    deaf = base_config("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    others = base_config("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; while :; do wait; done")
    others["linux"]["namespaces"] = [each for each in others["linux"]["namespaces"] if each["type"] != "pid"]
    bundle, outside = make_bundle(user, deaf), make_bundle(user, others, name="outside")
    words = ["run", "--timeout", "1"]
    begin = time.monotonic()
    with (
        rootless.popen(*words, "--name", "one", bundle, env=BY_PYTHON) as by_python,
        rootless.popen(*words, "--name", "two", bundle, env=AT_ONCE) as by_attend,
        rootless.popen(*words, outside, env=AT_ONCE, stdout=subprocess.PIPE) as outside_of_one,
    ):
        rootless(*words, "-d", "--name", "three", bundle, check=True)
        for process in (by_python, by_attend, outside_of_one):
            assert process.wait(timeout=PATIENCE) == 137
            assert 11 <= time.monotonic() - begin < 20
        await_end(int(outside_of_one.stdout.read()))
    assert rootless("wait", "three").stdout == "137\n"
    assert 11 <= time.monotonic() - begin < 20
    assert [state["id"] for state in rootless.list()] == ["three"]


def test_a_program_that_ends_before_is_not_waited_for(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "exit 4"))
    begin = time.monotonic()
    assert rootless("run", "--timeout", "20", bundle).returncode == 4
    assert time.monotonic() - begin < 15


def test_no_timeout_is_none(rootless, user):
    assert rootless("run", "--timeout", "0", make_bundle(user, base_config("sh", "-c", "exit 4"))).returncode == 4


def test_create_has_no_timeout(rootless, user):
    done = rootless("create", "--timeout", "1", "--bundle", make_bundle(user), "c1")
    assert done.returncode == 1
    assert "--timeout" in done.stderr


def test_explain_shows_it(rootless, user):
    bundle = make_bundle(user)
    assert "ends the container after 7 s" in rootless("explain", "-d", "--timeout", "7", bundle).stdout
