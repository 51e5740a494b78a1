"""Specs of the Container Device Interface: which are valid, which device a name stands for, and what it edits."""

from __future__ import annotations

import copy
import json
import os
import posix
import subprocess
import sys

import pytest

from rootless.bundle.cdi import specs as cdi_specs
from rootless.bundle.cdi.devices import chosen
from rootless.bundle.cdi.edits import Edited
from rootless.bundle.cdi.host_files import missing
from rootless.bundle.cdi.rules import parts_of
from rootless.bundle.cdi.specs import Specs, directories
from rootless.bundle.check import check
from rootless.doctor import cdi_checks
from rootless.doctor import problem as doctor
from rootless.errors import RootlessError
from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import base_config
from tests.lib.cdi import write_specs


def spec_of(*names, kind="vendor.com/net", **edits):
    """Return a spec whose devices have the same edits."""
    edits = edits or {"env": ["A=1"]}
    devices = [{"name": name, "containerEdits": edits} for name in names]
    return {"cdiVersion": "1.1.0", "kind": kind, "devices": devices}


class Host:
    """The specs of /etc/cdi, /var/run/cdi and the user's directory, as directories of the test."""

    def __init__(self, tmp_path):
        self.paths = [tmp_path / name for name in ("etc", "run", "own")]

    def __call__(self, **directories_of_specs):
        """Write specs: the keys are directories, `etc` for instance, the values specs by the names of files."""
        for path in self.paths:
            write_specs(path, directories_of_specs.get(path.name, {}))
        return self


@pytest.fixture
def host(tmp_path, monkeypatch):
    made = Host(tmp_path)
    monkeypatch.setattr(cdi_specs, "_SYSTEM", tuple(map(str, made.paths[:2])))
    monkeypatch.setitem(posix.environ, b"XDG_CONFIG_HOME", os.fsencode(tmp_path))
    made.paths[2] = tmp_path / "cdi"
    return made


def refusal(function, *arguments):
    with pytest.raises(RootlessError) as caught:
        function(*arguments)
    assert caught.value.fix
    return str(caught.value)


def names_of(devices):
    return [f"{each.spec.kind}={each.name}" for each in devices]


def edited(*devices, config=None, gpus=()):
    """Return the configuration with these devices, which is valid, and the Edited."""
    given = base_config() if config is None else config
    before = copy.deepcopy(given)
    made = Edited(given, chosen(devices, gpus))
    assert given == before
    check(made.config)
    return made.config, made


# Names


@pytest.mark.parametrize("name", ["vendor.com/net=a", "a/b=0", "nvidia.com/gpu=GPU-1a:2_3.4", "V-1/c.d_e=0:1"])
def test_qualified_names(name):
    assert "=".join(parts_of(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "=", "a=b", "a/=b", "/b=c", "a/b", "a/b=", "1a/b=c", "a/1=c", "a/b/c=d", "a-/b=c", "a/b=-c", "a/b=c ",
     "a/b=c=d", "ä/b=c", "a/b=ü", "a/b=../c", "a/b=c\n"],
)  # fmt: skip
def test_other_names_are_not_qualified(name):
    assert parts_of(name) == ("", "")


def test_a_device_is_found_by_its_name(host):
    host(etc={"v.json": spec_of("a", "b")}, cdi={"w.json": spec_of("c")})
    assert names_of(chosen(["vendor.com/net=b", "vendor.com/net=c", "vendor.com/net=b"], [])) == [
        "vendor.com/net=b",
        "vendor.com/net=c",
    ]
    for name in ("vendor.com/net=z", "vendor.com/net=all:x"):
        assert "name one of vendor.com/net=a, vendor.com/net=b, vendor.com/net=c" in refusal(chosen, [name], [])
    assert f"put a spec of the vendor into {host.paths[2]}" in refusal(chosen, ["other.com/net=a"], [])
    assert f"nvidia-ctk cdi generate --output={host.paths[2]}/nvidia.yaml" in refusal(chosen, [], ["all"])
    assert "it is not VENDOR/CLASS=NAME" in refusal(chosen, ["vendor=a"], [])


