"""Convert linux.resources to values for cgroup v2 files: cgroup-v2.rst, config-linux.md.

Sections that were designed for cgroup v1 are converted as the specification allows. A value that v2 cannot express is
an error; a value that limits nothing is left out.
"""

from __future__ import annotations

import math

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

UNLIMITED = -1
DEFAULT_PERIOD = 100000
"""The default period of cpu.max, in microseconds."""


_WITHOUT_COUNTERPART = (
    ("memory", "kernel"),
    ("memory", "kernelTCP"),
    ("memory", "swappiness"),
    ("blockIO", "leafWeight"),
)


class Setting:
    """One value to write to a file of a cgroup.

    Attributes:
        file: the file's name; it begins with the controller's name.
        value: the text to write.
        where: the place in config.json, or the flag, that requests it.
        otherwise: the setting to write instead if the kernel does not have the file.
    """

    __slots__ = ("file", "otherwise", "value", "where")

    def __init__(self, file: str, value: str, where: str, otherwise: Setting | None = None) -> None:
        self.file = file
        self.value = value
        self.where = where
        self.otherwise = otherwise

    @property
    def controller(self) -> str:
        """Return the required controller; empty for a file that every cgroup has."""
        controller = self.file.partition(".")[0]
        return "" if controller == "cgroup" else controller

    def __repr__(self) -> str:
        """Return a short form for test failures."""
        return f"<{self.file}={self.value!r}>"


def settings(resources: dict[str, Any], place: str = "linux.resources") -> list[Setting]:
    """Return the settings in an order that the kernel accepts; `unified` comes last, so that it wins.

    Raises:
        RootlessError: `RL-RESOURCES`: a value is invalid, or cgroup v2 cannot express it.
    """
    return [
        *_memory(resources.get("memory") or {}, f"{place}.memory"),
        *_cpu(resources.get("cpu") or {}, f"{place}.cpu"),
        *_pids(resources.get("pids") or {}, f"{place}.pids"),
        *_block_io(resources.get("blockIO") or {}, f"{place}.blockIO"),
        *_huge_pages(resources.get("hugepageLimits") or [], f"{place}.hugepageLimits"),
        *_rdma(resources.get("rdma") or {}, f"{place}.rdma"),
        *_network(resources.get("network") or {}, f"{place}.network"),
        *_unified(resources.get("unified") or {}, f"{place}.unified"),
    ]


def without_counterpart(resources: dict[str, Any]) -> list[str]:
    """Return the names of requested limits without a counterpart in cgroup v2, such as `memory.kernel`."""
    return [
        f"{section}.{name}"
        for section, name in _WITHOUT_COUNTERPART
        if (resources.get(section) or {}).get(name) not in ((None,) if name == "swappiness" else (None, 0, UNLIMITED))
    ]


def _memory(memory: dict[str, Any], place: str) -> Iterator[Setting]:
    if memory.get("disableOOMKiller"):
        raise _refused(f"{place}.disableOOMKiller", "cgroup v2 cannot disable the OOM killer", "leave it out")
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    for name in ("limit", "swap", "reservation"):
        if (memory.get(name) or 0) < UNLIMITED:
            raise _refused(f"{place}.{name}", f"{memory[name]} bytes", "write a number of bytes, or -1 for no limit")
    if swap > 0:
        if limit <= 0:
            raise _refused(f"{place}.swap", "swap is the sum of memory and swap, and limit is not set", "set limit")
        if swap < limit:
            raise _refused(
                f"{place}.swap", f"the sum of memory and swap, {swap}, is below limit", f"write at least {limit}"
            )
        yield Setting("memory.swap.max", str(swap - limit), f"{place}.swap")
    elif UNLIMITED in (swap, limit):
        yield Setting("memory.swap.max", "max", f"{place}.swap" if swap else f"{place}.limit")
    if limit:
        yield Setting("memory.max", _bytes(limit), f"{place}.limit")
    if reservation := memory.get("reservation"):
        yield Setting("memory.low", _bytes(reservation), f"{place}.reservation")


def _cpu(cpu: dict[str, Any], place: str) -> Iterator[Setting]:
    for name in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(name):
            raise _refused(f"{place}.{name}", "cgroup v2 has no realtime limits", "leave it out")
    # the kernel refuses a weight for an idle cgroup
    if (shares := cpu.get("shares")) and cpu.get("idle") != 1:
        yield Setting("cpu.weight", str(cpu_weight(shares)), f"{place}.shares")
    if cpu.get("idle") is not None:
        if cpu["idle"] not in (0, 1):
            raise _refused(f"{place}.idle", f"{cpu['idle']}", "write 0 or 1")
        yield Setting("cpu.idle", str(cpu["idle"]), f"{place}.idle")
    yield from _cpu_time(cpu, place)
    if cpu.get("cpus"):
        yield Setting("cpuset.cpus", cpu["cpus"], f"{place}.cpus")
    if cpu.get("mems"):
        yield Setting("cpuset.mems", cpu["mems"], f"{place}.mems")


