"""`run IMAGE`: from an image to a Bundle whose config.json nobody has to write.

The Bundle's root.path is the image's file, or a directory where the host cannot serve images. Its own directory is the
container's, which holds config.json as a bundle does.
"""

from __future__ import annotations

import posix

from rootless import paths
from rootless.bundle.load import Bundle
from rootless.container.edits.apply import edit
from rootless.image.bundles.runtime_config import bundle_config_of, exposed_ports, volume_mounts
from rootless.image.squashfs.image_file import open_image
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless.image.bundles.unpacked import unpacked
    from rootless.image.obtain import obtain
    from rootless.image.squashfs.image_file import ImageFile
    from rootless.options import Options
    from rootless.plan.request import Request
else:
    obtain = lazy("rootless.image.obtain", "obtain")
    unpacked = lazy("rootless.image.bundles.unpacked", "unpacked")

_MISSING = "missing"
"""When a registry is asked, unless the caller says it: if the image is not in the store."""


def image_bundle(request: Request, options: Options, directory: str) -> Bundle:
    """Return the Bundle for the image that `request.image` names, with the caller's flags; pull it if it is missing.

    Args:
        request: the caller's; it gets the ports of --publish-all, and an empty standard input without -i.
        options: the command line.
        directory: the container's.

    Raises:
        RootlessError: there is no such image, or its configuration or a flag is wrong.
    """
    image = _open(request.image, options)
    config = bundle_config_of(
        image.config,
        read=image.read,
        command=options.args or (("true",) if options.entrypoint else ()),
        terminal=options.tty,
    )
    config["root"] = {"path": paths.absolute(image.path), "readonly": False}
    if options.read_only:
        config["mounts"] += volume_mounts(image.config)
    if options.publish_all:
        request.publish = (*request.publish, *exposed_ports(image.config))
    bundle = Bundle(directory, config)
    bundle.is_image = True
    edited = edit(bundle, request, options, read=_reader(image), entrypoint=_entrypoint(image.config))
    request.no_input = not options.interactive
    return edited


def use_directory(bundle: Bundle, request: Request, store: str, root: str) -> None:
    """Let a bundle whose image this host cannot serve have a directory as its root, unpacked once into the store.

    `root` is the state directory, by which `image prune` knows that the directory is in use.

    Raises:
        RootlessError: `RL-STORE`, `RL-UNPACK`, `RL-IMAGE`: it cannot be unpacked.
    """
    paths.noted(paths.UNKNOWN, bundle.rootfs)
    has_device = posix.access("/dev/fuse", posix.R_OK | posix.W_OK)
    bundle.rootfs = unpacked(bundle.rootfs, store, root, has_device=has_device)
    bundle.is_image = False
    request.overlay = request.overlay or "memory"


def _open(word: str, options: Options) -> ImageFile:
    if paths.is_file(word):
        return open_image(word)
    return obtain(word, pull=options.pull or _MISSING, platform=options.platform, store=options.store)


def _reader(image: ImageFile) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        try:
            return image.read(path)
        except FileNotFoundError:
            return b""

    return read


def _entrypoint(image_config: dict[str, Any]) -> list[str]:
    return list((image_config.get("config") or {}).get("Entrypoint") or ())
