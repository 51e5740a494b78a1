"""Kubernetes pods of root through containerd's CRI plugin: limits, OOM kills, statistics and AppArmor."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from tests.lib import cri
from tests.lib.accounts import CHECKOUT, PROVIDED
from tests.lib.engines import HELPERS, IMAGE, make_image
from tests.system.pods import MIB

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")
PACKAGES = ("grpc", "google", "typing_extensions")
RUNTIMES = ("rootless", "runc", "rootless-systemd", "runc-systemd")
SYSTEMD = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{0}-systemd]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{0}-systemd.options]
    BinaryName = "{0}"
    SystemdCgroup = true
"""
START = """
set -e
mkdir -p /run/pods
install /mnt/host/pods/bin/* /usr/local/bin
path=/home/tester/.local/bin:/usr/local/bin:/usr/bin:/usr/sbin
systemd-run --quiet --unit=pods --property=Delegate=yes --property=KillMode=process --setenv=PATH=$path \
    containerd --config /mnt/host/pods/config.toml
for i in $(seq 200); do ctr version >/dev/null 2>&1 && break; sleep 0.05; done
for image in /mnt/host/pods/*/box.tar; do ctr --namespace k8s.io images import $image; done
"""
STOP = "systemctl stop pods; journalctl --unit=pods | tail -40"


@pytest.fixture(scope="module")
def observed(machine, need):
    """The results of pods.py in the machine: by runtime."""
    if not (cri.SOURCES / cri.DEFINITIONS[0]).exists():
        pytest.skip(f"needs the definition of the CRI, {PROVIDED}")
    shared = machine.shared / "pods"
    for name in ("bin", "python", "box", "sandbox"):
        (shared / name).mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copy(need(program), shared / "bin")
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found.submodule_search_locations:
            shutil.copytree(next(iter(found.submodule_search_locations)), shared / "python" / package)
        else:
            shutil.copy(found.origin, shared / "python")
    cri.compiled(shared / "python")
    make_image(shared / "box")
    make_image(shared / "sandbox", "registry.k8s.io/pause:3.8", ("sleep", "1000000"))
    shipped = (HELPERS / "containerd/rootful.toml").read_text()
    (shared / "config.toml").write_text(shipped + "".join(map(SYSTEMD.format, ("rootless", "runc"))))
    machine.run(START, root=True, check=True)
    words = [f"{CHECKOUT}/tests/system/pods.py", "/mnt/host/pods/python", IMAGE, *RUNTIMES]
    done = machine.run(f"PYTHONPATH={CHECKOUT} python3 {' '.join(words)}", root=True, timeout=300)
    said = machine.run(STOP, root=True).stdout
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("manager", ["", "-systemd"], ids=["cgroupfs", "systemd"])
def test_a_pod_with_limits_and_a_profile_is_what_it_is_with_runc(observed, manager):
    runc = observed[f"runc{manager}"]
    # runc 1.1 has the former conversion of shares, by which 512 are 20
    newer = {name: runc[name] | {"cpu.weight": "59"} for name in ("limits", "changed")}
    assert observed[f"rootless{manager}"] == runc | newer


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_limits_and_the_profile_are_in_force(observed, runtime):
    seen = observed[runtime]
    assert seen["limits"] == {
        "memory.max": str(50 * MIB), "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "33",
        "cpu.weight": "59" if "rootless" in runtime else "20",
    }  # fmt: skip
    assert seen["changed"] == seen["limits"] | {"memory.max": str(80 * MIB), "cpu.max": "25000 100000"}
    assert seen["killed"] == 137
    assert seen["statistics"][:2] == [True, True]
    assert seen["inside"][1].splitlines()[:2] == ["cri-containerd.apparmor.d (enforce)", "500"]
    assert "/proc/sysrq-trigger: Permission denied" in seen["inside"][2]
    assert "/fuse: Operation not permitted" in seen["inside"][2]
    assert seen["left"] == []
