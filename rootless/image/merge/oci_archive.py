"""An image as one archive that other engines load: an OCI image layout in a tar archive."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
from contextlib import ExitStack
from typing import cast

from rootless import jsontext
from rootless.image.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    digest_of,
    manifest_of,
)
from rootless.image.merge.build import merge
from rootless.image.merge.layers import nameless_file, temporary_file
from rootless.image.merge.merged_tar import write_tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from rootless.image.merge.layers import LayerFile


def write_archive(layers: list[LayerFile], config: dict[str, Any], output: str) -> None:
    """Merge layers and write an archive of an OCI image layout with one layer (image specification, image-layout.md).

    Args:
        layers: the lowest first.
        config: the image's configuration; its `rootfs` is filled in.
        output: path of the file, which appears whole or not at all.

    Raises:
        RootlessError: as build_image().
        OSError: writing failed.
    """
    directory, name = os.path.split(os.path.abspath(output))
    with ExitStack() as stack:
        layer = stack.enter_context(nameless_file(directory))
        target = stack.enter_context(temporary_file(directory))
        tree, archives = merge(layers, directory, None, stack)
        digested = _Digest(layer)
        with gzip.GzipFile("", "wb", 3, cast("BinaryIO", digested), mtime=0) as compressed:
            plain = _Digest(compressed)
            write_tar(tree, archives, cast("BinaryIO", plain), root=True)
        config["rootfs"] = {"type": "layers", "diff_ids": [plain.name()]}
        with open(os.dup(target.fd), "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            for parent in ("blobs", "blobs/sha256"):  # skopeo cannot make those that are missing
                archive.addfile(_directory(parent))
            described = Descriptor(OCI_LAYER + "+gzip", digested.name(), digested.size)
            layer.seek(0)
            _add(archive, _path(digested.name()), layer, digested.size)
            settings = _add_blob(archive, jsontext.render(config, None).encode(), OCI_CONFIG)
            top = _add_blob(archive, manifest_of(settings, [described]), OCI_MANIFEST)
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top.as_data()]}
            for member, value in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
                _add_text(archive, member, jsontext.render(value, None).encode())
        target.publish(name)


class _Digest:
    """A stream that passes on what is written, counted and digested."""

    def __init__(self, sink: Any) -> None:  # noqa: ANN401 - GzipFile and a file have only write() in common
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._sink.write(data)
        self._sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._sink.flush()

    def name(self) -> str:
        return "sha256:" + self._sha256.hexdigest()


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add_blob(archive: tarfile.TarFile, text: bytes, kind: str) -> Descriptor:
    described = Descriptor(kind, digest_of(text), len(text))
    _add_text(archive, _path(described.digest), text)
    return described


def _directory(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _add_text(archive: tarfile.TarFile, name: str, text: bytes) -> None:
    with tempfile.SpooledTemporaryFile(len(text) + 1) as file:
        file.write(text)
        file.seek(0)
        _add(archive, name, cast("BinaryIO", file), len(text))


def _add(archive: tarfile.TarFile, name: str, file: Any, size: int) -> None:  # noqa: ANN401 - any readable file
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, file)
