"""registries.conf as podman reads it: short names, mirrors, blocked and insecure registries."""

from __future__ import annotations

import tomllib

import pytest

from rootless.errors import RootlessError
from rootless.image.reference import parse
from rootless.image.registry import registries_conf
from rootless.image.registry.registries_conf import RegistriesConf

SEARCH = "unqualified-search-registries"
DIGEST = "sha256:" + "a" * 64


def conf(*texts):
    found = RegistriesConf()
    for text in texts:
        found.add(tomllib.loads(text), "registries.conf")
    return found


def places(found, text):
    return [(str(each.reference), each.insecure, each.mirror) for each in found.places(parse(text))]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "debian:13", ["docker.io/library/debian:13"]),
        ("", "me/tool", ["docker.io/me/tool:latest"]),
        ("", "quay.io/a/b", ["quay.io/a/b:latest"]),
        (f'{SEARCH} = ["one.test", "docker.io"]', "debian", ["one.test/debian", "docker.io/library/debian"]),
        ('[aliases]\ndebian = "one.test/os/debian"', "debian:13", ["one.test/os/debian:13"]),
        (f'{SEARCH} = ["one.test"]\n[aliases]\n"me/a" = "two.test/a"', "me/a", ["two.test/a:latest"]),
    ],
)
def test_short_names(text, name, expected):
    found = [str(each) for each in conf(text).candidates(parse(name))]
    assert found == [each if ":" in each else f"{each}:latest" for each in expected]


def test_an_ambiguous_short_name_is_refused_where_the_site_says_so():
    found = conf('short-name-mode = "enforcing"\nunqualified-search-registries = ["one.test", "two.test"]')
    with pytest.raises(RootlessError, match=r"write the whole name: one\.test/a:latest or two\.test/a:latest"):
        found.candidates(parse("a"))
    assert len(conf('short-name-mode = "enforcing"').candidates(parse("a"))) == 1


def test_later_files_override_earlier_ones():
    first = 'unqualified-search-registries = ["one.test"]\n[[registry]]\nlocation = "a.test"\ninsecure = true'
    second = '[[registry]]\nlocation = "a.test"\n[aliases]\nx = "b.test/x"'
    found = conf(first, second)
    assert places(found, "a.test/x") == [("a.test/x:latest", False, False)]
    assert [str(each) for each in found.candidates(parse("y"))] == ["one.test/y:latest"]
    assert [str(each) for each in found.candidates(parse("x"))] == ["b.test/x:latest"]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "a.test/b", [("a.test/b:latest", False, False)]),
        ('location = "a.test"\ninsecure = true', "a.test/b", [("a.test/b:latest", True, False)]),
        ('location = "a.test"\ninsecure = true', "a.test.evil/b", [("a.test.evil/b:latest", False, False)]),
        ('prefix = "a.test/x"\nlocation = "b.test/y/z"', "a.test/x/c", [("b.test/y/z/c:latest", False, False)]),
        ('prefix = "a.test/x"\nlocation = "b.test/y"', "a.test/xy", [("a.test/xy:latest", False, False)]),
        ('prefix = "a.test/x"\nlocation = "b.test/y"', "a.test/x:1", [("b.test/y:1", False, False)]),
        ('prefix = "*.test"\nlocation = "c.org"', "a.b.test/x", [("c.org/x:latest", False, False)]),
        ('prefix = "*.test"\ninsecure = true', "a.test/x", [("a.test/x:latest", True, False)]),
        ('prefix = "*.test"\ninsecure = true', "test/x", [("docker.io/test/x:latest", False, False)]),
        (
            'location = "docker.io"\n[[registry.mirror]]\nlocation = "m.test/hub"\ninsecure = true',
            "docker.io/debian",
            [("m.test/hub/library/debian:latest", True, True), ("docker.io/library/debian:latest", False, False)],
        ),
        (
            'location = "a.test"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.test"',
            "a.test/b",
            [("a.test/b:latest", False, False)],
        ),
        (
            'location = "a.test"\n[[registry.mirror]]\nlocation = "m.test"\npull-from-mirror = "digest-only"',
            f"a.test/b@{DIGEST}",
            [(f"m.test/b@{DIGEST}", False, True), (f"a.test/b@{DIGEST}", False, False)],
        ),
        (
            'location = "a.test"\n[[registry.mirror]]\nlocation = "m.test"\npull-from-mirror = "tag-only"',
            f"a.test/b@{DIGEST}",
            [(f"a.test/b@{DIGEST}", False, False)],
        ),
    ],
)
def test_places(text, name, expected):
    found = conf(f"[[registry]]\n{text}" if text else "")
    [reference] = found.candidates(parse(name))
    assert [(str(each.reference), each.insecure, each.mirror) for each in found.places(reference)] == expected


def test_the_longest_prefix_counts():
    text = (
        '[[registry]]\nlocation = "a.test"\nblocked = true\n[[registry]]\nprefix = "a.test/ok"\nlocation = "a.test/ok"'
    )
    found = conf(text)
    assert places(found, "a.test/ok/x") == [("a.test/ok/x:latest", False, False)]
    with pytest.raises(RootlessError, match=r"a\.test is blocked") as raised:
        found.places(parse("a.test/other"))
    assert raised.value.code == "RL-REGISTRY-BLOCKED"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[registry]]\ninsecure = true", "neither prefix nor location"),
        ("[[registry]]\nlocation = 3", "3 is not a string"),
        ("unqualified-search-registries = 'a'", "is not a list"),
        ("aliases = 3", "has no attribute"),
        ("[registries.search]\nregistries = ['a']", "version 1"),
        ("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\ninsecure = true", "a mirror of a has no location"),
    ],
)
def test_a_wrong_file_is_one_line(text, words):
    with pytest.raises(RootlessError) as raised:
        conf(text)
    assert words in str(raised.value)
    assert raised.value.code == "RL-REGISTRIES-CONF"


def test_the_files_of_the_user_come_before_the_systems(monkeypatch, tmp_path):
    system, user = tmp_path / "system", tmp_path / "config/containers"
    for directory in (system / "registries.conf.d", user / "registries.conf.d"):
        directory.mkdir(parents=True)
    monkeypatch.setattr(registries_conf, "SYSTEM", str(system))
    monkeypatch.setattr(registries_conf.xdg, "config", lambda: str(tmp_path / "config"))
    monkeypatch.setattr(registries_conf.paths, "variable", lambda _: "")
    (system / "registries.conf").write_text('unqualified-search-registries = ["system.test"]')
    (system / "registries.conf.d/1.conf").write_text('[aliases]\na = "one.test/a"\nb = "one.test/b"')
    (system / "registries.conf.d/ignored").write_text("not TOML")

    def names(*words):
        return [str(each) for word in words for each in registries_conf.read().candidates(parse(word))]

    assert names("x", "a") == ["system.test/x:latest", "one.test/a:latest"]
    (user / "registries.conf").write_text('unqualified-search-registries = ["user.test"]')
    (user / "registries.conf.d/1.conf").write_text('[aliases]\nb = "two.test/b"')
    assert names("x", "a", "b") == ["user.test/x:latest", "one.test/a:latest", "two.test/b:latest"]
    monkeypatch.setattr(registries_conf.paths, "variable", lambda _: str(tmp_path / "chosen"))
    (tmp_path / "chosen").write_text("= broken")
    with pytest.raises(RootlessError, match=r"read .*chosen"):
        registries_conf.read()
