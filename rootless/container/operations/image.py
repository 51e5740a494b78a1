"""A container whose root is an image, and the server of the image.

The note of a server has its identity (process, start time), once it has started. The server ends with the last mount of
the image, and so with the container; the undo ends it where a process outside still has that mount.
"""

from __future__ import annotations

import posix

from rootless.container.network import helper_process
from rootless.container.operations.undo import note
from rootless.image.squashfs.server import ImageServer, open_file
from rootless.launch.protocol import FUSE
from rootless.procfs import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.plan.ops import Op


def begin(run: ContainerRun, op: Op) -> None:
    """Start the server of the image; nothing waits for it yet.

    Raises:
        RootlessError: `RL-IMAGE`: the file cannot be read, or holds no image.
    """
    (connection,) = run.passed.pop(FUSE)
    file = -1
    try:
        image = op.value("image")
        file = open_file(image.path)
        note(run.entry, "image", {})
        run.image = ImageServer(image, file, connection)
        note(run.entry, "image", {"server": identity(run.image.pid)})
    finally:
        posix.close(connection)
        if file >= 0:
            posix.close(file)


def wait(run: ContainerRun, _op: Op) -> None:
    """Return when the image is served.

    Raises:
        RootlessError: `RL-IMAGE`: its server failed.
    """
    assert run.image
    run.image.await_ready()


def undo(_entry: ContainerDir, data: Data) -> None:
    """End the server of a container's image."""
    if "server" in data:
        helper_process.end(data["server"])
