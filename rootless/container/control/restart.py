"""The verb `restart`: stop a container, delete it, and run it again as it was asked for.

A container is made by one `run`; nothing of it is used twice. So the new one reads its bundle again, with the same
options, in the same directory. Only the name and the newer half of the log stay.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootless.container.operations.monitor import await_status, open_exit
from rootless.container.operations.teardown import destroy
from rootless.container.state import store
from rootless.container.state.directory import LOG, NOT_AGED, OLD_LOG
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from typing import Any

    from rootless.options import Options

_OF_THIS_COMMAND = ("log", "log_format", "log_level", "debug")


def again(options: Options, container_id: str) -> dict[str, Any]:
    """Return the options that run a container again, and change to the directory in which they are meant.

    Raises:
        RootlessError: `RL-RESTART`: no person's `run` made the container, or the directory does not exist any more.
    """
    root = state_root(options.root)
    with store.find(root, container_id, lock=False) as entry:
        store.existing_state(entry)
        noted = entry.read_request()
    asked, directory = noted.get("options"), noted.get("directory")
    if not isinstance(asked, dict) or not isinstance(directory, str):
        raise RootlessError(
            f"container {container_id}",
            cause="it cannot be restarted: create, or run with --bundle, made it",
            fix="delete it and create it again",
            code="RL-RESTART",
        )
    try:
        os.chdir(directory)
    except OSError as error:
        raise RootlessError(
            f"container {container_id}",
            cause=f"its run was called in {directory}: {(error.strerror or '').lower()}",
            fix="delete it, and run the bundle from where it is now",
            code="RL-RESTART",
        ) from None
    of_lists = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()}
    of_this = {name: value for name, value in vars(options).items() if name in _OF_THIS_COMMAND}
    return of_lists | of_this | {"root": root.path, "detach": True, "name": container_id}


def take_down(options: Options, container_id: str) -> bytes:
    """Delete a container that has stopped; return the newer half of its log."""
    try:
        with store.find(state_root(options.root), container_id) as entry:
            exit_fd = open_exit(entry)
            if exit_fd >= 0:
                await_status(exit_fd)
                os.close(exit_fd)
            log = entry.content(LOG) if entry.has(LOG) else b""
            destroy(entry, entry.read())
            return log
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise
        return b""  # its run in the foreground has deleted it


def keep_log(options: Options, container_id: str, log: bytes) -> None:
    """Put the log of the previous container before that of the new one, unless the new one has two files already."""
    with store.find(state_root(options.root), container_id, lock=False) as entry:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(OLD_LOG, flags, NOT_AGED | 0o600, dir_fd=entry.fd), "wb") as file:
                file.write(log)
        except OSError:
            return  # the disk is full: it is the older half
