"""Manifests and indexes of images, read without trusting them. Everything here is pure.

Source: image specification, manifest.md, image-index.md; docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import hashlib

from rootless import jsontext
from rootless.errors import RootlessError, one_line
from rootless.image.platform import Platform
from rootless.image.reference import is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
LARGEST_MANIFEST = 4 << 20
"""Bytes; registries refuse larger ones (distribution specification, "Pushing Manifests")."""
LARGEST_CONFIG = 4 << 20

_INDEXES = (OCI_INDEX, DOCKER_LIST)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_CONFIGS = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_LAYERS = (
    OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_COMPRESSIONS = ("", "+gzip", "+zstd", ".gzip", ".zstd")
_REF_NAME = "org.opencontainers.image.ref.name"
_MOST_LAYERS = 1000
_MOST_MANIFESTS = 10000
_SHOWN = 80


class Descriptor:
    """A blob or manifest that another document names.

    Attributes:
        media_type, digest, size: of it; the size is in bytes.
        platform: that it is for, if the document says so.
        tag: that it has in an image layout; empty if none.
    """

    __slots__ = ("digest", "media_type", "platform", "size", "tag")

    def __init__(
        self, media_type: str, digest: str, size: int, platform: Platform | None = None, tag: str = ""
    ) -> None:
        self.media_type = media_type
        self.digest = digest
        self.size = size
        self.platform = platform
        self.tag = tag

    def as_data(self) -> dict[str, str | int]:
        """Return it as in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest:
    """An image for one platform: its configuration and its layers, the lowest one first."""

    __slots__ = ("config", "layers")

    def __init__(self, config: Descriptor, layers: tuple[Descriptor, ...]) -> None:
        self.config = config
        self.layers = layers


class Index:
    """Images for several platforms."""

    __slots__ = ("manifests",)

    def __init__(self, manifests: tuple[Descriptor, ...]) -> None:
        self.manifests = manifests

    def best(self, wanted: Platform, name: str) -> Descriptor:
        """Return the image for a platform.

        Raises:
            RootlessError: `RL-IMAGE-PLATFORM`: there is none.
        """
        ranked = [(wanted.rank(each.platform), each) for each in self.manifests if each.platform]
        found = min((pair for pair in ranked if pair[0] is not None), key=lambda pair: pair[0] or 0, default=None)
        if found:
            return found[1]
        if len(self.manifests) == 1 and not self.manifests[0].platform:
            return self.manifests[0]
        have = sorted(
            {str(each.platform) for each in self.manifests if each.platform and each.platform.os != "unknown"}
        )
        raise RootlessError(
            f"image {name}",
            cause=f"it has no image for {wanted}" + (f", only for {', '.join(have)}"[:300] if have else ""),
            fix=f"name one of them: --platform {have[0]}" if have else "",
            code="RL-IMAGE-PLATFORM",
        )


def parse(content: bytes, media_type: str, name: str) -> Manifest | Index:
    """Return what a manifest or an index says.

    Args:
        content: of the document.
        media_type: the one that its source declares; the document's own counts if it has one.
        name: of the image, for messages.

    Raises:
        RootlessError: `RL-IMAGE-MANIFEST`: it is damaged, ambiguous or not the manifest of a container image.
    """
    data = _object(content, "manifest", name)
    own = data.get("mediaType")
    media_type = own if isinstance(own, str) and own else media_type.partition(";")[0].strip()
    if media_type.startswith(_SCHEMA_1) or data.get("schemaVersion") == 1:
        raise bad_manifest(
            name, "it has the obsolete format schema 1", "push it again with a present version of docker or podman"
        )
    # one client must not read an index where another one reads a manifest: CVE-2021-41190
    if ("manifests" in data) and ("layers" in data or "config" in data):
        raise bad_manifest(name, "its manifest is an index and a manifest at once")
    if media_type in _INDEXES or (media_type not in ACCEPTED and "manifests" in data):
        manifests = _list(data, "manifests", _MOST_MANIFESTS, name)
        return Index(tuple(_descriptor(each, name) for each in manifests))
    config = _descriptor(data.get("config"), name)
    if config.media_type not in _CONFIGS:
        raise bad_manifest(name, f"it is no container image: its configuration is of type {config.media_type}")
    layers = tuple(_descriptor(each, name) for each in _list(data, "layers", _MOST_LAYERS, name))
    for layer in layers:
        if not _is_layer(layer.media_type):
            cause = "a layer is encrypted" if layer.media_type.endswith("+encrypted") else ""
            raise bad_manifest(name, cause or f"a layer is of the unknown type {layer.media_type}")
    if config.size > LARGEST_CONFIG:
        raise bad_manifest(name, f"its configuration has more than {LARGEST_CONFIG >> 20} MB")
    return Manifest(config, layers)


def platform_of_config(content: bytes, name: str) -> Platform:
    """Return the platform in an image's configuration.

    Raises:
        RootlessError: `RL-IMAGE-MANIFEST`: it is no configuration.
    """
    return platform_of(_object(content, "configuration", name))


def platform_of(data: dict[str, Any]) -> Platform:
    """Return the platform in a descriptor or in an image's configuration, fit to be shown; what is no word is empty."""
    words = [data.get(key, "") for key in ("os", "architecture", "variant")]
    return Platform(*(one_line(word) if isinstance(word, str) and len(word) <= _SHOWN else "" for word in words))


def digest_of(content: bytes) -> str:
    """Return the digest by which manifests and registries name a document or blob."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest_of(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """Return a manifest; the same image always gives the same one."""
    data = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.as_data(),
        "layers": [layer.as_data() for layer in layers],
    }
    return jsontext.render(data, None).encode()


def bad_manifest(name: object, cause: str, fix: str = "") -> RootlessError:
    """Return the error `RL-IMAGE-MANIFEST` for an image whose documents or files cannot be right."""
    return RootlessError(f"image {name}", cause=one_line(cause), fix=fix, code="RL-IMAGE-MANIFEST")


def _object(content: bytes, what: str, name: str) -> dict[str, Any]:
    try:
        data = jsontext.parse(content, what)
    except RootlessError as error:
        raise bad_manifest(name, f"its {what} is not JSON: {error.cause}") from None
    if not isinstance(data, dict):
        raise bad_manifest(name, f"its {what} is not a JSON object")
    return data


def _descriptor(data: object, name: str) -> Descriptor:
    if not isinstance(data, dict):
        raise bad_manifest(name, "a descriptor in its manifest is missing")
    media_type, digest, size = data.get("mediaType"), data.get("digest"), data.get("size")
    if not isinstance(media_type, str) or len(media_type) > _SHOWN * 3:
        raise bad_manifest(name, "a descriptor in its manifest has no media type")
    if not isinstance(digest, str) or not is_digest(digest):
        raise bad_manifest(name, f"its manifest has the unsupported digest {str(digest)[:_SHOWN]}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise bad_manifest(name, f"its manifest has the size {str(size)[:_SHOWN]}")
    platform, annotations = data.get("platform"), data.get("annotations")
    tag = annotations.get(_REF_NAME, "") if isinstance(annotations, dict) else ""
    return Descriptor(
        media_type,
        digest,
        size,
        platform_of(platform) if isinstance(platform, dict) else None,
        tag if isinstance(tag, str) else "",
    )


def _list(data: dict[str, Any], key: str, most: int, name: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise bad_manifest(name, f"its manifest has no {key}")
    if len(value) > most:
        raise bad_manifest(name, f"its manifest has more than {most} {key}")
    return value


def _is_layer(media_type: str) -> bool:
    return any(media_type == base + compression for base in _LAYERS for compression in _COMPRESSIONS)
