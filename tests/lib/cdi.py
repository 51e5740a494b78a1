"""Specs of the Container Device Interface in /etc/cdi, which only a run of the tests sees."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest


def write_specs(directory: Path, specs: dict) -> Path:
    """Write specs, as text or as data, into files with these names; return the directory, which belongs to root."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, spec in specs.items():
        (directory / name).write_text(spec if isinstance(spec, str) else json.dumps(spec))
    return directory


@contextlib.contextmanager
def specs_of_the_host(directory: Path, specs: dict):
    """Let /etc/cdi hold these specs; `directory` keeps the layer of the overlay over /etc.

    The mount is in the mount namespace of tests/run, never on the machine.
    """
    if os.geteuid() != 0 or " - tmpfs rootless-test-dev " not in Path("/proc/self/mountinfo").read_text():
        pytest.skip("needs root, to mount an overlay on /etc")
    write_specs(directory / "upper/cdi", specs)
    (directory / "work").mkdir()
    layers = f"lowerdir=/etc,upperdir={directory}/upper,workdir={directory}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "rootless-test-etc", "/etc"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", "/etc"], check=True)
