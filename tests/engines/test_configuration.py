"""The configuration files in helpers/ that no other test gives to its engine."""

from __future__ import annotations

import subprocess

from tests.lib.engines import HELPERS


def test_containerd_reads_the_runtime_from_the_configuration(tmp_path, need):
    config = tmp_path / "config.toml"
    config.write_text(f'version = 2\nimports = ["{HELPERS}/containerd/rootful.toml"]\n')

    words = [need("containerd"), "--config", config, "config", "dump"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    runtime = told.partition("containerd.runtimes.rootless]")[2]
    assert runtime.partition("runtime_type = ")[2].startswith('"io.containerd.runc.v2"')
    assert runtime.partition("BinaryName = ")[2].startswith('"rootless"')
