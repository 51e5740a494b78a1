"""Requests of config.json that rootless does not support and must not ignore."""

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
"""Sections of config.json for other platforms, and the names of the platforms."""

REFUSED = {
    "run.oci.handler": "a handler would run the program in a virtual machine or as WebAssembly",
    "run.oci.seccomp.plugins": "seccomp notifications would be answered by plugins of crun",
    "run.oci.seccomp_bpf_data": "the seccomp filter would differ from that of config.json",
    "run.oci.systemd.force_cgroup_v1": "a hierarchy of cgroup v1 would be mounted in the container",
}
"""crun's annotations that would change the container, with their effect. docs/annotations.md lists all annotations."""

NOTED = {
    "module.wasm.image/variant": "the program is executed by the kernel, as any other",
    "run.oci.delegate-cgroup": "the container has one cgroup, and no other is made below it",
    "run.oci.systemd.subgroup": "the container has one cgroup, and no other is made below it",
}
"""crun's annotations that can be ignored: the container stays the same."""

_OF_UNIT = "org.systemd.property."


def refuse(context: Context) -> None:
    """Refuse requests that must not be ignored.

    Raises:
        RootlessError: the bundle is for another platform, or for another runtime.
    """
    for section, platform in PLATFORMS.items():
        if _asks(context.config.get(section)):
            raise RootlessError(
                f"this bundle is for a container that runs {platform}",
                cause="rootless runs containers on the host's own Linux kernel",
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
                fix="remove the annotation",
                code="RL-ANNOTATION",
            )


def note(context: Context, *, has_unit: bool) -> None:
    """Note the annotations without effect, and the variables of a rank; `has_unit`: systemd makes the cgroup."""
    if context.request.is_rank:
        context.adapted("process.env", "a process manager of MPI starts the program: it gets PMIX_*, PMI_*, SLURM_*")
    for name, value in (context.config.get("annotations") or {}).items():
        if value and name in NOTED:
            context.warn_ignored(place("annotations", name), f"the annotation {name} has no effect: {NOTED[name]}")
        elif name.startswith(_OF_UNIT) and not has_unit:
            # podman writes some of them for every container
            context.adapted(
                place("annotations", name), f"the annotation {name} has no effect: the container is not a systemd unit"
            )


def _asks(value: object) -> bool:
    """Whether there is anything in `value`: Go programs write objects whose every field is empty or false."""
    waiting = [value]  # a loop, not recursion: unknown parts of config.json may be nested thousands of levels deep
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif item or (isinstance(item, int) and item is not False):
            return True
    return False
