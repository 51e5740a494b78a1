"""The words that can follow on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.cli.commands import HIDDEN_VERBS, VERBS
from rootless.cli.completion import DIRECTORIES, FILES, complete
from rootless.cli.flags import NOT_YET
from rootless.cli.parser import parse
from rootless.image.store.store import open_store


@pytest.fixture
def candidates(tmp_path, monkeypatch, capfd):
    """A function that returns the lines for the last word of a command line."""
    networks = tmp_path / "rootless/networks"
    networks.mkdir(parents=True)
    for name in ("backend", "nightly"):
        (networks / f"{name}.json").touch()
    with open_store(str(tmp_path / "images"), create=True) as store:
        store.note("box.test/a:1", "box.test/a:1", "linux/amd64", f"sha256:{'0' * 64}")
        Path(store.image_path(f"sha256:{'0' * 64}")).touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("ROOTLESS_IMAGES", str(tmp_path / "images"))

    def run(*words):
        complete(parse(["__complete", *words], lambda _: None))
        return capfd.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ru", ["run"]),
        ("list -f ", ["table", "json"]),
        ("list --format=j", ["--format=json"]),
        ("list -qf ", ["table", "json"]),
        ("--log log --log-format ", ["text", "json"]),
        ("delete --fo", ["--force"]),
        ("--log-l", ["--log-level"]),
        ("kill web1 TER", ["TERM"]),
        ("network ", ["create", "ls", "inspect", "reload", "rm"]),
        ("network rm ", ["backend", "nightly"]),
        ("run --network n", ["none", "nightly"]),
        ("explain --net s", ["slirp4netns"]),
        ("run --cap-add net_", ["NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW"]),
        ("run --ulimit no", ["nofile="]),
        ("run --mount type=b", ["type=bind,"]),
        ("run --userns k", ["keep-id", "keep-id:uid="]),
        ("run --security-opt sec", ["seccomp=", "seccomp=unconfined"]),
        ("run --env-f", ["--env-file", "--env-file0"]),
        ("explain -it --vol", ["--volume"]),
        ("run box --vol", ["--volume"]),
        ("run box make --vol", [FILES]),
        ("run -- box --vol", [FILES]),
        ("run --bundle ", [DIRECTORIES]),
        ("run -v ", [FILES]),
        ("run box.t", ["box.test/a:1", FILES]),
        ("run docker://b", ["docker://box.test/a:1", FILES]),
        ("image rm box.t", ["box.test/a:1", FILES]),
        ("pull ", ["box.test/a:1", FILES]),
        ("run --nope ", ["box.test/a:1", FILES]),
        ("state web1 ", []),
        ("nope ", []),
        ("nope --", []),
        ("restore --stat", []),
        ("run --rm", []),
    ],
)
def test_candidates(line, expected, candidates):
    found = candidates(*line.split(" "))
    assert [each if each.startswith("\t") else each.partition("\t")[0] for each in found] == expected


def test_an_empty_line_offers_every_verb_with_its_summary(candidates):
    assert candidates("") == candidates() == [f"{name}\t{verb.summary}" for name, verb in VERBS.items()]


@pytest.mark.parametrize("name", VERBS)
def test_each_flag_of_a_verb_is_offered(name, candidates):
    found = [line.partition("\t")[0] for line in candidates(name, "--")]
    offered = [flag for flag in VERBS[name].every_flag() if flag.kind != NOT_YET and not flag.ignored]
    assert {each for flag in offered for each in flag.names if each.startswith("--")} <= set(found)
    assert len(found) == len(set(found))


def test_no_help_names_the_verb_that_completes():
    assert not HIDDEN_VERBS.keys() & VERBS.keys()
