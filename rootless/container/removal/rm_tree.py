"""The verb `rm-tree`: removes trees that have files of the caller's subordinate IDs."""

from __future__ import annotations

import os
import stat

from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.launch.run_in_userns import own_maps
from rootless.launch.run_plan import Run
from rootless.plan.compile import compile_removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

_CODE = "RL-REMOVE-TREE"


def rm_tree(options: Options) -> None:
    """Remove each tree.

    Raises:
        RootlessError: `RL-REMOVE-TREE`: one is not the caller's, or could not be removed as a whole.
    """
    start = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in (options.directory, *options.args):
            os.fchdir(start)
            _remove(path)
    finally:
        os.close(start)


def _remove(path: str) -> None:
    """Remove a tree.

    The directory above it is opened once. The executor, which starts in it, looks for the tree's name there alone, so
    that a directory above that is exchanged meanwhile changes nothing.
    """
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise _refused(path, "it does not name a directory by its last part", "write its name")
    try:
        fd = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check(path, os.fstat(fd), os.stat(name, dir_fd=fd, follow_symlinks=False))
            os.fchdir(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(path, (error.strerror or str(error)).lower()) from None
    Run(compile_removal(name, own_maps()[0]), Descriptors()).until_or_kill()


def _check(path: str, above: os.stat_result, tree: os.stat_result) -> None:
    """Check that a tree lies in a directory of the caller, or is the caller's own in a directory such as /tmp."""
    own = os.geteuid()
    if not stat.S_ISDIR(tree.st_mode):
        what = "a symlink" if stat.S_ISLNK(tree.st_mode) else "no directory"
        raise _refused(path, f"it is {what}", "name a directory; rm removes anything else")
    if above.st_uid != own and not (tree.st_uid == own and above.st_mode & stat.S_ISVTX):
        raise _refused(path, "the directory above it is not yours", "name a tree in a directory of your own")


def _refused(path: str, cause: str, fix: str = "") -> RootlessError:
    return RootlessError(f"rm-tree {path}", cause=cause, fix=fix, code=_CODE)
