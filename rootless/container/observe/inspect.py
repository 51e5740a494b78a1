"""The verb `inspect`: the state of a container, the caller's request, and parts of config.json."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootless.container.observe.listing import report
from rootless.container.operations.monitor import noted_status, open_exit
from rootless.container.state import store
from rootless.container.state.directory import LOG
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.options import Options


def inspect(options: Options) -> list[dict[str, object]]:
    """Return what is known of containers, in the order of the command line.

    Raises:
        RootlessError: `RL-NOT-FOUND`: one does not exist.
    """
    root = state_root(options.root)
    found = []
    for container_id in (options.container, *options.args):
        with store.find(root, container_id, lock=False) as entry:
            found.append(_described(entry, store.existing_state(entry)))
    return found


def _described(entry: ContainerDir, state: State) -> dict[str, object]:
    described = report(entry, state)
    exit_fd = open_exit(entry)
    if exit_fd >= 0:
        noted = noted_status(exit_fd)
        os.close(exit_fd)
        if noted:
            described["exitStatus"], described["finished"] = noted
    if entry.has(LOG):
        described["log"] = f"{entry.path}/{LOG}"
    asked = entry.read_request()
    if asked:
        described["asked"] = asked.get("options")
    digest = _image_digest(state.rootfs)
    if digest:
        described["imageDigest"] = digest
    config = entry.read_config()
    described["process"] = config.get("process")
    described["mounts"] = config.get("mounts") or []
    described["resources"] = (config.get("linux") or {}).get("resources") or {}
    return described


def _image_digest(rootfs: str) -> str:
    """Return the digest of the image that is a container's root file system; empty for a directory."""
    if not os.path.isfile(rootfs):
        return ""
    from rootless.image.squashfs.image_file import open_image

    try:
        image = open_image(rootfs)
    except (OSError, RootlessError):
        return ""
    return image.digest
