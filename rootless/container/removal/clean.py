"""The verb `clean`: what killed commands and earlier boots have left.

A container that runs, waits, or is kept is never touched: a command that works on a container holds the lock of its
directory, and the states of all others are read under that lock.
"""

from __future__ import annotations

import os
import posix
import shutil
from time import time
from typing import TYPE_CHECKING, TypeVar

from rootless import files, log, paths
from rootless.container.network.shared_state import SharedNetwork
from rootless.container.operations.teardown import destroy
from rootless.container.state import store
from rootless.container.state.group import Group
from rootless.container.state.lifecycle import CREATING, STOPPED, status
from rootless.container.state.root import above_boots, node_name, state_root
from rootless.container.state.shared_directory import SharedDirectory
from rootless.errors import RootlessError
from rootless.image.store.store import BLOBS, REFERENCES, open_store
from rootless.image.store.temporary import left_behind
from rootless.procfs import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.options import Options

    Remnant = tuple[str, Callable[[], None]]
    """What it is and why it is of no use, and the function that removes it."""

Shared = TypeVar("Shared", bound=SharedDirectory)
_NEW = 10.0
"""Seconds in which a directory without a state may be that of a `create` that has not locked it yet."""


def clean(options: Options) -> Iterator[str]:
    """Remove the remnants, or with --dry-run none; yield a line for each.

    What cannot be removed is a warning.
    """
    root = state_root(options.root)
    for find in REMNANTS:
        for what, remove in find(root, options):
            try:
                if not options.dry_run:
                    remove()
            except (RootlessError, OSError) as error:
                log.warning(f"{what}: it stays: {error}")
            else:
                yield f"{'would remove' if options.dry_run else 'removed'} {what}"


def _containers(root: StateRoot, _options: Options) -> Iterator[Remnant]:
    """Yield containers that nobody will start, wait for or delete."""
    for container_id in store.ids(root):
        entry = store.unused(root, container_id) if not _is_new(root, container_id) else None
        if entry is None:
            continue
        with entry:
            try:
                state = entry.read()
                why = _why_useless(entry, state)
            except RootlessError as error:
                log.warning(f"{error.what}: {error.cause}", fix=error.fix)
                continue
            if why:
                yield f"container {container_id}: {why}", lambda entry=entry, state=state: destroy(entry, state)  # type: ignore[misc]


def _is_new(root: StateRoot, container_id: str) -> bool:
    """Whether a `create` may be about to lock this directory: if another process has the lock, it gives up."""
    try:
        made = posix.stat(container_id, dir_fd=root.fd, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return True
    return time() - made < _NEW and not posix.access(f"{container_id}/state.json", posix.F_OK, dir_fd=root.fd)


def _why_useless(entry: ContainerDir, state: State | None) -> str:
    """Return why a container is of no use; empty if it is of use, or its directory is not a container's."""
    if state is None:
        entry.own_files()  # raises if it is another program's
        return "its create was killed"
    if not state.is_of_this_boot():
        return "it ended with an earlier boot"
    if status(entry, state) != STOPPED:
        return ""
    if state.status == CREATING:
        return "its create was killed"
    asked = entry.read_request().get("options")
    if isinstance(asked, dict) and not (asked.get("detach") or asked.get("keep")):
        return "its run was killed"
    return ""


def _networks(root: StateRoot, _options: Options) -> Iterator[Remnant]:
    """Yield shared networks in use that no container uses any more; their definitions stay."""
    for live in _readable(SharedNetwork, root):
        if not live.linked():
            yield f"the state of network {live.name}: no container uses it", live.remove


def _groups(root: StateRoot, _options: Options) -> Iterator[Remnant]:
    """Yield the records of groups (`run --join`) without a member that is alive."""
    for shared in _readable(Group, root):
        if not shared.living():
            yield f"the record of group {shared.name}: none of its containers runs", shared.remove


def _readable(kind: type[Shared], root: StateRoot) -> Iterator[Shared]:
    """Yield the shared directories of a kind, locked, except those that a newer release has written."""
    for name in kind.names(root):
        try:
            shared = kind.existing(root, name)
        except RootlessError as error:
            log.warning(f"{error.what}: {error.cause}", fix=error.fix)
            continue
        if shared:
            with shared:
                yield shared


def _earlier_roots(_root: StateRoot, options: Options) -> Iterator[Remnant]:
    """Yield the state directories of this node's earlier boots, where a user has no runtime directory."""
    if options.root:
        return
    for above in above_boots(posix.geteuid()):
        try:
            fd = files.open_own(above)
        except OSError:
            continue
        try:
            for name in sorted(os.listdir(fd)):
                before, dot, boot = name.rpartition(".")
                if dot and before == node_name() and boot != boot_id():
                    remove = lambda name=name, fd=fd: shutil.rmtree(name, dir_fd=fd)  # noqa: E731
                    yield f"{above}/{name}: the containers of an earlier boot", remove
        finally:
            os.close(fd)


def _image_files(_root: StateRoot, _options: Options) -> Iterator[Remnant]:
    """Yield files of the image store that a killed command was writing; the next pull would continue a download."""
    try:
        own = open_store("", create=False)
    except RootlessError as error:
        log.info(f"{error.what}: {error.cause}")
        return
    if not own:
        return
    with own:
        for directory in ("", BLOBS, REFERENCES):
            fd = own.directory(directory)
            for name in left_behind(fd):
                remove = lambda name=name, fd=fd: files.unlink(name, fd)  # noqa: E731
                yield f"{paths.join(paths.join(own.path, directory), name)}: its writer was killed", remove


REMNANTS = (_containers, _networks, _groups, _earlier_roots, _image_files)
"""Functions of the state directory and the options, each for one kind of remnant."""
