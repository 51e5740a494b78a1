"""registries.conf: short names, mirrors, and registries that are blocked or insecure.

The configuration is podman's. Formats older than version 2 are refused.

Source: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
import tomllib

from rootless import paths, xdg
from rootless.errors import RootlessError
from rootless.image.reference import DOCKER_HUB, Reference, on_docker_hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SYSTEM = "/etc/containers"
_FILE = "registries.conf"
_DROP_INS = "registries.conf.d"
_LARGEST = 1 << 20  # bytes


class Place:
    """One place that may have an image.

    Attributes:
        reference: the image there.
        insecure: whether plain HTTP and certificates that cannot be verified are accepted.
        mirror: whether it is a mirror, so that its failure is no error.
    """

    __slots__ = ("insecure", "mirror", "reference")

    def __init__(self, reference: Reference, *, insecure: bool = False, mirror: bool = False) -> None:
        self.reference = reference
        self.insecure = insecure
        self.mirror = mirror


class RegistriesConf:
    """The merged configuration.

    Attributes:
        credential_helpers: where credentials are looked up; empty for the files of podman and docker.
    """

    __slots__ = ("_aliases", "_mode", "_registries", "_search", "credential_helpers")

    def __init__(self) -> None:
        self._search: tuple[str, ...] = ()
        self._aliases: dict[str, str] = {}
        self._registries: dict[str, dict[str, Any]] = {}
        self._mode = "permissive"
        self.credential_helpers: tuple[str, ...] = ()

    def add(self, data: dict[str, Any], path: str) -> None:
        """Let the content of a file override what was read before it.

        Raises:
            RootlessError: `RL-REGISTRIES-CONF`: a value is of the wrong type, or the file has the old format.
        """
        if isinstance(data.get("registries"), dict):
            raise _wrong(path, "it has version 1 of the format", "write it as containers-registries.conf(5) describes")
        try:
            self._search = tuple(_words(data["unqualified-search-registries"])) if _SEARCH in data else self._search
            if "credential-helpers" in data:
                self.credential_helpers = tuple(_words(data["credential-helpers"]))
            self._mode = _word(data.get("short-name-mode", self._mode))
            self._aliases.update({_word(name): _word(value) for name, value in data.get("aliases", {}).items()})
            for registry in data.get("registry", ()):
                checked = _registry(registry)
                self._registries[checked["prefix"]] = checked
        except (TypeError, ValueError, AttributeError) as error:
            raise _wrong(path, str(error)) from None

    def candidates(self, reference: Reference) -> list[Reference]:
        """Return the images that a reference may mean, the first one first; a whole name means itself.

        Raises:
            RootlessError: `RL-REGISTRIES-CONF`: it is ambiguous, and short-name-mode forbids to guess.
        """
        if reference.registry:
            return [reference]
        alias = self._aliases.get(reference.repository)
        if alias:
            registry, _, repository = alias.partition("/")
            return [reference.at(registry, repository)]
        if not self._search:
            return [on_docker_hub(reference)]
        found = [
            on_docker_hub(reference) if registry == DOCKER_HUB else reference.at(registry, reference.repository)
            for registry in self._search
        ]
        if self._mode == "enforcing" and len(found) > 1:
            raise RootlessError(
                f"image {reference}",
                cause="several registries may have it, and short-name-mode in registries.conf forbids to guess",
                fix=f"write the whole name: {' or '.join(map(str, found))}",
                code="RL-REGISTRIES-CONF",
            )
        return found

    def places(self, reference: Reference) -> list[Place]:
        """Return where to look for an image, in this order: the mirrors of its registry, then the registry.

        Raises:
            RootlessError: `RL-REGISTRY-BLOCKED`: the registry is blocked.
        """
        registry = self._registry_of(reference)
        if not registry:
            return [Place(reference)]
        if registry["blocked"]:
            raise RootlessError(
                f"pull {reference}",
                cause=f"{registry['prefix']} is blocked in registries.conf",
                fix="name an image of another registry",
                code="RL-REGISTRY-BLOCKED",
            )
        found = []
        for mirror in registry["mirrors"]:
            which = "digest-only" if registry["mirror-by-digest-only"] else mirror["pull-from-mirror"]
            if which in ("all", "digest-only" if reference.digest else "tag-only"):
                moved = _moved(reference, registry["prefix"], mirror["location"])
                found.append(Place(moved, insecure=mirror["insecure"], mirror=True))
        moved = _moved(reference, registry["prefix"], registry["location"])
        return [*found, Place(moved, insecure=registry["insecure"])]

    def is_insecure(self, host: str) -> bool:
        """Whether plain HTTP is accepted from a host, for `login`."""
        found = self._registries.get(host)
        return bool(found and found["insecure"])

    def _registry_of(self, reference: Reference) -> dict[str, Any] | None:
        """Return the entry with the longest prefix that an image's name has."""
        name = str(reference)
        found = [each for prefix, each in self._registries.items() if _begins_with(name, prefix)]
        return max(found, key=lambda each: len(each["prefix"]), default=None)


