"""The verbs that write a container to disk and make it again."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def checkpoint(options: Options) -> int:
    """Carry out `rootless checkpoint`."""
    from rootless.container.checkpoint.verbs import checkpoint as write

    write(options)
    return 0


def restore(options: Options) -> int:
    """Carry out `rootless restore`; the status is the container's."""
    from rootless.container.checkpoint.verbs import restore as make

    return make(options)


VERBS = {"checkpoint": checkpoint, "restore": restore}
