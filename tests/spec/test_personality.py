"""config-linux.md "Personality": each property set, and observed from inside."""

from __future__ import annotations

import os

import pytest

from tests.lib.boxes import BEGUN, config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, assert_refused, differs


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the test knows the effect of LINUX32 on x86_64 only")
@differs("runc", '"sets the execution domain": ' + IGNORED)
@pytest.mark.spec("linux.personality.domain")
def test_personality_domain(either):
    config = config_with_maps(either.user)
    config["linux"]["personality"] = {"domain": "LINUX32"}
    assert either.lines(config, "uname -m") == ["i686"]


NO_FLAGS = '"Additional flags to apply. Currently no flag values are supported": ' + IGNORED


@pytest.mark.spec("linux.personality.flags", refused="there are none yet")
@differs("runc", NO_FLAGS)
@differs("crun", NO_FLAGS)
def test_personality_flags(either):
    """The specification defines no flags: every flag is refused."""
    config = config_with_maps(either.user)
    config["linux"]["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
    assert_refused(either, config, "personality")


def test_personality(box):
    native = os.uname().machine
    config = base_config()
    config["linux"]["personality"] = {"domain": "LINUX"}
    assert box.lines(config, "uname -m") == [native]
    if native != "x86_64":
        pytest.skip("the test knows the effect of LINUX32 on x86_64 only")
    config["linux"]["personality"] = {"domain": "LINUX32", "flags": []}
    assert box.lines(config, "uname -m", BEGUN.format("uname -m")) == ["i686"] * 2