def test_all_is_every_device_of_the_kind_unless_a_spec_defines_it(host):
    host(etc={"v.json": spec_of("a", "b"), "o.json": spec_of("c", kind="vendor.com/network")})
    assert names_of(chosen(["vendor.com/net=all"], [])) == ["vendor.com/net=a", "vendor.com/net=b"]
    host(run={"v.json": spec_of("all", "c")})
    assert names_of(chosen(["vendor.com/net=all"], [])) == ["vendor.com/net=all"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("all", ["all"]),
        ("1", ["0"]),
        ("3", ["0", "2", "10"]),
        ("device=GPU-1", ["GPU-1"]),
        ('"device=10,0"', ["10", "0"]),
    ],
)
def test_gpus(host, value, names):
    host(etc={"nvidia.json": spec_of("10", "GPU-1", "all", "0", "2", kind="nvidia.com/gpu")})
    assert names_of(chosen([], [value])) == [f"nvidia.com/gpu={name}" for name in names]


def test_gpus_of_another_vendor(host):
    host(etc={"amd.json": spec_of("0", "1", kind="amd.com/gpu")})
    assert names_of(chosen([], ["all"])) == ["amd.com/gpu=0", "amd.com/gpu=1"]


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "x", "device=", "device=a,", "device", "capabilities=gpu", "1.5", "4"]
)
def test_wrong_gpus_are_refused(host, value):
    host(etc={"nvidia.json": spec_of("0", "1", "2", kind="nvidia.com/gpu")})
    assert f"--gpus {value or chr(34) * 2}: " in refusal(chosen, [], [value])


# Specs


def test_later_directories_replace_devices_of_earlier_ones(host):
    host(etc={"v.json": spec_of("a", "b")}, run={"v.json": spec_of("a")}, cdi={"own.json": spec_of("b")})
    found = {each.name: each.spec.path for each in chosen(["vendor.com/net=all"], [])}
    assert found == {"a": f"{host.paths[1]}/v.json", "b": f"{host.paths[2]}/own.json"}
    assert directories() == [str(path) for path in host.paths]


def test_a_device_of_two_specs_in_one_directory_is_a_conflict(host):
    host(etc={"v.json": spec_of("a"), "w.json": spec_of("a", "b")})
    etc = host.paths[0]
    message = refusal(chosen, ["vendor.com/net=a"], [])
    assert message == (
        f"--device vendor.com/net=a: {etc}/v.json and {etc}/w.json define vendor.com/net=a; "
        f"fix: remove it from {etc}/w.json, or that file"
    )
    assert names_of(chosen(["vendor.com/net=b"], [])) == ["vendor.com/net=b"]
    host(run={"v.json": spec_of("a")})
    assert chosen(["vendor.com/net=a"], [])[0].spec.path == f"{host.paths[1]}/v.json"


def broken(host, name, content):
    """Return what is wrong with a file of specs, which defines no device."""
    (write_specs(host.paths[0], {}) / name).write_bytes(content)
    found = Specs()
    assert found.valid == []
    (error,) = found.broken
    assert error.code == "RL-CDI"
    assert error.fix
    assert str(error).startswith(f"CDI spec {host.paths[0]}/{name}: ")
    return error.cause


def changed(place, value):
    """Return a spec with another value at a place, such as ``devices.0.name``."""
    spec = spec_of("a")
    *steps, last = place.split(".")
    inner = spec
    for step in steps:
        inner = inner[int(step)] if step.isdecimal() else inner[step]
    inner[last] = value
    return json.dumps(spec).encode()


EDITS = "devices.0.containerEdits"


