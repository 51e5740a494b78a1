"""Configurations with random changes, and hostile ones."""

from __future__ import annotations

import copy
import json
import sys

from hypothesis import strategies as st

from tests.lib.configurations import COMPLETE, CONFIGURATIONS

BASES = CONFIGURATIONS | {"complete": COMPLETE}


TEXTS = {name: json.dumps(config) for name, config in BASES.items()}


NAMES = sorted(TEXTS, key=lambda name: len(TEXTS[name]))
"""The smallest first, because hypothesis shrinks to it."""


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
"""Copies, because a later change may modify one: a list that contains itself is not JSON."""


def paths_of(value, path=()):
    """Return the paths of all values in a document; the first is that of the document."""
    paths = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        paths += paths_of(item, (*path, key))
    return paths


PATHS = {name: paths_of(config) for name, config in BASES.items()}


def value_at(config, path):
    """Return the value at a path.

    Raises:
        LookupError: there is none.
    """
    for step in path:
        if not isinstance(config, (dict, list)):
            raise LookupError(path)  # noqa: TRY004 - that is what it means to a caller
        config = config[step]
    return config


def write(config):
    """Return the text of a document; Python limits the digits of a number in text, json.dumps does not."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(config).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def change(draw, config, path):
    """Change a document at a path: replace the value, remove it, or add another beside it."""
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
    """Draw a real document with up to four changes below the path `within`."""
    name = draw(st.sampled_from(bases))
    config = json.loads(TEXTS[name])
    candidates = [path for path in PATHS[name] if path[: len(within)] == within]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        path = draw(st.sampled_from(candidates))
        try:
            value_at(config, path)
        except (LookupError, TypeError):  # an earlier change has removed it
            continue
        change(draw, config, path)
    return write(config)


WITHOUT_PROFILES = tuple(name for name in NAMES if len(TEXTS[name]) < 20000)


def small(**more):
    """Return the text of a small configuration with additional or other properties, each given as JSON text."""
    base = {key: COMPLETE[key] for key in ("ociVersion", "root")} | {"process": {"args": ["a"], "cwd": "/"}}
    base["linux"] = {"namespaces": [{"type": "mount"}]}  # prevents a warning
    texts = {key: json.dumps(value) for key, value in base.items()} | more
    return ("{" + ", ".join([f'"{key}": {value}' for key, value in texts.items()]) + "}").encode()


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


MANY = 10_000


HOSTILE = {
    # name: (text, whether it is nevertheless a valid configuration)
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
