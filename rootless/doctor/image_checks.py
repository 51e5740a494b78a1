"""Checks of this host for images: FUSE and overlayfs in a user namespace, and the programs for images."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rootless.doctor.problem import Problem, become_ordinary, errno_in_child, install, unshare
from rootless.host.subids import find_program
from rootless.linux import CLONE_NEWNS, CLONE_NEWUSER
from rootless.plan.rootfs.image import DEVICE, PACKAGE, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.host.facts import Facts

SERVER_SINCE = (0, 5, 2)
"""The first squashfuse_ll that serves with several threads and reports on a pipe that it serves (notify_pipe)."""
_PR_SET_DUMPABLE = 4
_UNPACKED = "rootless unpacks each image once, which takes time and disk space"


def problems(facts: Facts, *, try_them: bool) -> Iterable[Problem]:
    """Yield what is missing; `try_them` mounts file systems, which takes a user namespace."""
    yield from _server()
    if error := errno_in_child(lambda: _open_device(facts)):
        yield Problem(f"access to {DEVICE} ({os.strerror(error)})", _UNPACKED, device_fix(error))
    elif try_them and (error := errno_in_child(lambda: _mount_fuse(facts))):
        what = f"permission to mount FUSE in a user namespace ({os.strerror(error)})"
        yield Problem(
            what, _UNPACKED, "use Linux 4.18 or later, and run rootless outside of a sandbox that forbids mounts"
        )
    if try_them and (error := errno_in_child(lambda: _mount_overlay(facts))):
        what = f"permission to mount overlayfs in a user namespace ({os.strerror(error)})"
        why = "images and --overlay need it"
        fix = "sudo modprobe overlay" if error == errno.ENODEV else "use Linux 5.11 or later"
        yield Problem(what, why, fix)
    if not find_program("sqfstar"):
        yield Problem(
            "sqfstar", "pull and run of an image from a registry need it", install("sqfstar", "squashfs-tools")
        )
    if not find_program("skopeo"):
        why = "images of docker-daemon: and containers-storage: are not available without it"
        yield Problem("skopeo", why, install("skopeo", "skopeo"), optional=True)


def device_fix(error: int) -> str:
    """Return the command that lets users open /dev/fuse, now and after the next boot."""
    if error in (errno.EACCES, errno.EPERM):
        rule = 'KERNEL=="fuse", MODE="0666"'
        return f"echo '{rule}' | sudo tee /etc/udev/rules.d/90-rootless-fuse.rules && sudo chmod 666 {DEVICE}"
    return "echo fuse | sudo tee /etc/modules-load.d/rootless-fuse.conf && sudo modprobe fuse"


def version_in(text: str) -> tuple[int, ...]:
    """Return the version in the first line of what squashfuse_ll prints, such as (0, 5, 2); empty without one."""
    found = re.match(r"squashfuse (\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in found.groups()) if found else ()


def _server() -> Iterable[Problem]:
    program = find_program(PROGRAM)
    if not program:
        yield Problem(PROGRAM, _UNPACKED, install(PROGRAM, PACKAGE))
        return
    done = subprocess.run([program, "--help"], capture_output=True, text=True, errors="replace", check=False)
    version = version_in(done.stderr + done.stdout)
    if version < SERVER_SINCE:
        wanted, found = (".".join(map(str, each)) for each in (SERVER_SINCE, version or ("unknown",)))
        yield Problem(f"{PROGRAM} {wanted} or later (this is {found})", _UNPACKED, install(PROGRAM, PACKAGE))


def _open_device(facts: Facts) -> None:
    become_ordinary(facts)
    os.close(os.open(DEVICE, os.O_RDWR))


def _enter(facts: Facts) -> None:
    """Become root of a user namespace, with an empty file system on /tmp."""
    become_ordinary(facts)
    # after a change of its ids a process does not own /proc/self (PR_SET_DUMPABLE(2const))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    _mount("tmpfs", "/tmp", "tmpfs", "")  # noqa: S108 - in a mount namespace of its own


def _mount_fuse(facts: Facts) -> None:
    _enter(facts)
    device = os.open(DEVICE, os.O_RDWR)
    _mount("fuse", "/tmp", "fuse", f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other")  # noqa: S108


def _mount_overlay(facts: Facts) -> None:
    _enter(facts)
    for name in ("lower", "upper", "work"):
        os.mkdir(f"/tmp/{name}")  # noqa: S108
    options = "userxattr,lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    _mount("overlay", "/tmp/lower", "overlay", options)  # noqa: S108


def _mount(source: str, target: str, kind: str, options: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(*(os.fsencode(word) for word in (source, target, kind)), 0, os.fsencode(options)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
