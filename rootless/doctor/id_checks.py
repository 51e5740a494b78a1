"""Checks of subordinate IDs, and of the programs that map them."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING

from rootless import procfs
from rootless.doctor.problem import OPTIONAL, SUDO, Check, Condition, Fix, Host, advice, install
from rootless.doctor.trial import mapped
from rootless.files import text_of
from rootless.host import subids
from rootless.linux import CAP_SETGID, CAP_SETUID
from rootless.plan.idmaps import grant_command, usable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.doctor.problem import Problem
    from rootless.host.facts import Facts

_SINGLE = "containers have a single user ID, and images with files of several users do not work unchanged"
PROGRAMS = Condition("RL-HOST-IDMAP-PROGRAMS", "newuidmap and newgidmap", _SINGLE)
SETUID = Condition("RL-HOST-IDMAP-SETUID", "privileges of newuidmap and newgidmap", _SINGLE)
NOSUID = Condition("RL-HOST-IDMAP-NOSUID", "a mount with set-user-ID programs for newuidmap and newgidmap", _SINGLE)
NO_NEW_PRIVS = Condition(
    "RL-HOST-IDMAP-PRIVILEGES", "permission to gain privileges with newuidmap and newgidmap", _SINGLE
)
REFUSED = Condition("RL-HOST-IDMAP", "ID maps of newuidmap and newgidmap", _SINGLE)
SUBIDS = Condition("RL-HOST-SUBIDS", "subordinate IDs", _SINGLE)
FEW = Condition(
    "RL-HOST-SUBIDS-FEW",
    f"{subids.RANGE} subordinate uids and gids",
    "files of images with higher IDs cannot be made, and changes of owners to them fail",
)
SHARED = Condition(
    "RL-HOST-SUBIDS-SHARED",
    "subordinate IDs that nobody else has",
    "the other user's containers can read, change and signal what belongs to yours",
)
NESTED = Condition(
    "RL-HOST-SUBIDS-NESTED",
    "several IDs in the user namespace that rootless runs in",
    "containers have only the IDs that it has, and images with files of other users do not work unchanged",
    OPTIONAL,
)
_KINDS = ("uids", "gids")


def programs(host: Host) -> Iterable[Problem]:
    """Yield why newuidmap and newgidmap cannot write ID maps."""
    if host.facts.nested:
        return
    found = subids.programs()
    if not found:
        evidence = "they are in no directory of PATH"
        yield PROGRAMS.found(evidence, install("newuidmap", "newuidmap and newgidmap"))
    elif procfs.status("self").get("NoNewPrivs") == "1":
        fix = advice("run rootless outside of the sandbox, service or job that sets no_new_privs")
        yield NO_NEW_PRIVS.found("no_new_privs is set: NoNewPrivs is 1 in /proc/self/status", fix)
    else:
        powers = [
            problem
            for path, capability in zip(found, (CAP_SETUID, CAP_SETGID), strict=True)
            for problem in powerless(path, capability)
        ]
        yield from powers or _mapping(host.facts)


def powerless(path: str, capability: int) -> Iterable[Problem]:
    """Yield why a program cannot set IDs: it needs setuid root or a file capability that takes effect."""
    status = os.stat(path)
    setuid = status.st_mode & stat.S_ISUID and status.st_uid == 0
    quoted = shlex.quote(path)
    if not setuid and not _has_file_capability(path, capability):
        evidence = f"{path} is neither setuid root nor has the file capability"
        yield SETUID.found(evidence, Fix(f"{SUDO}chown root:root {quoted}", f"{SUDO}chmod u+s {quoted}"))
    elif os.statvfs(path).f_flag & os.ST_NOSUID:
        mount = mount_point(path)
        fix = Fix(f"{SUDO}mount -o remount,suid {shlex.quote(mount)}")
        yield NOSUID.found(f"{path} is on {mount}, which is mounted nosuid", fix)


def _has_file_capability(path: str, capability: int) -> bool:
    """Whether `capability` is in the file's permitted set: struct vfs_cap_data of capabilities(7)."""
    try:
        data = os.getxattr(path, "security.capability")
    except OSError:
        return False
    return bool(int.from_bytes(data[4:8], "little") >> capability & 1)


