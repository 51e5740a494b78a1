"""Any config.json becomes a Plan that the executor can read, or an error of one clear line, without side effects.

The tests call the functions of the command in one process: parse, check, compile_plan, encode. They change real
configurations at random, and replace each value of the complete configuration by each of a list of others.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.bundle.check import check
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.jsontext import parse, render
from rootless.launch.seccomp_compile import compiled
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.compile import compile_plan
from rootless.plan.encode import encode
from rootless.plan.op_text import details, sentence
from rootless.plan.request import Request
from tests.lib.configurations import CALLERS, COMPLETE, QUICK
from tests.lib.hostile_configs import (
    BASES,
    HOSTILE,
    NAMES,
    PATHS,
    TEXTS,
    WITHOUT_PROFILES,
    WRONG,
    changed,
    nested,
    value_at,
    write,
)
from tests.unit.planning import executor_ops

FACTS = list(CALLERS.values())


WRITES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.truncate",
)
STARTS = ("os.posix_spawn", "os.fork", "os.exec", "os.system", "subprocess.Popen", "socket.connect", "os.kill")
touched: list[tuple] = []
watching = False


def note_what_is_touched(event, arguments):
    """Record audit events with effects outside this process, while watch() is active."""
    if watching and (
        event in WRITES
        or event in STARTS
        or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    ):
        touched.append((event, arguments))


@functools.cache
def watch():
    """Install the audit hook at first use: it cannot be removed again."""
    sys.addaudithook(note_what_is_touched)


# --- Errors -----------------------------------------------------------------------------------------------------------


def steps_of(where):
    """Return the keys and indexes of a place such as ``linux.sysctl["a b"][3].name``."""
    steps = []
    rest = where
    while rest:
        if rest.startswith('["'):
            key, length = json.JSONDecoder().raw_decode(rest[1:])
            steps.append(key)
            assert rest[length + 1] == "]", where
            rest = rest[length + 2 :]
        elif rest.startswith("["):
            number, _, rest = rest[1:].partition("]")
            steps.append(int(number))
        else:
            rest = rest.removeprefix(".") if steps else rest
            end = min((at for at in (rest.find("."), rest.find("[")) if at >= 0), default=len(rest))
            assert rest[:end].isidentifier(), where
            steps.append(rest[:end])
            rest = rest[end:]
    return steps


def found_in(config, where):
    """Whether a place exists, or is a property that is missing in an object that exists."""
    value = config
    steps = steps_of(where)
    for number, step in enumerate(steps):
        if isinstance(value, dict) and isinstance(step, str):
            if step.endswith("…"):
                step = next((key for key in value if key.startswith(step[:-1])), step)  # noqa: PLW2901
            if step not in value:
                return number == len(steps) - 1
        elif not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            return False
        value = value[step]
    return True


def assert_clear(error, config):
    """Check that an error is one line of moderate length with a fix, and that its place is in the document."""
    line = str(error)
    assert line.isprintable()
    assert line.encode()
    assert error.code.startswith("RL-")
    assert error.code != "RL-INTERNAL"
    assert error.cause
    assert found_in(config, error.where), line


# --- Planning ---------------------------------------------------------------------------------------------------------


def plan_of(text, facts):
    """Return the Plan of a config.json, or None after a clear error."""
    global watching  # noqa: PLW0603 - the hook has no other way to know
    watch()
    touched.clear()
    request = Request(Options(container="c1"))
    config = None
    try:
        watching = True
        config = parse(text, "config.json")
        check(config)
        plan = compile_plan(Bundle("/home/user/bundle", config), facts, request)
    except RootlessError as error:
        assert_clear(error, config)
        return None
    finally:
        watching = False
        assert not touched
    for note in plan.notes:
        assert str(note).encode()
    told = [sentence(op) + details(op) for op in plan.ops] + [str(note) for note in plan.notes]
    assert "\n".join(told).encode()
    after = [op.as_data() for op in plan.after(ops.WAIT_START) if op.kind.by == ops.EXECUTOR]
    assert parse(render(after).encode(), "state.json")
    return plan


def judged(text, facts, decoder):
    """Plan a config.json and check the result; return whether it became a Plan."""
    plan = plan_of(text, facts)
    if plan is None:
        return False
    assert decoder(encode(executor_ops(plan))).startswith("accepted")
    return True


# --- Tests ------------------------------------------------------------------------------------------------------------

WITH_PROFILES = tuple(name for name in NAMES if "seccomp" in BASES[name].get("linux", {}))


def test_configurations_have_places_to_change():
    assert len(WITHOUT_PROFILES) > 5
    assert len(WITH_PROFILES) > 5


@pytest.mark.parametrize("name", NAMES)
def test_changed_configurations_are_mostly_valid(decoder, name):
    assert judged(TEXTS[name].encode(), FACTS[0], decoder) or name in ("complete", "docker", "slurm", "podman-pod")


@given(text=changed(bases=WITHOUT_PROFILES), facts=st.sampled_from(FACTS))
@settings(QUICK, max_examples=1500)
def test_a_changed_configuration(decoder, text, facts):
    judged(text, facts, decoder)


@given(text=changed(bases=WITH_PROFILES, within=("linux", "seccomp")), facts=st.sampled_from(FACTS))
@settings(QUICK, max_examples=150)
def test_a_changed_seccomp_profile(text, facts):
    plan = plan_of(text, facts)
    compilation = plan and plan.first(ops.COMPILE_FILTER)
    if compilation:
        try:
            assert len(compiled(compilation.value("filter"), "")) % 8 == 0
        except RootlessError as error:
            assert_clear(error, json.loads(text))


def section_of(path):
    """Return the path of the smallest part of a complete configuration that is valid alone."""
    return path[: 2 if path[0] in ("linux", "process", "hooks") else 1]


def standing_alone(section):
    """Return a configuration with one section of the complete one, and the required properties."""
    config = {key: copy.deepcopy(COMPLETE[key]) for key in ("ociVersion", "root")}
    config["process"] = {key: copy.deepcopy(COMPLETE["process"][key]) for key in ("args", "cwd")}
    if len(section) > 1:
        config.setdefault(section[0], {})
    value_at(config, section[:-1])[section[-1]] = copy.deepcopy(value_at(COMPLETE, section))
    return config


SECTIONS = sorted({section_of(path) for path in PATHS["complete"] if path})


@pytest.mark.parametrize("section", SECTIONS, ids=".".join)
def test_every_value_of_the_specification_with_every_wrong_one(decoder, section):
    for path in PATHS["complete"]:
        if not path or section_of(path) != section:
            continue
        for wrong in WRONG:
            config = standing_alone(section)
            value_at(config, path[:-1])[path[-1]] = wrong
            judged(write(config), FACTS[0], decoder)


@given(data=st.data(), name=st.sampled_from(WITHOUT_PROFILES))
@settings(QUICK, max_examples=500)
def test_changed_bytes(decoder, data, name):
    text = bytearray(TEXTS[name].encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        match data.draw(st.integers(0, 3)):
            case 0:
                del text[place:]
            case 1:
                del text[place : place + data.draw(st.integers(1, 40))]
            case 2:
                text[place:place] = data.draw(st.binary(min_size=1, max_size=4))
            case 3:
                text[place : place + 1] = data.draw(
                    st.sampled_from([b"NaN", b"-", b"1e999", b"{", b"[[", b'"', b"\\u"])
                )
    judged(bytes(text), FACTS[0], decoder)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configuration_is_judged(decoder, name):
    text, valid = HOSTILE[name]
    if valid is None:
        text = text.replace(b"%s", nested(deepest(), '{"a":', "}").replace(":}", ":1}").encode())
        valid = True
    assert judged(text, FACTS[0], decoder) == valid


def deepest():
    """Return the depth to which documents may be nested in this interpreter, minus what the test itself uses."""
    depth = 100
    while True:
        try:
            parse(nested(depth * 2, '{"a":', "}").replace(":}", ":1}").encode(), "config.json")
        except RootlessError:
            return depth
        depth *= 2
