"""Log in to a registry, and out."""

from __future__ import annotations

from rootless.errors import RootlessError, one_line
from rootless.image.reference import DOCKER_HUB, REGISTRY, Reference, is_registry
from rootless.image.registry import credentials, registries_conf
from rootless.image.registry.client import Client
from rootless.image.registry.registries_conf import Place


def log_in(registry: str, user: str, password: str) -> str:
    """Check a password with the registry, remember it, and return where.

    Raises:
        RootlessError: `RL-REGISTRY-AUTH`: the registry refuses it; `RL-REGISTRY-*`: it cannot be asked, or the password
            not be remembered.
    """
    given = credentials.Credentials(user, password)
    place = Place(Reference(REGISTRY, registry=registry), insecure=registries_conf.read().is_insecure(registry))
    Client(place, given).log_in()
    return credentials.save(registry, given)


def log_out(registry: str) -> bool:
    """Forget the password for a registry, or for all if it is empty; return whether there was one.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: the file cannot be written.
    """
    return credentials.forget(registry)


def named(word: str) -> str:
    """Return the registry that a word names: a host, or a URL as docker takes it; Docker Hub if it is empty.

    Raises:
        RootlessError: `RL-IMAGE-REFERENCE`: it is none.
    """
    host = credentials.registry_of(word) if word else DOCKER_HUB
    if not is_registry(host):
        raise RootlessError(
            f"registry {one_line(word[:80])}",
            cause="it is not the name of a host",
            fix="write it as in quay.io or localhost:5000",
            code="RL-IMAGE-REFERENCE",
        )
    return host
