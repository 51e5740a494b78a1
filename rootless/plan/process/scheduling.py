"""Scheduler, I/O priority, memory policy and personality: config.md "Linux Process".

Source: config-linux.md "Memory policy" and "Personality"; sched(7), sched_setaffinity(2), ioprio_set(2),
set_mempolicy(2), personality(2). Imported only if config.json has one of them.
"""

from __future__ import annotations

from _struct import Struct
from sys import byteorder

from rootless.errors import RootlessError
from rootless.linux import CAP_SYS_NICE
from rootless.plan import ops
from rootless.plan.idmaps import id_number
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rootless.plan.context import Context

POLICIES = (
    "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE",
)  # fmt: skip
"""In the order of their numbers, sched(7); Linux has never had SCHED_ISO."""

_NICE = ("SCHED_OTHER", "SCHED_BATCH")
_REALTIME = ("SCHED_FIFO", "SCHED_RR")
_DEADLINE = "SCHED_DEADLINE"

_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

_SCHED_ATTR = Struct("=IIQiIQQQII")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max."""

_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT = 13

_DOMAINS = {"LINUX": 0, "LINUX32": 8}

_MEMORY_MODES = {
    # number, and whether it needs nodes; None: nodes are optional
    "MPOL_DEFAULT": (0, False),
    "MPOL_PREFERRED": (1, None),
    "MPOL_BIND": (2, True),
    "MPOL_INTERLEAVE": (3, True),
    "MPOL_LOCAL": (4, False),
    "MPOL_PREFERRED_MANY": (5, True),
    "MPOL_WEIGHTED_INTERLEAVE": (6, True),
}
_MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
_MOST_NODES = 1024
"""At least the maximum of every kernel configuration."""
_MOST_CPUS = 8192
_LONG = 8
"""Size of a C long in bytes on every supported architecture; the kernel's bit masks are arrays of long."""


def operations(context: Context) -> list[Op]:
    """Return the operations; they need the privileges that the caller has.

    Raises:
        RootlessError: `RL-SCHEDULER`, `RL-CONFIG`: a value is invalid.
    """
    process, linux = context.process, context.linux
    plan: list[Op] = []
    if process.get("scheduler"):
        plan.append(_scheduler(context, process["scheduler"]))
    if process.get("ioPriority"):
        plan.append(_io_priority(process["ioPriority"]))
    if linux.get("memoryPolicy"):
        plan.append(_memory_policy(linux["memoryPolicy"]))
    if linux.get("personality"):
        plan.append(_personality(linux["personality"]))
    return plan


def _scheduler(context: Context, wanted: dict[str, Any]) -> Op:
    policy: str = wanted["policy"]
    if policy == "SCHED_ISO":
        raise RootlessError(
            "cannot set the scheduling policy SCHED_ISO",
            cause="Linux reserves the name but does not implement it",
            where="process.scheduler.policy",
            fix="choose SCHED_RR, or SCHED_OTHER with a negative nice",
            code="RL-SCHEDULER",
        )
    nice, priority = _nice(context, wanted), wanted.get("priority") or 0
    budget = {name: wanted.get(name) or 0 for name in ("runtime", "deadline", "period")}
    if (budget["deadline"] or budget["period"]) and policy != _DEADLINE:  # which the kernel accepts and ignores
        context.warn_ignored("process.scheduler", f"deadline and period have no effect under {policy}")
    flags = sum(_SCHEDULER_FLAGS[flag] for flag in set(wanted.get("flags") or ()))
    numbers = (_SCHED_ATTR.size, POLICIES.index(policy), flags, nice, priority, *budget.values(), 0, 0)
    words = [policy]
    words += [f"nice {nice}"] if policy in _NICE else []
    words += [f"priority {priority}"] if priority or policy in _REALTIME else []
    words += [f"{name} {value}" for name, value in budget.items() if value]
    words += wanted.get("flags") or ()
    return Op(ops.SCHEDULER, ", ".join(words), _SCHED_ATTR.pack(*numbers), where="process.scheduler")


