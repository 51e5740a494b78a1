"""What config.json can ask for and this version cannot do, where ignoring it would be wrong."""

from __future__ import annotations

from rootless.errors import RootlessError, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

PLATFORMS = {
    "vm": "in a virtual machine",
    "windows": "on Windows",
    "solaris": "on Solaris",
    "freebsd": "on FreeBSD",
    "zos": "on z/OS",
}
"""Sections of config.json for what is no Linux container, and where those run."""

REFUSED = {
    "run.oci.handler": "a handler would run the program in a virtual machine or as WebAssembly",
    "run.oci.seccomp.plugins": "seccomp notifications would be answered by plugins of crun",
    "run.oci.seccomp_bpf_data": "the seccomp filter would be another one than config.json has",
    "run.oci.systemd.force_cgroup_v1": "a hierarchy of cgroup v1 would be mounted in the container",
}
"""Annotations of crun's that change what the container is, and what they would do. docs/annotations.md has them all."""

NOTED = {
    "module.wasm.image/variant": "the program is executed by the kernel, as any other",
    "run.oci.delegate-cgroup": "the container has one cgroup, and no other is made below it",
    "run.oci.systemd.subgroup": "the container has one cgroup, and no other is made below it",
}
"""Annotations of crun's whose only loss is their own effect: the container stays the same."""

_OF_UNIT = "org.systemd.property."


def refuse(context: Context) -> None:
    """Refuse what cannot be left out.

    Raises:
        RootlessError: the bundle is for another platform, or for another runtime.
    """
    for section, platform in PLATFORMS.items():
        if _asks(context.config.get(section)):
            raise RootlessError(
                f"this bundle is for a container that runs {platform}",
                cause="rootless makes containers of the Linux kernel that it runs on",
                where=section,
                fix=f"remove {section} from config.json, or use a runtime that runs containers {platform}",
                code="RL-PLATFORM",
            )
    annotations = context.config.get("annotations") or {}
    for name, meaning in REFUSED.items():
        if annotations.get(name):
            raise RootlessError(
                f"the annotation {name} is not supported",
                cause=meaning,
                where=place("annotations", name),
                fix="remove it",
                code="RL-ANNOTATION",
            )


def note(context: Context, *, has_unit: bool) -> None:
    """Note the annotations that have no effect; `has_unit`: systemd makes the container's cgroup."""
    for name, value in (context.config.get("annotations") or {}).items():
        if value and name in NOTED:
            context.warn_ignored(place("annotations", name), f"the annotation {name} has no effect: {NOTED[name]}")
        elif name.startswith(_OF_UNIT) and not has_unit:
            # podman writes some for every container
            context.adapted(
                place("annotations", name), f"the annotation {name} has no effect: the container is no unit of systemd"
            )


def _asks(value: object) -> bool:
    """Whether there is anything in `value`: Go programs write objects whose every field is empty or false."""
    waiting = [value]  # not a call for each level: there may be thousands in what the specification does not know
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif item or (isinstance(item, int) and item is not False):
            return True
    return False
