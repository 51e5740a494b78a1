"""config.json for an image: the image's configuration by the rules of the image specification (conversion.md).

The configuration is hostile. It decides what runs inside the container, and nothing about the container: what it calls
labels cannot act as annotations that a runtime obeys (containerd's CVE-2026-53492 and CVE-2026-47262).
"""

from __future__ import annotations

from rootless import log
from rootless.bundle.edit.accounts import identity
from rootless.bundle.edit.values import STEERING_ANNOTATIONS
from rootless.errors import RootlessError
from rootless.image.bundles.bundle_config import bundle_config
from rootless.image.bundles.spec import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

STOP_SIGNAL = "org.opencontainers.image.stopSignal"
EXPOSED_PORTS = "org.opencontainers.image.exposedPorts"

_PROPERTIES = ("os", "architecture", "variant", "os.version", "author", "created")
_OWN = tuple(f"org.opencontainers.image.{name}" for name in (*_PROPERTIES, "os.features"))
DERIVED = frozenset((*_OWN, STOP_SIGNAL, EXPOSED_PORTS))
"""Annotations that the configuration of an image becomes."""
_MOST_WORDS = 1 << 16
"""Of a list in the configuration; execve(2) has no room for more."""


def bundle_config_of(
    image_config: dict[str, Any],
    *,
    read: Callable[[str], bytes],
    command: Sequence[str] = (),
    terminal: bool = False,
) -> dict[str, Any]:
    """Return the configuration of a bundle that runs an image.

    Args:
        image_config: the image's configuration; empty for an image without one.
        read: returns the content of a file of the image by its absolute path; see ImageFile.read().
        command: takes the place of the image's Cmd.
        terminal: give the program a terminal.

    Raises:
        RootlessError: `RL-IMAGE`: the image's configuration is damaged, or names no program; `RL-USER`: its user is not
            in the image.
    """
    settings = _Settings(image_config)
    config = bundle_config(_arguments(settings, command))
    process = config["process"]
    process["terminal"] = terminal
    process["env"] = _environment(settings.strings("Env"), terminal=terminal)
    process["cwd"] = "/" + settings.text("WorkingDir").lstrip("/")
    user = settings.text("User")
    if user:
        found = identity("the image's user", user, lambda path: _content(read, path))
        process["user"] = {"uid": found.uid, "gid": found.gid, "additionalGids": found.gids}
    if annotations := _annotations(settings, image_config):
        config["annotations"] = annotations
    return config


def exposed_ports(image_config: dict[str, Any]) -> list[str]:
    """Return the ports that an image exposes, such as ``8080/tcp``, as `--publish-all` publishes them.

    Raises:
        RootlessError: `RL-IMAGE`: the image's configuration is damaged.
    """
    return _Settings(image_config).names("ExposedPorts")


def volume_mounts(image_config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mounts for the image's volumes, for a container whose root is read-only; else they are part of the root.

    Each is in memory, and begins with what the image has there.

    Raises:
        RootlessError: `RL-IMAGE`: the image's configuration is damaged.
    """
    options = ["nosuid", "nodev", "tmpcopyup"]
    return [
        {"destination": "/" + path.lstrip("/"), "type": "tmpfs", "source": "tmpfs", "options": options}
        for path in _Settings(image_config).names("Volumes")
        if path.strip("/")
    ]


class _Settings:
    """The property `config` of an image's configuration; everything in it may be missing or null."""

    __slots__ = ("_values",)

    def __init__(self, image_config: dict[str, Any]) -> None:
        values = image_config.get("config")
        self._values = _as(dict, values, "config")

    def text(self, name: str) -> str:
        return _clean(_as(str, self._values.get(name), name), name)

    def strings(self, name: str) -> list[str]:
        return _each(_as(list, self._values.get(name), name), name)

    def names(self, name: str) -> list[str]:
        return _each(_as(dict, self._values.get(name), name), name)

    def labels(self) -> dict[str, str]:
        labels: dict[str, object] = _as(dict, self._values.get("Labels"), "Labels")
        return dict(zip(_each(labels, "Labels"), _each(labels.values(), "Labels"), strict=True))


def _as(kind: type, value: object, name: str) -> Any:  # noqa: ANN401 - as `kind` says
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _damaged(name, "has another type than the image specification says")
    return value


def _each(values: Iterable[object], name: str) -> list[str]:
    found = [_clean(_as(str, value, name), name) for value in values]
    if len(found) > _MOST_WORDS:
        raise _damaged(name, f"has more than {_MOST_WORDS} entries")
    return found


def _clean(text: str, name: str) -> str:
    if "\0" in text:
        raise _damaged(name, "has a NUL in it")
    return text


def _damaged(name: str, cause: str) -> RootlessError:
    return RootlessError("use the image's configuration", cause=f"{name} {cause}", code="RL-IMAGE")


def _arguments(settings: _Settings, command: Sequence[str]) -> list[str]:
    words = [*settings.strings("Entrypoint"), *(command or settings.strings("Cmd"))]
    if not words:
        raise RootlessError(
            "use the image's configuration",
            cause="it names no program",
            fix="give the command after the image: rootless run IMAGE COMMAND",
            code="RL-IMAGE",
        )
    return words


def _environment(image: list[str], *, terminal: bool) -> list[str]:
    """Return the image's variables, the last of each name; and PATH, and TERM at a terminal, if they are missing."""
    variables = {"PATH": PATH.partition("=")[2]} | ({"TERM": "xterm"} if terminal else {})
    for each in image:
        name, equals, value = each.partition("=")
        if name and equals:
            variables[name] = value
        else:
            log.info(f"left out a variable of the image, which is not of the form NAME=VALUE: {each!r}")
    return [f"{name}={value}" for name, value in variables.items()]


def _annotations(settings: _Settings, image_config: dict[str, Any]) -> dict[str, str]:
    """Return the annotations of conversion.md; a label wins, except where rootless acts upon the annotation."""
    found = {}
    for name, annotation in zip(_PROPERTIES, _OWN, strict=False):
        if value := _clean(_as(str, image_config.get(name), name), name):
            found[annotation] = value
    if features := _each(_as(list, image_config.get("os.features"), "os.features"), "os.features"):
        found[_OWN[-1]] = ",".join(features)
    steering = {name for name in settings.labels() if name.startswith(STEERING_ANNOTATIONS)}
    if steering:
        log.info(f"left out labels of the image that runtimes act upon: {', '.join(sorted(steering))}")
    found |= {name: value for name, value in settings.labels().items() if name and name not in steering}
    for annotation, value in (
        (STOP_SIGNAL, settings.text("StopSignal")),
        (EXPOSED_PORTS, ",".join(settings.names("ExposedPorts"))),
    ):
        found.pop(annotation, None)
        if value:
            found[annotation] = value
    return found


def _content(read: Callable[[str], bytes], path: str) -> bytes:
    try:
        return read(path)
    except FileNotFoundError:
        return b""