def mount_point(path: str) -> str:
    """Return the mount point of the file system that has a path."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _mapping(facts: Facts) -> Iterable[Problem]:
    """Map the IDs of a user namespace with the two programs, as for a container."""
    if facts.privileged or not (facts.subuids and facts.subgids):
        return
    program, message, _ = mapped(facts, lambda: None)
    if program:
        file = "/etc/subuid" if program.endswith("newuidmap") else "/etc/subgid"
        fix = advice(f"show this message to the administrator, with your lines of {file}")
        yield REFUSED.found(f"{program}: {message}", fix)


# --- Ranges -----------------------------------------------------------------------------------------------------


def ranges(host: Host) -> Iterable[Problem]:
    """Yield what is wrong with the subordinate IDs of the caller."""
    facts = host.facts
    if facts.nested:
        yield from _nested(facts)
        return
    if facts.privileged:
        return
    granted = dict(zip(_KINDS, (facts.subuids, facts.subgids), strict=True))
    source = "getsubids" if subids.has_name_service() else "/etc/subuid and /etc/subgid"
    missing = [kind for kind in _KINDS if not granted[kind]]
    few = [kind for kind in _KINDS if granted[kind] and _count(granted[kind]) < subids.RANGE]
    if missing:
        evidence = f"{source} have no {' and no '.join(missing)} for {facts.user}"
        yield SUBIDS.found(evidence, grant(facts.user, missing, subids.offer()))
    if few:
        counts = " and ".join(f"{_count(granted[kind])} {kind}" for kind in few)
        yield FEW.found(f"{source} give {facts.user} {counts}", grant(facts.user, few, subids.offer()))
    if not subids.has_name_service():
        files = (text_of(f"/etc/{name}") for name in ("subuid", "subgid", "passwd"))
        yield from shared(facts.user, facts.uid, *files)


def _count(granted: Iterable[tuple[int, int]]) -> int:
    return sum(count for _, count in granted)


def shared(user: str, uid: int, uids: str, gids: str, passwd: str) -> Iterable[Problem]:
    """Yield which of the ranges of `user` belong to others too, by the texts of /etc/subuid, subgid and passwd."""
    accounts = [(name, int(number), 1) for name, _, number, *_ in _fields(passwd) if subids.is_id(number)]
    new = subids.free_range([*subids.used_ranges(uids, gids), *((first, count) for _, first, count in accounts)])
    for kind, text, others in zip(_KINDS, (uids, gids), (accounts, []), strict=True):
        everybody = subids.entries(text) + others
        own = {entry for entry in everybody if entry[0] in (user, str(uid)) and entry[2] > 1}
        for name, first, count in sorted(own):
            sharing = [
                owner
                for owner, start, size in everybody
                if owner not in (user, str(uid)) and start < first + count and first < start + size
            ]
            if sharing:
                file = f"/etc/sub{kind[:-1]}"
                evidence = f"{file} gives {user} {first}-{first + count - 1}, of which {sharing[0]} has some"
                yield SHARED.found(evidence, _exchange(file, f"{name}:{first}:{count}", name, new))


def _fields(passwd: str) -> Iterable[list[str]]:
    return (line.split(":") for line in passwd.splitlines() if line.count(":") > 2)  # noqa: PLR2004 - name, password, uid


def grant(user: str, kinds: Iterable[str], first: int) -> Fix:
    """Return how `user` gets 65536 subordinate IDs of the `kinds` ("uids", "gids") from `first` on."""
    if subids.has_name_service():
        where = "the directory service that nsswitch.conf names for subid"
        return advice(f"give {user} a range in {where} (FreeIPA: ipa subid-generate --owner={user})")
    if first + subids.RANGE > procfs.ALL_IDS[2]:
        return advice("free a range of 65536 IDs in /etc/subuid and /etc/subgid: all are taken")
    is_local = subids.is_local(user)
    return Fix(grant_command(shlex.quote(user) if is_local else user, first, is_local=is_local, kinds=kinds, sudo=SUDO))


def _exchange(file: str, line: str, owner: str, new: int) -> Fix:
    """Return how the owner of a `line` of a file gets a new range instead.

    There is no command for it: usermod(8) takes no range from a user with running processes, and afterwards only root
    can remove files with IDs of the old range.
    """
    if new + subids.RANGE > procfs.ALL_IDS[2]:
        return advice(f"replace {line} in {file} with a free range")
    return advice(
        f"remove your unpacked images and bundles, whose files have the old IDs, and have the administrator replace "
        f"{line} in {file} with {owner}:{new}:{subids.RANGE}"
    )


def _nested(facts: Facts) -> Iterable[Problem]:
    held = sum(count for _, _, count in facts.uid_map)
    has_more = facts.privileged or usable(facts.subuids, facts.uid, facts.uid_map)
    if held == 1 or not has_more:
        evidence = f"the uid map of this process has {held} IDs" if held > 1 else "the uid map of this process has 1 ID"
        evidence += "" if facts.privileged else f", and none of them is subordinate to {facts.user}"
        fix = "run rootless outside of it, or give it more IDs: unshare --map-auto, podman run --userns=auto or "
        yield NESTED.found(evidence, advice(fix + "--uidmap, or run the outer engine as a user with subordinate IDs"))


CHECKS = (
    Check(
        "ID maps",
        "newuidmap and newgidmap mapped the subordinate IDs, if there are any",
        programs,
        (PROGRAMS, NO_NEW_PRIVS, SETUID, NOSUID, REFUSED),
    ),
    Check("subordinate IDs", "ranges of the right size that no other user has", ranges, (SUBIDS, FEW, SHARED, NESTED)),
)