_SEARCH = "unqualified-search-registries"


def read() -> RegistriesConf:
    """Return the configuration of this host and user.

    $CONTAINERS_REGISTRIES_CONF, else the user's registries.conf, else the system's; then the files of the system's and
    the user's registries.conf.d.

    Raises:
        RootlessError: `RL-REGISTRIES-CONF`: a file cannot be read.
    """
    conf = RegistriesConf()
    user = f"{xdg.config()}/containers" if xdg.config() else ""
    chosen = paths.variable("CONTAINERS_REGISTRIES_CONF")
    if not chosen:
        chosen = f"{user}/{_FILE}" if user and os.path.exists(f"{user}/{_FILE}") else f"{SYSTEM}/{_FILE}"
    for path in (chosen, *_drop_ins(f"{SYSTEM}/{_DROP_INS}"), *_drop_ins(f"{user}/{_DROP_INS}" if user else "")):
        try:
            with open(path, "rb") as file:
                text = file.read(_LARGEST)
            conf.add(tomllib.loads(text.decode()), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _wrong(path, str(error.strerror)) from error
        except ValueError as error:  # TOML, or UTF-8
            raise _wrong(path, str(error)) from None
    return conf


def _drop_ins(directory: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory)) if directory else []
    except OSError:
        return
    yield from (f"{directory}/{name}" for name in names if name.endswith(".conf"))


def _registry(data: dict[str, Any]) -> dict[str, Any]:
    location = _host(data.get("location", ""))
    prefix = _word(data.get("prefix", "")) or location
    if not prefix or (not location and not prefix.startswith("*.")):
        message = "a registry has neither prefix nor location"
        raise ValueError(message)
    mirrors = data.get("mirror", [])
    if not all(mirror.get("location") for mirror in mirrors):
        message = f"a mirror of {prefix} has no location"
        raise ValueError(message)
    return {
        "prefix": prefix.rstrip("/"),
        "location": location,
        "insecure": data.get("insecure", False) is True,
        "blocked": data.get("blocked", False) is True,
        "mirror-by-digest-only": data.get("mirror-by-digest-only", False) is True,
        "mirrors": [
            {
                "location": _host(mirror["location"]),
                "insecure": mirror.get("insecure", False) is True,
                "pull-from-mirror": _word(mirror.get("pull-from-mirror", "all")),
            }
            for mirror in mirrors
        ],
    }


def _begins_with(name: str, prefix: str) -> bool:
    """Whether a name has a prefix, up to the end of one of its parts; ``*.`` stands for any subdomain."""
    if prefix.startswith("*."):
        host, slash, rest = name.partition("/")
        suffix, _, path = prefix[1:].partition("/")
        return host.endswith(suffix) and (not path or _begins_with(rest, path)) and bool(slash)
    return name == prefix or (name.startswith(prefix) and name[len(prefix)] in "/:@")


def _moved(reference: Reference, prefix: str, location: str) -> Reference:
    """Return the image in the place that replaces a prefix."""
    if not location:
        return reference
    name = f"{reference.registry}/{reference.repository}"
    if prefix.startswith("*."):
        prefix = reference.registry + "".join(prefix.partition("/")[1:])
    registry, _, repository = (location + name[len(prefix) :]).partition("/")
    return reference.at(registry, repository)


def _host(value: object) -> str:
    return _word(value).rstrip("/")


def _word(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        message = f"{value!r:.60} is not a string"
        raise TypeError(message)
    return value


def _words(value: object) -> list[str]:
    if not isinstance(value, list):
        message = f"{value!r:.60} is not a list"
        raise TypeError(message)
    return [_word(each) for each in value]


def _wrong(path: str, cause: str, fix: str = "correct the file: man containers-registries.conf") -> RootlessError:
    return RootlessError(f"read {path}", cause=cause, fix=fix, code="RL-REGISTRIES-CONF")
