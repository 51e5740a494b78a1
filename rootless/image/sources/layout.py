"""Images on this host: OCI layouts, as a directory or an archive, and archives of `docker save`; none is trusted.

Their blobs are copied into the store, verified on the way, so that a directory that changes meanwhile spoils nothing.

Source: image specification, image-layout.md.
"""

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import contextmanager
from typing import cast

from rootless import jsontext, paths
from rootless.errors import RootlessError, one_line
from rootless.image.archive.decompress import MAGIC_LENGTH, Source, decompressed, is_compressed
from rootless.image.manifest import (
    LARGEST_CONFIG,
    LARGEST_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    Descriptor,
    Index,
    Manifest,
    bad_manifest,
    digest_of,
    manifest_of,
    parse,
)
from rootless.image.reference import DOCKER_ARCHIVE, OCI, is_digest, on_docker_hub
from rootless.image.reference import parse as parse_reference
from rootless.image.sources.convert import check_platform
from rootless.image.store.blobs import Blob, add_blob, has_blob, put_blob
from rootless.image.store.store import failed
from rootless.image.store.temporary import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from rootless.image.platform import Platform
    from rootless.image.reference import Reference
    from rootless.image.store.store import Store

_CHUNK = 1 << 20
_MOST_MEMBERS = 100_000
_MOST_LINKS = 8
_MOST_INDEXES = 3
_BROKEN = (tarfile.TarError, EOFError, OSError, ValueError, ArithmeticError)


def load(reference: Reference, platform: Platform, store: Store, *, strict: bool) -> str:
    """Copy an image into the store, unless the file of that image is there; return the digest of its manifest.

    Args:
        reference: of a layout or an archive.
        platform: the wanted one.
        store: gets manifest, configuration and layers.
        strict: whether an image for another platform is an error; else it is a warning.

    Raises:
        RootlessError: `RL-IMAGE-*`: there is no such image, or it is damaged; `RL-STORE`: it cannot be copied.
    """
    with _opened(reference, store) as files:
        if reference.kind == DOCKER_ARCHIVE:
            return _load_docker(files, reference, platform, store, strict=strict)
        return _load_oci(files, reference, platform, store, strict=strict)


class _Directory:
    """The files of a layout."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, name: str) -> BinaryIO:
        """Open a file.

        Raises:
            OSError: there is none.
        """
        fd = os.open(os.path.join(self._path, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(0, "it is not a file")
        return open(fd, "rb")


class _Archive:
    """The files of an archive; links lead from one to another."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            self._members[paths.normal(member.name)] = member
            if len(self._members) > _MOST_MEMBERS:
                message = f"it has more than {_MOST_MEMBERS} entries"
                raise tarfile.ReadError(message)

    def open(self, name: str) -> BinaryIO:
        """Open a file.

        Raises:
            OSError: there is none.
        """
        name = paths.normal(name)
        for _ in range(_MOST_LINKS):
            member = self._members.get(name)
            if member and (member.issym() or member.islnk()):
                start = paths.parent(name) if member.issym() else ""
                name = paths.normal(paths.join(start, member.linkname))
            elif member and member.isreg():
                return cast("BinaryIO", self._tar.extractfile(member))
            else:
                break
        raise FileNotFoundError(0, "no such file", name)


@contextmanager
def _opened(reference: Reference, store: Store) -> Iterator[_Directory | _Archive]:
    """Give the files of a layout or archive; a compressed archive is decompressed in the store's directory."""
    if reference.kind == OCI:
        yield _Directory(reference.path)
        return
    try:
        with Source(reference.path) as source:
            if not is_compressed(source.head):
                if source.size is None:
                    raise bad_manifest(reference, "it is not a file", "write it to a file first")
                with open(reference.path, "rb") as file:
                    yield _Archive(file)
                return
            with Temporary(store.directory(), "archive") as temporary:
                stream = decompressed(source)
                while data := stream.read(_CHUNK):
                    _write(temporary, data, store)
                with open(os.dup(temporary.fd), "rb") as file:
                    file.seek(0)
                    yield _Archive(file)
    except _BROKEN as error:
        raise bad_manifest(reference, f"it is damaged, or no archive of an image: {error}") from error


def _write(temporary: Temporary, data: bytes, store: Store) -> None:
    try:
        temporary.write(data)
    except OSError as error:
        raise failed(f"write to {store.path}", error) from error


def _load_oci(
    files: _Directory | _Archive, reference: Reference, platform: Platform, store: Store, *, strict: bool
) -> str:
    name = str(reference)
    content = _read(files, "index.json", reference, LARGEST_MANIFEST)
    index = parse(content, "", name)
    if not isinstance(index, Index):
        raise bad_manifest(reference, "its index.json is no index")
    found: Manifest | Index = _tagged(index, reference)
    for _ in range(_MOST_INDEXES):
        if isinstance(found, Manifest):
            break
        chosen = found.best(platform, name) if len(found.manifests) != 1 else found.manifests[0]
        content = _read(files, _path(chosen.digest), reference, LARGEST_MANIFEST)
        if digest_of(content) != chosen.digest:
            raise RootlessError(
                f"image {name}", cause=f"the digest of {chosen.digest} is wrong", code="RL-IMAGE-DIGEST"
            )
        found = parse(content, chosen.media_type, name)
    if isinstance(found, Index):
        raise bad_manifest(reference, "its indexes are nested too deeply")
    config = _read(files, _path(found.config.digest), reference, LARGEST_CONFIG)
    check_platform(config, platform, name, strict=strict)
    digest = digest_of(content)
    if not store.has_image(digest):
        for descriptor in (found.config, *found.layers):
            _copy(files, _path(descriptor.digest), descriptor, reference, store)
        put_blob(store, content)
    return digest


