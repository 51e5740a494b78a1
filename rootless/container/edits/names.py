"""What `exec` looks up for its process: variables of files and of the caller, names of users and groups."""

from __future__ import annotations

from rootless.bundle.edit.accounts import identity
from rootless.container.edits.apply import variables
from rootless.container.edits.inside_root import reader
from rootless.plan.process.exec_object import Found, is_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def look_up(options: Options, root: str) -> Found:
    """Return what the words of the command line stand for; `root` is the directory that is the container's root.

    Raises:
        RootlessError: `RL-USAGE`, `RL-USER`.
    """
    found = Found(variables(options))
    if is_named(options.user):
        user = identity("--user", options.user, reader(root))
        found.user = {"uid": user.uid, "gid": user.gid, "additionalGids": user.gids}
    return found
