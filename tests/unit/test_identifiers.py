"""Identifiers in config.json: which are found, and that planning does not look into them."""

from __future__ import annotations

import copy
import hashlib
import json
import secrets

import pytest

from rootless.bundle.check import check
from rootless.bundle.identifiers import hides_digits, identifiers, leaves_nothing, named_in, parts
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.jsontext import elements
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.compile import compile_plan
from rootless.plan.encode import encode
from rootless.plan.request import Request
from tests.lib.configurations import CALLERS, CONFIGURATIONS

ID, LAYER = (hashlib.sha256(name).hexdigest() for name in (b"container", b"layer"))
NETNS = "67f127d4-c56f-76cf-881c-8906e43fce95"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([f"/containers/{ID}/userdata", ID, f"HOSTNAME={ID[:12]}"], [ID]),
        ([f"/{ID}", f"/overlay/{LAYER}/merged", f"/netns/netns-{NETNS}"], [ID, LAYER, NETNS]),
        (["1099511627776", "2026-11-29", "cafe", "-1", "0123456789-123"], []),
        (["109951162777abcd", "1099-5116277abc"], []),
        (["A1B2C3D4E5F6A1B2"], []),
        ([f"{ID[:20]}", f"{ID[:12]}", "abc"], [ID[:20]]),
    ],
)
def test_identifiers_are_long_runs_of_digits_once_each(texts, found):
    assert sorted(identifiers(texts)) == sorted(found)


def test_identifiers_leave_out_what_the_host_says():
    assert identifiers([f"/home/{NETNS}/{ID}", ID], f"user {NETNS}") == [ID]


@pytest.mark.parametrize(
    "texts",
    [[ID, ID[:16] + LAYER], ["f0" * 64], [f"{number:02}abcdef01234567" for number in range(33)]],
    ids=["same", "long", "many"],
)
def test_identifiers_that_cannot_be_distinguished_are_refused(texts):
    assert identifiers(texts) is None


def test_identifiers_are_those_of_paths_and_names():
    config = {
        "root": {"path": "/root"},
        "hostname": "host",
        "process": {"env": ["A=env"], "args": ["argument"]},
        "mounts": [{"source": "/source", "destination": "/destination", "options": ["option"]}],
        "annotations": {"key": "value"},
        "linux": {"cgroupsPath": "/cgroup", "namespaces": [{"type": "pid"}, {"type": "network", "path": "/netns"}]},
    }
    assert named_in(config) == ["/root", "host", "/cgroup", "A=env", "/source", "/destination", "/netns"]
    assert named_in({"root": {"path": "/root"}}) == ["/root"]


@pytest.mark.parametrize(
    ("message", "shuffled"), [("mounts[1] is skipped", False), ("mounts[2]", True), ("env[0]", False), ("", True)]
)
def test_lists_of_which_a_message_names_a_place_keep_their_order(message, shuffled):
    config = config_of("/a", "/b")
    text = json.dumps(config, separators=(",", ":"))
    assert bool(parts(text, config, [message])[2]) is shuffled


@pytest.mark.parametrize(
    ("text", "nothing"),
    [(f"/{ID}/x", True), (f"h={ID[:12]}", True), (f"/{ID[:11]}/", False), (f"/{ID[20:40]}/", False), ("", True)],
)
def test_pieces_of_identifiers_are_noticed(text, nothing):
    assert leaves_nothing(b"\0\1" + text.encode(), [ID, LAYER]) is nothing


@pytest.mark.parametrize(
    ("text", "hides"),
    [
        (r'"\u0061b"', True),
        (r'"\u003A"', False),
        (r'"\u002D"', True),
        (r'"a \u0026\u0026 b \u003c c"', False),
        ('"a"', False),
    ],
)
def test_digits_that_are_escaped_are_noticed(text, hides):
    assert hides_digits(text) is hides


def config_of(*destinations, env=("A=1", "B=2")):
    mounts = [{"destination": each, "type": "bind", "source": f"/s/{each}"} for each in destinations]
    return {"process": {"env": list(env)}, "root": {"path": "r"}, "mounts": mounts}


