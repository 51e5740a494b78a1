"""Platforms of images: the one of this host, the one that was asked for, and the best of those that an image has."""

from __future__ import annotations

import posix

from rootless.errors import RootlessError, one_line

_ARCHITECTURES = {
    "x86_64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv8l": "arm/v7",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "loongarch64": "loong64",
}
"""Go's names, which images use, by those of uname(2)."""

_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}
_PARTS = 3


class Platform:
    """An operating system, an architecture by Go's name, and a variant of it, which may be empty."""

    __slots__ = ("architecture", "os", "variant")

    def __init__(self, os: str, architecture: str, variant: str = "") -> None:
        self.os = os
        self.architecture = architecture
        self.variant = variant

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def rank(self, other: Platform) -> int | None:
        """Return how well `other` serves this one, the smaller the better; None if not at all.

        Source: image specification, image-index.md, "Platform Variants".
        """
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        wanted = _variants(self)
        return wanted.index(other.variant) if other.variant in wanted else None


def host_platform() -> Platform:
    """Return the platform of this host."""
    machine = posix.uname().machine
    architecture, _, variant = _ARCHITECTURES.get(machine, machine).partition("/")
    return Platform("linux", architecture, variant)


def wanted_platform(text: str) -> Platform:
    """Return the platform that a flag names, the host's if it is empty.

    Args:
        text: ``os/architecture[/variant]`` or an architecture.

    Raises:
        RootlessError: `RL-IMAGE-PLATFORM`: it is none.
    """
    if not text:
        return host_platform()
    parts = text.split("/") if "/" in text else ["linux", text]
    if len(parts) > _PARTS or not all(
        part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts
    ):
        raise RootlessError(
            f"--platform {one_line(text)}",
            cause="it is not OS/ARCHITECTURE[/VARIANT]",
            fix=f"write it as in --platform {host_platform()}",
            code="RL-IMAGE-PLATFORM",
        )
    os, architecture, *variant = (part.lower() for part in parts)
    architecture, _, default = _ALIASES.get(architecture, architecture).partition("/")
    return Platform(os, architecture, variant[0] if variant else default)


def _variants(platform: Platform) -> list[str]:
    """Return the variants that serve a platform, the best one first."""
    if platform.architecture == "arm":
        newest = int(platform.variant[1:]) if platform.variant[1:].isdigit() else 7
        return [*(f"v{number}" for number in range(newest, 4, -1)), ""]
    if platform.architecture == "arm64":
        return ["v8", ""] if platform.variant in ("", "v8") else [platform.variant]
    if platform.architecture == "amd64" and platform.variant in ("", "v1"):
        return ["", "v1"]
    return [platform.variant]
