"""Many containers of one user at the same time: the last ones take as long as the first ones, and `list` of each.

ROOTLESS_BENCH_MANY is their number. Commands alternate with crun's for the first 100 and the last 100.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import make_bundle, own
from tests.lib.cgroup2 import cgroup2
from tests.lib.containers import executors, until
from tests.lib.worlds import delegated, plain, podmans_config

__all__ = ["cgroup2", "delegated", "plain"]  # the fixtures

MANY = int(os.environ.get("ROOTLESS_BENCH_MANY", "120"))
THEIRS = min(MANY // 2 * 2, 200)
"""Containers of crun: as many keys as the kernel allows a user."""
ENDS = 50
"""So many of the first and of the last containers are compared."""
LISTS = {"`list -q`": ["list", "-q"], "`list --format json`": ["list", "--format", "json"]}
BUSY = 3
"""Times a figure, on a machine that does other things at the same time."""
MOST_MEMORY = 600
"""KiB for each created container."""


@pytest.fixture(params=["plain", "delegated"])
def world(request):
    """Without and with a delegated cgroup."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def commands(user, rootless_command, world):
    """Return the command lines by their runtimes; crun is one of them where it can run."""
    programs = {"rootless": rootless_command} | {peer: shutil.which(peer) for peer in world.peers if peer == "crun"}
    return {
        name: [program, "--root", str(user.tmp / name), *world.flags(name)]
        for name, program in programs.items()
        if program
    }


def _containers(user, world, runtimes):
    """Make what an engine makes for each container; return for each its number, runtime, identifier and bundle."""
    base = podmans_config(user, "sleep", "600")
    base["root"]["path"] = str(make_bundle(user) / "rootfs")
    found = []
    for runtime in runtimes:
        for number in range(MANY):
            if runtime != "rootless" and THEIRS // 2 <= number < MANY - THEIRS // 2:
                continue
            name = f"{'a' if runtime == 'rootless' else 'c'}{number:015x}deadbeef"
            config = base | {"hostname": name[:12]}
            if world.cgroup:
                config["linux"] = base["linux"] | {"cgroupsPath": f"{world.cgroup}/libpod-{name}"}
            bundle = user.tmp / "bundles" / name
            bundle.mkdir(parents=True)
            (bundle / "config.json").write_text(json.dumps(config))
            found.append((number, runtime, name, str(bundle)))
    own(user, user.tmp / "bundles")
    return sorted(found)


def _step(what, number, argv):
    """Return a step of the first or of the last ones, which has a name, or of those between, which has none."""
    which = "first" if number < ENDS else "last" if number >= MANY - ENDS else ""
    return {"argv": argv} | ({"name": f"{what}, {which}"} if which else {})


def _growth(found, what) -> float:
    """Return how many times the CPU time of the first ones the last ones take."""
    return found[f"{what}, last"][0] / found[f"{what}, first"][0]


def _told(found, what) -> str:
    ends = [found[f"{what}, {which}"] for which in ("first", "last")]
    told = [f"{last:.2f} / {first:.2f} = {last / first:.2f}" for first, last in zip(*ends, strict=True)]
    return f"{what}, ms for each of the last {ENDS} of {MANY} and of the first: {told[0]} CPU, {told[1]} wall"


def _held(pid) -> int:
    """Return the KiB that an executor holds: its proportional share, and what it has not mapped of its own program."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(size) for name, size in re.findall(r"^(Pss|Pss_Shmem): +(\d+) kB", rollup, re.MULTILINE)}
    return found["Pss"] + Path(f"/proc/{pid}/exe").stat().st_blocks // 2 - found["Pss_Shmem"]


def _list_each(user, world, commands, medians):
    """Return the CPU time of `list` for each container, by the form of `list` and the runtime."""
    steps = []
    for runtime, command in commands.items():
        empty = user.tmp / f"{runtime}-empty"
        empty.mkdir(mode=0o700)
        own(user, empty)
        steps.append({"name": runtime, "argv": [*command, "--root", str(empty), "list", "-q"]})
        steps += [{"name": f"{what} by {runtime}", "argv": [*command, *words]} for what, words in LISTS.items()]
    found = medians(steps, world.prefix, **world.options)
    return {
        (what, runtime): (found[f"{what} by {runtime}"][0] - found[runtime][0]) / number
        for what, (runtime, number) in itertools.product(LISTS, (("rootless", MANY), ("crun", THEIRS)))
        if runtime in commands
    }


def test_last_of_many_containers_take_as_long_as_the_first(user, world, commands, medians, note):
    steps = {"create": [], "start": []}
    for number, runtime, name, bundle in _containers(user, world, commands):
        for verb, words in (("create", ("--no-new-keyring", "--bundle", bundle)), ("start", ())):
            steps[verb].append(_step(f"`{verb}` by {runtime}", number, [*commands[runtime], verb, *words, name]))
    try:
        found = medians(steps["create"], world.prefix, rounds=1, **world.options)
        waiting = executors(user)
        held = sum(map(_held, waiting)) / MANY
        found |= medians(steps["start"], world.prefix, rounds=1, **world.options)
        until(lambda: not executors(user), "every program is executed")
        lists = _list_each(user, world, commands, medians)
    finally:
        for command in commands.values():
            user.run([*world.prefix, *command, "delete", "--force", "--regex", ".*"], timeout=300, **world.options)
    where = "in delegated cgroups" if world.cgroup else "without cgroups"
    for what in sorted({name.rpartition(",")[0] for name in found}):
        note(f"{where}: {_told(found, what)}")
    for (what, runtime), cpu in lists.items():
        note(f"{where}: {what} by {runtime}, ms of CPU for each of many containers: {cpu:.3f}")
    note(f"{where}: KiB that each of {MANY} created containers holds: {held:.0f}")
    assert len(waiting) == MANY
    assert held <= MOST_MEMORY
    for verb in steps:
        theirs = _growth(found, f"`{verb}` by crun") if "crun" in commands else 1
        assert _growth(found, f"`{verb}` by rootless") <= BUSY * max(1, theirs), verb
    for what in LISTS:
        assert lists[what, "rootless"] <= BUSY * lists.get((what, "crun"), 1)


def test_last_of_many_runs_take_as_long_as_the_first(user, rootless_command, medians, note):
    bundle = make_bundle(user, config_with_maps(user, "true"))
    root = user.tmp / "rootless"
    command = [rootless_command, "--root", str(root), "run", "--no-new-keyring", "--bundle", str(bundle), "c"]
    found = medians([_step("`run`", number, command) for number in range(MANY)], rounds=1)
    note(_told(found, "`run`"))
    assert list(root.iterdir()) == []
    assert _growth(found, "`run`") <= BUSY
