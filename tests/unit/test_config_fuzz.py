"""Whatever config.json is, it becomes a Plan that the executor reads, or one clear line; and nothing is touched.

In one process, through the functions that the command goes through: parse, check, compile_plan, encode. Real
configurations are changed at random; what the tests of bundle/check.py call complete has each of its values replaced by
each of a list of others.
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
from rootless.plan.compile import compile_plan
from rootless.plan.encode import encode
from rootless.plan.op_text import details, sentence
from rootless.plan.request import Request
from tests.unit.test_check import COMPLETE
from tests.unit.test_executor_decode import QUICK
from tests.unit.test_plan_golden import CALLERS, CONFIGURATIONS

BASES = CONFIGURATIONS | {"complete": COMPLETE}
FACTS = list(CALLERS.values())
TEXTS = {name: json.dumps(config) for name, config in BASES.items()}
NAMES = sorted(TEXTS, key=lambda name: len(TEXTS[name]))
"""The smallest first, which is what hypothesis shrinks to."""

INTEGERS = (
    *(0, 1, -1, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(-(2**31) - 1, -(2**63), -(2**63) - 1, 10**4000),
)
FLOATS = (-0.0, 1.5, 1e300)
STRINGS = (
    *("", " ", "a", "0", "-1", "\0", "a\0b", "\ud800", "\U0010ffff", "\u2028", "a\nb", "\x1b[2J"),
    *("%s%n", "{0}", "'\"\\", "/", "..", "../..", "/proc/self/fd/3", "/" * 5000, "ü" * 3000, "a=b", "=", ":", ","),
)
WRONG = (
    *(None, True, *INTEGERS, *FLOATS, *STRINGS),
    *([], {}, [None], [{}], [0], [""], ["\0"], {"": ""}, {"a": {"a": []}}),
)
KEYS = st.one_of(
    st.sampled_from(["path", "type", "uid", "options", "names", "", "a.b", "a]", '"', "\0", "\ud800", "x" * 100, "ü"]),
    st.text(max_size=5),
)
VALUES = st.one_of(
    st.sampled_from(WRONG),
    st.integers(),
    st.text(max_size=20),
    st.lists(st.sampled_from(WRONG), max_size=3),
    st.dictionaries(KEYS, st.sampled_from(WRONG), max_size=3),
).map(copy.deepcopy)
"""Copies, since a later change may be made in one: the same list in itself is no JSON."""

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
    """Keep what changes something outside of this process, while somebody watches."""
    if watching and (
        event in WRITES
        or event in STARTS
        or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    ):
        touched.append((event, arguments))


@functools.cache
def watch():
    """Install the hook, which cannot be taken away again, once somebody wants it."""
    sys.addaudithook(note_what_is_touched)


# --- What an error says -----------------------------------------------------------------------------------------------


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
    """An error is one line of moderate length that says what to do, and its place is in the document."""
    line = str(error)
    assert line.isprintable()
    assert line.encode()
    assert error.code.startswith("RL-")
    assert error.code != "RL-INTERNAL"
    assert error.cause
    assert found_in(config, error.where), line


# --- The way of a configuration ---------------------------------------------------------------------------------------


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
    assert parse(render(plan.after_start()).encode(), "state.json")
    return plan


def judged(text, facts, decoder):
    """Hold a config.json against all of it; return whether it became a Plan."""
    plan = plan_of(text, facts)
    if plan is None:
        return False
    assert decoder(encode(plan.ops)).startswith("accepted")
    return True


def paths_of(value, path=()):
    """Return the path of everything in a document, itself first."""
    paths = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        paths += paths_of(item, (*path, key))
    return paths


PATHS = {name: paths_of(config) for name, config in BASES.items()}


def value_at(config, path):
    """Return what is at a path, which the parent of its last step must have.

    Raises:
        LookupError: it is not there.
    """
    for step in path:
        if not isinstance(config, (dict, list)):
            raise LookupError(path)  # noqa: TRY004 - that is what it means to a caller
        config = config[step]
    return config


def write(config):
    """Return the text of a document; json.dumps has no limit for the digits of a number, Python has."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(config).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def change(draw, config, path):
    """Change a document at a path: replace what is there, remove it, or put something beside it."""
    if not path:
        config[draw(KEYS)] = draw(VALUES)
        return
    parent, last = value_at(config, path[:-1]), path[-1]
    match draw(st.integers(0, 9)):
        case 0 | 1:
            del parent[last]
        case 2 if isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        case 2 | 3 if isinstance(parent[last], dict):
            parent[last][draw(KEYS)] = draw(VALUES)
        case 3 if isinstance(parent[last], list):
            parent[last].append(draw(VALUES))
        case _:
            parent[last] = draw(VALUES)


