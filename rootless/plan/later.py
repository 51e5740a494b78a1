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


def refuse(context: Context) -> None:
    """Refuse what cannot be left out.

    Raises:
        RootlessError: naming the first property that is not supported yet.
    """
    for path in _REFUSED:
        value: object = context.config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value and (path != "hooks" or any(context.config["hooks"].values())):
            raise RootlessError(
                f"{path} is not supported yet",
                cause="the program would run without what config.json asks for",
                where=path,
                fix=f"remove {path} from config.json",
                code="RL-NOT-YET",
            )


def note(context: Context) -> None:
    """Note what is left out. In a user namespace rules for devices change nothing: mknod is refused there."""
    resources = context.linux.get("resources") or {}
    for name, value in resources.items():
        if _asks(value) and not (name == _DEVICE_RULES and context.in_user_namespace):
            context.unmet(
                f"linux.resources.{name}", f"the limits of {name} are not enforced: cgroups are not supported yet"
            )
    if context.linux.get("cgroupsPath"):
        context.adapted(
            "linux.cgroupsPath", "the container stays in its caller's cgroup: cgroups are not supported yet"
        )
    if context.process.get("execCPUAffinity"):
        context.unmet("process.execCPUAffinity", "it is for exec, which is not supported yet")


def _asks(value: object) -> bool:
    """Whether there is anything in `value`: Go programs write objects whose every field is empty or false."""
    if isinstance(value, dict):
        return any(_asks(item) for item in value.values())
    return bool(value) or (isinstance(value, int) and value is not False)
