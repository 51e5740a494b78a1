"""Load a bundle: a directory with config.json and a rootfs (bundle.md)."""

from __future__ import annotations

import _stat as stat

from rootless import paths
from rootless.errors import RootlessError
from rootless.files import read_noted
from rootless.jsontext import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Bundle:
    """A checked bundle: absolute paths `directory` and `rootfs`, config.json as data (`config`) and as `text`.

    `is_image` says that `rootfs` is a file that holds a squashfs, not a directory.
    """

    __slots__ = ("config", "directory", "is_image", "rootfs", "text")

    def __init__(self, directory: str, config: dict[str, Any], text: bytes = b"") -> None:
        self.directory = directory
        self.config = config
        self.text = text
        self.rootfs = paths.normal(paths.join(directory, config["root"]["path"]))
        self.is_image = False


def load(directory: str, config_file: str = "") -> Bundle:
    """Read and check a bundle.

    Args:
        directory: the bundle's path, absolute or relative to the working directory; empty is the working directory.
        config_file: the path of a file to read instead of the bundle's config.json.

    Raises:
        RootlessError: `RL-BUNDLE`: config.json or the rootfs cannot be used; `RL-CONFIG…`: config.json is invalid.
    """
    from rootless.bundle.check import check  # `exec` makes a Bundle of a config.json that `create` has checked

    directory = paths.absolute(directory)
    path = paths.absolute(config_file) if config_file else f"{directory}/config.json"
    try:
        text = read_noted(path)
    except OSError as error:
        unreadable = RootlessError(
            f"cannot read {path}",
            cause=(error.strerror or "").lower(),
            fix="name a directory with a config.json; `rootless new DIR` creates one",
            code="RL-BUNDLE",
        )
        unreadable.path = path if isinstance(error, PermissionError) else ""
        raise unreadable from None
    config = parse(text, path)
    check(config)
    bundle = Bundle(directory, config, text)  # type: ignore[arg-type]
    link = _first_symlink(directory, bundle.config["root"]["path"])
    if link:
        raise RootlessError(
            f"cannot use {bundle.rootfs}",
            cause=f"{link} is a symlink",
            where="root.path",
            fix="write the path of its target: a symlink in a bundle could lead anywhere",
            code="RL-BUNDLE",
        )
    try:
        mode = paths.status(bundle.rootfs).st_mode
        bundle.is_image = stat.S_ISREG(mode)
        cause = "" if stat.S_ISDIR(mode) or bundle.is_image else "neither a directory nor an image"
    except OSError as error:
        cause = (error.strerror or "").lower()
    if cause:
        raise RootlessError(
            f"cannot use {bundle.rootfs}",
            cause=cause,
            where="root.path",
            fix="unpack a root file system there; `rootless new DIR --from FILE.tar` does",
            code="RL-BUNDLE",
        )
    return bundle


def _first_symlink(directory: str, path: str) -> str:
    """Return the first symlink in a relative root.path, or nothing. An absolute path is the caller's decision."""
    if path.startswith("/"):
        return ""
    for component in paths.normal(path).split("/"):
        directory = paths.normal(paths.join(directory, component))
        try:
            if component not in (".", "..") and stat.S_ISLNK(paths.symlink_status(directory).st_mode):
                return directory
        except OSError:
            return ""
    return ""