@st.composite
def changed(draw, bases=tuple(NAMES), within=()):
    """A document: a real one with up to four changes, below the path `within`."""
    name = draw(st.sampled_from(bases))
    config = json.loads(TEXTS[name])
    candidates = [path for path in PATHS[name] if path[: len(within)] == within]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        path = draw(st.sampled_from(candidates))
        try:
            value_at(config, path)
        except (LookupError, TypeError):  # an earlier change took it away
            continue
        change(draw, config, path)
    return write(config)


# --- Tests ------------------------------------------------------------------------------------------------------------

WITHOUT_PROFILES = tuple(name for name in NAMES if len(TEXTS[name]) < 20000)
WITH_PROFILES = tuple(name for name in NAMES if "seccomp" in BASES[name].get("linux", {}))


def test_there_is_something_to_change():
    assert len(WITHOUT_PROFILES) > 5
    assert len(WITH_PROFILES) > 5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_changed_is_mostly_valid(decoder, name):
    assert judged(TEXTS[name].encode(), FACTS[0], decoder) or name in ("complete", "docker", "slurm", "podman-pod")


@given(text=changed(bases=WITHOUT_PROFILES), facts=st.sampled_from(FACTS))
@settings(QUICK, max_examples=1500)
def test_a_changed_configuration(decoder, text, facts):
    judged(text, facts, decoder)


@given(text=changed(bases=WITH_PROFILES, within=("linux", "seccomp")), facts=st.sampled_from(FACTS))
@settings(QUICK, max_examples=150)
def test_a_changed_seccomp_profile(text, facts):
    plan = plan_of(text, facts)
    if plan and plan.filter:
        try:
            assert len(compiled(plan.filter, "")) % 8 == 0
        except RootlessError as error:
            assert_clear(error, json.loads(text))


def section_of(path):
    """Return the path of the smallest part of a complete configuration that can stand by itself."""
    return path[: 2 if path[0] in ("linux", "process", "hooks") else 1]


def standing_alone(section):
    """Return a configuration with one section of the complete one, and what is required."""
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


def small(**more):
    """Return the text of a small configuration with more in it, or other values, as JSON text each."""
    base = {key: COMPLETE[key] for key in ("ociVersion", "root")} | {"process": {"args": ["a"], "cwd": "/"}}
    base["linux"] = {"namespaces": [{"type": "mount"}]}  # without it there is a warning
    texts = {key: json.dumps(value) for key, value in base.items()} | more
    return ("{" + ", ".join([f'"{key}": {value}' for key, value in texts.items()]) + "}").encode()


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


