"""Labels of the security modules: config.md "apparmorProfile", "selinuxLabel"; config-linux.md "Mount Label".

A label that the kernel cannot set is an error and no warning: the program would run with more rights than asked.
Imported for a config.json that asks for one.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_UNCONFINED = "unconfined"
"""The profile that is none: docker and podman write it for --security-opt apparmor=unconfined."""

_WITHOUT_CONTEXT = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
"""They show what the kernel labels itself, one file at a time."""

_CONTEXT_KINDS = ("context", "fscontext", "defcontext", "rootcontext")
_CONTEXT_KIND = "run.oci.mount_context_type"
"""The annotation that says which of them mountLabel is for (crun)."""


def of_program(context: Context) -> list[Op]:
    """Return the operations that have execve(2) put the program under its profile or label."""
    profile: str = context.process.get("apparmorProfile") or ""
    label: str = context.process.get("selinuxLabel") or ""
    plan: list[Op] = []
    if profile and (context.facts.apparmor or profile != _UNCONFINED):
        where = "process.apparmorProfile"
        if not context.facts.apparmor:
            raise _absent("AppArmor", f"run the program under the profile {profile}", where)
        # its own file since Linux 5.8, beside that of SELinux (Documentation/security/lsm.rst)
        plan.append(Op(ops.PROC_WRITE, "self/attr/apparmor/exec", f"exec {profile}", where=where))
    if label:
        where = "process.selinuxLabel"
        if not context.facts.selinux:
            raise _absent("SELinux", f"run the program with the label {label}", where)
        plan.append(Op(ops.PROC_WRITE, "self/attr/exec", label, where=where))
    return plan


def mount_context(context: Context) -> tuple[str, str]:
    """Return linux.mountLabel as an option of a mount: its name and its value."""
    label: str = context.linux["mountLabel"]
    if not context.facts.selinux:
        raise _absent("SELinux", f"label mounts {label}", "linux.mountLabel")
    name = (context.config.get("annotations") or {}).get(_CONTEXT_KIND) or _CONTEXT_KINDS[0]
    if name not in _CONTEXT_KINDS:
        raise RootlessError(
            f"cannot label mounts {label}",
            cause=f"{name!r} is not one of {', '.join(_CONTEXT_KINDS)}",
            where=f'annotations["{_CONTEXT_KIND}"]',
            fix="write one of them",
            code="RL-CONFIG",
        )
    return name, label


def add_context(option: tuple[str, str], kind: str, data: list[str], *, legacy: bool) -> None:
    """Add what mount_context() returned to the options of a new file system, unless it takes none or has its own.

    Args:
        option: its name and its value.
        kind: the type of the file system.
        data: its options.
        legacy: they become one text, in which quotes hide the commas of a label.
    """
    name, label = option
    if kind not in _WITHOUT_CONTEXT and not any(each.partition("=")[0] in _CONTEXT_KINDS for each in data):
        data.append(f'{name}="{label}"' if legacy else f"{name}={label}")


def _absent(module: str, what: str, where: str) -> RootlessError:
    return RootlessError(
        f"cannot {what}",
        cause=f"this kernel has no {module}, or it is switched off",
        where=where,
        fix=f"remove it, or boot a kernel with {module}",
        code=f"RL-{module.upper()}",
    )
