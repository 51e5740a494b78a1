"""Kubernetes pods through containerd's CRI plugin, of root and of an ordinary user: limits, OOM kills, statistics.

Those of root have AppArmor, and systemd as another driver of cgroups.
"""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from tests.lib import cri
from tests.lib.accounts import CHECKOUT, PROVIDED
from tests.lib.engines import HELPERS, IMAGE, make_image
from tests.system.pods import MIB

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "rootlesskit")
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
path=/home/tester/.local/bin:/usr/local/bin:/usr/bin:/usr/sbin
systemd-run --quiet --unit=pods --property=Delegate=yes --property=KillMode=process --setenv=PATH=$path \
    containerd --config /mnt/host/pods/config.toml
for i in $(seq 200); do ctr version >/dev/null 2>&1 && break; sleep 0.05; done
for image in /mnt/host/pods/*/box.tar; do ctr --namespace k8s.io images import $image; done
"""
STOP = "systemctl stop pods; journalctl --unit=pods | tail -40"
IN_ROOTLESSKIT = f"""
set -e
systemd-run --user --quiet --unit=pods --property=Delegate=yes --setenv=PATH="$PATH" \
    {HELPERS}/containerd/in-rootlesskit.sh containerd --config /mnt/host/pods/rootless.toml
inside() {{
    child=$(cat "$XDG_RUNTIME_DIR/in-rootlesskit/child_pid")
    nsenter -U -m -n -p -i -u -C --preserve-credentials -t "$child" "$@"
}}
for i in $(seq 200); do inside ctr version >/dev/null 2>&1 && break; sleep 0.05; done
for image in /mnt/host/pods/*/box.tar; do inside ctr --namespace k8s.io images import $image >&2; done
PYTHONPATH={CHECKOUT} inside python3 """
STOP_IN_ROOTLESSKIT = "systemctl --user stop pods; journalctl --user --unit=pods | tail -40"


@pytest.fixture(scope="module")
def shared(machine, need):
    """A directory that is /mnt/host/pods in the machine, with the programs of containerd, which are installed there."""
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
    # udev does that elsewhere
    machine.run("install /mnt/host/pods/bin/* /usr/local/bin; chmod 666 /dev/net/tun", root=True, check=True)
    return shared


def words(profile, *runtimes):
    """Return the arguments of python3 that run pods.py."""
    return " ".join([f"{CHECKOUT}/tests/system/pods.py", "/mnt/host/pods/python", IMAGE, profile, *runtimes])


@pytest.fixture(scope="module")
def observed(machine, shared):
    """The results of pods.py in the machine, as root: by runtime."""
    shipped = (HELPERS / "containerd/rootful.toml").read_text()
    (shared / "config.toml").write_text(shipped + "".join(map(SYSTEMD.format, ("rootless", "runc"))))
    machine.run(START, root=True, check=True)
    done = machine.run(f"PYTHONPATH={CHECKOUT} python3 {words('RuntimeDefault', *RUNTIMES)}", root=True, timeout=300)
    said = machine.run(STOP, root=True).stdout
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def observed_in_rootlesskit(machine, shared):
    """The results of pods.py in the machine, as an ordinary user to whose containerd a cgroup is delegated."""
    shipped = (HELPERS / "containerd/rootless.toml").read_text()
    assert "disable_cgroup = true" in shipped
    (shared / "rootless.toml").write_text(shipped.replace("disable_cgroup = true", "disable_cgroup = false"))
    done = machine.run(IN_ROOTLESSKIT + words("Unconfined", "rootless", "runc"), timeout=300)
    said = machine.run(STOP_IN_ROOTLESSKIT).stdout
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    return json.loads(done.stdout)


def of_newer_runc(seen):
    """Return the results as of newer versions: runc 1.1 has the former conversion of shares, by which 512 are 20."""
    return seen | {name: seen[name] | {"cpu.weight": "59"} for name in ("limits", "changed")}


@pytest.mark.parametrize("manager", ["", "-systemd"], ids=["cgroupfs", "systemd"])
def test_a_pod_with_limits_and_a_profile_is_what_it_is_with_runc(observed, manager):
    assert observed[f"rootless{manager}"] == of_newer_runc(observed[f"runc{manager}"])


def test_a_pod_of_an_ordinary_user_with_limits_is_what_it_is_with_runc(observed_in_rootlesskit):
    assert observed_in_rootlesskit["rootless"] == of_newer_runc(observed_in_rootlesskit["runc"])


def check_limits(seen, weight):
    """Check that limits had their effect, and that nothing is left of the pod."""
    assert seen["limits"] == {
        "memory.max": str(50 * MIB), "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "33",
        "cpu.weight": weight,
    }  # fmt: skip
    assert seen["changed"] == seen["limits"] | {"memory.max": str(80 * MIB), "cpu.max": "25000 100000"}
    assert seen["starved"] == [137, "OOMKilled"]
    assert seen["killed"] == 137
    assert seen["statistics"][:2] == [True, True]
    assert "/fuse: Operation not permitted" in seen["inside"][2]
    assert seen["left"] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_limits_and_the_profile_are_in_force(observed, runtime):
    seen = observed[runtime]
    check_limits(seen, "59" if "rootless" in runtime else "20")
    assert seen["inside"][1].splitlines()[:2] == ["cri-containerd.apparmor.d (enforce)", "500"]
    assert "/proc/sysrq-trigger: Permission denied" in seen["inside"][2]


@pytest.mark.parametrize(("runtime", "weight"), [("rootless", "59"), ("runc", "20")])
def test_the_limits_of_an_ordinary_user_are_in_force(observed_in_rootlesskit, runtime, weight):
    seen = observed_in_rootlesskit[runtime]
    check_limits(seen, weight)
    assert seen["cgroup"] == "kubepods/ID"
    assert seen["inside"][1].splitlines() == ["unconfined", "500"]