def _cpu_time(cpu: dict[str, Any], place: str) -> Iterator[Setting]:
    quota, period, burst = cpu.get("quota") or 0, cpu.get("period") or 0, cpu.get("burst")
    if burst and 0 < quota < burst:
        raise _refused(f"{place}.burst", f"{burst} is above quota", f"write at most {quota}")
    if quota or period:
        share = str(quota) if quota > 0 else "max"
        yield Setting("cpu.max", f"{share} {period or DEFAULT_PERIOD}", f"{place}.{'quota' if quota else 'period'}")
    if burst is not None:
        yield Setting("cpu.max.burst", str(burst), f"{place}.burst")


def cpu_weight(shares: int) -> int:
    """Convert cgroup v1's cpu.shares (2…262144) to cpu.weight (1…10000), default to default (1024 to 100).

    The function is quadratic in the logarithm of the shares, through (2, 1), (1024, 100) and (262144, 10000).
    """
    if shares <= 2:  # noqa: PLR2004 - the minimum in cgroup v1
        return 1
    logarithm = math.log2(min(shares, 262144))
    return math.ceil(10 ** ((logarithm * logarithm + 125 * logarithm) / 612 - 7 / 34))


def _pids(pids: dict[str, Any], place: str) -> Iterator[Setting]:
    limit = pids.get("limit")
    if limit is not None:
        # Go programs write 0 for no limit: a cgroup without processes would be of no use
        yield Setting("pids.max", str(limit) if limit > 0 else "max", f"{place}.limit")


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def _block_io(block_io: dict[str, Any], place: str) -> Iterator[Setting]:
    if weight := block_io.get("weight"):
        yield _io_weight(f"{place}.weight", "", weight)
    for index, device in enumerate(block_io.get("weightDevice") or []):
        if weight := device.get("weight"):
            yield _io_weight(f"{place}.weightDevice[{index}]", f"{device['major']}:{device['minor']} ", weight)
    for name, word in _THROTTLES:
        for index, device in enumerate(block_io.get(name) or []):
            rate = device.get("rate") or "max"
            yield Setting("io.max", f"{device['major']}:{device['minor']} {word}={rate}", f"{place}.{name}[{index}]")


def _io_weight(where: str, device: str, weight: int) -> Setting:
    """Return the setting for a v1 weight (10…1000): io.bfq.weight with the same value, or io.weight (1…10000)."""
    if not 10 <= weight <= 1000:  # noqa: PLR2004 - cgroup v1's range
        raise _refused(where, f"weight {weight}", "write a weight from 10 to 1000")
    other = Setting("io.weight", f"{device or 'default '}{1 + (weight - 10) * 9999 // 990}", where)
    return Setting("io.bfq.weight", f"{device}{weight}", where, other)


def _huge_pages(limits: list[dict[str, Any]], place: str) -> Iterator[Setting]:
    for index, each in enumerate(limits):
        size, limit, where = each["pageSize"], str(each["limit"]), f"{place}[{index}]"
        yield Setting(f"hugetlb.{size}.rsvd.max", limit, where, Setting(f"hugetlb.{size}.max", limit, where))


def _rdma(rdma: dict[str, Any], place: str) -> Iterator[Setting]:
    for device, each in rdma.items():
        names = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        words = [f"{word}={each[name]}" for name, word in names if each.get(name) is not None]
        if not words:
            raise _refused(f"{place}.{device}", "neither hcaHandles nor hcaObjects is set", "set one of them")
        yield Setting("rdma.max", " ".join((device, *words)), f"{place}.{device}")


def _network(network: dict[str, Any], place: str) -> Iterator[Setting]:
    for name in ("classID", "priorities"):
        if network.get(name):
            raise _refused(f"{place}.{name}", "cgroup v2 cannot tag packets", "leave it out")
    return iter(())


def _unified(unified: dict[str, str], place: str) -> Iterator[Setting]:
    for file, value in unified.items():
        if "/" in file or "." not in file:
            raise _refused(f"{place}.{file}", "not the name of a cgroup file", "write a name such as memory.high")
        # the kernel accepts one line per write(2)
        for line in value.splitlines() or [""]:
            yield Setting(file, line, f"{place}.{file}")


def _bytes(number: int) -> str:
    return "max" if number == UNLIMITED else str(number)


def _refused(where: str, cause: str, fix: str) -> RootlessError:
    return RootlessError("cannot limit resources", cause=cause, where=where, fix=fix, code="RL-RESOURCES")
