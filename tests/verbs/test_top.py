"""`top`: the containers and their resource usage, once or as an updated table."""

from __future__ import annotations

import json

from tests.lib.cgroup2 import cgroup2
from tests.lib.cgroup_containers import bundle_for, directory_of, procs, runs
from tests.lib.containers import Rootless, until
from tests.lib.terminals import Typewriter

__all__ = ["cgroup2", "runs"]


def test_top_shows_every_container(runs, user):
    runs.create("busy", bundle_for(user, "while :; do :; done", name="busy"))
    runs.create("idle", bundle_for(user, "sleep 1000 & sleep 1000", name="idle"))
    runs.start("busy")
    runs.start("idle")
    until(lambda: len(procs(directory_of(runs, "idle"))) == 2, "it runs")
    assert runs("kill", "idle", "KILL").returncode == 0
    until(lambda: runs.status("idle") == "stopped", "it has stopped")
    busy, idle = json.loads(runs("top", "--json", check=True).stdout)
    assert (busy["id"], busy["status"], busy["processes"]) == ("busy", "running", 1)
    assert busy["cpuPercent"] > 1
    assert busy["memory"] > 1000
    assert (idle["id"], idle["status"], idle["processes"], idle["memory"]) == ("idle", "stopped", None, 0)
    head, *rows = runs("top", "--once", "busy", check=True).stdout.splitlines()
    assert head.split()[:3] == ["ID", "STATUS", "PIDS"]
    assert [row.split()[:3] for row in rows] == [["busy", "running", "1"]]


def test_top_updates_its_table_until_interrupted(user, rootless_command):
    with Rootless(user, rootless_command) as runs:
        runs.create("busy", bundle_for(user, "while :; do :; done"))
        runs.start("busy")
        with Typewriter(user, runs.argv("top", "--interval", "100ms"), size=(24, 120)) as terminal:
            for word in (b"STATUS", b"busy"):
                terminal.until(word)
            # drawn again, with a new container, and without it when it has ended
            runs.create("later", bundle_for(user, name="later"))
            terminal.until(b"later")
            assert runs("delete", "--force", "later").returncode == 0
            assert b"%" in terminal.until(b"busy")
            terminal.type(b"\x03")
            terminal.ends(0)


def test_top_without_cgroups(user, rootless_command):
    with Rootless(user, rootless_command) as runs:
        runs.create("c1", bundle_for(user, "while :; do :; done"))
        runs.start("c1")
        (found,) = json.loads(runs("top", "--json", "--interval", "100ms", check=True).stdout)
        assert found["processes"] == 1
        assert found["cpuPercent"] > 1
        assert found["memory"] > 1000
        assert runs("top", "--interval", "x").returncode == 1
