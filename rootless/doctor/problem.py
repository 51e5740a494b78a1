"""A problem of the host, the commands that fix problems, and how the checks try an operation."""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import sys
from typing import TYPE_CHECKING

from rootless.files import text_of
from rootless.plan.network.helpers import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.host.facts import Facts

NOBODY = 65534

_FOR_IMAGES = {"squashfuse_ll": "squashfuse", "sqfstar": "squashfs-tools", "skopeo": "skopeo"}
_PACKAGES = {
    "debian": ("apt-get install", {"newuidmap": "uidmap", "libseccomp": "libseccomp2"} | PACKAGES | _FOR_IMAGES),
    "fedora": ("dnf install", {"newuidmap": "shadow-utils", "libseccomp": "libseccomp"} | PACKAGES | _FOR_IMAGES),
}


class Problem:
    """One thing that is missing on this host.

    Attributes:
        what: the thing.
        why: what does not work without it.
        fix: the administrator's command, or an instruction where there is none.
        essential: no container runs without it.
        optional: few hosts have it, and few containers need it.
    """

    __slots__ = ("essential", "fix", "optional", "what", "why")

    def __init__(self, what: str, why: str, fix: str, *, essential: bool = False, optional: bool = False) -> None:
        self.what = what
        self.why = why
        self.fix = fix
        self.essential = essential
        self.optional = optional

    def __str__(self) -> str:
        """Return three lines for a person."""
        kind = "optional" if self.optional else "missing"
        return f"{kind}: {self.what}\n    why: {self.why}\n    fix: {self.fix}"


# --- Fixes --------------------------------------------------------------------------------------------------


def set_sysctl(name: str, value: int | str) -> str:
    """Return the command that changes a setting, now and after the next boot."""
    line = shlex.quote(f"{name}={value}")
    return f"echo {line} | sudo tee -a /etc/sysctl.d/90-rootless.conf && sudo sysctl --system"


def install(thing: str, words: str) -> str:
    """Return the command that installs the package with `thing`, or a hint on an unknown distribution."""
    family = os_family(text_of("/etc/os-release"))
    if family not in _PACKAGES:
        return f"install the distribution's package of {words}"
    manager, packages = _PACKAGES[family]
    return f"sudo {manager} {packages[thing]}"


def os_family(os_release: str) -> str:
    """Return "debian", "fedora" or "" by the text of os-release(5)."""
    words: set[str] = set()
    for line in os_release.splitlines():
        name, _, value = line.partition("=")
        if name in ("ID", "ID_LIKE"):
            words.update(value.strip("'\" ").split())
    if words & {"debian", "ubuntu"}:
        return "debian"
    return "fedora" if words & {"fedora", "rhel", "centos"} else ""


# --- Trying -------------------------------------------------------------------------------------------------


def sysctl(name: str) -> str:
    """Return a sysctl; empty where the kernel does not have it."""
    return text_of("/proc/sys/" + name.replace(".", "/"))


def become_ordinary(facts: Facts) -> None:
    """In a child of host root, become an unprivileged user: the checks are about those."""
    if facts.uid == 0 and not facts.nested:
        os.setgroups(())
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def unshare(flags: int) -> None:
    """Move this process into namespaces of its own."""
    if sys.version_info >= (3, 12):
        os.unshare(flags)
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


def errno_in_child(action: Callable[[], None]) -> int:
    """Run `action` in a child process, which it may change; return the errno of its failure, or 0."""
    child = os.fork()
    if child == 0:
        run_and_exit(action)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_and_exit(action: Callable[[], None]) -> None:
    """In a child process, run `action` and exit with the errno of its failure, or 0."""
    status = errno.ECANCELED
    try:
        action()
        status = 0
    except OSError as error:
        status = error.errno or errno.ECANCELED
    finally:
        os._exit(status)