def _nice(context: Context, wanted: dict[str, Any]) -> int:
    """Return the nice value; if none is given, 0, or the caller's own if that is higher and only root may lower it."""
    policy, nice = wanted["policy"], wanted.get("nice")
    where = "process.scheduler.nice"
    if policy not in _NICE:
        if nice:  # which the kernel accepts and ignores
            context.warn_ignored(where, f"nice has no effect under {policy}")
    elif nice is None and context.facts.nice > 0 and not context.facts.may(CAP_SYS_NICE):
        nice = context.facts.nice
        context.adapted(where, f"nice stays at {nice}, the caller's own: only root may lower it to 0")
    return nice or 0


def _io_priority(wanted: dict[str, Any]) -> Op:
    name: str = wanted["class"]
    level = wanted.get("priority") or 0
    value = _IO_CLASSES[name] << _IO_CLASS_SHIFT | level
    text = name if name == "IOPRIO_CLASS_IDLE" else f"{name}, level {level}"
    return Op(ops.IO_PRIORITY, value, text, where="process.ioPriority")


def _personality(wanted: dict[str, Any]) -> Op:
    if wanted.get("flags"):
        raise RootlessError(
            f"cannot set the personality flag {wanted['flags'][0]}",
            cause="the specification defines no flags",
            where="linux.personality.flags[0]",
            fix="leave flags out",
            code="RL-CONFIG",
        )
    return Op(ops.PERSONALITY, _DOMAINS[wanted["domain"]], wanted["domain"], where="linux.personality")


def _memory_policy(wanted: dict[str, Any]) -> Op:
    where = "linux.memoryPolicy"
    mode: str = wanted["mode"]
    number, wants_nodes = _MEMORY_MODES[mode]
    text: str = wanted.get("nodes") or ""
    parts = text.split(",") if text.strip() else ()
    nodes = _mask_of(parts, _MOST_NODES, f"invalid memory policy: nodes {text!r}", f"{where}.nodes")
    if wants_nodes is not None and wants_nodes != bool(nodes):
        raise RootlessError(
            f"invalid memory policy: {mode}",
            cause="it needs nodes" if wants_nodes else "it takes no nodes",
            where=f"{where}.nodes",
            fix='write nodes such as "0-1"' if wants_nodes else "leave nodes out",
            code="RL-CONFIG",
        )
    for flag in wanted.get("flags") or ():
        number |= _MEMORY_FLAGS[flag]
    summary = ", ".join([mode, *([f"nodes {text}"] if nodes else []), *(wanted.get("flags") or ())])
    # one bit longer than needed: set_mempolicy(2) ignores the last one
    mask = _longs(nodes, nodes.bit_length() + 1) if nodes else b""
    return Op(ops.MEMORY_POLICY, number, summary, mask, where=where)


def _longs(bits: int, count: int) -> bytes:
    """Return a mask of at least `count` bits as an array of native longs."""
    width = 8 * _LONG
    words = (bits >> shift & (1 << width) - 1 for shift in range(0, count, width))
    return b"".join([word.to_bytes(_LONG, byteorder) for word in words])


def _mask_of(parts: Iterable[str], most: int, what: str, where: str) -> int:
    """Return the bits of numbers below `most` and ranges of them: ``0-3`` and ``7``."""
    mask = 0
    for part in parts:
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        low, high = id_number(first), id_number(last if dash else first)
        if not 0 <= low <= high < most:
            raise RootlessError(
                what,
                cause=f"{part.strip()!r} is neither a number below {most} nor a range of such numbers",
                where=where,
                fix="write a list such as 0-3,7",
                code="RL-CONFIG",
            )
        mask |= (1 << high + 1) - (1 << low)
    return mask


def cpu_mask(cpus: str, where: str) -> bytes:
    """Return a list of CPUs such as ``0-3,7`` as a bit mask for sched_setaffinity(2), an array of native longs.

    Raises:
        RootlessError: `RL-CONFIG`: the text is not a list of CPUs below 8192.
    """
    parts = filter(None, cpus.replace(" ", "").split(","))
    mask = _mask_of(parts, _MOST_CPUS, f"cannot run on CPUs {cpus}", where)
    return _longs(mask, max(mask.bit_length(), 1))
