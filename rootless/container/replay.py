"""A Plan as JSON and back: `explain --json` prints it, `run --plan FILE` runs it. For debugging.

Data of our own classes is written as an object whose `class` names it, bytes as hexadecimal digits under `bytes`. The
file is the caller's own, as config.json is; its Plan runs with the caller's rights.
"""

from __future__ import annotations

import importlib

from rootless import jsontext
from rootless.errors import RootlessError
from rootless.plan import ops
from rootless.plan.context import Note
from rootless.plan.ops import Op
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

FORMAT = 1
_CLASSES = {
    "Cgroup": "plan.cgroup.manager",
    "Group": "plan.cgroup.resctrl",
    "Helper": "plan.network.helpers",
    "HostNetwork": "host.host_network",
    "IdMaps": "plan.idmaps",
    "Image": "plan.rootfs.image",
    "Interface": "plan.network.net_devices",
    "Names": "plan.network.resolv_conf",
    "Network": "plan.network.mode",
    "Port": "plan.network.ports",
    "Property": "plan.cgroup.unit_properties",
    "Rule": "plan.process.seccomp",
    "SeccompFilter": "plan.process.seccomp",
    "Setting": "plan.cgroup.limits",
    "Shared": "plan.network.shared",
}
"""Where each class is defined whose objects a Plan holds."""


def plan_as_data(plan: Plan, container_id: str) -> dict[str, object]:
    """Return a whole Plan as JSON data."""
    return {
        "format": FORMAT,
        "id": container_id,
        "operations": [_op_as_data(op) for op in plan.ops],
        "notes": [
            {"kind": note.kind, "where": note.where, "text": note.text} | ({"fix": note.fix} if note.fix else {})
            for note in plan.notes
        ],
    }


def read_plan(path: str, container_id: str) -> Plan:
    """Return the Plan in a file that `explain --json` wrote, for another container id.

    Raises:
        RootlessError: `RL-PLAN`: the file cannot be read, or does not hold a Plan of this release.
    """
    try:
        with open(path, "rb") as file:
            data: Any = jsontext.parse(file.read(), path)
    except OSError as error:
        raise _refused(path, (error.strerror or "").lower()) from None
    try:
        if data["format"] != FORMAT:
            raise _refused(path, f"its format is {data['format']}, this release reads {FORMAT}")
        return plan_from_data(data, container_id)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, RecursionError) as error:
        raise _refused(path, f"it does not hold a Plan ({type(error).__name__}: {error})") from None


def plan_from_data(data: dict[str, Any], container_id: str) -> Plan:
    """Return the Plan that plan_as_data() wrote, for another container id.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration: the data is not that of a Plan.
    """
    renamed = _renamed(data, data["id"], container_id)
    notes = [Note(each["kind"], each["where"], each["text"], each.get("fix", "")) for each in renamed["notes"]]
    return Plan([_op_from_data(each) for each in renamed["operations"]], notes)


def _refused(path: str, cause: str) -> RootlessError:
    return RootlessError(
        f"--plan {path}",
        cause=cause,
        fix="write one with this release: rootless explain --json BUNDLE > plan.json",
        code="RL-PLAN",
    )


def _op_as_data(op: Op) -> dict[str, object]:
    data: dict[str, object] = {"op": op.kind.name}
    data |= {name: _as_data(value) for name, value in op.operands()}
    if op.where:
        data["where"] = op.where
    if op.on_error:
        data["on_error"] = ops.ON_ERROR_NAMES[op.on_error]
    if op.alternatives:
        data["alternatives"] = op.alternatives
    return data


def _as_data(value: object) -> object:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list | tuple):
        return [_as_data(each) for each in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(value)}
    if isinstance(value, dict):
        return {"map": {name: _as_data(each) for name, each in value.items()}}
    return _object_as_data(value)


def _object_as_data(value: object) -> object:
    """Return an object of a class of the planner as data; None for one that only this process knows."""
    if type(value).__name__ not in _CLASSES:
        return None
    fields: Iterable[str] = getattr(type(value), "__slots__", None) or vars(value)
    return {"class": type(value).__name__} | {name: _as_data(getattr(value, name)) for name in fields}


def _op_from_data(data: dict[str, Any]) -> Op:
    kind = next(kind for kind in ops.KINDS if kind.name == data["op"])
    on_error = ops.ON_ERROR_NAMES.index(data.get("on_error", "fail"))
    operands = [_from_data(data[name]) for name in kind.numbers + kind.strings]
    return Op(kind, *operands, where=data.get("where", ""), on_error=on_error, alternatives=data.get("alternatives", 0))


def _from_data(data: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(data, list):
        return [_from_data(each) for each in data]
    if not isinstance(data, dict):
        return data
    if "bytes" in data:
        return bytes.fromhex(data["bytes"])
    if "set" in data:
        return frozenset(data["set"])
    if "map" in data:
        return {name: _from_data(each) for name, each in data["map"].items()}
    name = data["class"]
    made = object.__new__(getattr(importlib.import_module(f"rootless.{_CLASSES[name]}"), name))
    for field in data.keys() - {"class"}:
        setattr(made, field, _from_data(data[field]))
    return made


def _renamed(data: Any, old: str, new: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the data with another container id in every name that was made of it; no other name can hold `old`."""
    if isinstance(data, str):
        return data.replace(old, new)
    if isinstance(data, list):
        return [_renamed(each, old, new) for each in data]
    if isinstance(data, dict):
        return {name: _renamed(each, old, new) for name, each in data.items()}
    return data
