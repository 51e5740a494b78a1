"""Limits and annotations as properties of a systemd unit: systemd.resource-control(5).

`systemctl --user show` shows properties, and a daemon-reload keeps them; neither is true of values that are written to
the cgroup's files. Imported only if systemd creates the cgroup.
"""

from __future__ import annotations

from rootless.errors import RootlessError, place
from rootless.plan.cgroup import gvariant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from rootless.plan.cgroup.limits import Setting

INFINITY = (1 << 64) - 1
"""No limit."""
_MICROSECONDS = 1_000_000
_STEP = 10_000
"""The granularity of CPUQuotaPerSecUSec, in microseconds: systemd stores whole percents."""
_SUFFIXES = "KMGTPE"
BFQ_WEIGHT = "io.bfq.weight"
_USUAL_WEIGHT = 100
"""The default of io.weight (1…10000) and of io.bfq.weight (1…1000)."""

_UNIT_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.@\\")
_LONGEST_UNIT = 255

PREFIX = "org.systemd.property."
"""Prefix of annotations; the value is GVariant text, as in runc."""
_NOT_FROM_ANNOTATIONS = {
    "PIDs": "rootless puts the container's process into the scope",
    "PIDFDs": "rootless puts the container's process into the scope",
    "Slice": "cgroupsPath names the slice",
    "ControlGroup": "cgroupsPath names the slice",
}


class Property:
    """A property of a unit.

    Attributes:
        name: its name on D-Bus.
        signature: its D-Bus type.
        value: its value.
        where: the place in config.json, or the flag, that requests it; empty for a property that rootless adds.
        spare: a systemd that does not know it is no error: the value is also written to a file of the cgroup.
    """

    __slots__ = ("name", "signature", "spare", "value", "where")

    def __init__(
        self,
        name: str,
        signature: str,
        value: Any,  # noqa: ANN401 - see signature
        where: str = "",
        *,
        spare: bool = False,
    ) -> None:
        self.name = name
        self.signature = signature
        self.value = value
        self.where = where
        self.spare = spare

    def __repr__(self) -> str:
        """Return a short form for test failures."""
        return f"<{self.name}={self.value!r}>"


def of_settings(settings: Iterable[Setting], *, bfq: bool = False) -> list[Property]:
    """Return the properties that correspond to settings.

    A setting without a property, or with a value that only the kernel understands, goes to the cgroup's file only.

    Args:
        settings: the values for the cgroup's files.
        bfq: the kernel has io.bfq.weight, which systemd derives from the property for io.weight.
    """
    found: dict[str, Property] = {}
    for setting in settings:
        candidate: Setting | None = setting
        while candidate:
            if candidate.file == BFQ_WEIGHT and not bfq:
                candidate = candidate.otherwise
                continue
            for made in _properties(candidate):
                earlier = found.get(made.name)
                if earlier and made.signature == "a(st)":
                    made.value = [each for each in earlier.value if each[0] != made.value[0][0]] + made.value
                found[made.name] = made
            candidate = None if candidate.file == BFQ_WEIGHT else candidate.otherwise
    return list(found.values())


def _properties(setting: Setting) -> list[Property]:
    convert = _CONVERSIONS.get(setting.file)
    try:
        made = convert(setting.value) if convert else []
    except (ValueError, KeyError, ZeroDivisionError):
        return []
    numbers = [value[0][1] if signature == "a(st)" else value for _, signature, value in made if "t" in signature]
    if not all(0 <= number <= INFINITY for number in numbers):
        return []
    return [Property(*each, setting.where, spare=True) for each in made]


def _bytes(name: str) -> Callable[[str], list[tuple[str, str, Any]]]:
    return lambda value: [(name, "t", _number(value))]


def _number(value: str) -> int:
    """Return the number in a text that the kernel's memparse() reads: digits with a suffix such as M, or `max`."""
    text = value.strip()
    if text == "max":
        return INFINITY
    shift = 10 * (_SUFFIXES.find(text[-1:].upper()) + 1) if text else 0
    number = _integer(text[:-1] if shift else text) << shift
    if not 0 <= number < INFINITY:
        raise ValueError(value)
    return number


def _integer(text: str) -> int:
    """Parse ASCII digits; int() also accepts other digits and signs, which the kernel does not."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)


def _quota(value: str) -> list[tuple[str, str, Any]]:
    quota, _, rest = value.partition(" ")
    period = _integer(rest or "100000")
    # rounded up, as in runc: the quota that systemd stores must not be less than the requested one
    each_second = INFINITY if quota == "max" else -(-_integer(quota) * _MICROSECONDS // (period * _STEP)) * _STEP
    return [("CPUQuotaPerSecUSec", "t", each_second), ("CPUQuotaPeriodUSec", "t", period)]


def _idle(value: str) -> list[tuple[str, str, Any]]:
    return [("CPUWeight", "t", 0)] if value == "1" else []


def _set_of(name: str) -> Callable[[str], list[tuple[str, str, Any]]]:
    return lambda value: [(name, "ay", _bits(value))]


def _bits(value: str) -> bytes:
    """Return a list such as ``0-3,8`` as a bit mask, lowest byte first."""
    bits = 0
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = _integer(first), _integer(last if dash else first)
        if not 0 <= low <= high < 1 << 13:
            raise ValueError(value)
        bits |= (1 << high + 1) - (1 << low)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _weight(value: str) -> list[tuple[str, str, Any]]:
    device, _, weight = value.rpartition(" ")
    if device in ("", "default"):
        return [("IOWeight", "t", _integer(weight))]
    return [("IODeviceWeight", "a(st)", [(_device(device), _integer(weight))])]


def _bfq_weight(value: str) -> list[tuple[str, str, Any]]:
    """Return the IOWeight that systemd converts to this BFQ weight; it scales those above 100 (systemd's cgroup.c)."""
    device, _, weight = value.rpartition(" ")
    number = _integer(weight)
    if number > _USUAL_WEIGHT:
        number = _USUAL_WEIGHT + (number - _USUAL_WEIGHT) * (10000 - _USUAL_WEIGHT) // (1000 - _USUAL_WEIGHT)
    return _weight(f"{device} {number}".lstrip())


_THROTTLES = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}


