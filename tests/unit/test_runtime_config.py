"""The configuration of an image as a config.json: the rules of the image specification, conversion.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.bundle.check import check
from rootless.errors import RootlessError
from rootless.image.bundles.runtime_config import bundle_config_of, exposed_ports, volume_mounts

CHECKOUT = Path(__file__).resolve().parents[2]
ANNOTATIONS = [
    line.split("|")[1].strip(" `").replace("*", "Nice")
    for line in (CHECKOUT / "docs/annotations.md").read_text().splitlines()
    if line.startswith("| `")
]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES = {
    "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n",
    "/etc/group": b"root:x:0:\nweb:x:34:\nlogs:x:50:web\nother:x:60:\n",
}


def read(path):
    if path not in FILES:
        raise FileNotFoundError(path)
    return FILES[path]


def converted(config, *, command=("x",), terminal=False, **more):
    return bundle_config_of({"config": config} | more, read=read, command=command, terminal=terminal)


def process(config, **options):
    return converted(config, **options)["process"]


def refused(config, **more):
    with pytest.raises(RootlessError) as caught:
        converted(config, **more)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("image", "asked", "args"),
    [
        ({"Cmd": ["a", "b"]}, {"command": ()}, ["a", "b"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": ()}, ["e", "a"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": ["c", "d"]}, ["e", "c", "d"]),
        ({"Entrypoint": None, "Cmd": None}, {"command": ["c"]}, ["c"]),
    ],
)
def test_entrypoint_and_command_are_those_of_podman(image, asked, args):
    assert process(image, **asked)["args"] == args


def test_an_image_without_program_needs_a_command():
    error = refused({}, command=())
    assert (error.code, error.cause) == ("RL-IMAGE", "it names no program")


def test_variables_keep_the_last_value_and_path_has_a_default():
    assert process({})["env"] == [PATH]
    assert process({}, terminal=True)["env"] == [PATH, "TERM=xterm"]
    image = {"Env": ["PATH=/bin", "A=1", "A=2=3", "EMPTY=", "NONE", "=x", "TERM=dumb"]}
    assert process(image, terminal=True)["env"] == ["PATH=/bin", "TERM=dumb", "A=2=3", "EMPTY="]


def test_the_working_directory_is_absolute():
    assert [process({"WorkingDir": path})["cwd"] for path in ("", "/srv", "srv", "//")] == ["/", "/srv", "/srv", "/"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", {"uid": 0, "gid": 0}),
        ("web", {"uid": 33, "gid": 34, "additionalGids": [34, 50]}),
        ("33", {"uid": 33, "gid": 34, "additionalGids": [34, 50]}),
        ("1000", {"uid": 1000, "gid": 0, "additionalGids": [0]}),
        ("web:logs", {"uid": 33, "gid": 50, "additionalGids": [50]}),
        ("1000:1001", {"uid": 1000, "gid": 1001, "additionalGids": [1001]}),
    ],
)
def test_users_are_found_in_the_image(user, expected):
    assert process({"User": user})["user"] == expected


def test_an_unknown_user_is_an_error():
    assert refused({"User": "nobody"}).code == "RL-USER"
    with pytest.raises(RootlessError, match="nobody"):
        bundle_config_of({"config": {"User": "nobody"}}, read=lambda _path: read("/nothing"), command=["x"])


def test_labels_and_properties_become_annotations():
    image = {"os": "linux", "architecture": "arm64", "variant": "v8", "author": "me", "created": "2026-01-01T00:00:00Z"}
    config = {"Labels": {"a.b": "1", "org.opencontainers.image.author": "you"}, "StopSignal": "SIGQUIT"}
    ports = {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}
    assert converted(config | ports, **image)["annotations"] == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "arm64",
        "org.opencontainers.image.variant": "v8",
        "org.opencontainers.image.author": "you",
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.exposedPorts": "80/tcp,53/udp",
        "a.b": "1",
    }
    assert "annotations" not in converted({})


@pytest.mark.parametrize("name", [*ANNOTATIONS, "org.opencontainers.image.stopSignal"])
def test_no_label_steers_the_runtime(name):
    assert "annotations" not in converted({"Labels": {name: "x"}})


def test_volumes_are_mounts_for_a_root_that_is_read_only():
    volumes = {"Volumes": {"/data": {}, "log": {}, "/": {}}}
    assert converted(volumes)["mounts"] == converted({})["mounts"]
    mounts = volume_mounts({"config": volumes})
    assert [mount["destination"] for mount in mounts] == ["/data", "/log"]
    assert mounts[0]["options"] == ["nosuid", "nodev", "tmpcopyup"]


def test_exposed_ports_are_listed():
    assert exposed_ports({"config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}}) == ["80/tcp", "53/udp"]
    assert exposed_ports({}) == []


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "A=1"},
        {"Env": [1]},
        {"Cmd": {"a": "b"}},
        {"Entrypoint": ["a\0b"]},
        {"User": 5},
        {"WorkingDir": ["/"]},
        {"Labels": ["a"]},
        {"Labels": {"a": 1}},
        {"Labels": {"a": "b\0"}},
        {"ExposedPorts": ["80"]},
        {"StopSignal": 9},
        ["config"],
    ],
)
def test_properties_of_another_type_are_refused(config):
    assert refused(config, command=()).code == "RL-IMAGE"


def test_more_words_than_any_program_has_are_refused():
    assert "has more than" in refused({"Cmd": ["x"] * 100_000}, command=()).cause


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=5), of, max_size=3),
    max_leaves=5,
)
NAMES = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "StopSignal", "Volumes")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES)), VALUES)
def test_any_configuration_gives_a_bundle_or_an_error(config, architecture):
    try:
        result = converted(config, architecture=architecture)
    except RootlessError as error:
        assert error.code in ("RL-IMAGE", "RL-USER")  # noqa: PT017 - either outcome is right
    else:
        check(result)
        assert not any(name.startswith("run.oci.") for name in result.get("annotations", {}))