@pytest.mark.parametrize(
    ("place", "value", "cause"),
    [
        ("cdiVersion", "2.0.0", "cdiVersion: found the string"),
        ("cdiVersion", "1.1", "cdiVersion: found the string"),
        ("kind", "vendor", "kind: found the string"),
        ("more", 1, "more: found a property that is not known"),
        ("devices", [], "devices: found an empty array"),
        ("devices.0.name", 0, "devices[0].name: found the number 0"),
        ("devices.0.name", "a b", "devices[0].name: found the string"),
        ("devices.0.containerEdits", None, "devices[0].containerEdits: found null"),
        (f"{EDITS}.env", ["=x"], "devices[0].containerEdits.env[0]: found the string"),
        (f"{EDITS}.envs", [], "devices[0].containerEdits.envs: found a property that is not known"),
        (f"{EDITS}.deviceNodes", [{"path": "null"}], "deviceNodes[0].path: found the string"),
        (f"{EDITS}.deviceNodes", [{"path": "/dev/x", "permissions": "rwx"}], "deviceNodes[0].permissions"),
        (f"{EDITS}.mounts", [{"hostPath": "x", "containerPath": "/x"}], "mounts[0].hostPath: found a relative path"),
        (f"{EDITS}.mounts", [{"hostPath": "/x"}], "mounts[0].containerPath: found nothing"),
        (f"{EDITS}.hooks", [{"hookName": "x", "path": "/x"}], "hooks[0].hookName: found the string"),
        (f"{EDITS}.hooks", [{"hookName": "poststop", "path": "x"}], "hooks[0].path: found the string"),
        (f"{EDITS}.additionalGids", [-1], "additionalGids[0]: found the number -1"),
        (f"{EDITS}.netDevices", [{"hostInterfaceName": "a/b", "name": "c"}], "netDevices[0].hostInterfaceName"),
        (f"{EDITS}.intelRdt", {"closId": "x"}, "intelRdt.closId: found a property that is not known"),
        ("containerEdits", {"env": "A=1"}, "containerEdits.env: found the string"),
    ],
)
def test_invalid_specs_are_named_with_the_place(host, place, value, cause):
    assert cause in broken(host, "v.json", changed(place, value))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("v.json", b"{", "not valid JSON: line 1 column 2"),
        ("v.json", b"[]", "found an empty array, expected an object"),
        ("v.yaml", b"a: [", "line 2 column 1: did not find expected node"),
        ("v.yaml", b"", "found null, expected an object"),
        ("v.yaml", b"a: 1\na: 2", "line 2 column 1: the key 'a' stands twice"),
        ("v.yaml", b"a: &b [1]\nc: *b", "line 1 column 4: it has an alias"),
        ("v.yaml", b"1: 2", "line 1 column 1: this key is not text"),
        ("v.yaml", b"a: 1\n---\nb: 2", "line 2 column 1"),
        ("v.yaml", b"a: !!bool maybe", "line 1 column 4: it is no bool"),
        ("v.yaml", b"a: !!int ''", "line 1 column 4: it is no int"),
        ("v.yaml", b"!!float '': 1", "line 1 column 1: it is no float"),
        ("v.yaml", b"a: " + b"9" * 5000, "line 1 column 4: it is no int"),
        ("v.yaml", b"\xff", "0xff"),
        ("v.yaml", b"[" * 500 + b"]" * 500, "it is nested too deeply"),
        ("v.yaml", b"[" * 200000, "nest"),
        ("v.yaml", b"!!python/object/apply:os.system ['touch /x']", "found an array"),
        ("v.json", b" " * (4 << 20) + b"{}", "it is longer than 4 MiB"),
    ],
)
def test_files_that_are_no_spec_are_named(host, name, content, cause):
    assert cause in broken(host, name, content)


