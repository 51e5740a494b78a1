"""What config.json can ask for and this version cannot do: refused where ignoring it would be wrong, else noted."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_REFUSED = (
    "hooks",
    "process.apparmorProfile",
    "process.selinuxLabel",
    "process.scheduler",
    "process.ioPriority",
    "linux.mountLabel",
    "linux.personality",
    "linux.intelRdt",
    "linux.netDevices",
    "linux.memoryPolicy",
    "vm",
)
"""Paths in config.json."""

_DEVICE_RULES = "devices"


def check(context: Context) -> None:
    """Refuse what cannot be left out and note what is.

    Raises:
        RootlessError: naming the first property that is not supported yet.
    """
    for path in _REFUSED:
        value: object = context.config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value and not (isinstance(value, dict) and not any(value.values())):
            raise RootlessError(
                f"{path} is not supported yet",
                cause="the program would run without what config.json asks for",
                where=path,
                fix=f"remove {path} from config.json",
                code="RL-NOT-YET",
            )
    resources = context.linux.get("resources") or {}
    for name, value in resources.items():
        if value and name != _DEVICE_RULES:
            context.unmet(
                f"linux.resources.{name}", f"the limits of {name} are not enforced: cgroups are not supported yet"
            )
    if context.process.get("execCPUAffinity"):
        context.unmet("process.execCPUAffinity", "it is for exec, which is not supported yet")
