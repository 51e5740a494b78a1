"""Checks of this host for images: FUSE and overlayfs in a user namespace, and the programs for images."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from typing import TYPE_CHECKING

from rootless.doctor.problem import OPTIONAL, SUDO, Check, Condition, Fix, advice, device_fix, install
from rootless.doctor.trial import PATIENCE, SCRATCH, become_ordinary, enter, errno_in_child, mount
from rootless.host.subids import find_program
from rootless.plan.rootfs.image import DEVICE, PACKAGE, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.doctor.problem import Host, Problem
    from rootless.host.facts import Facts

SERVER_SINCE = (0, 5, 2)
"""The first squashfuse_ll that serves with several threads and reports on a pipe that it serves (notify_pipe)."""
_UNPACKED = "rootless unpacks each image once, which takes time and disk space"
SERVER = Condition("RL-HOST-SQUASHFUSE", f"{PROGRAM} {'.'.join(map(str, SERVER_SINCE))} or later", _UNPACKED)
FUSE_DEVICE = Condition("RL-HOST-FUSE-DEVICE", f"access to {DEVICE}", _UNPACKED)
FUSE = Condition("RL-HOST-FUSE", "permission to mount FUSE in a user namespace", _UNPACKED)
OVERLAY = Condition(
    "RL-HOST-OVERLAY",
    "permission to mount overlayfs in a user namespace",
    "images that are served as one file, and --overlay, do not work",
)
SQFSTAR = Condition("RL-HOST-SQFSTAR", "sqfstar", "pull and run of an image from a registry do not work")
SKOPEO = Condition(
    "RL-HOST-SKOPEO", "skopeo", "images of docker-daemon: and containers-storage: are not available", OPTIONAL
)
_NOWHERE = "it is in no directory of PATH"
_FORBIDDEN = "run rootless outside of the sandbox, or the profile of a security module, that forbids mounts"
"""Every kernel that rootless runs on can mount them."""


def server(_: Host) -> Iterable[Problem]:
    """Yield why no program serves images."""
    program = find_program(PROGRAM)
    if not program:
        yield SERVER.found(_NOWHERE, install(PROGRAM, PACKAGE))
        return
    version = version_in(_said(program))
    if version < SERVER_SINCE:
        evidence = f"{program} is {'.'.join(map(str, version)) or 'of an unknown version'}"
        yield SERVER.found(evidence, install(PROGRAM, PACKAGE))


def _said(program: str) -> str:
    words = [program, "--help"]
    limit = PATIENCE / 1000
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=limit)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr + done.stdout


def version_in(text: str) -> tuple[int, ...]:
    """Return the version in the first line of what squashfuse_ll prints, such as (0, 5, 2); empty without one."""
    found = re.match(r"squashfuse (\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in found.groups()) if found else ()


def fuse(host: Host) -> Iterable[Problem]:
    """Yield why FUSE cannot be mounted."""
    if error := errno_in_child(lambda: _open_device(host.facts)):
        yield FUSE_DEVICE.found(f"open: {os.strerror(error)}", device_fix("fuse", DEVICE, error))
    elif error := errno_in_child(lambda: _mount_fuse(host.facts)):
        yield FUSE.found(f"mount: {os.strerror(error)}", advice(_FORBIDDEN))


def overlay(host: Host) -> Iterable[Problem]:
    """Yield why overlayfs cannot be mounted."""
    if error := errno_in_child(lambda: _mount_overlay(host.facts)):
        fix = Fix(f"{SUDO}modprobe overlay") if error == errno.ENODEV else advice(_FORBIDDEN)
        yield OVERLAY.found(f"mount: {os.strerror(error)}", fix)


def programs(_: Host) -> Iterable[Problem]:
    """Yield the programs for images that are not installed."""
    for condition, package in ((SQFSTAR, "squashfs-tools"), (SKOPEO, "skopeo")):
        if not find_program(condition.what):
            yield condition.found(_NOWHERE, install(condition.what, package))


def _open_device(facts: Facts) -> None:
    become_ordinary(facts)
    os.close(os.open(DEVICE, os.O_RDWR))


def _mount_fuse(facts: Facts) -> None:
    enter(facts)
    device = os.open(DEVICE, os.O_RDWR)
    mount("fuse", SCRATCH, "fuse", f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other")


def _mount_overlay(facts: Facts) -> None:
    enter(facts)
    for name in ("lower", "upper", "work"):
        os.mkdir(f"{SCRATCH}/{name}")
    options = f"userxattr,lowerdir={SCRATCH}/lower,upperdir={SCRATCH}/upper,workdir={SCRATCH}/work"
    mount("overlay", f"{SCRATCH}/lower", "overlay", options)


CHECKS = (
    Check("program that serves images", f"asked {PROGRAM} for its version", server, (SERVER,)),
    Check("FUSE", "mounted it in a user namespace", fuse, (FUSE_DEVICE, FUSE), contained=True),
    Check("overlayfs", "mounted it in a user namespace", overlay, (OVERLAY,), contained=True),
    Check("programs for images", "looked for sqfstar and skopeo", programs, (SQFSTAR, SKOPEO)),
)
