"""Checks of the directories in which rootless keeps images, bundles and the state of containers."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tempfile
from typing import TYPE_CHECKING

from rootless import paths, xdg
from rootless.doctor.id_checks import mount_point
from rootless.doctor.problem import OPTIONAL, SUDO, Check, Condition, Fix, advice
from rootless.doctor.trial import errno_in_child, mapped
from rootless.files import text_of
from rootless.host import subids
from rootless.linux import SYSTEMD_BOOTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.doctor.problem import Host, Problem
    from rootless.host.facts import Facts

_NO_STORE = "images cannot be kept: pull and run IMAGE need --store DIR"
HOME = Condition("RL-HOST-HOME", "a directory of your own for images", _NO_STORE)
SEARCH = Condition("RL-HOST-HOME-SEARCH", "permission to search the directories above your home", _NO_STORE)
NOEXEC = Condition(
    "RL-HOST-HOME-NOEXEC", "a home whose programs can be executed", "programs of bundles in it do not start"
)
NOSUID = Condition(
    "RL-HOST-HOME-NOSUID",
    "a home whose set-user-ID programs have effect",
    "sudo, su and ping of bundles in it gain no privileges",
    OPTIONAL,
)
OWNERS = Condition(
    "RL-HOST-HOME-OWNERS",
    "a home for files of your subordinate IDs",
    "images cannot be unpacked into it; those that are kept as one file work",
    OPTIONAL,
)
RUNTIME = Condition(
    "RL-HOST-RUNTIME-DIR",
    "a runtime directory of your own",
    "the state of containers is in /tmp or in your home, and programs such as systemctl --user and podman fail",
    OPTIONAL,
)
_ELSEWHERE = "keep bundles on a local file system, such as /var/tmp"


def home(host: Host) -> Iterable[Problem]:
    """Yield what is wrong with the directory of images, or the nearest one above it."""
    wanted = xdg.data()
    if not wanted:
        own = host.facts.account.home
        fix = f"set HOME to {own}" if own else "set XDG_DATA_HOME to a directory of your own"
        yield HOME.found("neither HOME nor XDG_DATA_HOME is set", advice(fix))
        return
    # before anything else looks at it: its file server may not answer
    if error := errno_in_child(lambda: _write(wanted)):
        host.home_answers = error != errno.ETIMEDOUT
        closed = paths.unsearchable(f"{wanted}/") if error == errno.EACCES else ""
        if closed:
            yield SEARCH.found(*searchable(closed, host.facts.account.home))
        else:
            yield HOME.found(
                f"a file cannot be made in {wanted}, or the nearest directory above it: {os.strerror(error)}",
                advice(_WRITABLE.get(error, "set XDG_DATA_HOME to a directory of your own")),
            )
        return
    directory = _nearest(wanted)
    mount = mount_point(directory)
    flags = os.statvfs(directory).f_flag
    for flag, condition, name in ((os.ST_NOEXEC, NOEXEC, "exec"), (os.ST_NOSUID, NOSUID, "suid")):
        if flags & flag:
            # no command: the option may be there to protect the host from its users
            evidence = f"{directory} is on {mount}, which is mounted no{name}"
            fix = f"keep bundles elsewhere, such as in /var/tmp, or have the administrator mount {mount} with {name}"
            yield condition.found(evidence, advice(fix))
    yield from _owners(host.facts, directory, mount)


_WRITABLE = {
    errno.ENOSPC: "free some space, or inodes, on that file system",
    errno.EDQUOT: "free some of your quota on that file system",
    errno.ETIMEDOUT: "ask the administrator about the file server, and set XDG_DATA_HOME to a local directory",
}


def searchable(directory: str, home_directory: str = "") -> tuple[str, Fix]:
    """Return why a directory on the way to a file, or to the user's home, cannot be searched, and the fix."""
    status = os.stat(directory)
    evidence = f"{directory} belongs to uid {status.st_uid}, and its mode is {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid == os.geteuid():
        return evidence, Fix(f"chmod u+x {shlex.quote(directory)}")
    if not home_directory:
        return evidence, advice(f"have its owner run: chmod o+x {shlex.quote(directory)}, or use files elsewhere")
    if not f"{home_directory}/".startswith(f"{directory}/"):  # after su, HOME may be another user's
        return evidence, advice(f"set HOME to {home_directory}, and XDG_DATA_HOME to a directory of your own")
    return evidence, Fix(f"{SUDO}chmod o+x {shlex.quote(directory)}")


def _nearest(directory: str) -> str:
    """Return the nearest directory that exists."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _write(directory: str) -> None:
    with tempfile.TemporaryFile(dir=_nearest(directory)) as file:
        file.write(b"x")


def _owners(facts: Facts, directory: str, mount: str) -> Iterable[Problem]:
    """Give a file another owner, as unpacking an image does: file servers and root squash refuse it."""
    if facts.nested or facts.privileged or not (facts.subuids and facts.subgids and subids.programs()):
        return

    def change_owner() -> None:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.fchown(file.fileno(), 1, 1)

    try:
        program, _, error = mapped(facts, change_owner)
    except OSError:
        return  # no user namespace: that is a problem of its own
    if error and not program:
        kind = file_system(text_of("/proc/self/mountinfo"), mount)
        evidence = f"chown of a file in {directory}: {os.strerror(error)}; {mount} is {kind or 'of an unknown type'}"
        yield OWNERS.found(evidence, advice(f"{_ELSEWHERE}, or as one file: rootless new --squashfs"))


def file_system(mountinfo: str, mount: str) -> str:
    """Return the type of the file system at a mount point, by the text of /proc/PID/mountinfo."""
    found = ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        found = rest.split(" ")[0] if point == mount else found
    return found


# --- The runtime directory --------------------------------------------------------------------------------------


def runtime(host: Host) -> Iterable[Problem]:
    """Yield why the caller has no runtime directory."""
    uid, user = host.facts.uid, host.facts.user
    given, usual = xdg.runtime(), f"/run/user/{uid}"
    has_usual = owns(usual, uid)
    if uid == 0 or owns(given, uid) or (has_usual and not given):
        return
    evidence = (
        f"XDG_RUNTIME_DIR is {given}, which is not a directory of yours alone" if given else f"{usual} is not there"
    )
    fix = Fix(f"{SUDO}install -d -m 700 -o {uid} {usual}")
    if given:
        fix = advice(f"run: export XDG_RUNTIME_DIR={usual}" if has_usual else "run: unset XDG_RUNTIME_DIR")
    elif os.path.exists(SYSTEMD_BOOTED):
        fix = Fix(f"{SUDO}loginctl enable-linger {shlex.quote(user)}")
    yield RUNTIME.found(evidence, fix)


def owns(directory: str, uid: int) -> bool:
    """Whether a directory is a user's, and nobody else can write to it."""
    try:
        status = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022


CHECKS = (
    Check(
        "directory of images",
        "made a file in it, also one of a subordinate ID; looked at its mount",
        home,
        (HOME, SEARCH, NOEXEC, NOSUID, OWNERS),
    ),
    Check("runtime directory", "XDG_RUNTIME_DIR or /run/user/UID is yours", runtime, (RUNTIME,)),
)
