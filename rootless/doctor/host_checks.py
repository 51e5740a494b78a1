"""Checks of this host for containers without root: each problem has its reason and the administrator's command.

A check tries the operation where it can. A setting that looks right proves nothing on a host where a security module,
a mount option or an outer container decides.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import stat
import subprocess
from typing import TYPE_CHECKING

from rootless import log, procfs
from rootless.doctor import cdi_checks, image_checks, network_checks
from rootless.doctor.problem import (
    Problem,
    become_ordinary,
    errno_in_child,
    install,
    run_and_exit,
    set_sysctl,
    sysctl,
    unshare,
)
from rootless.files import text_of
from rootless.host import facts as host_facts
from rootless.host import subids
from rootless.linux import CAP_SETGID, CAP_SETUID, CLONE_NEWNS, CLONE_NEWUSER
from rootless.plan.compile import KERNEL_FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootless.host.facts import Facts


def report(command: str = "") -> tuple[str, int]:
    """Return the text of `rootless doctor`, and its exit status: 1 when no container can run on this host."""
    found = problems(command)
    lines = [*map(str, found), *cdi_checks.listed()]
    if all(problem.optional for problem in found):
        lines.insert(0, "Nothing is missing on this host.")
    return "".join(f"{line}\n" for line in lines), int(any(problem.essential for problem in found))


def problems(command: str = "") -> list[Problem]:
    """Return what is missing on this host for the caller: the essential first, the optional last.

    For real root, the checks run as an unprivileged user.

    Args:
        command: path of the installed `rootless`, which an AppArmor profile has to name.
    """
    facts = host_facts.read()
    found = [*_checked("kernel", _kernel(facts)), *_checked("user namespaces", _user_namespaces(facts, command))]
    if not facts.nested:
        found += _checked("newuidmap and newgidmap", _id_programs() or _mapping(facts))
        found += _checked("subordinate ids", _subordinate_ids(facts))
    found += _checked("libseccomp", _libseccomp())
    try_them = not any(problem.essential for problem in found)
    found += _checked("network", network_checks.problems(facts, try_them=try_them))
    found += _checked("images", image_checks.problems(facts, try_them=try_them))
    found += _checked("CDI specs", cdi_checks.problems())
    return sorted(found, key=lambda problem: (not problem.essential, problem.optional))


def _checked(subject: str, problems_of_it: Iterable[Problem]) -> list[Problem]:
    """Run one group of checks, and return what is missing."""
    found = list(problems_of_it)
    if log.is_debug():
        log.debug(f"checked {subject}: {'; '.join(problem.what for problem in found) or 'nothing is missing'}")
    return found


# --- Kernel and user namespaces -----------------------------------------------------------------------------


def _kernel(facts: Facts) -> Iterable[Problem]:
    if facts.kernel < KERNEL_FLOOR:
        yield Problem(
            "Linux {}.{} or newer (this is {}.{})".format(*KERNEL_FLOOR, *facts.kernel),
            "mounts are made with system calls that this kernel does not have",
            "boot a newer kernel",
            essential=True,
        )


def _user_namespaces(facts: Facts, command: str) -> Iterable[Problem]:
    def create() -> None:
        become_ordinary(facts)
        unshare(CLONE_NEWUSER)
        # Ubuntu's AppArmor creates the namespace and removes its capabilities.
        unshare(CLONE_NEWNS)

    error = errno_in_child(create)
    if error:
        yield user_namespace_problem(error, sysctl, command, essential=not facts.privileged)


def user_namespace_problem(error: int, sysctl: Callable[[str], str], command: str, *, essential: bool) -> Problem:
    """Return the problem behind an `error` of unshare(CLONE_NEWUSER), judging by the settings that `sysctl` reads.

    The order is that of the kernel's own checks: user_namespaces(7), namespaces(7), and the patch of Debian that has
    kernel.unprivileged_userns_clone.
    """
    why = "a container without root needs its own user namespace"
    limit = "user.max_user_namespaces"
    if error in (errno.EINVAL, errno.ENOSYS):
        what, fix = "a kernel with user namespaces", "boot a kernel that has CONFIG_USER_NS=y"
    elif error == errno.EUSERS:
        what = "another level of user namespaces (this process is at the limit, 32 levels)"
        fix = "run rootless from an outer user namespace"
    elif error == errno.ENOSPC:
        what, fix = f"user namespaces ({limit} is {sysctl(limit) or 'too low'})", set_sysctl(limit, 65536)
    elif sysctl("kernel.unprivileged_userns_clone") == "0":
        name = "kernel.unprivileged_userns_clone"
        what, fix = f"user namespaces for unprivileged users ({name} is 0)", set_sysctl(name, 1)
    elif sysctl("kernel.apparmor_restrict_unprivileged_userns") not in ("", "0"):
        name = "kernel.apparmor_restrict_unprivileged_userns"
        what = f"AppArmor permission to create user namespaces ({name} is {sysctl(name)})"
        fix = _apparmor_profile(command) if command else set_sysctl(name, 0)
    else:
        what = f"permission to create a user namespace (unshare: {os.strerror(error)})"
        why += "; a chroot, the seccomp filter of an outer container or service, or SELinux denies it"
        fix = "run rootless outside of it, or allow unshare(CLONE_NEWUSER) there"
    return Problem(what, why, fix, essential=essential)


def _apparmor_profile(command: str) -> str:
    """Return the command that writes a profile for the script `command`, and for its next versions beside it.

    AppArmor attaches by the first file that is executed: the script, not the interpreter; what it starts, such as the
    executor from a memfd, has no profile of its own and stays in this one.
    """
    environment, _, rest = command.partition("/env-")
    pattern = f"{environment}/env-*/{rest.partition('/')[2]}" if rest else command
    text = f'abi <abi/4.0>,\\nprofile rootless "{pattern}" flags=(unconfined) {{\\n  userns,\\n}}\\n'
    file = "/etc/apparmor.d/rootless"
    return f"printf {shlex.quote(text)} | sudo tee {file} && sudo apparmor_parser -r {file}"


# --- Ids ----------------------------------------------------------------------------------------------------


def _id_programs() -> list[Problem]:
    why = "containers have a single user ID without them, and images with files of several users do not work unchanged"
    if not subids.programs():
        return [Problem("newuidmap and newgidmap", why, install("newuidmap", "newuidmap and newgidmap"))]
    if procfs.status("self").get("NoNewPrivs") == "1":
        what = "permission to gain privileges with newuidmap and newgidmap (no_new_privs is set)"
        return [Problem(what, why, "run rootless outside of the sandbox, service or job that sets no_new_privs")]
    pairs = zip(subids.programs(), (CAP_SETUID, CAP_SETGID), strict=True)
    return [
        Problem(f"privileges of {path} ({reason})", why, fix)
        for path, capability in pairs
        for reason, fix in powerless(path, capability)
    ]


def powerless(path: str, capability: int) -> Iterable[tuple[str, str]]:
    """Yield why a program cannot set IDs, and the fix: it needs setuid root or a file capability that takes effect."""
    status = os.stat(path)
    setuid = status.st_mode & stat.S_ISUID and status.st_uid == 0
    if not setuid and not _has_file_capability(path, capability):
        fix = f"sudo chown root:root {shlex.quote(path)} && sudo chmod u+s {shlex.quote(path)}"
        yield "it is neither setuid root nor has the file capability", fix
    elif os.statvfs(path).f_flag & os.ST_NOSUID:
        mount = _mount_point(path)
        yield f"{mount} is mounted nosuid", f"sudo mount -o remount,suid {shlex.quote(mount)}"


def _has_file_capability(path: str, capability: int) -> bool:
    """Whether `capability` is in the file's permitted set: struct vfs_cap_data of capabilities(7)."""
    try:
        data = os.getxattr(path, "security.capability")
    except OSError:
        return False
    return bool(int.from_bytes(data[4:8], "little") >> capability & 1)


