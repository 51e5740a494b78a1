"""Layers of images, written entry by entry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

FILE, HARD, LINK, DIRECTORY, DEVICE, FIFO = (
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
)


def entry(name, kind=FILE, target="", *, data=b"", **attributes):
    """Return a header and the data that follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, len(data), 0o755 if kind == DIRECTORY else 0o644
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def packed(*entries, form=tarfile.PAX_FORMAT):
    """Return a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def layout(directory, *layers, config=None, compress=gzip.compress):
    """Write an OCI image layout with one image, tagged `test`, and return what it is made of.

    Args:
        directory: to make.
        layers: tar archives, the lowest first.
        config: the part of the image's configuration for containers.
        compress: of an archive.

    Returns:
        The paths of the layers, the bytes of the configuration, the digest of the manifest.
    """
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    settings = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
    }).encode()  # fmt: skip
    described = [blob(compress(layer), "layer.v1.tar+gzip") for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(settings, "config.v1+json"),
        "layers": described,
    }
    top = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "test"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    paths = [str(blobs / layer["digest"].removeprefix("sha256:")) for layer in described]
    return paths, settings, top["digest"]