def _tagged(index: Index, reference: Reference) -> Index:
    """Return the entries of an index that a tag names; all of them without a tag, if they are one image.

    Raises:
        RootlessError: `RL-IMAGE-NOT-FOUND`: none, or several that differ.
    """
    tags = sorted({each.tag for each in index.manifests if each.tag})
    if not reference.tag:
        if len(index.manifests) == 1 or len({each.tag for each in index.manifests}) == 1:
            return index
        raise _not_found(reference, "it has several images", tags)
    if reference.tag.startswith("@") and is_digest(reference.tag[1:]):
        found = tuple(each for each in index.manifests if each.digest == reference.tag[1:])
    else:
        found = tuple(each for each in index.manifests if each.tag == reference.tag)
    if not found:
        raise _not_found(reference, "it has no image of that name", tags)
    return Index(found)


def _load_docker(
    files: _Directory | _Archive, reference: Reference, platform: Platform, store: Store, *, strict: bool
) -> str:
    entry = _docker_entry(files, reference)
    config_path, layer_paths = entry["Config"], entry["Layers"]
    config = _read(files, config_path, reference, LARGEST_CONFIG)
    check_platform(config, platform, str(reference), strict=strict)
    diff_ids = _diff_ids(config, reference, len(layer_paths))
    layers = []
    for path, diff_id in zip(layer_paths, diff_ids, strict=True):
        with _open(files, path, reference) as file:
            if is_compressed(file.read(MAGIC_LENGTH)):
                file.seek(0)
                layers.append(Descriptor(OCI_LAYER, *add_blob(store, file)))
            else:
                layers.append(Descriptor(OCI_LAYER, diff_id, file.seek(0, os.SEEK_END)))
    content = manifest_of(Descriptor(OCI_CONFIG, digest_of(config), len(config)), layers)
    digest = digest_of(content)
    if not store.has_image(digest):
        put_blob(store, config)
        for path, layer in zip(layer_paths, layers, strict=True):
            _copy(files, path, layer, reference, store)
        put_blob(store, content)
    return digest


def _docker_entry(files: _Directory | _Archive, reference: Reference) -> dict[str, Any]:
    """Return the entry of manifest.json that is asked for, with checked types."""
    entries = _json(_read(files, "manifest.json", reference, LARGEST_MANIFEST), reference)
    usable = [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    usable = [
        each
        for each in usable
        if isinstance(each.get("Config"), str)
        and isinstance(each.get("Layers"), list)
        and all(isinstance(path, str) for path in each["Layers"])
    ]
    names = {name: each for each in usable for name in each.get("RepoTags") or () if isinstance(name, str)}
    if not reference.tag and len(usable) == 1:
        return cast("dict[str, Any]", usable[0])
    wanted = _whole(reference.tag) if reference.tag else ""
    found = next((each for name, each in names.items() if _whole(name) == wanted), None)
    if not found:
        cause = "it has no image of that name" if reference.tag else f"it has {len(usable)} images"
        raise _not_found(reference, cause, sorted(names))
    return cast("dict[str, Any]", found)


def _whole(name: str) -> str:
    """Return the whole form of a name, so that `debian` finds `docker.io/library/debian:latest`."""
    try:
        reference = parse_reference(name)
    except RootlessError:
        return name
    return str(reference if reference.registry else on_docker_hub(reference))


def _diff_ids(config: bytes, reference: Reference, count: int) -> list[str]:
    data = _json(config, reference)
    rootfs = data.get("rootfs") if isinstance(data, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(d, str) and is_digest(d) for d in found)
    ):
        raise bad_manifest(reference, "its configuration does not name the digests of its layers")
    return found


def _copy(files: _Directory | _Archive, path: str, descriptor: Descriptor, reference: Reference, store: Store) -> None:
    """Copy a blob into the store, unless it is there."""
    if has_blob(store, descriptor.digest, descriptor.size):
        return
    with _open(files, path, reference) as file, Blob(store, descriptor.digest, descriptor.size) as blob:
        blob.restart()
        while data := _piece(file, reference):
            blob.write(data)
        blob.finish()


def _open(files: _Directory | _Archive, path: str, reference: Reference) -> BinaryIO:
    try:
        return files.open(path)
    except OSError as error:
        form = "a directory with an image layout" if reference.kind == OCI else "an archive of an image"
        fix = f"name {form}, such as skopeo writes"
        raise bad_manifest(reference, f"open {path[:200]} in it: {error.strerror}", fix) from error


def _read(files: _Directory | _Archive, path: str, reference: Reference, limit: int) -> bytes:
    content = b""
    with _open(files, path, reference) as file:
        while len(content) <= limit and (data := _piece(file, reference)):
            content += data
    if len(content) > limit:
        raise bad_manifest(reference, f"{path} in it has more than {limit >> 20} MB")
    return content


def _piece(file: BinaryIO, reference: Reference) -> bytes:
    try:
        return file.read(_CHUNK)
    except _BROKEN as error:
        raise bad_manifest(reference, f"it is damaged: {error}") from error


def _json(content: bytes, reference: Reference) -> object:
    try:
        return jsontext.parse(content, "JSON")
    except RootlessError as error:
        raise bad_manifest(reference, f"a file in it is not JSON: {error.cause}") from None


def _path(digest: str) -> str:
    return digest.replace("sha256:", "blobs/sha256/")


def _not_found(reference: Reference, cause: str, names: list[str]) -> RootlessError:
    shown = ", ".join(names[:20]) + (", …" if names[20:] else "")
    fix = f"name one of {shown}: {reference.kind}:{reference.path}:{names[0]}" if names else ""
    return RootlessError(f"image {reference}", cause=cause, fix=one_line(fix), code="RL-IMAGE-NOT-FOUND")