@pytest.mark.parametrize(
    ("config", "row"),
    [
        (config_of("/etc/hosts", "/etc/hostname"), 2),
        (config_of("/data", "/data/x", "/etc/hosts", "/run"), 3),
        (config_of("/a", "/a"), 1),
        (config_of("/a", "//a", "/./a/", "a", "/b/../a"), 1),
        (config_of("/", "/a"), 1),
    ],
)
def test_parts_put_together_are_the_text(config, row):
    text = json.dumps(config, separators=(",", ":"))
    fixed, variables, mounts = parts(text, config, [])
    assert fixed[0] + ",".join(variables) + fixed[1] + ",".join(mounts) + fixed[2] == text
    assert (len(variables), len(mounts)) == (2, row)


@pytest.mark.parametrize(
    ("config", "separators"),
    [
        (config_of("/a", env=("A=1", "A=2")), (",", ":")),
        (config_of("/a", env=("\u00e4=1", "\u00e4=2")), (",", ":")),
        (config_of("/a", env=()), (",", ":")),
        (config_of(), (",", ":")),
        (config_of("/a") | {"annotations": {"a": '"env":["A=1"]'}, "hooks": {"prestart": [{"env": []}]}}, (",", ":")),
        (config_of("/a", "/b"), (", ", ": ")),
    ],
    ids=["twice", "twice, escaped", "no variables", "no mounts", "two lists", "blanks"],
)
def test_lists_whose_order_may_matter_stay_in_one_text(config, separators):
    text = json.dumps(config, separators=separators)
    assert parts(text, config, []) == ([text], [], [])


@pytest.mark.parametrize(
    ("text", "found"), [('"a,]",{"b":[1,2]}]', ['"a,]"', '{"b":[1,2]}']), ('"a", 1]', []), ("]", [])]
)
def test_elements_of_a_compact_list_are_texts(text, found):
    assert elements(text, 0) == found


def plan_of(text, name, facts):
    """Return everything that a Plan says, as text: the operations of both sides, in order."""
    config = json.loads(text)
    check(config)
    request = Request(Options(verb="create", container=name, bundle=f"/run/{name}", pid_file=f"/run/{name}/pid"))
    request.keyring = f"_ses.{name}.0123"
    try:
        plan = compile_plan(Bundle(f"/run/{name}", config, text.encode()), facts, request)
    except RootlessError as error:
        return str(error)
    encoded = encode([op for op in plan.ops if op.kind.by == ops.EXECUTOR])
    told = [(op.kind.name, repr(_data(op))) for op in plan.ops if op.kind.by == ops.LAUNCHER]
    return repr((encoded, told, [str(note) for note in plan.notes]))


def _data(op):
    """Return the operands of an operation of the launcher, with the attributes of objects."""
    return [_attributes(each) for each in op.strings]


def _attributes(value):
    slots = getattr(type(value), "__slots__", ())
    if slots:
        return {name: _attributes(getattr(value, name, None)) for name in slots}
    if isinstance(value, (list, tuple)):
        return [_attributes(each) for each in value]
    return (
        sorted(value) if isinstance(value, (set, frozenset)) else vars(value) if hasattr(value, "__dict__") else value
    )


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_plan_with_other_identifiers_is_the_same_plan(name, caller):
    """As podman has them: in paths, names, the environment and the cgroup's path."""
    config = copy.deepcopy(CONFIGURATIONS[name])
    config["root"]["path"] = f"/overlay/{LAYER}/merged"
    config["hostname"] = ID[:12]
    config["annotations"] = (config.get("annotations") or {}) | {"id": ID, f"of/{ID}": "x"}
    config["process"]["env"] = [*(config["process"].get("env") or ()), f"HOSTNAME={ID[:12]}", f"SUM={LAYER}"]
    config["mounts"] = [
        *(config.get("mounts") or ()),
        {"destination": "/etc/hosts", "type": "bind", "source": f"/c/{ID}/hosts", "options": ["bind"]},
        {"destination": f"/v/{LAYER}", "type": "bind", "source": f"/volumes/{ID}", "options": ["rbind"]},
    ]
    config["linux"] |= {"cgroupsPath": f"/parent/libpod-{ID}"}
    text = json.dumps(config)
    before = plan_of(text, ID, CALLERS[caller])
    for digits in ("0123456789", *["0123456789abcdef"] * 7):
        others = {old: "".join(secrets.choice(digits) for _ in old) for old in (ID, LAYER)}

        def renamed(said, others=others):
            for old, new in others.items():
                said = said.replace(old, new).replace(old[:12], new[:12])
            return said

        assert plan_of(renamed(text), others[ID], CALLERS[caller]) == renamed(before)
