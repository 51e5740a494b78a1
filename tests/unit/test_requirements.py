"""The packages of install.sh are pinned, hashed and satisfy pyproject.toml."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lib.accounts import CHECKOUT

LISTS = CHECKOUT / "helpers/requirements"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
ASKED = {
    "run": PROJECT["project"]["dependencies"],
    "build": PROJECT["build-system"]["requires"],
    "zig": [each for each in PROJECT["project"]["optional-dependencies"]["test"] if each.startswith("ziglang")],
}


def pinned(name):
    """Return the requirements of a list, each with its hashes."""
    text = (LISTS / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.partition(" --hash")[0].strip(): re.findall(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines}


@pytest.mark.parametrize("name", ASKED)
def test_every_requirement_has_one_version_and_hashes(name):
    assert ASKED[name]
    for requirement, hashes in pinned(name).items():
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; .*)?", requirement)
        assert hashes


@pytest.mark.parametrize("name", ASKED)
def test_versions_satisfy_pyproject(name):
    found = {pin.name: pin for pin in map(Requirement, pinned(name))}
    for asked in map(Requirement, ASKED[name]):
        [version] = [each.version for each in found[canonicalize_name(asked.name)].specifier]
        assert asked.specifier.contains(version)
