"""The config.json that `runc spec` writes, for people and engines that start from it."""

from __future__ import annotations

import posix

from rootless import OCI_VERSION, files, jsontext, log, paths
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

CGROUP2 = "/sys/fs/cgroup/cgroup.controllers"
"""Exists where /sys/fs/cgroup is a pure cgroup v2 tree."""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default_config(*, rootless: bool, uid: int = 0, gid: int = 0, cgroup2: bool = False) -> dict[str, object]:
    """Return the default configuration; the caller may change it freely.

    Args:
        rootless: add a user namespace that maps the container's root to `uid` and `gid`, and leave out what such a
            namespace cannot have: a network of its own, a fresh sysfs, gid 5 for terminals, limits.
        uid: the user's own id on the host; used only when `rootless`.
        gid: the user's own group on the host; used only when `rootless`.
        cgroup2: the host has the unified cgroup hierarchy: add a cgroup namespace, as runc does there.
    """
    namespaces = ["pid", *([] if rootless else ["network"]), "ipc", "uts", "mount"]
    namespaces += ["cgroup"] * cgroup2 + ["user"] * rootless
    linux: dict[str, object] = {}
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    linux["maskedPaths"] = list(MASKED_PATHS)
    linux["readonlyPaths"] = list(READONLY_PATHS)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": capability_sets(CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rootless",
        "mounts": _mounts(rootless=rootless),
        "linux": linux,
    }


def capability_sets(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return `process.capabilities` with `names` in every set that `runc spec` fills.

    Since runc 1.2 that is not the ambient set: without the inheritable one it gives the program nothing.
    """
    return {kind: list(names) for kind in ("bounding", "effective", "permitted")}


def spec(options: Options) -> None:
    """Carry out `rootless spec`."""
    write_spec(options.bundle or ".", rootless=options.rootless_spec, file_name=options.file)


def write_spec(directory: str, *, rootless: bool, file_name: str = "config.json") -> None:
    """Write the default configuration of this user and host to `file_name` in `directory`.

    Raises:
        RootlessError: the file exists already (never overwritten), or cannot be written.
    """
    config = default_config(
        rootless=rootless,
        uid=posix.geteuid(),
        gid=posix.getegid(),
        cgroup2=paths.exists(CGROUP2),
    )
    write_config(paths.join(directory, file_name), config)


def write_config(path: str, config: dict[str, object]) -> None:
    """Write `config` to the new file `path`: it appears whole or not at all.

    Raises:
        RootlessError: `path` exists already, or cannot be written.
    """
    if log.is_debug():
        log.debug(f"write {path}")
    if paths.lexists(path):
        # This wording is runc's; its callers know it.
        raise RootlessError(f"File {paths.name(path)} exists. Remove it first", code="RL-EXISTS")
    try:
        files.put(path, jsontext.render(config).encode() + b"\n", 0o666)
    except OSError as error:
        raise RootlessError(f"writing {path}", cause=str(error.strerror), code="RL-BUNDLE") from error


def _mounts(*, rootless: bool) -> list[dict[str, object]]:
    def mount(destination: str, kind: str, source: str, options: str = "") -> dict[str, object]:
        entry: dict[str, object] = {"destination": destination, "type": kind, "source": source}
        return {**entry, "options": options.split(",")} if options else entry

    terminals = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
    return [
        mount("/proc", "proc", "proc"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "devpts", terminals if rootless else terminals + ",gid=5"),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),  # noqa: S108 - in the container
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro")
        if rootless
        else mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ]
