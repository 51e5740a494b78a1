"""Shared networks as the user defines them: `rootless network`, and the lookup of --network NAME.

Definitions are in the user's configuration and stay; shared_state.py has the networks in use.
"""

from __future__ import annotations

import fcntl
import posix

from rootless import files, jsontext, log, xdg
from rootless.container.network.shared_state import SharedNetwork
from rootless.container.state.root import state_root
from rootless.container.state.store import LONGEST_ID, is_id
from rootless.errors import RootlessError
from rootless.plan.network.helpers import PASTA, SLIRP
from rootless.plan.network.mode import CONTAINER, HOST, NONE
from rootless.plan.network.shared import Shared
from rootless.plan.request import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rootless.container.state.root import StateRoot
    from rootless.options import Options

_WORDS = (AUTO, NONE, HOST, SLIRP, PASTA, CONTAINER)
"""Words with another meaning in --network."""


def find(name: str) -> Shared:
    """Return a network that `network create` made.

    Raises:
        RootlessError: `RL-NETWORK`: there is no such network.
    """
    if not is_id(name):
        raise _unknown(name)
    path = f"{_directory()}/{name}.json"
    try:
        directory = _opened()
        try:
            text = files.content(f"{name}.json", directory)
        finally:
            posix.close(directory)
        found = jsontext.parse(text, path)
        subnet = found["subnet"] if isinstance(found, dict) else ""
        return Shared(name, str(subnet))
    except FileNotFoundError:
        raise _unknown(name) from None
    except (OSError, ValueError, KeyError) as error:
        raise RootlessError(f"network {name}", cause=f"{path}: {error}", fix=f"rm {path}", code="RL-NETWORK") from None


def _unknown(name: str) -> RootlessError:
    there = ", ".join(names()) or "none yet"
    make = f"rootless network create {name}; or " if is_id(name) else ""
    return RootlessError(
        f"network {name}",
        cause=f"there is no such network; yours: {there}",
        fix=f"{make}use auto, none, host, slirp4netns, pasta, container:ID",
        code="RL-NETWORK",
    )


def _directory() -> str:
    """Return the directory of network definitions: they outlive the session, as podman's and docker's do."""
    base = xdg.config()
    if not base:
        raise RootlessError(
            "cannot find the directory of networks, $HOME/.config",
            cause="HOME is not set",
            fix="set HOME or XDG_CONFIG_HOME",
            code="RL-NETWORK",
        )
    return f"{base}/rootless/networks"


def _opened() -> int:
    """Return a descriptor of the directory of networks.

    Raises:
        FileNotFoundError: it does not exist yet.
        RootlessError: `RL-NETWORK`: it cannot be opened, or another user can write to it.
    """
    path = _directory()
    try:
        return files.open_own(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RootlessError(
            f"networks in {path}",
            cause=(error.strerror or str(error)).lower(),
            fix=f"make it yours, and writable for you only: chmod 700 {path}",
            code="RL-NETWORK",
        ) from None


def names() -> list[str]:
    """Return the names of the caller's networks."""
    try:
        directory = _opened()
    except FileNotFoundError:
        return []
    try:
        return sorted(name.removesuffix(".json") for name in posix.listdir(directory) if name.endswith(".json"))
    finally:
        posix.close(directory)


def create(options: Options) -> str:
    """Make a network; return its name.

    Raises:
        RootlessError: `RL-NETWORK`: the name or the subnet is taken or invalid.
    """
    from rootless.network.subnets import choose

    name = options.container
    if not is_id(name):
        raise RootlessError(
            f"network {name!r}",
            cause="invalid name",
            fix=f"use letters, digits and _ + - . only, {LONGEST_ID} at most",
            code="RL-NETWORK",
        )
    if name in _WORDS:
        raise RootlessError(
            f"network {name}",
            cause="--network uses that word for something else",
            fix="choose another name",
            code="RL-NETWORK",
        )
    try:
        files.make_private(_directory())
        lock = _opened()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            taken = {other: find(other).subnet for other in names()}
            if name in taken:
                raise RootlessError(
                    f"network {name}",
                    cause="it exists",
                    fix=f"rootless network rm {name}, or choose another name",
                    code="RL-NETWORK",
                )
            made = {"name": name, "subnet": choose(options.subnet, taken), "created": log.timestamp()}
            if log.is_debug():
                log.debug(f"{len(taken)} other networks; write {_directory()}/{name}.json, subnet {made['subnet']}")
            files.put(f"{name}.json", jsontext.render(made, 2).encode() + b"\n", 0o600, dir_fd=lock)
        finally:
            posix.close(lock)
    except OSError as error:
        raise SharedNetwork.unusable(name, error) from None
    _warn_of_slirp(name)
    return name


def _warn_of_slirp(name: str) -> None:
    """Warn of known flaws of the slirp4netns that will serve a network."""
    from rootless.host.host_network import read
    from rootless.plan.network.helpers import libslirp_flaws

    host = read()
    if SLIRP in host.programs and (flaws := libslirp_flaws(host.libslirp)):
        log.warning(f"slirp4netns will serve network {name}, and {flaws}", fix="update libslirp")


def listed(options: Options) -> list[dict[str, Any]]:
    """Return the networks of the caller, with their members; those that `options.container` names, or all."""
    chosen = [options.container] if options.container else names()
    return list(_described(state_root(options.root), chosen))


def _described(root: StateRoot, chosen: list[str]) -> Iterator[dict[str, Any]]:
    for name in chosen:
        shared = find(name)
        members = {}
        live = SharedNetwork.existing(root, name)
        if log.is_debug():
            state = "in use" if live else "not in use"
            log.debug(f"read {_directory()}/{name}.json: subnet {shared.subnet}, {state}")
        if live:
            with live:
                members = {container_id: member["addresses"] for container_id, member in live.present().items()}
        yield shared.as_data() | {"containers": members}


def remove(options: Options) -> None:
    """Remove a network without members.

    Raises:
        RootlessError: `RL-NETWORK`: there is no such network, or containers are in it.
    """
    name = options.container
    find(name)
    root = state_root(options.root)
    live = SharedNetwork.existing(root, name)
    if live:
        with live:
            if live.linked():
                users = ", ".join(live.present()) or "containers that joined the network of another"
                raise RootlessError(
                    f"network {name}",
                    cause=f"still in use by {users}",
                    fix="delete these containers first",
                    code="RL-NETWORK",
                )
            live.remove()
    directory = _opened()
    try:
        files.unlink(f"{name}.json", directory)
    finally:
        posix.close(directory)
