"""How long the verbs take, and how much memory they hold, compared with runc and crun: figures for people.

The figures are in the summary of the run, and fail no test. ROOTLESS_BENCH_ROUNDS is the number of measurements for
each; docs/speed.md has the figures of a longer run.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from tests.lib.accounts import CHECKOUT
from tests.lib.boxes import config_with_maps
from tests.lib.bundles import make_bundle
from tests.lib.cgroup2 import cgroup2
from tests.lib.containers import Reader, resident, until
from tests.lib.figures import ROUNDS
from tests.lib.tracing import looked_at, opened
from tests.lib.waiting import until_attended
from tests.lib.worlds import delegated, plain, podmans_config

__all__ = ["cgroup2", "delegated", "plain"]  # the fixtures

MANY = 100
AT_ONCE = int(os.environ.get("ROOTLESS_BENCH_AT_ONCE", "50"))
"""Containers; crun gets 200 at most, and the figures are for each container."""
EACH = """
most=$1 number=0
shift
while [ $number -lt $most ]; do
    number=$((number + 1))
    "$@" "$(printf %012xdeadbeef $number)" &
done
wait
"""
"""Runs a command for many containers at once, with identifiers as engines have them."""


SETTLED = 4
"""Seconds."""
LAUNCHES = """
import json, os, sys, time
from resource import RUSAGE_CHILDREN, getrusage
sys.path.insert(0, sys.argv.pop(1))
rounds = int(sys.argv.pop(1))
from rootless.cli.parser import parse
from rootless.container.create import plan_for
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import HANDLERS, Run
from rootless.plan import ops
from rootless.plan.plan import Plan
def spent():
    usage = getrusage(RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000, time.perf_counter() * 1000
_, whole, _ = plan_for(parse(sys.argv[1:], lambda options: None))
plan = Plan([op for op in whole.ops if op.kind.by != ops.LAUNCHER or op.kind in HANDLERS])
figures = []
for _ in range(rounds):
    before = spent()
    run = Run(plan, Descriptors())
    run.until()
    os.waitpid(run.pid, 0)
    run.close()
    figures.append([after - then for after, then in zip(spent(), before)])
json.dump(figures, sys.stdout)
"""
"""Plans a container once and launches it repeatedly; prints the CPU time of its processes, and the wall time."""


@pytest.fixture
def compare(user, rootless_command, need, medians, figure):
    """Return a function that measures the steps of all runtimes, interleaved, and records their figures.

    It takes a function that returns the steps of one runtime, given its command line and its name, and a World. It
    returns by step and by runtime the medians of CPU and wall time.
    """

    # files that have just been installed are in no cached Plan
    until(lambda: time.time() - Path(f"{rootless_command}.py").stat().st_ctime > SETTLED, "the command is installed")

    def measure(steps_of, world):
        programs = {"rootless": rootless_command} | {peer: need(peer) for peer in world.peers}
        steps = [
            step | ({"name": f"{name}: {step['name']}"} if "name" in step else {})
            for name, program in programs.items()
            for step in steps_of([program, "--root", str(user.tmp / name), *world.flags(name)], name)
        ]
        found = medians(steps, world.prefix, **world.options)
        names = dict.fromkeys(name.partition(": ")[2] for name in found)
        table = {each: {runtime: found[f"{runtime}: {each}"] for runtime in programs} for each in names}
        for each, figures in table.items():
            figure(each, figures)
        return table

    return measure


def a_config(user, *args):
    """Return a config.json that runc too can run without root."""
    return config_with_maps(user, *args)


def runs_of(bundle, what):
    """Return a function that gives compare() one step: a whole `run`."""
    return lambda command, name: [
        {"name": what, "argv": [*command, "run", "--no-new-keyring", "--bundle", str(bundle), name]}
    ]


@pytest.mark.parametrize(
    ("configure", "what"),
    [(a_config, "a minimal config"), (podmans_config, "podman's config")],
    ids=["minimal", "podman's"],
)
def test_duration_of_run_true(user, compare, plain, configure, what):
    """The same command again and again: from the third time on it follows a cached Plan."""
    assert_is_quicker(compare(runs_of(make_bundle(user, configure(user, "true")), f"`run true`, {what}"), plain))


def test_duration_of_run_true_in_a_delegated_cgroup(user, compare, delegated):
    config = a_config(user, "true")
    config["linux"]["cgroupsPath"] = f"{delegated.cgroup}/box"
    assert_is_quicker(compare(runs_of(make_bundle(user, config), "`run true`, in a delegated cgroup"), delegated))


def assert_is_quicker(table):
    for step, figures in table.items():
        for place in range(2 if "crun" in figures else 0):
            assert figures["rootless"][place] < figures["crun"][place], step


def test_duration_of_run_true_that_is_planned(user, rootless_command, medians, note):
    bundle = make_bundle(user, a_config(user, "true"))
    command = [f"{rootless_command}.py", "--root", str(user.tmp / "rootless")]
    found = medians(runs_of(bundle, "run")(command, "c"))["run"]
    note(f"`run true`, a minimal config, without a cached plan: {found[0]:.1f} ms of CPU, {found[1]:.1f} wall")


def test_duration_of_the_verbs_from_create_to_delete(user, compare, plain):
    bundle = str(make_bundle(user, podmans_config(user, "sleep", "600")))

    def steps_of(command, name):
        pid_file = str(user.tmp / f"{name}.pid")
        create = ["create", "--no-new-keyring", "--bundle", bundle, "--pid-file", pid_file, name]
        execute = [*command, "exec", name, "true"]
        return [
            {"name": "`create`, podman's config", "argv": [*command, *create]},
            {"name": "`state`", "argv": [*command, "state", name]},
            {"name": "`start`", "argv": [*command, "start", name]},
            {"await_program": pid_file},
            {"name": "`exec true` for the first time", "argv": execute},
            {"name": "`exec true` for the second time", "argv": execute},
            {"name": "`exec true` for the third time", "argv": execute},
            {"name": "`list -q`", "argv": [*command, "list", "-q"]},
            {"name": "`list --format json`", "argv": [*command, "list", "--format", "json"]},
            {"name": "`kill`", "argv": [*command, "kill", name, "KILL"]},
            {"await_end": pid_file},
            {"name": "`delete`", "argv": [*command, "delete", name]},
            {"name": "`state` of an unknown id", "argv": [*command, "state", name], "status": 1},
        ]

    table = compare(steps_of, plain)
    for verb in ("`state`", "`start`", "`list -q`", "`kill`", "`delete`"):
        for place in range(2 if "crun" in table[verb] else 0):
            assert table[verb]["rootless"][place] <= 0.5 * table[verb]["crun"][place], (verb, table[verb])
    execute = table["`exec true` for the third time"]
    for place in range(2 if "crun" in execute else 0):
        assert execute["rootless"][place] <= 0.9 * execute["crun"][place], execute


def test_duration_of_many_containers_at_once(user, rootless_command, medians, note, plain):
    bundle = str(make_bundle(user, podmans_config(user, "sleep", "600")))
    programs = {"rootless": rootless_command} | {peer: shutil.which(peer) for peer in plain.peers if peer == "crun"}
    steps, numbers = [], {}
    for name, program in programs.items():
        command = [program, "--root", str(user.tmp / name), *plain.flags(name)]
        numbers[name] = min(AT_ONCE, 200) if name == "crun" else AT_ONCE
        each = ["/bin/sh", "-c", EACH, "each", str(numbers[name]), *command]
        steps.append({"name": name, "argv": [*each, "create", "--no-new-keyring", "--bundle", bundle]})
        steps.append({"argv": [*each, "delete", "--force"]})
    found = medians(steps, plain.prefix, **plain.options)
    for name, (cpu, wall) in found.items():
        number = numbers[name]
        note(f"`create` of {number} at once by {name}: {cpu / number:.1f} ms of CPU for each, {wall / number:.1f} wall")


def test_duration_of_list_per_container(user, rootless_command, medians, note):
    bundle = str(make_bundle(user, a_config(user, "sleep", "600")))
    command = [rootless_command, "--root", str(user.tmp / "rootless")]
    listing = [*command, "list", "--quiet"]
    create = [*command, "create", "--no-new-keyring", "--bundle", bundle]
    nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    user.run([*create, "c"], **nothing, check=True)
    few = medians([{"name": "list", "argv": listing}])["list"][0]
    for number in range(MANY):
        user.run([*create, f"c{number}"], **nothing, check=True)
    try:
        many = medians([{"name": "list", "argv": listing}])["list"][0]
    finally:
        user.run([*command, "delete", "--force", "--regex", ".*"], check=True)
    note(f"`list`: {(many - few) / MANY:.3f} ms of CPU for each further container")


def test_duration_of_python_and_of_the_kernels_part_of_run(user, rootless_command, medians, note):
    """The interpreter without code of rootless, and the kernel's part, measured in a Python that has already planned.

    A `run` takes at least that long, whatever the modules of rootless do.
    """
    python = Path(f"{rootless_command}.py").read_text().splitlines()[0].removeprefix("#!").split()
    bundle = make_bundle(user, a_config(user, "true"))
    alone = medians([{"name": "Python", "argv": [*python, "-c", "pass"]}])["Python"]
    words = [*python, "-c", LAUNCHES, CHECKOUT, ROUNDS, "run", "--no-new-keyring", "--bundle", bundle, "c"]
    launched = json.loads(user.run(map(str, words), check=True).stdout)
    kernel = [statistics.median(figures) for figures in zip(*launched, strict=True)]
    for what, (cpu, wall) in (
        (f"`{Path(python[0]).name} {python[1]} -c pass`", alone),
        ("the kernel, newuidmap, newgidmap, the executor and `true`", kernel),
    ):
        note(f"{what}: {cpu:.1f} ms of CPU, {wall:.1f} wall")


def test_memory_of_a_waiting_run_and_of_a_created_container(user, rootless_command, need, plain, note):
    held = {}
    for name in ("rootless", *plain.peers):
        program = rootless_command if name == "rootless" else need(name)
        command = [*plain.prefix, program, "--root", user.tmp / name, *plain.flags(name)]
        bundle = make_bundle(user, a_config(user, "sh", "-c", "echo up; exec cat"), name=f"{name}-bundle")
        words = ["run", "--no-new-keyring", "--bundle", bundle, name]
        with user.popen([*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **plain.options) as running:
            assert Reader(running.stdout).line() == "up"
            if name == "rootless":
                until_attended(running.pid)
            waiting = resident(running.pid)
            running.stdin.close()
            assert running.wait() == 0
        pid_file = user.tmp / f"{name}.pid"
        words = ["create", "--no-new-keyring", "--bundle", bundle, "--pid-file", pid_file, name]
        nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        user.run([*command, *words], check=True, **nothing, **plain.options)
        held[name] = waiting, resident(int(pid_file.read_text()))
        user.run([*command, "delete", "--force", name], check=True, **plain.options)
    for place, what in enumerate(("a waiting foreground `run`", "a created container")):
        told = ", ".join(f"{name} {figures[place] / 1024:.1f}" for name, figures in held.items())
        note(f"MB of memory that {what} holds: {told}")


def test_number_of_files_that_run_opens(user, rootless_command, need, note):
    bundle = make_bundle(user, a_config(user, "true"))
    calls = looked_at(user, need, rootless_command, "--root", user.tmp / "state", "run", "--bundle", bundle, "c")
    python = Path(f"{rootless_command}.py").read_text().splitlines()[0].removeprefix("#!").split()
    alone = looked_at(user, need, *python, "-c", "pass")
    for what, whole, pythons in (
        ("files that `run` opens", opened(calls), opened(alone)),
        ("calls of `run` with a path", calls, alone),
    ):
        note(f"{what}: {len(whole)}, {len(pythons)} of them by Python's own start")
