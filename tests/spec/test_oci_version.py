"""config.md "Specification version": each property set, and observed from inside."""

from __future__ import annotations

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config


@pytest.mark.spec("ociVersion")
@pytest.mark.parametrize("version", ["1.0.0", "1.2.1"])
def test_version(either, version):
    config = config_with_maps(either.user) | {"ociVersion": version}
    assert either.lines(config, "echo ran") == ["ran"]


@pytest.mark.spec("ociVersion")
@pytest.mark.parametrize(
    "version", ["1.0.0", "1.0.0-rc5", "1.0.2", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0", "1.4.7"]
)
def test_every_version_of_the_first_specification(box, version):
    config = base_config()
    config["ociVersion"] = version
    assert box.lines(config, "echo ran") == ["ran"]


@pytest.mark.parametrize("version", ["2.0.0", "0.9.0", "1", "", "latest", None, 1])
def test_unknown_versions_are_refused(box, version):
    config = base_config()
    config["ociVersion"] = version
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rootless: config.json is not valid: ")
    assert "(config.json: ociVersion); fix: " in done.stderr
