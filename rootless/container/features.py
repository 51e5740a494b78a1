"""`rootless features`: the features of this runtime, in the form of features.md and features-linux.md.

The names come from the tables that check and plan a container.
"""

from __future__ import annotations

from rootless import OCI_VERSION, log
from rootless.bundle.check import HOOK_KINDS
from rootless.bundle.check_linux import MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES, SECCOMP_ARCHITECTURES
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.linux import CAPABILITIES, CLONE_FLAGS
from rootless.plan.process import seccomp
from rootless.plan.rootfs import mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

OLDEST_VERSION = "1.0.0"

_UNSAFE_ANNOTATIONS = ("org.criu.config", "org.systemd.property.", "run.oci.")
"""They name files, sockets and units of the host that the caller's rights are used on: not for who made the image."""

_CGROUP = {"v1": False, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
_FLAG_SINCE = {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": (5, 19)}
"""Flags that came to the kernel after the oldest one that rootless runs on."""


def features(options: Options) -> dict[str, object]:
    """Return the document; libseccomp and criu are looked up on this host."""
    from rootless.container.checkpoint.criu import obstacle

    document: dict[str, object] = {
        "ociVersionMin": OLDEST_VERSION,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOK_KINDS),
        "mountOptions": mount_options.known(),
        "linux": linux(),
    }
    without_criu = obstacle(options.criu)
    annotations = {"org.opencontainers.runc.checkpoint.enabled": "false" if without_criu else "true"}
    version = _libseccomp_version()
    if log.is_debug():
        log.debug(f"libseccomp: {version or 'not found'}")
        log.debug(f"checkpoint: {without_criu or 'criu can be used'}")
    if version:
        annotations["io.github.seccomp.libseccomp.version"] = version
    document["annotations"] = annotations
    document["potentiallyUnsafeConfigAnnotations"] = list(_UNSAFE_ANNOTATIONS)
    return document


def linux() -> dict[str, object]:
    """Return the part that is about Linux."""
    return {
        "namespaces": sorted(CLONE_FLAGS),
        "capabilities": [f"CAP_{name}" for name in CAPABILITIES],
        "cgroup": dict(_CGROUP),
        "seccomp": _seccomp(),
        # on a host without it, a container that asks for it gets an error
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "memoryPolicy": {"modes": MEMORY_POLICY_MODES.split(), "flags": MEMORY_POLICY_FLAGS.split()},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    }


def words() -> list[str]:
    """Return the last line of `crun --version`."""
    from rootless.container.checkpoint.criu import obstacle

    known = linux()
    found = ["CAP"]
    for word, name, key in (
        ("SYSTEMD", "cgroup", "systemd"),
        ("SELINUX", "selinux", "enabled"),
        ("APPARMOR", "apparmor", "enabled"),
        ("SECCOMP", "seccomp", "enabled"),
    ):
        section = known[name]
        if isinstance(section, dict) and section[key]:
            found.append(word)
    if not obstacle(""):
        found.append("CRIU")
    return found


def _seccomp() -> dict[str, object]:
    if not _libseccomp_version():
        return {"enabled": False}
    from rootless.launch.seccomp_compile import known_architectures

    kernel = facts.read().kernel
    return {
        "enabled": True,
        "actions": sorted(seccomp.ACTIONS),
        "operators": sorted(seccomp.OPERATORS),
        "archs": sorted(known_architectures(SECCOMP_ARCHITECTURES.split())),
        "knownFlags": sorted(seccomp.FLAGS),
        "supportedFlags": sorted(flag for flag in seccomp.FLAGS if kernel >= _FLAG_SINCE.get(flag, kernel)),
    }


def _libseccomp_version() -> str:
    from rootless.launch.seccomp_compile import library_version

    try:
        return library_version()
    except RootlessError:
        return ""