def _mount_point(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _subordinate_ids(facts: Facts) -> Iterable[Problem]:
    missing = [
        name
        for name, ranges in (("uids", facts.subuids), ("gids", facts.subgids))
        if not ranges and not facts.privileged
    ]
    if missing:
        yield Problem(
            f"subordinate {' and '.join(missing)} for {facts.user}",
            "containers have a single user ID without them; a range gives them all IDs that an image uses",
            grant(facts.user, missing, facts.free_range),
        )


def grant(user: str, kinds: Iterable[str], first: int) -> str:
    """Return the command that gives `user` 65536 subordinate IDs of the `kinds` ("uids", "gids") from `first` on."""
    local = any(line.startswith(user + ":") for line in text_of("/etc/passwd").splitlines())
    if not local:  # usermod knows local users only
        files = " ".join(f"/etc/sub{kind[:-1]}" for kind in kinds)
        return f"echo {shlex.quote(f'{user}:{first}:{subids.RANGE}')} | sudo tee -a {files}"
    flags = " ".join(f"--add-sub{kind} {first}-{first + subids.RANGE - 1}" for kind in kinds)
    return f"sudo usermod {flags} {shlex.quote(user)}"


def _mapping(facts: Facts) -> Iterable[Problem]:
    """Write the ID maps of a user namespace with the two programs, as for a container."""
    if facts.privileged or not (facts.subuids and facts.subgids):
        return
    ready, go = os.pipe(), os.pipe()

    def wait_for_maps() -> None:
        unshare(CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.close(go[1])
        os.read(go[0], 1)

    child = os.fork()
    if child == 0:
        run_and_exit(wait_for_maps)
    os.close(ready[1])
    try:
        if os.read(ready[0], 1):
            plans = zip(subids.programs(), (facts.uid, facts.gid), (facts.subuids, facts.subgids), strict=True)
            for program, own, ((first, count), *_) in plans:
                words = [program, str(child), *map(str, (0, own, 1, 1, first, count))]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                if done.returncode:
                    yield Problem(
                        f"a working {program}: {done.stderr.strip() or f'exit status {done.returncode}'}",
                        "containers have a single user ID without it",
                        "show this message to the administrator",
                    )
    finally:
        for descriptor in (ready[0], *go):
            os.close(descriptor)
        os.waitpid(child, 0)


# --- Programs and libraries ---------------------------------------------------------------------------------


def _libseccomp() -> Iterable[Problem]:
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        yield Problem(
            "libseccomp",
            "rootless refuses a config.json with a seccomp profile without it; podman writes one by default",
            install("libseccomp", "libseccomp"),
        )
