"""Write the ID maps of a new user namespace: user_namespaces(7), newuidmap(1), newgidmap(1)."""

from __future__ import annotations

import posix

from rootless import paths
from rootless.errors import EXHAUSTED, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.idmaps import IdMaps

    Started = tuple[str, int, int]
    """A program, its process, and the descriptor for its standard error."""
    from rootless.procfs import IdMap


def begin(pid: int, maps: IdMaps) -> list[Started]:
    """Begin to map the IDs of the user namespace that process `pid` has created, and return the running programs.

    The two set-user-ID programs run side by side: each costs milliseconds. A map with the caller's own ID alone is
    written at once.

    Raises:
        RootlessError: `RL-IDMAP`: a program cannot be executed.
        OSError: the kernel refuses a map.
    """
    running: list[Started] = []
    if maps.deny_setgroups:
        _write(f"/proc/{pid}/setgroups", b"deny")
    for program, lines, name in ((maps.uid_program, maps.uids, "uid_map"), (maps.gid_program, maps.gids, "gid_map")):
        if program:
            running.append((program, *_start(program, pid, lines)))
        else:
            text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines)
            _write(f"/proc/{pid}/{name}", text.encode())
    return running


def wait(running: list[Started]) -> None:
    """Wait until the programs have written the maps.

    Raises:
        RootlessError: `RL-IDMAP`: a program failed; the cause is its own message.
    """
    results = [(program, *_finish(process, complaint)) for program, process, complaint in running]
    for program, status, complaint in results:
        if status:
            raise _refused(program, complaint)


def _start(program: str, pid: int, lines: tuple[IdMap, ...]) -> tuple[int, int]:
    """Return the process and the descriptor for its standard error."""
    complaint, theirs = posix.pipe()
    numbers = [str(number) for line in lines for number in line]
    try:
        process = posix.posix_spawn(
            program, [program, str(pid), *numbers], {}, file_actions=[(posix.POSIX_SPAWN_DUP2, theirs, 2)]
        )
    except OSError as error:
        posix.close(complaint)
        raise _refused(program, error.strerror or "", EXHAUSTED.get(error.errno or 0, "")) from None
    finally:
        posix.close(theirs)
    return process, complaint


def _finish(process: int, complaint: int) -> tuple[int, str]:
    with open(complaint, "rb") as file:
        text = file.read().decode("utf-8", "replace")
    return posix.waitpid(process, 0)[1], " ".join(text.split())


def _refused(program: str, complaint: str, fix: str = "") -> RootlessError:
    name = paths.name(program)
    if not fix:
        fix = f"make {program} set-user-ID root or give it its file capability (setcap), on a mount without nosuid"
    if "not allowed" in complaint:
        fix = "use the ranges that /etc/subuid and /etc/subgid give you, or leave the mappings out of config.json"
    elif "owned by a different user" in complaint:
        fix = "run rootless as the user who owns the process"
    return RootlessError(
        f"cannot map IDs: {name}",
        cause=complaint.removeprefix(name + ": ") or "it failed and reported no error",
        where="linux.uidMappings" if name == "newuidmap" else "linux.gidMappings",
        fix=fix,
        code="RL-IDMAP",
    )


def _write(path: str, data: bytes) -> None:
    """Write a map in one write(2), as the kernel requires."""
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, data)
        finally:
            posix.close(fd)
    except OSError as error:
        raise RootlessError(
            f"cannot map IDs: write {path}",
            cause=(error.strerror or "").lower(),
            where="linux.uidMappings" if "uid" in path else "linux.gidMappings",
            fix="map only your own IDs, install newuidmap and newgidmap, or let root run it",
            code="RL-IDMAP",
        ) from None
