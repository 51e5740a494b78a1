"""`rootless stop` asks a container to end, and kills it after a time."""

from __future__ import annotations

import time

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.detached import detached

__all__ = ["detached"]

STOP_SIGNAL = "org.opencontainers.image.stopSignal"
TRAPS = "trap 'exit 3' TERM; trap 'exit 4' USR1; trap 'exit 5' QUIT; echo >/fifo; while :; do sleep 0.05; done"


def test_the_program_gets_sigterm(detached, rootless):
    detached(TRAPS, end=False)
    detached.ready()
    done = rootless("stop", "bundle")
    assert (done.returncode, done.stdout, done.stderr) == (0, "bundle\n", "")
    assert rootless.status("bundle") == "stopped"
    assert rootless("wait", "bundle").stdout == "3\n"


@pytest.mark.parametrize(("word", "status"), [("SIGUSR1", 4), ("quit", 5), ("10", 4)])
def test_the_image_chooses_the_signal(detached, rootless, word, status):
    detached(TRAPS, end=False, annotations={STOP_SIGNAL: word})
    detached.ready()
    assert rootless("stop", "bundle").stderr == ""
    assert rootless("wait", "bundle").stdout == f"{status}\n"


@pytest.mark.parametrize("word", ["SIGNOPE", "0", "-9", "\x1b[31m", "9" * 5000])
def test_an_unknown_signal_of_the_image_is_a_warning(detached, rootless, word):
    detached(TRAPS, end=False, annotations={STOP_SIGNAL: word})
    detached.ready()
    done = rootless("stop", "bundle")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "unknown signal" in done.stderr
    assert rootless("wait", "bundle").stdout == "3\n"


def test_a_deaf_program_is_killed_after_the_time(detached, rootless):
    detached("trap '' TERM; echo >/fifo; while :; do sleep 0.05; done", end=False)
    detached.ready()
    begin = time.monotonic()
    assert rootless("stop", "-t", "1", "bundle").stdout == "bundle\n"
    assert 1 <= time.monotonic() - begin < 9
    assert rootless("wait", "bundle").stdout == "137\n"


def test_no_time_is_at_once(detached, rootless):
    detached("trap '' TERM; echo >/fifo; while :; do sleep 0.05; done", end=False)
    detached.ready()
    assert rootless("stop", "--time=0", "bundle").returncode == 0
    assert rootless.status("bundle") == "stopped"


def test_several_stop_at_the_same_time(rootless, user):
    names = ("one", "two", "three")
    for name in names:
        rootless("run", "-d", make_bundle(user, base_config("sleep", "1000"), name=name), check=True)
    begin = time.monotonic()
    assert rootless("stop", "-t", "1", *names).stdout.split() == list(names)
    assert time.monotonic() - begin < 3
    assert {state["status"] for state in rootless.list()} == {"stopped"}


def test_all_are_looked_up_before_one_is_stopped(detached, rootless):
    detached("sleep 1000", end=False)
    done = rootless("stop", "bundle", "other")
    assert (done.returncode, done.stdout) == (1, "")
    assert rootless.status("bundle") == "running"


def test_a_stopped_container_is_no_error(detached, rootless):
    detached("true")
    assert rootless("stop", "bundle").stdout == "bundle\n"


def test_a_created_container_ends(rootless, user):
    rootless.create("c1", make_bundle(user))
    assert rootless("stop", "c1").stdout == "c1\n"
    assert rootless.status("c1") == "stopped"


def test_a_foreground_container_is_removed_by_its_run(rootless, user):
    config = base_config("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    with rootless.popen("run", make_bundle(user, config), stdout=-1) as run:
        assert run.stdout.readline() == "ready\n"
        assert rootless("stop", "bundle").returncode == 0
        assert run.wait(timeout=30) == 3
    assert rootless.list() == []


def test_a_container_without_a_pid_namespace_ends_as_a_whole(rootless, user):
    config = base_config("sh", "-c", "trap '' TERM; sleep 1000 & echo >/fifo; while :; do sleep 0.05; done")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    rootless("run", "-d", make_bundle(user, config), check=True)
    assert rootless("stop", "-t", "0", "bundle").returncode == 0
    assert rootless("ps", "--format", "json", "bundle").stdout == "[]\n"


def test_expressions_are_no_names(detached, rootless):
    detached("sleep 1000", end=False)
    assert rootless("stop", "bun.*").returncode == 1
    assert rootless("stop", ".*").returncode == 1
    assert rootless.status("bundle") == "running"
