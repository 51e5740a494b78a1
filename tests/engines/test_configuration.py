"""The configuration files in helpers/ that no other test gives to its engine."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import RUN
from tests.engines.engines import HELPERS
from tests.user.bundles import base_config, make_bundle


def test_containerd_knows_the_runtime(tmp_path, need):
    config = tmp_path / "config.toml"
    config.write_text(f'version = 2\nimports = ["{HELPERS}/containerd/rootless.toml"]\n')

    words = [need("containerd"), "--config", config, "config", "dump"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    runtime = told.partition("containerd.runtimes.rootless]")[2]
    assert runtime.partition("runtime_type = ")[2].startswith('"io.containerd.runc.v2"')
    assert runtime.partition("BinaryName = ")[2].startswith('"rootless"')


@pytest.fixture
def slurm(user, rootless_command):
    """What slurmstepd does with a line of oci.conf: a pattern, filled in, carried out by a shell as the job's user."""
    lines = (HELPERS / "slurm/oci.conf").read_text().splitlines()
    patterns = dict(line.split("=", 1) for line in lines if line.startswith("RunTime"))
    bundle = make_bundle(user, base_config("sh", "-c", "echo task; exit 7"))
    values = {"%n": "node1", "%u": user.name, "%j": "5", "%s": "4294967291", "%t": "0", "%b": str(bundle)}

    def run(name):
        command = patterns[f"RunTime{name}"].strip('"')
        for variable, value in values.items():
            command = command.replace(variable, value)
        assert "%" not in command
        env = {"PATH": f"{RUN}/bin:/usr/bin:/bin:/usr/sbin:/sbin", "XDG_RUNTIME_DIR": ""}
        return user.run(["/bin/sh", "-c", command], env=env)

    run.bundle = bundle
    return run


def test_slurms_task_is_the_container(slurm):
    done = slurm("Run")

    assert (done.returncode, done.stdout, done.stderr) == (7, "task\n", "")
    # as slurmstepd does at the end of a step, of which nothing is left
    assert slurm("Query").returncode == 1
    assert slurm("Delete").returncode == 0


def test_slurm_asks_for_and_ends_a_task_that_runs(user, slurm, rootless_command):
    config = base_config("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    (slurm.bundle / "config.json").write_text(json.dumps(config))
    name = f"node1.{user.name}.5.4294967291.0"
    words = [rootless_command, "run", "--detach", "--bundle", slurm.bundle, name]
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    user.run(words, env={"XDG_RUNTIME_DIR": ""}, check=True, **quiet)

    assert json.loads(slurm("Query").stdout)["status"] == "running"
    assert slurm("Kill").returncode == 0
    assert slurm("Delete").returncode == 0
    assert slurm("Query").returncode == 1
