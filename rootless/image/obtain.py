"""The image that a word names, as a file: from the store if it is there, else pulled, loaded or copied into it.

An image that is there costs some system calls: nothing else is imported.
"""

from __future__ import annotations

from contextlib import ExitStack

from rootless import log, paths
from rootless.errors import RootlessError
from rootless.image.platform import Platform, wanted_platform
from rootless.image.reference import CONTAINERS_STORAGE, DOCKER_DAEMON, FILE, REGISTRY, Reference, parse
from rootless.image.squashfs.image_file import open_image
from rootless.image.store.store import Store, open_store, shared_stores
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.registry.registries_conf import read as read_registries_conf
    from rootless.image.sources.convert import build
    from rootless.image.sources.layout import load
    from rootless.image.sources.pull import download
    from rootless.image.sources.skopeo import load_by_skopeo
    from rootless.image.squashfs.image_file import ImageFile
else:
    build = lazy("rootless.image.sources.convert", "build")
    load = lazy("rootless.image.sources.layout", "load")
    download = lazy("rootless.image.sources.pull", "download")
    load_by_skopeo = lazy("rootless.image.sources.skopeo", "load_by_skopeo")
    read_registries_conf = lazy("rootless.image.registry.registries_conf", "read")

MISSING, ALWAYS, NEVER = "missing", "always", "never"
"""When a registry is asked: if the image is not in a store, every time, or not at all."""


class Pulled:
    """An image that is in a store, or in the file that was asked for.

    Attributes:
        reference: the whole name.
        digest: of its manifest.
        path: of its file.
    """

    __slots__ = ("digest", "path", "reference")

    def __init__(self, reference: str, digest: str, path: str) -> None:
        self.reference = reference
        self.digest = digest
        self.path = path


def obtain(word: str, *, pull: str = MISSING, platform: str = "", store: str = "") -> ImageFile:
    """Return the image that a word names, as what `run IMAGE`, `new --from` and `explain IMAGE` open.

    Args:
        word: a file, or a reference; see reference.parse().
        pull: MISSING, ALWAYS or NEVER; about registries only.
        platform: as `--platform` has it; empty for this host's.
        store: as `--store` has it; empty for the default.

    Raises:
        RootlessError: `RL-IMAGE-*`, `RL-REGISTRY-*`, `RL-STORE`: there is no such image, or it cannot be had.
    """
    if paths.is_file(word):  # whatever its name
        return open_image(word)
    reference = parse(word)
    if reference.kind == FILE:
        return open_image(reference.path)
    return open_image(obtained(reference, pull=pull, platform=platform, store=store).path)


def obtained(
    reference: Reference, *, pull: str, platform: str = "", store: str = "", output: str = "", quiet: bool = False
) -> Pulled:
    """Return where an image is, after it was pulled or loaded if need be.

    Args:
        reference: not of a file.
        pull: MISSING, ALWAYS or NEVER.
        platform: as `--platform` has it.
        store: as `--store` has it.
        output: the file to make, instead of one in the store; empty for none.
        quiet: whether no progress is shown.
    """
    if output and paths.exists(output):
        raise RootlessError(
            f"write {output}", cause="it exists", fix="remove it, or name another file", code="RL-EXISTS"
        )
    wanted = wanted_platform(platform)
    if reference.kind == REGISTRY and pull != ALWAYS and not output:
        found = find(reference, wanted, store)
        if found:
            return found
    paths.noted(paths.UNKNOWN, str(reference))
    if reference.kind == REGISTRY and pull == NEVER:
        raise RootlessError(
            f"image {reference}",
            cause=f"it is not in the store for {wanted}",
            fix=f"pull it: rootless pull {reference}",
            code="RL-IMAGE-NOT-FOUND",
        )
    own = open_store(store, create=True)
    assert own
    with own:
        if reference.kind != REGISTRY:
            by_skopeo = reference.kind in (DOCKER_DAEMON, CONTAINERS_STORAGE)
            digest = (load_by_skopeo if by_skopeo else load)(reference, wanted, own, strict=bool(platform))
            return _made(own, digest, str(reference), output)
        return _pull(reference, wanted, own, pull=pull, strict=bool(platform), output=output, quiet=quiet)


def find(reference: Reference, platform: Platform, store: str) -> Pulled | None:
    """Return an image of a registry that was pulled before, from the caller's store or a shared one."""
    with ExitStack() as stack:
        own = open_store(store, create=False)
        for each in ([own] if own else []) + list(shared_stores()):
            stack.enter_context(each)
            found = _noted(each, reference, platform)
            if found:
                if log.is_debug():
                    log.debug(f"image {reference}: {found.path}")
                return found
    return None


def _noted(store: Store, reference: Reference, platform: Platform) -> Pulled | None:
    if reference.digest and store.has_image(reference.digest):
        return Pulled(str(reference), reference.digest, store.image_path(reference.digest))
    note = store.noted(str(reference), str(platform))
    if note and note.reference != note.name:  # a short name, whose whole one may have been pulled again since
        note = store.noted(note.reference, str(platform))
    if note and store.has_image(note.digest):
        return Pulled(note.reference, note.digest, store.image_path(note.digest))
    return None


def _pull(
    reference: Reference, platform: Platform, store: Store, *, pull: str, strict: bool, output: str, quiet: bool
) -> Pulled:
    """Pull an image; of a short name, the first that exists."""
    candidates = read_registries_conf().candidates(reference)
    failures: list[str] = []
    for candidate in candidates:
        name = str(candidate)
        found = find(candidate, platform, store.path) if pull != ALWAYS and not output else None
        if not found:
            try:
                digest = download(candidate, platform, store, strict=strict, quiet=quiet)
            except RootlessError as error:
                if candidate is candidates[-1] and not failures:
                    raise
                if error.code not in ("RL-IMAGE-NOT-FOUND", "RL-REGISTRY-AUTH", "RL-REGISTRY-NETWORK"):
                    raise
                failures.append(f"{name}: {error.cause}")
                continue
            found = _made(store, digest, name, output)
            if not output:
                store.note(name, name, str(platform), digest)
        if name != str(reference) and not output:
            store.note(str(reference), name, str(platform), found.digest)
        return found
    raise RootlessError(
        f"pull {reference}",
        cause="no registry of registries.conf has it: " + "; ".join(failures),
        fix="check the name, or write the whole one: REGISTRY/NAME",
        code="RL-IMAGE-NOT-FOUND",
    )


def _made(store: Store, digest: str, reference: str, output: str) -> Pulled:
    """Make the file of an image whose blobs are in the store, unless it is there."""
    path = output or store.image_path(digest)
    if output or not store.has_image(digest):
        build(store, digest, reference, path)
    return Pulled(reference, digest, path)
