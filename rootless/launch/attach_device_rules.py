"""The device rules of a cgroup: the executor loads the program, since Python has no bpf(2)."""

from __future__ import annotations

from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.plan import Plan


def attach(program: bytes, cgroup: int, where: str) -> None:
    """Let the eBPF `program` decide about every device that processes in a cgroup, or below, open or create.

    Args:
        program: the instructions from plan/cgroup/device_filter.py.
        cgroup: a descriptor of its directory.
        where: the place in config.json.

    Raises:
        RootlessError: `RL-DEVICE-RULES`: the kernel refuses the program.
    """
    plan = Plan([Op(ops.SPAWN), Op(ops.DEVICE_RULES, program, where=where), Op(ops.READY)])
    run = Run(plan, Descriptors(cgroup=cgroup))
    run.until_or_kill()
    run.close()
    assert run.executor
    run.executor.wait_first()