def test_yaml_is_what_the_same_json_is(host):
    text = """
cdiVersion: 0.5.0  # a comment
kind: vendor.com/net
devices:
- name: "0"
  containerEdits:
    env: [A=1, 'B="2"', D=2001-01-01]
    deviceNodes:
    - {path: /dev/null, fileMode: 0660, type: c, major: 1, minor: 3}
    mounts: ~
    hooks:
    - hookName: createContainer
      path: /bin/true
      args:
        - true-false
        - >-
          folded
          text
"""
    edits = {
        "env": ["A=1", 'B="2"', "D=2001-01-01"],
        "deviceNodes": [{"path": "/dev/null", "fileMode": 0o660, "type": "c", "major": 1, "minor": 3}],
        "mounts": None,
        "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true-false", "folded text"]}],
    }
    host(etc={"v.yaml": text})
    assert Specs().valid[0].devices == {"0": edits}
    host(etc={"v.yaml": json.dumps(spec_of("0", **edits))})
    assert Specs().valid[0].devices == {"0": edits}


def test_other_files_are_no_specs(host):
    host(etc={"README": "x", "v.json.bak": "x", "v.yml": "x"})
    (host.paths[0] / "directory.d").mkdir()
    found = Specs()
    assert (found.valid, found.broken) == ([], [])


def test_specs_that_others_can_change_are_ignored(host):
    host(etc={"v.json": spec_of("a"), "w.json": spec_of("b")})
    file = host.paths[0] / "v.json"
    file.chmod(0o664)
    assert "mode 664" in Specs().broken[0].cause
    assert names_of(chosen(["vendor.com/net=b"], [])) == ["vendor.com/net=b"]
    assert "no CDI spec defines vendor.com/net=a" in refusal(chosen, ["vendor.com/net=a"], [])
    file.chmod(0o644)
    host.paths[0].chmod(0o777)
    assert Specs().broken[0].what == f"CDI spec {host.paths[0]}"
    assert Specs().valid == []


def test_specs_of_a_third_user_are_ignored(host):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    host(etc={"v.json": spec_of("a")})
    os.chown(host.paths[0] / "v.json", 12345, -1)
    assert Specs().broken[0].cause == "it belongs to uid 12345"


def test_what_is_no_file_is_ignored_at_once(host):
    host(etc={})
    os.mkfifo(host.paths[0] / "pipe.json")
    (host.paths[0] / "zero.json").symlink_to("/dev/zero")
    (host.paths[0] / "nowhere.json").symlink_to("nowhere")
    (host.paths[0] / "directory.json").mkdir()
    found = Specs()
    assert found.valid == []
    assert [each.cause for each in found.broken] == [
        "it is not a file",
        "no such file or directory",
        "it is not a file",
        "others can write to it (mode 666)",
    ]


LOADED = """
import sys
from rootless.bundle.cdi import specs
specs._SYSTEM = ()
[spec] = specs.Specs().valid
print("yaml" in sys.modules)
"""


@pytest.mark.parametrize(("name", "loaded"), [("v.json", "False\n"), ("v.yaml", "True\n")])
def test_only_a_spec_in_yaml_loads_the_library(host, name, loaded):
    host(cdi={name: spec_of("a")})
    environment = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(host.paths[2].parent)}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (loaded, "")


def test_a_spec_in_yaml_without_the_library_is_named(host, monkeypatch):
    host(etc={"v.yaml": spec_of("a"), "w.json": spec_of("b")})
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "rootless.bundle.cdi.yaml_file", raising=False)
    found = Specs()
    assert [spec.path for spec in found.valid] == [f"{host.paths[0]}/w.json"]
    assert found.broken[0].cause == "PyYAML is not installed"


# Edits


