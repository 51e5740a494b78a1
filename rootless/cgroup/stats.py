"""What a cgroup uses, in the words of `runc events --stats`, which engines read (cgroup-v2.rst, "Interface Files")."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.cgroup.group import Group

_MICROSECOND = 1000
"""In nanoseconds, which the callers count in."""
_UNLIMITED = (1 << 64) - 1
_IO = {
    # file io.stat, cgroup-v2.rst: list in the document, name of the operation
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}
_FLAGS_OF_V1 = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip
"""Of a cpuset: cgroup v2 has none of them, and the callers know them as 0."""


def stats(group: Group) -> dict[str, Any]:
    """Return all that is known; what the cgroup has no controller for is 0."""
    return {
        "cpu": _cpu(group),
        "cpuset": _cpuset(group),
        "memory": _memory(group),
        "pids": _pids(group),
        "blkio": _block_io(group),
        "hugetlb": _huge_pages(group),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _number(group: Group, file: str) -> int:
    """Return the number in a file: 0 where there is none, the greatest for ``max``."""
    text = group.read(file).strip()
    return _UNLIMITED if text == "max" else int(text) if text.isdecimal() else 0


def _cpu(group: Group) -> dict[str, Any]:
    found = group.fields("cpu.stat")
    return {
        "usage": {
            "total": found.get("usage_usec", 0) * _MICROSECOND,
            "kernel": found.get("system_usec", 0) * _MICROSECOND,
            "user": found.get("user_usec", 0) * _MICROSECOND,
        },
        "throttling": {
            "periods": found.get("nr_periods", 0),
            "throttledPeriods": found.get("nr_throttled", 0),
            "throttledTime": found.get("throttled_usec", 0) * _MICROSECOND,
        },
        **_pressure(group, "cpu"),
    }


def _cpuset(group: Group) -> dict[str, Any]:
    found = {name: _numbers(group.read(f"cpuset.{name}.effective").strip()) for name in ("cpus", "mems")}
    return {name: numbers for name, numbers in found.items() if numbers} | dict.fromkeys(_FLAGS_OF_V1, 0)


def _numbers(text: str) -> list[int]:
    """Return what a list such as ``0-2,5`` stands for."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if dash else first) + 1)
    return found


def _memory(group: Group) -> dict[str, Any]:
    raw = group.fields("memory.stat")
    events = group.fields("memory.events")
    usage = {
        "limit": _number(group, "memory.max"),
        "usage": _number(group, "memory.current"),
        "max": _number(group, "memory.peak"),
        "failcnt": events.get("max", 0),
    }
    # the callers know the sum of memory and swap
    swap = {
        "limit": min(_UNLIMITED, usage["limit"] + _number(group, "memory.swap.max")),
        "usage": usage["usage"] + _number(group, "memory.swap.current"),
        "failcnt": group.fields("memory.swap.events").get("fail", 0),
    }
    if peak := _number(group, "memory.swap.peak"):
        swap["max"] = peak
    return {
        "cache": raw.get("file", 0),
        "usage": usage,
        "swap": swap,
        # no limits of their own in cgroup v2; what the kernel uses of the memory is in `raw`
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
        **_pressure(group, "memory"),
    }


def _pids(group: Group) -> dict[str, Any]:
    limit = _number(group, "pids.max")
    current = group.read("pids.current").strip()
    return {
        # without the controller, those that can be listed
        "current": int(current) if current else len(group.processes()),
        # 0 is what the callers have for no limit
        "limit": 0 if limit == _UNLIMITED else limit,
    }


def _block_io(group: Group) -> dict[str, Any]:
    lists: dict[str, list[dict[str, Any]]] = {}
    for line in group.read("io.stat").splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        values = dict(pair.partition("=")[::2] for pair in rest.split())
        for name, (key, operation) in _IO.items():
            if values.get(name, "").isdecimal() and major.isdecimal():
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[name])}
                lists.setdefault(key, []).append(entry)
    return {**lists, **_pressure(group, "io")}


def _huge_pages(group: Group) -> dict[str, Any]:
    """Return what is reserved, which is what is limited, or else in use; by the size of the page."""
    found = {}
    for file in group.files():
        prefix, _, rest = file.partition(".")
        size, _, rest = rest.partition(".")
        if prefix == "hugetlb" and rest == "current":
            reserved = group.read(f"hugetlb.{size}.rsvd.current").strip()
            found[size] = {
                "usage": int(reserved) if reserved.isdecimal() else _number(group, file),
                "failcnt": group.fields(f"hugetlb.{size}.events").get("max", 0),
            }
    return found


def _pressure(group: Group, kind: str) -> dict[str, Any]:
    """Return how long processes waited for something, where the kernel counts it (PSI)."""
    found: dict[str, dict[str, float]] = {}
    for line in group.read(f"{kind}.pressure").splitlines():
        whose, *pairs = line.split()
        values = dict(pair.partition("=")[::2] for pair in pairs)
        found[whose] = {name: int(text) if name == "total" else float(text) for name, text in values.items()}
    return {"psi": found} if found else {}
