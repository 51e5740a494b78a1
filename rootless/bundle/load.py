"""A bundle on disk: its directory, its config.json, its rootfs (bundle.md)."""

from __future__ import annotations

import _stat as stat
import posix

from rootless import paths
from rootless.errors import RootlessError
from rootless.jsontext import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Bundle:
    """A bundle that was read and checked: absolute `directory` and `rootfs`, the `config` as data and as `text`."""

    __slots__ = ("config", "directory", "rootfs", "text")

    def __init__(self, directory: str, config: dict[str, Any], text: bytes = b"") -> None:
        self.directory = directory
        self.config = config
        self.text = text
        self.rootfs = paths.normal(paths.join(directory, config["root"]["path"]))


def load(directory: str, config_file: str = "") -> Bundle:
    """Read and check a bundle.

    Args:
        directory: the bundle, relative to the caller's directory; empty is that directory.
        config_file: another file instead of the bundle's config.json.

    Raises:
        RootlessError: `RL-BUNDLE` when something is missing, `RL-CONFIG…` when config.json is wrong.
    """
    from rootless.bundle.check import check  # `exec` has a Bundle that was checked at create

    directory = paths.absolute(directory)
    path = paths.absolute(config_file) if config_file else f"{directory}/config.json"
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read()
    except OSError as error:
        raise RootlessError(
            f"cannot read {path}",
            cause=(error.strerror or "").lower(),
            fix="name a directory that holds config.json; `rootless new DIR` makes one",
            code="RL-BUNDLE",
        ) from None
    config = parse(text, path)
    check(config)
    bundle = Bundle(directory, config, text)  # type: ignore[arg-type]
    link = _link_on_the_way(directory, bundle.config["root"]["path"])
    if link:
        raise RootlessError(
            f"cannot use {bundle.rootfs}",
            cause=f"{link} is a symlink",
            where="root.path",
            fix="write the path that it leads to: a symlink of a bundle could lead anywhere",
            code="RL-BUNDLE",
        )
    try:
        cause = "" if stat.S_ISDIR(posix.stat(bundle.rootfs).st_mode) else "not a directory"
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


def _link_on_the_way(directory: str, path: str) -> str:
    """Return what is a link on the way to a relative root.path, or nothing; an absolute one is the caller's word."""
    if path.startswith("/"):
        return ""
    for component in paths.normal(path).split("/"):
        directory = paths.normal(paths.join(directory, component))
        try:
            if component not in (".", "..") and stat.S_ISLNK(posix.lstat(directory).st_mode):
                return directory
        except OSError:
            return ""
    return ""
