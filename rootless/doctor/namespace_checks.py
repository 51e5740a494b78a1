"""Checks of the kernel, of user namespaces and of the namespaces in them."""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
from typing import TYPE_CHECKING

from rootless import procfs
from rootless.doctor.problem import (
    ESSENTIAL,
    OPTIONAL,
    SUDO,
    Check,
    Condition,
    Fix,
    advice,
    install,
    raise_sysctl,
    set_sysctl,
    sysctl,
)
from rootless.doctor.trial import SCRATCH, become_ordinary, enter, errno_in_child, mount, unshare
from rootless.errors import RootlessError
from rootless.files import text_of
from rootless.launch.spawn import program_path, sealed_copy
from rootless.linux import CLONE_FLAGS, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, NAMESPACE_FILES
from rootless.plan.compile import KERNEL_FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootless.doctor.problem import Host, Problem

_NEEDED = "a container without root needs its own user namespace"
KERNEL = Condition(
    "RL-HOST-KERNEL",
    "Linux {}.{} or newer".format(*KERNEL_FLOOR),
    "mounts are made with system calls that this kernel does not have",
    ESSENTIAL,
)
PROC = Condition("RL-HOST-PROC", "a mounted /proc", "rootless cannot start its executor without it", ESSENTIAL)
EXECUTOR = Condition(
    "RL-HOST-MEMFD",
    "permission to execute a program from memory",
    "the executor runs from a sealed copy, which a container cannot overwrite",
    ESSENTIAL,
)
USERNS_KERNEL = Condition("RL-HOST-USERNS-KERNEL", "a kernel with user namespaces", _NEEDED, ESSENTIAL)
USERNS_LIMIT = Condition("RL-HOST-USERNS-LIMIT", "a free user namespace", _NEEDED, ESSENTIAL)
USERNS_DEPTH = Condition("RL-HOST-USERNS-DEPTH", "another user namespace in this one", _NEEDED, ESSENTIAL)
USERNS_SYSCTL = Condition("RL-HOST-USERNS-SYSCTL", "user namespaces for unprivileged users", _NEEDED, ESSENTIAL)
USERNS_APPARMOR = Condition(
    "RL-HOST-USERNS-APPARMOR", "AppArmor permission to create user namespaces", _NEEDED, ESSENTIAL
)
USERNS_PROFILE = Condition(
    "RL-HOST-USERNS-PROFILE", "user namespaces in the AppArmor profile that rootless runs in", _NEEDED, ESSENTIAL
)
USERNS_CHROOT = Condition("RL-HOST-USERNS-CHROOT", "user namespaces outside of a chroot", _NEEDED, ESSENTIAL)
USERNS_SECCOMP = Condition(
    "RL-HOST-USERNS-SECCOMP", "user namespaces in the outer container or service", _NEEDED, ESSENTIAL
)
USERNS_UNMAPPED = Condition("RL-HOST-USERNS-UNMAPPED", "IDs that the outer user namespace has", _NEEDED, ESSENTIAL)
USERNS = Condition("RL-HOST-USERNS", "permission to create user namespaces", _NEEDED, ESSENTIAL)
NAMESPACES = Condition(
    "RL-HOST-NAMESPACES", "a free namespace of each type", "containers with such a namespace do not start", ESSENTIAL
)
MOUNTS = Condition(
    "RL-HOST-MOUNTS", "permission to mount in a user namespace", "containers need mounts of their own", ESSENTIAL
)
PROC_MOUNT = Condition(
    "RL-HOST-PROC-MOUNT",
    "permission to mount /proc in a container",
    "containers get the host's /proc, which shows processes of this host",
    OPTIONAL,
)

LIBSECCOMP = Condition(
    "RL-HOST-LIBSECCOMP",
    "libseccomp",
    "rootless refuses a config.json with a seccomp profile; podman writes one by default",
)

_KINDS = ("mount", "pid", "network", "ipc", "uts", "cgroup")
_SETTING = 65536
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_.+-@ ")
"""Characters of a path that mean themselves in an AppArmor profile, between quotes."""


def kernel(host: Host) -> Iterable[Problem]:
    """Yield what the kernel itself does not have."""
    if host.facts.kernel < KERNEL_FLOOR:
        yield KERNEL.found("this is {}.{}".format(*host.facts.kernel), advice("boot a newer kernel"))
    if not os.path.exists("/proc/self/status"):
        yield PROC.found("/proc/self/status does not exist", Fix(f"{SUDO}mount -t proc proc /proc"))


def executor(host: Host) -> Iterable[Problem]:
    """Yield why the executor cannot be executed from memory."""
    del host
    name = "vm.memfd_noexec"
    try:
        copy = sealed_copy(program_path("init"), "rootless-doctor")
    except RootlessError as error:
        yield EXECUTOR.found(f"{error.what}: {error.cause}", advice(error.fix))
    except OSError as error:
        yield EXECUTOR.found(f"memfd_create: {error.strerror}", advice("free memory or descriptors"))
    else:
        if os.path.exists("/proc/self/fd") and not os.access(f"/proc/self/fd/{copy}", os.X_OK):
            evidence = f"the kernel refuses to execute a file in memory, and {name} is {sysctl(name)}"
            yield EXECUTOR.found(evidence, set_sysctl(name, 0))
        os.close(copy)


