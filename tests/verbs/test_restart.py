"""`rootless restart` runs a container again as it was asked for."""

from __future__ import annotations

import json
import subprocess

from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import Reader, until
from tests.lib.detached import detached

__all__ = ["detached"]


def restart(rootless, *flags, container="bundle"):
    done = rootless("restart", *flags, container)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{container}\n", "")


def test_a_running_container(detached, rootless):
    before = detached("echo begin; sleep 1000", "--timeout", "1000", "--init", end=False)
    until(lambda: rootless("logs", "bundle").stdout == "begin\n", "the first line")
    restart(rootless, "-t", "1")
    assert rootless.status("bundle") == "running"
    assert rootless.pid("bundle") != before
    until(lambda: rootless("logs", "bundle").stdout == "begin\nbegin\n", "both logs")
    asked = json.loads(rootless("inspect", "bundle").stdout)[0]["asked"]
    assert (asked["timeout"], asked["init"], asked["detach"]) == (1000, True, True)
    restart(rootless, "-t", "0")


def test_a_stopped_container(detached, rootless):
    detached("exit 3")
    write_config(detached.bundle, base_config("sh", "-c", "exit 4"))
    restart(rootless)
    assert rootless("wait", "bundle").stdout == "4\n"


def test_a_kept_container_of_the_foreground(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo out; exit 3"))
    assert rootless("run", "--keep", bundle).returncode == 3
    restart(rootless)
    assert rootless("wait", "bundle").stdout == "3\n"
    assert rootless("logs", "bundle").stdout == "out\n"


def test_a_container_in_the_foreground_goes_on_detached(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "trap 'exit 3' TERM; echo begin; while :; do sleep 0.05; done"))
    with rootless.popen("run", bundle, stdout=subprocess.PIPE) as run:
        assert Reader(run.stdout).line() == "begin"
        restart(rootless)
        assert run.wait(timeout=30) == 3
    assert rootless.status("bundle") == "running"


def test_relative_paths_begin_where_run_was_called(rootless, user):
    make_bundle(user, base_config("sleep", "1000"))
    elsewhere = user.tmp / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    assert rootless("run", "-d", "./bundle", cwd=user.tmp).returncode == 0
    done = user.run([rootless.command, "--root", "../state", "restart", "-t", "0", "bundle"], cwd=elsewhere)
    assert (done.returncode, done.stdout) == (0, "bundle\n"), done
    assert rootless.status("bundle") == "running"


def test_a_bundle_that_cannot_run_any_more_leaves_the_container_alone(detached, rootless):
    pid = detached("sleep 1000", end=False)
    (detached.bundle / "config.json").write_text("{")
    done = rootless("restart", "bundle")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert rootless.pid("bundle") == pid


def test_an_engines_container_cannot(rootless, user):
    rootless.create("c1", make_bundle(user))
    done = rootless("restart", "c1")
    assert done.returncode == 1
    assert "it cannot be restarted" in done.stderr
    assert rootless.status("c1") == "created"


def test_names_are_no_expressions(detached, rootless):
    pid = detached("sleep 1000", end=False)
    assert rootless("restart", "bundl.").returncode == 1
    assert rootless("restart", "b*").returncode == 1
    assert rootless.pid("bundle") == pid


def test_a_container_with_a_name_of_its_own_keeps_it(detached, rootless):
    done = rootless("run", "-d", "--name", "own", detached.bundle)
    assert (done.returncode, done.stdout) == (0, "own\n")
    restart(rootless, container="own")
    assert [each["id"] for each in rootless.list()] == ["own"]
