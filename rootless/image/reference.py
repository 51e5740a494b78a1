"""References to images: where an image is, as people write it. Everything here is pure."""

from __future__ import annotations

from rootless.errors import RootlessError, one_line

REGISTRY = "docker"
OCI = "oci"
OCI_ARCHIVE = "oci-archive"
DOCKER_ARCHIVE = "docker-archive"
DOCKER_DAEMON = "docker-daemon"
CONTAINERS_STORAGE = "containers-storage"
FILE = "file"

DOCKER_HUB = "docker.io"
_HUB_OFFICIAL = "library/"
_DEFAULT_TAG = "latest"
_SUFFIXES = (".sqsh", ".squashfs", ".sif")
_LONGEST_NAME = 255  # characters of registry and repository, as in distribution
_LONGEST_SHOWN = 60

_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_ALPHANUMERIC = _LOWER + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEX = "0123456789abcdef"
_DIGEST_DIGITS = 64
_LONGEST_TAG = 128
_LONGEST_PORT = 5

FORMS = (
    "[docker://][REGISTRY/]NAME[:TAG|@DIGEST]",
    "oci:DIR[:TAG]",
    "oci-archive:FILE[:TAG]",
    "docker-archive:FILE[:NAME]",
    "docker-daemon:NAME",
    "containers-storage:NAME",
    "FILE.sqsh",
    "FILE.squashfs",
    "FILE.sif",
)


class Reference:
    """Where an image is.

    Attributes:
        kind: REGISTRY, OCI, OCI_ARCHIVE, DOCKER_ARCHIVE, DOCKER_DAEMON, CONTAINERS_STORAGE or FILE.
        registry: host and port of a registry; empty for a short name, which registries.conf resolves.
        repository: the name in the registry.
        tag: of a registry or layout; the name of an image in a docker-archive; empty if not given.
        digest: ``sha256:…`` of the manifest, if the reference is pinned. The tag is then empty.
        path: of a file or directory, as given.
        name: of an image in another program's storage.
    """

    __slots__ = ("digest", "kind", "name", "path", "registry", "repository", "tag")

    def __init__(
        self,
        kind: str,
        *,
        registry: str = "",
        repository: str = "",
        tag: str = "",
        digest: str = "",
        path: str = "",
        name: str = "",
    ) -> None:
        self.kind = kind
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest
        self.path = path
        self.name = name

    def __str__(self) -> str:
        """Return the whole reference; for a registry without ``docker://``, as engines show it."""
        if self.kind == REGISTRY:
            name = f"{self.registry}/{self.repository}" if self.registry else self.repository
            return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag}"
        if self.kind == FILE:
            return self.path
        if self.name:
            return f"{self.kind}:{self.name}"
        return f"{self.kind}:{self.path}" + (f":{self.tag}" if self.tag else "")

    def __eq__(self, other: object) -> bool:
        """Whether both have the same attributes."""
        return isinstance(other, Reference) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    def __hash__(self) -> int:
        """Return a hash that equal references share."""
        return hash(str(self))

    def at(self, registry: str, repository: str) -> Reference:
        """Return the same tag or digest in another place."""
        return Reference(REGISTRY, registry=registry, repository=repository, tag=self.tag, digest=self.digest)


def parse(text: str) -> Reference:
    """Return what `text` refers to.

    ``docker://NAME`` without a registry is an image of Docker Hub, as for podman and skopeo. A plain ``NAME`` is a
    short name: its registry is empty.

    Raises:
        RootlessError: `RL-IMAGE-REFERENCE`: it refers to nothing; the fix lists the forms or names the mistake.

    Source: the grammar of reference names in distribution/reference; containers-transports(5).
    """
    if not text or not text.isprintable():
        raise _wrong(text, "it is empty or has characters that cannot be printed")
    kind, colon, rest = text.partition(":")
    if colon and not rest.startswith("//"):
        if kind in (OCI, OCI_ARCHIVE, DOCKER_ARCHIVE):
            return _with_path(text, kind, rest)
        if kind in (DOCKER_DAEMON, CONTAINERS_STORAGE):
            if not rest:
                raise _wrong(text, "the name of the image is missing")
            return Reference(kind, name=rest)
    scheme, separator, name = text.partition("://")
    if separator and scheme != REGISTRY:
        raise _wrong(text, f"{_shown(scheme)}:// is not supported")
    if separator:
        reference = _in_registry(text, name)
        return reference if reference.registry else on_docker_hub(reference)
    if is_path(text):
        return Reference(FILE, path=text)
    return _in_registry(text, text)