# --- User namespaces ------------------------------------------------------------------------------------------


def user_namespaces(host: Host) -> Iterable[Problem]:
    """Yield why a user namespace, and a mount namespace in it, cannot be created."""
    facts = host.facts

    def create() -> None:
        become_ordinary(facts)
        unshare(CLONE_NEWUSER)
        try:
            # Ubuntu's AppArmor creates the namespace and removes its capabilities
            unshare(CLONE_NEWNS)
        except OSError as refused:
            if refused.errno != errno.ENOSPC:  # that is a problem of mount namespaces
                raise

    error = errno_in_child(create)
    if error:
        surroundings = _surroundings(facts.uid, facts.uid_map)
        found = refusal(error, sysctl, host.command, surroundings, nested=facts.nested)
        found.level = OPTIONAL if facts.privileged else ESSENTIAL
        yield found


def _surroundings(uid: int, uid_map: Iterable[tuple[int, int, int]]) -> tuple[Condition, str] | None:
    """Return what surrounds this process and can forbid user namespaces, with the evidence; None for nothing."""
    is_empty = os.path.exists("/proc/self/uid_map") and not text_of("/proc/self/uid_map")
    if is_empty or not any(first <= uid < first + count for first, _, count in uid_map):
        return USERNS_UNMAPPED, f"your uid {uid} is not in /proc/self/uid_map"
    mounts = text_of("/proc/self/mountinfo").splitlines()
    if mounts and not any(line.split(" ")[4] == "/" for line in mounts):
        return USERNS_CHROOT, "no mount in /proc/self/mountinfo is on /: this is a chroot"
    profile = text_of("/proc/self/attr/apparmor/current")
    is_confined = profile not in ("", "unconfined")
    is_filtered = procfs.status("self").get("Seccomp") == "2"
    # docker sets both, and its profile permits user namespaces: unshare(0) fails because of a filter only
    if is_filtered and (not is_confined or errno_in_child(lambda: unshare(0))):
        return USERNS_SECCOMP, "a seccomp filter is on this process (Seccomp: 2 in /proc/self/status)"
    if is_confined:
        return USERNS_PROFILE, f"the AppArmor profile {profile} is on this process"
    return None


_SURROUNDED = {
    USERNS_UNMAPPED: "run rootless as a user whom the outer container maps, such as its root",
    USERNS_CHROOT: "run rootless outside of the chroot, or make the chroot with pivot_root (bwrap, systemd-nspawn)",
    USERNS_PROFILE: "add the rule `userns,` to that profile, and load it: sudo apparmor_parser -r FILE",
    USERNS_SECCOMP: (
        "let the outer filter allow unshare, clone, mount and setns: docker and podman run --security-opt "
        "seccomp=unconfined (with AppArmor also --security-opt apparmor=unconfined), Kubernetes seccompProfile.type: "
        "Unconfined, systemd RestrictNamespaces=no"
    ),
}


_OUTER = "run rootless in an outer user namespace: the kernel nests 32, and each can limit those in it"


def refusal(
    error: int,
    setting: Callable[[str], str],
    command: str,
    surroundings: tuple[Condition, str] | None,
    *,
    nested: bool = False,
) -> Problem:
    """Return the problem behind an `error` of unshare(CLONE_NEWUSER), judging by the sysctls that `setting` reads.

    The order is that of the kernel's own checks: user_namespaces(7), namespaces(7), and the patch of Debian that has
    kernel.unprivileged_userns_clone.
    """
    evidence = f"unshare: {os.strerror(error)}"
    limit, clone = "user.max_user_namespaces", "kernel.unprivileged_userns_clone"
    apparmor = "kernel.apparmor_restrict_unprivileged_userns"
    unsupported = USERNS_KERNEL.found(evidence, advice("boot a kernel that has CONFIG_USER_NS=y"))
    by_error = {
        errno.EINVAL: unsupported,
        errno.ENOSYS: unsupported,
        errno.EUSERS: USERNS_DEPTH.found(evidence, advice(_OUTER)),
        errno.ENOSPC: USERNS_LIMIT.found(
            f"{evidence}, and {limit} is {setting(limit)}", raise_sysctl(limit, _SETTING, setting)
        ),
    }
    if error == errno.ENOSPC and nested and setting(limit) != "0":
        return USERNS_DEPTH.found(f"{evidence}, and {limit} is {setting(limit)} in this one", advice(_OUTER))
    if error in by_error:
        return by_error[error]
    if setting(clone) == "0":
        return USERNS_SYSCTL.found(f"{evidence}, and {clone} is 0", set_sysctl(clone, 1))
    if setting(apparmor) not in ("", "0"):
        fix = _apparmor_profile(command) if command else set_sysctl(apparmor, 0)
        return USERNS_APPARMOR.found(f"{evidence}, and {apparmor} is {setting(apparmor)}", fix)
    if surroundings:
        condition, seen = surroundings
        return condition.found(f"{evidence}; {seen}", advice(_SURROUNDED[condition]))
    return USERNS.found(evidence, advice("allow unshare(CLONE_NEWUSER) in SELinux, or in the sandbox that forbids it"))


