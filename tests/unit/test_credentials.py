"""Credentials for registries: the files of podman and docker, and credential helpers."""

from __future__ import annotations

import base64
import json
import os
import stat

import pytest

from rootless.errors import RootlessError
from rootless.image.registry import credentials
from rootless.image.registry.credentials import Credentials

HELPER = """#!/bin/sh
read server
echo "$1 $server" >>{log}
case $1 in
get)
    [ "$server" = {server} ] || {{ echo "credentials not found in native keychain"; exit 1; }}
    echo '{{"ServerURL": "x", "Username": "{user}", "Secret": "secret of the helper"}}' ;;
esac
"""


def auth(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def place(monkeypatch, tmp_path):
    """An empty home, with functions that write the files."""

    class Place:
        runtime = tmp_path / "run/containers/auth.json"
        config = tmp_path / "config/containers/auth.json"
        docker = tmp_path / "home/.docker/config.json"
        log = tmp_path / "log"
        variables: dict[str, str] = {"HOME": str(tmp_path / "home")}  # noqa: RUF012 - of this test

        def write(self, path, **data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(data))

        def helper(self, name, server, user="of the helper"):
            path = tmp_path / f"bin/docker-credential-{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(HELPER.format(log=self.log, server=server, user=user))
            path.chmod(0o755)

    monkeypatch.setattr(credentials.xdg, "config", lambda: str(tmp_path / "config"))
    monkeypatch.setattr(credentials.xdg, "runtime", lambda: str(tmp_path / "run"))
    monkeypatch.setattr(credentials.paths, "variable", lambda name: Place.variables.get(name, ""))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Place()


def found(registry="a.test", repository="x/y", helpers=()):
    given = credentials.find(registry, repository, helpers)
    return (given.user, given.password, given.token) if given else None


def test_without_files_there_are_none(place):
    assert found() is None


def test_the_first_file_counts(place):
    place.write(place.docker, auths={"a.test": auth("docker", "1"), "b.test": auth("docker", "2")})
    place.write(place.config, auths={"a.test": auth("config", "3")})
    assert found() == ("config", "3", "")
    assert found("b.test") == ("docker", "2", "")
    place.write(place.runtime, auths={"a.test": auth("runtime", "4:5")})
    assert found() == ("runtime", "4:5", "")


def test_a_chosen_file_is_the_only_one(place, tmp_path):
    place.write(place.runtime, auths={"a.test": auth("runtime", "1")})
    place.variables = None
    type(place).variables = {"REGISTRY_AUTH_FILE": str(tmp_path / "mine")}
    assert found() is None
    place.write(tmp_path / "mine", auths={"a.test": auth("mine", "1")})
    assert found() == ("mine", "1", "")
    type(place).variables = {}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("a.test", "a.test/x", "a.test/x/y"), "a.test/x/y"),
        (("a.test", "a.test/x"), "a.test/x"),
        (("a.test", "a.test/xx"), "a.test"),
        (("https://a.test/v1/",), "https://a.test/v1/"),
        (("a.test.evil", "b.test/x/y"), None),
    ],
)
def test_the_most_specific_entry_counts(place, keys, expected):
    place.write(place.runtime, auths={key: auth(key.replace(":", "_"), "p") for key in keys})
    assert found() == (expected and (expected.replace(":", "_"), "p", ""))


def test_docker_hub_has_the_name_that_docker_gives_it(place):
    place.write(place.docker, auths={"https://index.docker.io/v1/": auth("hub", "p")})
    assert found("docker.io") == ("hub", "p", "")


def test_an_identity_token(place):
    place.write(place.docker, auths={"a.test": {**auth("x", "y"), "identitytoken": "token"}})
    assert found() == ("", "", "token")


def test_helpers_of_one_registry_and_of_all(place):
    place.helper("one", "a.test")
    place.helper("store", "https://index.docker.io/v1/", user="<token>")
    place.write(place.docker, credHelpers={"a.test": "one"}, credsStore="store", auths={"c.test": {}})
    assert found() == ("of the helper", "secret of the helper", "")
    assert found("docker.io") == ("", "", "secret of the helper")
    assert found("c.test") is None
    assert place.log.read_text().splitlines() == ["get a.test", "get https://index.docker.io/v1/", "get c.test"]


def test_helpers_of_registries_conf(place):
    place.helper("one", "a.test")
    place.write(place.runtime, auths={"b.test": auth("file", "p")})
    assert found(helpers=("one", "containers-auth.json")) == ("of the helper", "secret of the helper", "")
    assert found("b.test", helpers=("one", "containers-auth.json")) == ("file", "p", "")
    assert found("b.test", helpers=("one",)) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"auths": {"a.test": {"auth": "!!"}}}, "not the base64 form"),
        ({"auths": {"a.test": {"auth": base64.b64encode(b"nocolon").decode()}}}, "not the base64 form"),
        ({"credHelpers": {"a.test": "missing"}}, "docker-credential-missing get: it is not installed"),
        ({"credHelpers": {"a.test": "../../bin/sh"}}, "is not installed"),
    ],
)
def test_what_is_broken_is_named(place, data, words):
    place.write(place.runtime, **data)
    with pytest.raises(RootlessError) as raised:
        found()
    assert words in str(raised.value)


@pytest.mark.parametrize("data", [{"auths": 3}, {"auths": {"a.test": 3}}, {"credHelpers": ["a"]}, {"credsStore": 3}])
def test_other_types_count_as_nothing(place, data):
    place.write(place.runtime, **data)
    assert found() is None


def test_what_login_saves_is_podmans_format_and_private(place):
    place.write(place.runtime, auths={"b.test": auth("b", "p")}, other=[1])
    assert credentials.save("a.test", Credentials("me", "pass:word")) == str(place.runtime)
    assert found() == ("me", "pass:word", "")
    data = json.loads(place.runtime.read_text())
    assert data == {"auths": {"b.test": auth("b", "p"), "a.test": auth("me", "pass:word")}, "other": [1]}
    assert stat.S_IMODE(place.runtime.stat().st_mode) == 0o600
    assert [path.name for path in place.runtime.parent.iterdir()] == ["auth.json"]
    assert credentials.forget("a.test")
    assert not credentials.forget("a.test")
    assert found() is None
    assert found("b.test") == ("b", "p", "")
    assert credentials.forget("")
    assert found("b.test") is None


def test_login_uses_the_helper_of_the_registry(place):
    place.helper("one", "a.test")
    place.write(place.runtime, credHelpers={"a.test": "one"})
    assert credentials.save("a.test", Credentials("me", "p")) == "docker-credential-one"
    assert credentials.forget("a.test")
    stored, erased = place.log.read_text().splitlines()
    assert stored.startswith("store {")
    assert erased == "erase a.test"
    assert "auths" not in json.loads(place.runtime.read_text())


@pytest.mark.parametrize("looked_at", [str, int], ids=["path", "descriptor"])
def test_root_reads_no_file_of_a_user_that_a_kept_variable_names(place, monkeypatch, looked_at):
    """Neither one that is there at once, nor one that takes its place before it is opened."""
    place.write(place.runtime, credHelpers={"a.test": "evil"})
    monkeypatch.setattr(credentials.os, "geteuid", lambda: 0)
    ours, theirs = (os.stat_result((0o100600, 0, 0, 1, owner, owner, 0, 0, 0, 0)) for owner in (0, 1000))
    monkeypatch.setattr(credentials.os, "stat", lambda which: theirs if isinstance(which, looked_at) else ours)
    assert found() is None
