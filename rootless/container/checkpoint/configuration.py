"""The configuration file and the environment of criu, which runs programs as root that its configuration names.

So both come from root alone: neither from the caller's environment (PATH excepted), nor from the container's image.
"""

from __future__ import annotations

import os
import stat

from rootless.container.checkpoint.directories import distrusted
from rootless.errors import RootlessError

CRIU_ANNOTATION = "org.criu.config"
"""A file with more options for criu; as for runc."""
_ANNOTATION_PLACE = f"annotations.{CRIU_ANNOTATION}"
_ADMINISTRATORS_OWN = "/etc/"
_ADMINISTRATORS = ("/etc/criu/crun.conf", "/etc/criu/runc.conf")
"""The files without the annotation: the first that exists is read, as with crun. runc reads the second."""
_DEFAULT = "/etc/criu/default.conf"
"""One of the two files that criu always reads; the other lies in the home directory of its environment."""


def open_configuration(annotated: str | None) -> str:
    """Return a path of the file with more options for criu; empty if there is none.

    An empty annotation means that criu reads none, as with runc.

    Raises:
        RootlessError: `RL-CRIU`: the annotation names a file that may come from another user than root.
    """
    if annotated is None:
        return next(filter(os.path.exists, _ADMINISTRATORS), "")
    if not annotated:
        return ""
    fd = -1
    cause = "" if annotated.startswith("/") else "it is not an absolute path"
    if not cause:
        try:
            fd = os.open(annotated, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            found = os.fstat(fd)
            cause = "" if stat.S_ISREG(found.st_mode) else "it is no regular file"
            cause = cause or distrusted(found) or _of_image(fd)
        except OSError as error:
            cause = (error.strerror or "").lower()
    if cause:
        raise RootlessError(
            f"cannot use {annotated}",
            cause=cause,
            where=_ANNOTATION_PLACE,
            fix=f"name a file of root's below {_ADMINISTRATORS_OWN}, or remove the annotation",
            code="RL-CRIU",
        )
    return f"/proc/{os.getpid()}/fd/{fd}"


def _of_image(fd: int) -> str:
    """Return the cause for refusing an open file that an image may supply; empty for others.

    Engines unpack the layers of images into directories of root's, and volumes are such directories.
    """
    path = os.readlink(f"/proc/self/fd/{fd}")
    return "" if path.startswith(_ADMINISTRATORS_OWN) else "an image or a volume may supply it"


def environment() -> dict[str, str]:
    """Return the environment of criu and of its children: the caller's may be another user's, as with sudo."""
    import pwd

    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    return env | ({"CRIU_CONFIG_FILE": _DEFAULT} if os.path.exists(_DEFAULT) else {})


def service_environment() -> dict[str, str]:
    """Return the environment of criu as a service: no option stops that from reading a configuration in the home."""
    return environment() | {"HOME": "/nonexistent"}