def test_every_edit(host):
    edits = {
        "env": ["PATH=/spec", "NEW=1"],
        "deviceNodes": [
            {"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "r", "fileMode": 0o600, "uid": 3}
        ],
        "netDevices": [{"hostInterfaceName": "lo", "name": "eth9"}],
        "mounts": [{"hostPath": "/usr", "containerPath": "proc/usr", "options": ["ro", "rbind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 5}],
        "additionalGids": [0, 44],
        "intelRdt": {"closID": "x", "schemata": ["L3:0=f"], "enableMonitoring": True},
    }
    host(etc={"v.json": spec_of("a", **edits)})
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    config["process"]["env"] = ["PATH=/bin", "OLD=1"]
    config["process"]["user"] = {"uid": 7, "gid": 8}
    config["hooks"] = {"createContainer": [{"path": "/bin/false"}]}
    result, made = edited("vendor.com/net=a", config=config)
    assert result["process"]["env"] == ["PATH=/spec", "OLD=1", "NEW=1"]
    assert result["process"]["user"]["additionalGids"] == [44]
    linux = result["linux"]
    node = {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 3, "gid": 8}
    assert linux["devices"] == [node]
    rule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}
    assert linux["resources"]["devices"][1:] == [rule]
    assert linux["netDevices"] == {"lo": {"name": "eth9"}}
    assert linux["intelRdt"] == edits["intelRdt"]
    mount = {"destination": "/proc/usr", "type": "bind", "source": "/usr", "options": ["ro", "rbind"]}
    assert mount in result["mounts"]
    hook = {"path": "/bin/true", "args": ["true"], "timeout": 5}
    assert result["hooks"]["createContainer"] == [{"path": "/bin/false"}, hook]
    flag = "--device vendor.com/net=a"
    assert made.places == dict.fromkeys(
        (
            "process.env[0]",
            "process.env[2]",
            "linux.netDevices.lo",
            "hooks.createContainer[1]",
            "process.user.additionalGids",
            "linux.intelRdt",
        ),
        flag,
    )
    assert (made.mounts, made.nodes) == ({"/proc/usr": flag}, {"/dev/mine": flag})
    assert made.sources == {"/dev/mine": "/dev/null"}


def test_shared_edits_apply_once_and_later_devices_replace(host):
    hook = {"hookName": "poststop", "path": "/bin/true"}
    spec = spec_of("a", "b")
    spec["containerEdits"] = {"hooks": [hook], "env": ["A=shared", "S=1"]}
    for name, device in zip("ab", spec["devices"], strict=True):
        device["containerEdits"] = {
            "env": [f"A={name}"],
            "hooks": [hook | {"args": [name]}],
            "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/zero" if name == "a" else "/dev/null"}],
            "mounts": [{"hostPath": "/usr" if name == "a" else "/etc", "containerPath": "/m/"}],
            "intelRdt": {"closID": name, "enableCMT": name == "b", "enableMBM": False},
        }
    host(etc={"v.json": spec})
    config, _ = edited("vendor.com/net=a", "vendor.com/net=b")
    assert [each.get("args") for each in config["hooks"]["poststop"]] == [None, ["a"], ["b"]]
    assert {"A=b", "S=1"} <= set(config["process"]["env"])
    assert [each["minor"] for each in config["linux"]["devices"]] == [3]
    assert [each["source"] for each in config["mounts"] if each["destination"] == "/m"] == ["/etc"]
    assert config["linux"]["intelRdt"] == {"closID": "b", "enableMonitoring": True}


@pytest.mark.parametrize("kind", ["", "c", "u"])
def test_a_node_has_the_numbers_of_the_host(host, kind):
    host(etc={"v.json": spec_of("a", deviceNodes=[{"path": "/dev//null", "type": kind}])})
    (device,) = edited("vendor.com/net=a")[0]["linux"]["devices"]
    assert device == {"path": "/dev/null", "type": kind or "c", "major": 1, "minor": 3}


# Stale specs


@pytest.mark.parametrize(
    ("edits", "cause"),
    [
        ({"deviceNodes": [{"path": "/dev/nope"}]}, "/dev/nope does not exist"),
        (
            {"deviceNodes": [{"path": "/dev/null", "hostPath": "/dev/nope", "type": "c", "major": 1}]},
            "/dev/nope does not",
        ),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "/etc/passwd is not a device"),
        ({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}, "/dev/null is of type c, not b"),
        ({"deviceNodes": [{"path": "/dev/null", "type": "c", "major": 511}]}, "/dev/null is device 1:3, not 511:0"),
        ({"mounts": [{"hostPath": "/nope/lib.so", "containerPath": "/x"}]}, "/nope/lib.so does not exist"),
        ({"mounts": [{"hostPath": "/nope", "containerPath": "/x", "options": ["rbind"], "type": "none"}]}, "/nope"),
        ({"hooks": [{"hookName": "createContainer", "path": "/nope"}]}, "/nope does not exist"),
        ({"hooks": [{"hookName": "poststop", "path": "/etc/passwd"}]}, "/etc/passwd is not a program"),
        ({"hooks": [{"hookName": "prestart", "path": "/etc"}]}, "/etc is not a program"),
        ({"netDevices": [{"hostInterfaceName": "nope0", "name": "x"}]}, "there is no network interface nope0"),
    ],
)
def test_stale_specs_are_named_with_the_place_and_a_fix(host, edits, cause):
    host(etc={"v.json": spec_of("a", **edits)}, run={"nvidia.json": spec_of("0", kind="nvidia.com/gpu", **edits)})
    path = f"{host.paths[0]}/v.json"
    (kind,) = edits
    message = refusal(edited, "vendor.com/net=a")
    assert message.startswith(f"--device vendor.com/net=a: {cause}")
    assert f" ({path}: devices[0].containerEdits.{kind}[0]); fix: write {path} again" in message
    assert refusal(lambda: edited(gpus=["1"])).endswith(
        f"; fix: run nvidia-ctk cdi generate --output={host.paths[1]}/nvidia.json"
    )
    problem = next(iter(cdi_checks.problems(doctor.Host(None))))
    assert cause in problem.evidence
    assert problem.evidence.startswith(f"{path}, of vendor.com/net=a: ")