def _throttle(value: str) -> list[tuple[str, str, Any]]:
    device, *rates = value.split()
    pairs = [rate.partition("=") for rate in rates]
    if not all(word in _THROTTLES for word, _, _ in pairs):
        raise ValueError(value)
    return [(_THROTTLES[word], "a(st)", [(_device(device), _number(rate))]) for word, _, rate in pairs]


def _device(numbers: str) -> str:
    major, _, minor = numbers.partition(":")
    return f"/dev/block/{_integer(major)}:{_integer(minor)}"


_CONVERSIONS: dict[str, Callable[[str], list[tuple[str, str, Any]]]] = {
    "cpu.weight": lambda value: [("CPUWeight", "t", _integer(value))],
    "cpu.idle": _idle,
    "cpu.max": _quota,
    "cpuset.cpus": _set_of("AllowedCPUs"),
    "cpuset.mems": _set_of("AllowedMemoryNodes"),
    BFQ_WEIGHT: _bfq_weight,
    "io.max": _throttle,
    "io.weight": _weight,
    "memory.high": _bytes("MemoryHigh"),
    "memory.low": _bytes("MemoryLow"),
    "memory.max": _bytes("MemoryMax"),
    "memory.min": _bytes("MemoryMin"),
    "memory.oom.group": lambda value: [("OOMPolicy", "s", {"0": "continue", "1": "kill"}[value])],
    "memory.swap.max": _bytes("MemorySwapMax"),
    "memory.zswap.max": _bytes("MemoryZSwapMax"),
    "pids.max": _bytes("TasksMax"),
}
"""For each file of a cgroup, the function that converts a value to properties (name, type, value).

A value without a counterpart raises ValueError, KeyError or ZeroDivisionError.
"""


def scope_name(prefix: str, name: str) -> str:
    """Return the name of a scope, with other characters escaped as by systemd-escape(1).

    Raises:
        RootlessError: `RL-CGROUP`: the name is missing, is too long, or is that of a slice, which has no processes.
    """
    text = f"{prefix}-{name}"
    unit = "".join(each if each in _UNIT_CHARACTERS else _escaped(each) for each in text) + ".scope"
    if not name or name.endswith(".slice") or len(unit) > _LONGEST_UNIT:
        cause = "it is too long" if len(unit) > _LONGEST_UNIT else "it is a slice" if name else "the name is missing"
        raise _unusable(unit, cause, "write slice:prefix:name with the name of a scope")
    return unit


def _escaped(character: str) -> str:
    data = character.encode("utf-8", "surrogateescape")
    return "-" if character == "/" else "".join(f"\\x{byte:02x}" for byte in data)


def slice_name(text: str) -> str:
    """Return a slice name after checking it; empty for the default slice.

    Raises:
        RootlessError: `RL-CGROUP`: it is not a valid slice name (systemd.slice(5)).
    """
    stem = text.removesuffix(".slice")
    parts = stem.split("-")
    is_valid = text.endswith(".slice") and _UNIT_CHARACTERS.issuperset(text) and len(text) <= _LONGEST_UNIT
    if text and stem != "-" and not (is_valid and all(parts)):
        raise _unusable(text, "it is not the name of a slice", "write a name such as user.slice or a-b.slice")
    return text


def _unusable(unit: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(
        f"cannot have systemd create {unit}", cause=cause, where="linux.cgroupsPath", fix=fix, code="RL-CGROUP"
    )


def of_annotations(annotations: dict[str, str]) -> list[Property]:
    """Return the properties that the annotations of config.json request.

    As in runc, a name that ends in Sec has a value in seconds and sets the D-Bus property in microseconds (USec).

    Raises:
        RootlessError: `RL-ANNOTATION`: a name is not that of a property, rootless sets it, or the value is invalid.
    """
    return [
        _annotated(name.removeprefix(PREFIX), value, place("annotations", name))
        for name, value in annotations.items()
        if name.startswith(PREFIX)
    ]


def _annotated(name: str, text: str, where: str) -> Property:
    if name in _NOT_FROM_ANNOTATIONS:
        raise _refused(name, _NOT_FROM_ANNOTATIONS[name], where, "remove the annotation")
    if not (name.isascii() and name.isalpha()):
        raise _refused(name, "it is not the name of a property", where, "see org.freedesktop.systemd1(5)")
    try:
        signature, value = gvariant.parse(text)
        if name.endswith("Sec") and not name.endswith("USec"):
            if signature not in ("n", "q", "i", "u", "x", "t", "d") or not 0 <= value < INFINITY // _MICROSECONDS:
                raise ValueError("expected a number of seconds")  # noqa: TRY301
            name, signature, value = name.removesuffix("Sec") + "USec", "t", int(value * _MICROSECONDS)
    except ValueError as error:
        raise _refused(name, str(error), where, "write a value such as 'text', true, uint64 5 or ['a', 'b']") from None
    return Property(name, signature, value, where)


def _refused(name: str, cause: str, where: str, fix: str) -> RootlessError:
    return RootlessError(
        f"cannot set the property {name} of a systemd unit", cause=cause, where=where, fix=fix, code="RL-ANNOTATION"
    )
