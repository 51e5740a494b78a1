"""A bundle on disk: its directory, its config.json, its rootfs (bundle.md)."""

from __future__ import annotations

import os

from rootless.bundle.check import check
from rootless.bundle.jsontext import parse
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Bundle:
    """A bundle that was read and checked: absolute `directory` and `rootfs`, and the `config` as data."""

    __slots__ = ("config", "directory", "rootfs")

    def __init__(self, directory: str, config: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.rootfs = os.path.normpath(os.path.join(directory, config["root"]["path"]))


def load(directory: str, config_file: str = "") -> Bundle:
    """Read and check a bundle.

    Args:
        directory: the bundle, relative to the caller's directory; empty is that directory.
        config_file: another file instead of the bundle's config.json.

    Raises:
        RootlessError: `RL-BUNDLE` when something is missing, `RL-CONFIG…` when config.json is wrong.
    """
    directory = os.path.abspath(directory or ".")
    path = os.path.abspath(config_file) if config_file else f"{directory}/config.json"
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
    bundle = Bundle(directory, config)  # type: ignore[arg-type]
    if not os.path.isdir(bundle.rootfs):
        raise RootlessError(
            f"cannot use {bundle.rootfs}",
            cause="no such file or directory" if not os.path.lexists(bundle.rootfs) else "not a directory",
            where="root.path",
            fix="unpack a root file system there; `rootless new DIR --from FILE.tar` does",
            code="RL-BUNDLE",
        )
    return bundle
