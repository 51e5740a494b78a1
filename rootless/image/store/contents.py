"""What is in the stores: a list for people, and the removal of what nobody needs."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from rootless import log
from rootless.errors import RootlessError
from rootless.image.manifest import LARGEST_MANIFEST, Manifest, parse, platform_of
from rootless.image.reference import REGISTRY
from rootless.image.reference import parse as parse_reference
from rootless.image.squashfs.image_file import open_image
from rootless.image.store.blobs import read_blob
from rootless.image.store.store import BLOBS, REFERENCES, open_store, shared_stores
from rootless.image.store.temporary import has_writers, left_behind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.image.squashfs.image_file import ImageFile
    from rootless.image.store.store import Store

_LEAST_DIGITS = 4
"""Of a digest that is shortened on the command line."""


class Listed:
    """A name of an image in a store, or an image without a name.

    Attributes:
        reference: the name; of an image without one, where it was loaded from.
        is_name: whether a registry's name refers to it; else `image prune` removes it.
        platform, digest, path, size: of the image; the size is in bytes, of its file.
        created: when its file was made, in seconds since 1970.
        shared: whether a site provides it.
    """

    __slots__ = ("created", "digest", "is_name", "path", "platform", "reference", "shared", "size")

    def __init__(self, store: Store, digest: str, reference: str, platform: str, *, is_name: bool) -> None:
        self.reference = reference
        self.platform = platform
        self.digest = digest
        self.path = store.image_path(digest)
        status = os.stat(self.path)
        self.size = status.st_size
        self.created = status.st_mtime
        self.is_name = is_name
        self.shared = store.shared

    def as_data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "reference": self.reference,
            "platform": self.platform,
            "digest": self.digest,
            "size": self.size,
            "created": log.timestamp(self.created),
            "path": self.path,
            "shared": self.shared,
        }


def list_images(store: str) -> list[Listed]:
    """Return the images of all stores, the caller's own first.

    Args:
        store: as `--store` has it.
    """
    found: list[Listed] = []
    with ExitStack() as stack:
        own = open_store(store, create=False)
        for each in ([own] if own else []) + list(shared_stores()):
            stack.enter_context(each)
            found += _listed(each)
    return found


def select(images: Iterable[Listed], word: str) -> list[Listed]:
    """Return the images that a word names: by reference, digest or the first digits of one.

    Raises:
        RootlessError: `RL-IMAGE-NOT-FOUND`: there is none; `RL-IMAGE-REFERENCE`: it names several images.
    """
    images = list(images)
    digits = word.removeprefix("sha256:")
    if len(digits) >= _LEAST_DIGITS and not digits.strip("0123456789abcdef"):
        found = [each for each in images if each.digest.removeprefix("sha256:").startswith(digits)]
        if len({each.digest for each in found}) > 1:
            cause = f"it is the beginning of {len({each.digest for each in found})} digests"
            raise RootlessError(f"image {word}", cause=cause, fix="write more of it", code="RL-IMAGE-REFERENCE")
        if found:
            return found
    if word.startswith("sha256:"):
        names = {word}
    else:
        reference = parse_reference(word)
        names = {str(reference)}
        if reference.kind == REGISTRY and not reference.registry:  # its whole name may be any registry's
            names = {each.reference for each in images if each.reference.partition("/")[2] in _endings(str(reference))}
    found = [each for each in images if each.reference in names]
    if len({each.reference for each in found}) > 1:
        cause = f"it may be {' or '.join(sorted({each.reference for each in found}))}"
        raise RootlessError(f"image {word}", cause=cause, fix="write the whole name", code="RL-IMAGE-REFERENCE")
    if not found:
        fix = "run rootless images"
        raise RootlessError(f"image {word}", cause="it is not in the store", fix=fix, code="RL-IMAGE-NOT-FOUND")
    return found


def remove_images(store: str, images: Iterable[Listed]) -> list[str]:
    """Remove names, the images that have no other name, and what only those need; return what was removed.

    Args:
        store: as `--store` has it.
        images: of list_images().

    Raises:
        RootlessError: `RL-STORE`: an image is in a shared store.
    """
    images = list(images)
    for each in images:
        if each.shared:
            fix = "ask the administrator of the site"
            raise RootlessError(f"remove {each.reference}", cause="it is in a shared store", fix=fix, code="RL-STORE")
    own = open_store(store, create=False)
    if not own:
        return []
    with own:
        return _remove(own, images)[0]


def _remove(store: Store, images: Iterable[Listed]) -> tuple[list[str], int]:
    """Return what was removed, and how many bytes are free now."""
    removed, freed = [], 0
    for each in images:
        for note in store.notes():
            if (note.reference, note.platform, each.is_name) == (each.reference, each.platform, True):
                store.forget(note)
        removed.append(each.reference)
        if not any(note.digest == each.digest for note in store.notes()):
            layers = _needed(store, [each.digest])
            freed += _unlink(store, "", os.path.basename(each.path))
            removed.append(each.digest)
            for digest in layers - _needed(store, store.images()):
                freed += _unlink(store, BLOBS, digest.removeprefix("sha256:"))
    return removed, freed


def prune(store: str) -> tuple[list[str], int]:
    """Remove what the caller's store does not need, and return the images among it, and how many bytes are free now.

    That is: what killed processes left, images without a name, and downloaded layers, which images do not need once
    they are made. Layers stay while a process adds to the store.

    Args:
        store: as `--store` has it.
    """
    own = open_store(store, create=False)
    if not own:
        return [], 0
    with own:
        return _prune(own)


def _prune(store: Store) -> tuple[list[str], int]:
    freed = 0
    for directory in ("", BLOBS, REFERENCES):
        for name in left_behind(store.directory(directory)):
            freed += _unlink(store, directory, name)
    removed, size = _remove(store, [each for each in _listed(store) if not each.is_name])
    freed += size
    names = os.listdir(store.directory(BLOBS))
    if not any(has_writers(store.directory(directory)) for directory in ("", BLOBS)):
        kept = {digest.removeprefix("sha256:") for digest in store.images()}
        for name in names:
            if name not in kept:
                freed += _unlink(store, BLOBS, name)
    return removed, freed


def inspect(image: Listed) -> dict[str, object]:
    """Return everything that is known of an image, for JSON."""
    return {**image.as_data(), "config": open_image(image.path).config}


def _listed(store: Store) -> list[Listed]:
    found = []
    notes = [note for note in store.notes() if note.name == note.reference]
    for digest in store.images():
        with suppress(FileNotFoundError):
            names = [note for note in notes if note.digest == digest]
            found += [Listed(store, digest, note.reference, note.platform, is_name=True) for note in names]
            if not names:
                found.append(_nameless(store, digest))
    return sorted(found, key=lambda each: (each.reference, each.platform, each.digest))


def _nameless(store: Store, digest: str) -> Listed:
    try:
        image: ImageFile = open_image(store.image_path(digest))
    except RootlessError as error:
        return Listed(store, digest, f"({error.cause})", "", is_name=False)
    return Listed(store, digest, image.reference, str(platform_of(image.config)), is_name=False)


def _endings(name: str) -> tuple[str, str]:
    """Return what a whole name that a short one may mean has behind its registry."""
    return name, f"library/{name}"


def _needed(store: Store, digests: Iterable[str]) -> set[str]:
    """Return the digests of the blobs that images were made of, as far as their manifests are there."""
    found: set[str] = set()
    for digest in digests:
        try:
            manifest = parse(read_blob(store, digest, LARGEST_MANIFEST), "", digest)
        except RootlessError:
            continue
        if isinstance(manifest, Manifest):
            found |= {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    return found


def _unlink(store: Store, directory: str, name: str) -> int:
    """Remove a file and return its size in bytes."""
    fd = store.directory(directory)
    try:
        size = os.stat(name, dir_fd=fd, follow_symlinks=False).st_size
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return 0
    return size
