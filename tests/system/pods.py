"""Make pods with each runtime by containerd, and print the effect of limits and AppArmor.

It runs in the machine, as root or in the namespaces of an ordinary user's containerd.

Arguments: a directory with the modules of the CRI and gRPC, the name of the image, the type of the containers' AppArmor
profile, and the names of the runtimes in the configuration of containerd. Output: ``{runtime: {property: value}}``.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
STATES = Path("/run/containerd/runc/k8s.io")
MIB = 1 << 20
BUSY = ("sh", "-c", "while :; do :; done")
LIMITS = {
    "memory_limit_in_bytes": 50 * MIB,
    "memory_swap_limit_in_bytes": 50 * MIB,
    "cpu_period": 100000,
    "cpu_quota": 50000,
    "cpu_shares": 512,
    "oom_score_adj": 500,
    "unified": {"pids.max": "33"},
}
CHANGED = LIMITS | {"memory_limit_in_bytes": 80 * MIB, "memory_swap_limit_in_bytes": 80 * MIB, "cpu_quota": 25000}
FILES = ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max")
STARVED = "tail /dev/zero; code=$?; trap 'exit $code' TERM; echo $code; while :; do sleep 0.1; done"
LOOK = """
cat /proc/self/attr/current
cat /proc/self/oom_score_adj
echo . >/proc/sysrq-trigger
mknod /fuse c 10 229
: </fuse
"""


def until(condition):
    """Wait for a condition, and return its value."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def processes():
    """Return the names of the processes that shims and runtimes have."""
    names = [path.read_text().strip() for path in Path("/proc").glob("[1-9]*/comm")]
    return [name for name in names if re.match("containerd-shim|rootless(?!kit)|runc", name)]


def observed(cri, profile, runtime):
    """Return what becomes of a pod."""
    parent = "/kubepods.slice" if runtime.endswith("systemd") else "/kubepods"
    seen = {}
    with cri.pod(runtime, namespaces={"network": cri.api.NODE}, linux={"cgroup_parent": parent}) as pod:
        security = {"apparmor": {"profile_type": getattr(cri.api.SecurityProfile, profile)}}
        container = pod.start(*BUSY, resources=LIMITS, security=security)
        status = cri.call("ContainerStatus", container_id=container.id, verbose=True)
        process = Path("/proc", str(json.loads(status.info["info"])["pid"]))
        cgroup = ROOT / (process / "cgroup").read_text().strip().removeprefix("0::/")
        seen["cgroup"] = str(cgroup.relative_to(ROOT)).replace(container.id, "ID")
        seen["limits"] = {name: (cgroup / name).read_text().strip() for name in FILES}
        cri.call("UpdateContainerResources", container_id=container.id, linux=CHANGED)
        seen["changed"] = {name: (cgroup / name).read_text().strip() for name in FILES}
        seen["inside"] = container.sh(LOOK)

        def used():
            return cri.call("ContainerStats", container_id=container.id).stats

        first = until(lambda: used().cpu.usage_core_nano_seconds.value)
        until(lambda: used().cpu.usage_core_nano_seconds.value > first)
        of_pod = cri.call("PodSandboxStats", pod_sandbox_id=pod.id).stats.linux
        seen["statistics"] = [
            0 < used().memory.working_set_bytes.value < 50 * MIB,
            of_pod.cpu.usage_core_nano_seconds.value > first,
            of_pod.process.process_count.value,
        ]
        # its cgroup stays, so that containerd can read the reason
        child = pod.start("sh", "-c", STARVED, name="child", resources=LIMITS)
        # the shell's message, which is in another stream, may come before or after it
        until(lambda: " stdout F 137\n" in child.log.read_text())
        until(lambda: child.status.reason == "OOMKilled")
        child.stop()
        seen["starved"] = [child.status.exit_code, child.status.reason]
        killed = pod.start("tail", "/dev/zero", name="killed", resources=LIMITS)
        until(lambda: killed.exited)
        seen["killed"] = killed.status.exit_code
        container.stop(0)
        seen["stopped"] = container.status.exit_code
    until(lambda: not processes())
    seen["left"] = [path.name for path in (*ROOT.glob("kubepods*/*/"), *STATES.iterdir())]
    return seen


def main() -> None:
    """Print what each runtime does."""
    modules, image, profile, *runtimes = sys.argv[1:]
    sys.path.insert(0, modules)
    from tests.lib.cri import imported, opened_cri

    where = {"uid": 0, "gid": 0, "tmp": Path("/run/containerd/pods"), "image": image}
    with opened_cri(imported(Path(modules)), Path("/run/containerd/containerd.sock"), **where) as cri:
        json.dump({runtime: observed(cri, profile, runtime) for runtime in runtimes}, sys.stdout)


if __name__ == "__main__":
    main()
