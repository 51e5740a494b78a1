"""How long the verbs take, side by side with runc and crun: figures for people, in the summary of the run.

None fails a test. ROOTLESS_BENCH_ROUNDS says how many times each is measured; docs/speed.md has those of 40 rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.user.boxes import config_with_maps
from tests.user.bundles import make_bundle
from tests.user.cgroup2 import cgroup2

__all__ = ["cgroup2"]

ROUNDS = int(os.environ.get("ROOTLESS_BENCH_ROUNDS", "7"))
MEASURE = Path(__file__).with_name("measure.py")
PODMAN = Path(__file__).parent.parent / "unit/data/podman_seccomp.json"
MANY = 100


@pytest.fixture
def medians(user):
    """Return a function that measures steps and returns, by their names, medians of CPU and wall milliseconds."""

    def measure(steps, prefix=(), **options):
        task = json.dumps({"rounds": ROUNDS, "steps": steps})
        words = [*prefix, "/usr/bin/python3", "-I", MEASURE]
        done = user.run(words, input=task, timeout=500, check=True, **options)
        return {
            name: tuple(map(statistics.median, zip(*figures, strict=True)))
            for name, figures in json.loads(done.stdout).items()
        }

    return measure


@pytest.fixture
def compare(user, rootless_command, need, medians, figure):
    """Return a function that measures the steps of two runtimes, interleaved, and records what each takes.

    It takes a function that returns the steps of one runtime, given its command line and its name, then the other
    runtime, and what medians() takes.
    """

    def measure(steps_of, peer="runc", **options):
        programs = {"rootless": rootless_command, peer: need(peer)}
        steps = [
            step | ({"name": f"{name}: {step['name']}"} if "name" in step else {})
            for name, program in programs.items()
            for step in steps_of([program, "--root", str(user.tmp / name)], name)
        ]
        found = medians(steps, **options)
        for each in dict.fromkeys(name.partition(": ")[2] for name in found):
            figure(each, found[f"rootless: {each}"], peer, found[f"{peer}: {each}"])

    return measure


def a_config(user, *args, seccomp=False):
    """Return a config.json that runc too can run without root."""
    config = config_with_maps(user, *args)
    if seccomp:
        config["linux"]["seccomp"] = json.loads(PODMAN.read_text())
    return config


def runs_of(bundle, what, *flags):
    """Return the function that gives compare() one step: a whole `run`."""
    return lambda command, name: [
        {"name": what, "argv": [*command, *flags, "run", "--no-new-keyring", "--bundle", str(bundle), name]}
    ]


@pytest.mark.parametrize("seccomp", [False, True], ids=["minimal", "podman's seccomp profile"])
def test_run_true(user, compare, seccomp):
    bundle = make_bundle(user, a_config(user, "true", seccomp=seccomp))
    kind = "podman's seccomp profile" if seccomp else "a minimal config"
    compare(runs_of(bundle, f"run true, {kind}"))


def test_run_true_in_a_cgroup_of_ones_own(user, compare, cgroup2):
    config = a_config(user, "true")
    config["linux"]["cgroupsPath"] = f"{cgroup2.path}/box"
    bundle = make_bundle(user, config)
    for peer in ("crun", "runc"):
        compare(runs_of(bundle, "run true, in a delegated cgroup"), peer, prefix=cgroup2.prefix(), **cgroup2.options)


def test_the_verbs_of_a_life(user, compare):
    bundle = str(make_bundle(user, a_config(user, "sleep", "600", seccomp=True)))

    def steps_of(command, name):
        pid_file = str(user.tmp / f"{name}.pid")
        create = ["create", "--no-new-keyring", "--bundle", bundle, "--pid-file", pid_file, name]
        return [
            {"name": "create", "argv": [*command, *create]},
            {"name": "state", "argv": [*command, "state", name]},
            {"name": "start", "argv": [*command, "start", name]},
            {"name": "exec true", "argv": [*command, "exec", name, "true"]},
            {"name": "list", "argv": [*command, "list", "--format", "json"]},
            {"name": "kill", "argv": [*command, "kill", name, "KILL"]},
            {"await_end": pid_file},
            {"name": "delete", "argv": [*command, "delete", name]},
            {"name": "state of an unknown id", "argv": [*command, "state", name], "status": 1},
        ]

    compare(steps_of)


def test_list_of_many(user, rootless_command, medians, note):
    bundle = str(make_bundle(user, a_config(user, "sleep", "600")))
    command = [rootless_command, "--root", str(user.tmp / "rootless")]
    listing = [*command, "list", "--quiet"]
    few = medians([{"name": "list", "argv": listing}])["list"][0]
    create = [*command, "create", "--no-new-keyring", "--bundle", bundle]
    for number in range(MANY):
        user.run([*create, f"c{number}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    try:
        many = medians([{"name": "list", "argv": listing}])["list"][0]
    finally:
        user.run([*command, "delete", "--force", "--regex", ".*"], check=True)
    note(f"list: {(many - few) / MANY:.3f} ms of CPU for each further container")
