"""Labels of the security modules: config.md "apparmorProfile", "selinuxLabel"; config-linux.md "Mount Label".

A label that the kernel cannot set is an error, not a warning: the program would run with too many privileges. Imported
only if config.json has a label.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_UNCONFINED = "unconfined"
"""No profile: docker and podman write this for --security-opt apparmor=unconfined."""

_WITHOUT_CONTEXT = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
"""File systems whose files the kernel labels one by one."""

_CONTEXT_KINDS = ("context", "fscontext", "defcontext", "rootcontext")
_CONTEXT_KIND = "run.oci.mount_context_type"
"""The annotation of crun that chooses the option for mountLabel."""


def of_program(context: Context) -> list[Op]:
    """Return the operations that make execve(2) apply the program's AppArmor profile or SELinux label.

    Raises:
        RootlessError: `RL-APPARMOR`, `RL-SELINUX`: the kernel has no such security module.
    """
    profile: str = context.process.get("apparmorProfile") or ""
    label: str = context.process.get("selinuxLabel") or ""
    plan: list[Op] = []
    if profile and (context.facts.apparmor or profile != _UNCONFINED):
        where = "process.apparmorProfile"
        if not context.facts.apparmor:
            raise _absent("AppArmor", f"run the program under the profile {profile}", where)
        # AppArmor's own file, since Linux 5.8 (Documentation/admin-guide/LSM/index.rst)
        plan.append(Op(ops.PROC_WRITE, "self/attr/apparmor/exec", f"exec {profile}", where=where))
    if label:
        where = "process.selinuxLabel"
        if not context.facts.selinux:
            raise _absent("SELinux", f"run the program with the label {label}", where)
        plan.append(Op(ops.PROC_WRITE, "self/attr/exec", label, where=where))
    return plan


def mount_context(context: Context) -> tuple[str, str]:
    """Return linux.mountLabel as a mount option: its name and its value.

    Raises:
        RootlessError: `RL-SELINUX`: the kernel has no SELinux; `RL-CONFIG`: the annotation is invalid.
    """
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
    """Add the option of mount_context() to a new file system, unless it accepts none or has one already.

    Args:
        option: its name and its value.
        kind: the type of the file system.
        data: the options of the file system, which are changed.
        legacy: mount(2) gets the options as one text, in which quotes protect the commas of a label.
    """
    name, label = option
    if kind not in _WITHOUT_CONTEXT and not any(each.partition("=")[0] in _CONTEXT_KINDS for each in data):
        data.append(f'{name}="{label}"' if legacy else f"{name}={label}")


def _absent(module: str, what: str, where: str) -> RootlessError:
    return RootlessError(
        f"cannot {what}",
        cause=f"this kernel has no {module}, or it is switched off",
        where=where,
        fix=f"remove it, or boot a kernel with {module} enabled",
        code=f"RL-{module.upper()}",
    )