MANY = 10_000
HOSTILE = {
    # name: (text, whether it is a configuration all the same)
    "10 MB of annotations": (small(annotations=json.dumps({f"key{i}": "x" * 90 for i in range(100_000)})), True),
    "10 MB in one string": (small(annotations=json.dumps({"key": "x" * 10_000_000})), True),
    "10 MB of blanks": (small() + b" " * 10_000_000, True),
    "10 MB of what nobody knows": (small(unknown="[" + "1," * 5_000_000 + "1]"), True),
    "100,000 groups": (
        small(process=json.dumps({"args": ["a"], "cwd": "/", "user": {"additionalGids": [1] * 100_000}})),
        True,
    ),
    "a million mounts that are numbers": (small(mounts=json.dumps([1] * 1_000_000)), False),
    "10,000 mounts": (small(mounts=json.dumps([{"destination": f"/{i}", "type": "tmpfs"} for i in range(MANY)])), True),
    "100,000 namespaces": (small(linux='{"namespaces": [' + ",".join(['{"type": "pid"}'] * 100_000) + "]}"), False),
    "arrays nested 10,000 deep": (small(unknown=nested(MANY)), False),
    "objects nested 10,000 deep": (small(unknown=nested(MANY, '{"a":', "}").replace(":}", ":1}")), False),
    "resources nested as deep as it goes": (small(linux='{"resources": ' + "%s}"), None),
    "brackets that are never closed": (b"[" * 1_000_000, False),
    "objects that are never closed": (b'{"a":' * 1_000_000, False),
    "keys that come twice": (small(unknown='1, "ociVersion": "1.3.0"'), False),
    "keys that come twice in what nobody knows": (small(unknown='{"a": 1, "a": 1}'), False),
    "NaN": (small(unknown="NaN"), False),
    "Infinity": (small(unknown="[-Infinity]"), False),
    "1e400": (small(unknown="1e400"), False),
    "a number of 100,000 digits": (small(unknown="1" * 100_000), False),
    "a fraction of 100,000 digits": (small(unknown="0." + "1" * 100_000), True),
    "an exponent of 100,000 digits": (small(unknown="1e" + "1" * 100_000), False),
    "-0 for an id": (small(process='{"args": ["a"], "cwd": "/", "user": {"uid": -0, "gid": 0}}'), True),
    "1.5 for an id": (small(process='{"args": ["a"], "cwd": "/", "user": {"uid": 1.5, "gid": 0}}'), False),
    "1.0 for an id": (small(process='{"args": ["a"], "cwd": "/", "user": {"uid": 1.0, "gid": 0}}'), False),
    "1e3 for an id": (small(process='{"args": ["a"], "cwd": "/", "user": {"uid": 1e3, "gid": 0}}'), False),
    "half a character in a value": (small(hostname='"\\ud800"'), False),
    "half a character in a key": (small(annotations='{"\\udc00": ""}'), False),
    "half a character as it is": (small(hostname='"a"').replace(b'"a"}', b'"\xed\xa0\x80"}'), False),
    "a NUL in a value": (small(hostname='"a\\u0000b"'), False),
    "a NUL in a key": (small(annotations='{"a\\u0000b": ""}'), False),
    "a NUL as it is": (small(hostname='"a\0b"'), False),
    "no UTF-8": (small().replace(b"rootfs", b"root\xff\xfes"), False),
    "UTF-16": (small().decode().encode("utf-16"), False),
    "a byte order mark": (b"\xef\xbb\xbf" + small(), False),
    "text after the end": (small() + b"x", False),
    "a second configuration after the end": (small() * 2, False),
    "a NUL after the end": (small() + b"\0", False),
    "nothing": (b"", False),
    "null": (b"null", False),
    "a string": (b'"config"', False),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_somebody_wrote_to_do_harm(decoder, name):
    text, valid = HOSTILE[name]
    if valid is None:
        text = text.replace(b"%s", nested(deepest(), '{"a":', "}").replace(":}", ":1}").encode())
        valid = True
    assert judged(text, FACTS[0], decoder) == valid


def deepest():
    """Return how deep a document may be nested for this interpreter, less what the rest needs."""
    depth = 100
    while True:
        try:
            parse(nested(depth * 2, '{"a":', "}").replace(":}", ":1}").encode(), "config.json")
        except RootlessError:
            return depth
        depth *= 2
