"""Edits of linux.resources: podman-run(1), config-linux.md "Control groups"."""

from __future__ import annotations

from rootless.bundle.edit.values import changed, misused, size, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.bundle.edit.values import Config

    Device = tuple[int, int]
    """Major and minor number."""

_PERIOD = 100000
"""Microseconds: what --cpus divides, the kernel's default and podman's."""
_WEIGHTS = (10, 1000)
_UNLIMITED = -1
_MOST = 2**63 - 1
_DIGITS = 12
"""Characters of --cpus."""


def set_memory(config: Config, *, limit: str = "", swap: str = "", reservation: str = "") -> Config:
    """Return the configuration with these limits of memory; `swap` is memory and swap together.

    With a limit and no `swap` the program may use as much swap as memory, as with podman and docker.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    found: dict[str, int] = {}
    before = (((config.get("linux") or {}).get("resources") or {}).get("memory") or {}).get("limit") or 0
    if limit:
        before = found["limit"] = _bytes("--memory", limit)
    if swap:
        found["swap"] = _bytes("--memory-swap", swap)
        if before <= 0 < found["swap"]:
            raise misused("--memory-swap", swap, "there is no limit of memory", "give one with --memory")
        if 0 < found["swap"] < before:
            raise misused("--memory-swap", swap, "it is memory and swap together, and below --memory", "write more")
    elif limit:
        found["swap"] = 2 * found["limit"] if found["limit"] > 0 else found["limit"]
    if reservation:
        found["reservation"] = _bytes("--memory-reservation", reservation)
    return changed(config, "linux", "resources", "memory", **found)


def _bytes(flag: str, text: str) -> int:
    """Return bytes; -1 and 0 are no limit."""
    return _UNLIMITED if text == "-1" else size(flag, text) or _UNLIMITED


def set_cpus(config: Config, text: str) -> Config:
    """Return the configuration with so many CPUs' time, such as ``1.5``; 0 is no limit.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit() or len(text) > _DIGITS:
        raise misused("--cpus", text, "it is not a number of CPUs", "write one such as 2 or 0.5")
    quota = round(float(text) * _PERIOD)
    return changed(config, "linux", "resources", "cpu", period=_PERIOD, quota=quota or _UNLIMITED)


LIMITS = {
    # attribute of Options: flag, section and name in linux.resources, least and greatest value; None: it is text
    "cpu_share": ("--cpu-shares", "cpu", "shares", (0, 262144)),
    "cpu_period": ("--cpu-period", "cpu", "period", (0, 1000000)),
    "cpu_quota": ("--cpu-quota", "cpu", "quota", (_UNLIMITED, _MOST)),
    "cpuset_cpus": ("--cpuset-cpus", "cpu", "cpus", None),
    "cpuset_mems": ("--cpuset-mems", "cpu", "mems", None),
    "pids_limit": ("--pids-limit", "pids", "limit", (_UNLIMITED, _MOST)),
    "blkio_weight": ("--blkio-weight", "blockIO", "weight", _WEIGHTS),
}
"""Limits that are one number, or one text, each."""


def set_limit(config: Config, attribute: str, text: str) -> Config:
    """Return the configuration with a limit of LIMITS.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    flag, section, name, numbers = LIMITS[attribute]
    value = whole_number(flag, text, *numbers) if numbers else text
    return changed(config, "linux", "resources", section, **{name: value})


IO_LIMITS: dict[str, tuple[str, Callable[[str, str], int], str]] = {
    # flag: name in linux.resources.blockIO, what reads the value, the name of the value
    "--blkio-weight-device": ("weightDevice", lambda flag, text: whole_number(flag, text, *_WEIGHTS), "weight"),
    "--device-read-bps": ("throttleReadBpsDevice", size, "rate"),
    "--device-write-bps": ("throttleWriteBpsDevice", size, "rate"),
    "--device-read-iops": ("throttleReadIOPSDevice", whole_number, "rate"),
    "--device-write-iops": ("throttleWriteIOPSDevice", whole_number, "rate"),
}


def places() -> dict[str, tuple[str, str]]:
    """Return the place in linux.resources and the flag of each attribute of Options that limits something."""
    memory = {
        "memory": ("memory", "--memory"),
        "memory_swap": ("memory.swap", "--memory-swap"),
        "memory_reservation": ("memory.reservation", "--memory-reservation"),
        "cpus": ("cpu", "--cpus"),
    }
    single = {attribute: (f"{section}.{name}", flag) for attribute, (flag, section, name, _) in LIMITS.items()}
    io = {flag[2:].replace("-", "_"): (f"blockIO.{name}", flag) for flag, (name, _, _) in IO_LIMITS.items()}
    return memory | single | io


def add_io_limits(config: Config, flag: str, asked: Sequence[str], device: Callable[[str, str], Device]) -> Config:
    """Return the configuration with limits of block I/O, each ``PATH:VALUE``.

    Args:
        config: the configuration.
        flag: one of IO_LIMITS.
        asked: the values of the flag.
        device: returns the numbers of the device at a path; it gets the flag's value, for errors, and the path.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    name, read, value_name = IO_LIMITS[flag]
    block_io = ((config.get("linux") or {}).get("resources") or {}).get("blockIO") or {}
    limits = {(each["major"], each["minor"]): each for each in block_io.get(name) or ()}
    for text in asked:
        path, _, value = text.rpartition(":")
        if not path:
            raise misused(flag, text, "there is no path of a device", "write PATH:VALUE, such as /dev/sda:1mb")
        number = read(flag, value)
        major, minor = device(text, path)
        limits[major, minor] = {"major": major, "minor": minor, value_name: number}
    return changed(config, "linux", "resources", "blockIO", **{name: list(limits.values())})
