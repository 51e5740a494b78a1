"""Checks of the session: the user's systemd manager, delegated cgroups, lingering, and quotas of the user."""

from __future__ import annotations

import errno
import os
import platform
import shlex
from typing import TYPE_CHECKING

from rootless import procfs
from rootless.cgroup.logout import ends_with_session
from rootless.doctor.problem import OPTIONAL, SUDO, Check, Condition, Fix, advice, raise_sysctl, sysctl
from rootless.doctor.trial import become_ordinary, call, errno_in_child
from rootless.files import text_of
from rootless.linux import SYSTEMD_BOOTED
from rootless.plan.cgroup.manager import why_none

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.doctor.problem import Host, Problem
    from rootless.host.facts import Facts

MANAGER = Condition(
    "RL-HOST-USER-MANAGER",
    "a systemd user manager on its bus",
    "rootless cannot ask for cgroups with limits, and --systemd-cgroup fails",
    OPTIONAL,
)
CGROUP = Condition(
    "RL-HOST-CGROUP", "a delegated cgroup", "limits of containers are not enforced; each is a warning", OPTIONAL
)
CONTROLLERS = Condition(
    "RL-HOST-CONTROLLERS", "the usual cgroup controllers", "limits that need the others are not enforced", OPTIONAL
)
LINGER = Condition("RL-HOST-LINGER", "processes that survive a logout", "detached containers end with it", OPTIONAL)
KEYRING = Condition(
    "RL-HOST-KEYRING",
    "a free session keyring",
    "containers start without one, and key system calls are forbidden in them",
    OPTIONAL,
)
INOTIFY = Condition(
    "RL-HOST-INOTIFY",
    "free inotify instances and watches",
    "programs that watch files, such as editors and development servers, fail in containers",
    OPTIONAL,
)

WANTED = ("cpu", "cpuset", "io", "memory", "pids")
_SYSCALLS = {"x86_64": (250, 254, 294), "aarch64": (219, 27, 26)}
"""The numbers of keyctl, inotify_add_watch and inotify_init1."""
_JOIN_SESSION_KEYRING = 1
_IN_MODIFY = 2
_KEYS, _KEY_BYTES = 2000, 200000
"""Ten times the default quotas of a user."""


def manager(host: Host) -> Iterable[Problem]:
    """Yield why no systemd manager serves the user, on a host with systemd."""
    facts = host.facts
    if facts.nested:  # its name for the user is not the host's
        return
    if os.path.exists(SYSTEMD_BOOTED) and not facts.user_manager:
        fix = Fix(f"{SUDO}loginctl enable-linger {shlex.quote(facts.user)}")
        evidence = f"nothing of yours listens at /run/user/{facts.uid}/bus and /run/user/{facts.uid}/systemd/private"
        yield MANAGER.found(evidence, fix)


def cgroups(host: Host) -> Iterable[Problem]:
    """Yield why cgroups of containers cannot be made or limited."""
    facts = host.facts
    found = facts.cgroups
    assert found
    if not found.base and not facts.user_manager:
        evidence, fix = why_none(facts)
        yield CGROUP.found(evidence, advice(fix))
        return
    place = found.top if found.base else _cgroup_of_manager(facts)
    missing = [name for name in WANTED if name not in text_of(f"{place}/cgroup.controllers").split()]
    if not place or not missing:
        return
    evidence = f"{found.path(place)} has no {', '.join(missing)}"
    yield CONTROLLERS.found(evidence, _delegate(facts, missing))


def _cgroup_of_manager(facts: Facts) -> str:
    """Return the directory of the cgroup of the user's systemd manager; empty if it is not there."""
    mount = facts.cgroups.mount if facts.cgroups else ""
    directory = f"{mount}/user.slice/user-{facts.uid}.slice/user@{facts.uid}.service"
    return directory if os.path.exists(directory) else ""


def _delegate(facts: Facts, missing: Iterable[str]) -> Fix:
    assert facts.cgroups
    reasons = [facts.cgroups.why_nowhere(name) for name in missing]
    if nowhere := next((reason for reason in reasons if reason), None):
        return advice(f"{nowhere[1]} ({nowhere[0]})")
    if not facts.user_manager:
        _, fix = facts.cgroups.why_missing(next(iter(missing)))
        return advice(fix)
    directory = "/etc/systemd/system/user@.service.d"
    text = shlex.quote(f"[Service]\\nDelegate={' '.join(WANTED)}\\n")
    return Fix(
        f"{SUDO}mkdir -p {directory}",
        f"printf {text} | {SUDO}tee {directory}/rootless.conf",
        f"{SUDO}systemctl daemon-reload",
    )


def linger(host: Host) -> Iterable[Problem]:
    """Yield why containers that this process starts end at logout."""
    del host
    if found := ends_with_session(procfs.cgroup("self")):
        evidence, fix = found
        yield LINGER.found(evidence, Fix(fix) if "," not in fix else advice(fix))


# --- Quotas -----------------------------------------------------------------------------------------------------


def keyring(host: Host) -> Iterable[Problem]:
    """Yield why no session keyring can be joined."""
    numbers = _SYSCALLS.get(platform.machine())

    def join() -> None:
        become_ordinary(host.facts)
        call("syscall", numbers[0] if numbers else 0, _JOIN_SESSION_KEYRING, None)

    name = "kernel.keys.maxkeys"
    if numbers and errno_in_child(join) == errno.EDQUOT:
        evidence = f"keyctl: {os.strerror(errno.EDQUOT)}, and {name} is {sysctl(name)}"
        add, _ = raise_sysctl(name, _KEYS).commands
        yield KEYRING.found(evidence, Fix(add, *raise_sysctl("kernel.keys.maxbytes", _KEY_BYTES).commands))


def inotify(host: Host) -> Iterable[Problem]:
    """Yield why no file can be watched."""
    numbers = _SYSCALLS.get(platform.machine())

    def watch() -> None:
        become_ordinary(host.facts)
        instance = call("syscall", numbers[2] if numbers else 0, 0)
        call("syscall", numbers[1] if numbers else 0, instance, b"/", _IN_MODIFY)

    error = errno_in_child(watch) if numbers else 0
    kind = {errno.EMFILE: "instances", errno.ENOSPC: "watches"}.get(error)
    if kind:
        names = (f"fs.inotify.max_user_{kind}", f"user.max_inotify_{kind}")
        values = {name: int(sysctl(name) or 0) for name in names}
        name = min(values, key=lambda each: values[each])
        evidence = f"inotify: {os.strerror(error)}, and {name} is {values[name]}"
        yield INOTIFY.found(evidence, raise_sysctl(name, _INOTIFY[kind]))


_INOTIFY = {"instances": 1024, "watches": 1048576}

CHECKS = (
    Check("systemd user manager", "its socket answers, or systemd does not run here", manager, (MANAGER,)),
    Check("cgroups", "permission to make some, and their controllers", cgroups, (CGROUP, CONTROLLERS)),
    Check("logout", "asked logind, and looked for lingering", linger, (LINGER,)),
    Check("keyring", "joined a new session keyring", keyring, (KEYRING,)),
    Check("inotify", "watched a file", inotify, (INOTIFY,)),
)