def is_path(text: str) -> bool:
    """Whether a word without a transport is a file, not a name: it begins as a path does, or ends as image files do."""
    return text.startswith(("/", "./", "../")) or text.lower().endswith(_SUFFIXES)


def on_docker_hub(reference: Reference) -> Reference:
    """Return a short name as one of Docker Hub, where names of one part are in ``library/``."""
    return reference.at(DOCKER_HUB, hub_repository(reference.repository))


def hub_repository(repository: str) -> str:
    """Return the full name of a repository of Docker Hub."""
    return repository if "/" in repository else _HUB_OFFICIAL + repository


def is_digest(text: str) -> bool:
    """Whether `text` is a digest as this project uses them: sha256 in lower-case hexadecimal digits."""
    algorithm, _, digits = text.partition(":")
    return algorithm == "sha256" and len(digits) == _DIGEST_DIGITS and _consists_of(_HEX, digits)


def is_registry(text: str) -> bool:
    """Whether `text` is the host of a registry, with a port or without."""
    has_port = ":" in text and not text.endswith("]")
    host, _, port = text.rpartition(":") if has_port else (text, "", "")
    if has_port and (not _consists_of("0123456789", port) or len(port) > _LONGEST_PORT):
        return False
    if host.startswith("[") and host.endswith("]"):
        return _consists_of(_HEX + "ABCDEF:", host[1:-1])
    labels = host.split(".")
    return len(text) <= _LONGEST_NAME and all(
        _consists_of(_ALPHANUMERIC + "-", label) and label.strip("-") == label for label in labels
    )


def _is_repository(text: str) -> bool:
    return all(_is_part(part) for part in text.split("/"))


def _is_part(text: str) -> bool:
    """Whether `text` is runs of lower-case letters and digits between a dot, one or two underscores or dashes."""
    gap = ""
    for character in text:
        if character not in _LOWER:
            gap += character
        elif gap in ("", ".", "_", "__") or not gap.strip("-"):
            gap = ""
        else:
            return False
    return bool(text) and not gap and text[0] in _LOWER


def _is_tag(text: str) -> bool:
    return _consists_of(_ALPHANUMERIC + "_.-", text) and text[0] not in ".-" and len(text) <= _LONGEST_TAG


def _consists_of(allowed: str, text: str) -> bool:
    return bool(text) and not text.strip(allowed)


def _with_path(text: str, kind: str, rest: str) -> Reference:
    path, _, tag = rest.partition(":")
    if not path:
        raise _wrong(text, "the path is missing")
    return Reference(kind, path=path, tag=tag)


def _in_registry(text: str, name: str) -> Reference:
    name, at, digest = name.partition("@")
    if at and not is_digest(digest):
        is_other = ":" in digest and not digest.startswith("sha256:")
        cause = "only sha256 is supported" if is_other else "a digest is sha256: and 64 hexadecimal digits"
        raise _wrong(text, f"digest {_shown(digest)}: {cause}")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _is_tag(tag):
        raise _wrong(text, f"{_shown(tag)} is not a tag: up to 128 letters, digits and _.-")
    registry, repository = _divided(head + slash + last)
    if not repository:
        raise _wrong(text, "the name of the image is missing")
    if registry and not is_registry(registry):
        raise _wrong(text, f"{_shown(registry)} is not the host of a registry")
    if not _is_repository(repository):
        lower = repository.lower()
        if lower != repository and _is_repository(lower):
            raise _wrong(text, "image names are in lower case", f"write {_shown(text.replace(repository, lower))}")
        raise _wrong(text, f"{_shown(repository)} is not the name of an image")
    if len(registry) + len(repository) >= _LONGEST_NAME:
        raise _wrong(text, f"the name has more than {_LONGEST_NAME} characters")
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DOCKER_HUB
    if registry == DOCKER_HUB:
        repository = hub_repository(repository)
    tag = "" if digest else tag or _DEFAULT_TAG
    return Reference(REGISTRY, registry=registry, repository=repository, tag=tag, digest=digest)


def _divided(name: str) -> tuple[str, str]:
    """Return registry and repository: the first part is a host if it looks like one, as docker decides."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return first, rest
    return "", name


def _shown(text: str) -> str:
    return one_line(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def _wrong(text: str, cause: str, fix: str = "") -> RootlessError:
    return RootlessError(
        f"image {_shown(text) or '(empty)'}",
        cause=cause,
        fix=fix or f"write one of {', '.join(FORMS)}",
        code="RL-IMAGE-REFERENCE",
    )