def test_what_is_not_of_the_host_is_not_stale(host):
    edits = {
        "deviceNodes": [{"path": "/dev/fifo", "type": "p"}],
        "mounts": [{"hostPath": "tmpfs", "containerPath": "/x", "type": "tmpfs"}],
        "hooks": [{"hookName": "startContainer", "path": "/program/of/the/image"}],
    }
    host(etc={"v.json": spec_of("a", **edits)})
    assert list(missing(Specs().valid[0], "a")) == []
    config = edited("vendor.com/net=a")[0]
    assert config["linux"]["devices"] == [{"path": "/dev/fifo", "type": "p"}]
    assert "tmpfs" in {each["type"] for each in config["mounts"] if each["destination"] == "/x"}


def test_doctor_names_devices_conflicts_and_broken_specs(host):
    shared = spec_of("b", "c", kind="o.com/x") | {
        "containerEdits": {"mounts": [{"hostPath": "/no", "containerPath": "/"}]}
    }
    host(etc={"v.json": spec_of("a"), "w.json": spec_of("a"), "x.json": "{"}, run={"o.json": shared})
    etc, run, _ = host.paths
    assert cdi_checks.listed(doctor.Host(None)) == [
        f"CDI devices of {etc}/v.json: vendor.com/net=a",
        f"CDI devices of {etc}/w.json: vendor.com/net=a",
        f"CDI devices of {run}/o.json: o.com/x=b, o.com/x=c",
    ]
    found = list(cdi_checks.problems(doctor.Host(None)))
    assert [each.condition for each in found] == [cdi_checks.INVALID, cdi_checks.AMBIGUOUS, cdi_checks.STALE]
    assert found[0].evidence.startswith(f"CDI spec {etc}/x.json: ")
    assert [each.evidence for each in found[1:]] == [
        f"vendor.com/net=a: {etc}/v.json and {etc}/w.json define vendor.com/net=a",
        f"{run}/o.json, of o.com/x=b, o.com/x=c: /no does not exist",
    ]