def _apparmor_profile(command: str) -> Fix:
    """Return the command that writes a profile for the script `command`, and for its next versions beside it.

    AppArmor attaches by the first file that is executed: the script, not the interpreter; what it starts, such as the
    executor from a memfd, has no profile of its own and stays in this one.
    """
    if not set(command) <= _PLAIN:  # it would be a pattern, or more than a name, in the profile
        return advice(f"install rootless to a path of letters and digits only: {command} cannot be in a profile")
    environment, _, rest = command.partition("/env-")
    pattern = f"{environment}/env-*/{rest.partition('/')[2]}" if rest else command
    text = f'abi <abi/4.0>,\\nprofile rootless "{pattern}" flags=(unconfined) {{\\n  userns,\\n}}\\n'
    file = "/etc/apparmor.d/rootless"
    return Fix(f"printf {shlex.quote(text)} | {SUDO}tee {file}", f"{SUDO}apparmor_parser -r {file}")


# --- In a user namespace --------------------------------------------------------------------------------------


def namespaces(host: Host) -> Iterable[Problem]:
    """Yield the types of which no namespace is free."""
    refused = {}
    for kind in _KINDS:
        error = errno_in_child(lambda kind=kind: enter(host.facts, CLONE_FLAGS[kind]))  # type: ignore[misc]
        if error == errno.ENOSPC:
            refused[kind] = f"user.max_{NAMESPACE_FILES[kind]}_namespaces"
    if "mount" in refused:  # enter() needs one
        refused = {"mount": refused["mount"]}
    for kind, name in refused.items():
        evidence = f"unshare of a {kind} namespace: {os.strerror(errno.ENOSPC)}, and {name} is {sysctl(name)}"
        yield NAMESPACES.found(evidence, raise_sysctl(name, _SETTING))


def mounts(host: Host) -> Iterable[Problem]:
    """Yield why nothing can be mounted: a profile or a filter forbids it that permits user namespaces."""
    if (error := errno_in_child(lambda: enter(host.facts))) in (errno.EACCES, errno.EPERM):
        fix = (
            "let the AppArmor profile and the seccomp filter of the outer container or service allow mounts: docker "
            "run --security-opt apparmor=unconfined --security-opt seccomp=unconfined, Kubernetes appArmorProfile.type "
            "and seccompProfile.type: Unconfined"
        )
        profile = text_of("/proc/self/attr/apparmor/current") or "none"
        seccomp = procfs.status("self").get("Seccomp")
        evidence = f"mount: {os.strerror(error)}; AppArmor profile: {profile}; Seccomp: {seccomp} in /proc/self/status"
        found = MOUNTS.found(evidence, advice(fix))
        found.level = OPTIONAL if host.facts.privileged else ESSENTIAL
        yield found


def mount_proc(host: Host) -> Iterable[Problem]:
    """Yield why /proc cannot be mounted: an outer container has covered parts of its own."""

    def try_it() -> None:
        enter(host.facts, CLONE_NEWPID)
        if error := errno_in_child(lambda: mount("proc", SCRATCH, "proc")):
            raise OSError(error, "")

    if (error := errno_in_child(try_it)) == errno.EPERM:
        covered = [line.split(" ")[4] for line in text_of("/proc/self/mountinfo").splitlines()]
        points = ", ".join(point for point in covered if point.startswith("/proc/"))
        evidence = f"mount: {os.strerror(error)}, and mounts cover {points or 'parts of /proc'}"
        fix = "run the outer container with its whole /proc: podman run --security-opt unmask=ALL, docker run "
        fix += "--security-opt systempaths=unconfined, Kubernetes procMount: Unmasked"
        yield PROC_MOUNT.found(evidence, advice(fix))


def libseccomp(host: Host) -> Iterable[Problem]:
    """Yield why seccomp profiles cannot be compiled."""
    del host
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        yield LIBSECCOMP.found(str(error), install("libseccomp", "libseccomp"))


CHECKS = (
    Check("kernel", "its version, and /proc", kernel, (KERNEL, PROC)),
    Check("executor", "a program in memory can be executed", executor, (EXECUTOR,)),
    Check(
        "user namespaces",
        "created one, and a mount namespace in it",
        user_namespaces,
        (USERNS_KERNEL, USERNS_DEPTH, USERNS_LIMIT, USERNS_SYSCTL, USERNS_APPARMOR, *_SURROUNDED, USERNS),
    ),
    Check("namespaces", f"created each type: {', '.join(_KINDS)}", namespaces, (NAMESPACES,), contained=True),
    Check("mounts", "mounted a file system in a user namespace", mounts, (MOUNTS,), contained=True),
    Check("/proc of containers", "mounted one in a pid namespace", mount_proc, (PROC_MOUNT,), contained=True),
    Check("libseccomp", "loaded it", libseccomp, (LIBSECCOMP,)),
)
