"""The end of a container's cgroup, of which its directory holds a note.

boot id, manager, certainty (cgroup/group.py), unit of systemd, runtime directory of its user, path, parents: one a line
"""

from __future__ import annotations

import errno
from time import monotonic, sleep

from rootless.cgroup.group import KEPT, OWN, UNVERIFIED, empty, end_all, remove, remove_parents
from rootless.paths import exists
from rootless.procfs import boot_id

_NOTE_LINES = 6
_SHORT = 0.5
_LOOK_AGAIN = 0.01
"""Seconds."""


def give_back(note: str) -> None:
    """Remove the cgroup that a container's note is about, with whatever is still in it.

    Raises:
        OSError: it stays.
    """
    lines = note.split("\n")
    # an incomplete note is about a cgroup that had not been created; what came before this boot is gone, and its place
    # may be somebody else's by now
    if len(lines) < _NOTE_LINES or lines[0] != boot_id():
        return
    _, _, certainty, unit, user_manager, path, *parents = lines
    # what is not certain is somebody else's, or it ends with the process that it was made around
    if unit and certainty == OWN:
        from rootless.cgroup import systemd

        # by systemd, which would not notice that there is none any more
        end_all(path)
        if not systemd.stop_scope(unit, user_manager):
            _leave_time(path)
    if path:
        _remove(path, certainty)
        remove_parents(parents)


def is_sure(note: str) -> bool:
    """Whether give_back() ends everything that is in the cgroup of a note."""
    lines = note.split("\n")
    return len(lines) >= _NOTE_LINES and lines[0] == boot_id() and lines[2] in (OWN, KEPT) and bool(lines[5])


def _leave_time(path: str) -> None:
    """Wait for a systemd that cannot be talked to, if there is one, to remove the empty cgroup of a scope."""
    deadline = monotonic() + _SHORT
    while exists(path) and monotonic() < deadline:
        sleep(_LOOK_AGAIN)


def _remove(path: str, certainty: str) -> None:
    try:
        if certainty == KEPT:
            empty(path)
        else:
            remove(path, empty_only=certainty == UNVERIFIED)
    except PermissionError:
        # the container was given its cgroup, and has made others below it
        _remove_as_root_of_a_namespace(path)
        if certainty != KEPT:
            remove(path)


def _remove_as_root_of_a_namespace(path: str) -> None:
    from rootless.launch.run_in_userns import own_maps, run_in_userns

    command = ("/usr/bin/find", path, "-mindepth", "1", "-depth", "-type", "d", "-delete")
    status = run_in_userns(command, own_maps()[0])
    if status:
        raise OSError(errno.EBUSY, f"find -delete ends with {status}", path)
