"""Blobs of a store become an image: one file."""

from __future__ import annotations

import os
from contextlib import ExitStack

from rootless import log
from rootless.errors import RootlessError
from rootless.image.manifest import LARGEST_CONFIG, LARGEST_MANIFEST, Manifest, parse, platform_of_config
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
from rootless.image.store.blobs import open_blob, read_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.platform import Platform
    from rootless.image.squashfs.image_file import ImageFile
    from rootless.image.store.store import Store


def build(store: Store, digest: str, reference: str, output: str) -> ImageFile:
    """Make one file of an image whose blobs are in the store.

    Args:
        store: has the manifest, and what it names.
        digest: of the manifest.
        reference: the name that is stored in the file.
        output: path of the file, which is replaced if it exists.

    Raises:
        RootlessError: `RL-STORE`: a blob is missing; `RL-IMAGE`, `RL-ARCHIVE`, `RL-ARCHIVE-ENTRY`: see build_image().
    """
    manifest = parse(read_blob(store, digest, LARGEST_MANIFEST), "", reference)
    assert isinstance(manifest, Manifest)
    config = read_blob(store, manifest.config.digest, LARGEST_CONFIG)
    with ExitStack() as stack:
        layers = []
        for layer in manifest.layers:
            fd = open_blob(store, layer.digest)
            stack.callback(os.close, fd)
            layers.append(LayerFile(f"/proc/self/fd/{fd}", layer.media_type))
        return build_image(layers, config=config, manifest_digest=digest, reference=reference, output=output)


def check_platform(config: bytes, wanted: Platform, name: str, *, strict: bool) -> None:
    """Warn of an image that is for another platform, or refuse it if `strict`.

    Raises:
        RootlessError: `RL-IMAGE-PLATFORM`.
    """
    found = platform_of_config(config, name)
    if found.os and found.architecture and wanted.rank(found) is None:
        cause = f"it is for {found}, not for {wanted}"
        if strict:
            fix = f"name an image that has several, or --platform {found}"
            raise RootlessError(f"image {name}", cause=cause, fix=fix, code="RL-IMAGE-PLATFORM")
        log.warning(f"image {name}: {cause}")
