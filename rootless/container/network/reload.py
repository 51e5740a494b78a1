"""`rootless network reload`: tell running containers of the host's present network.

A VPN, another Wi-Fi or a suspend change the host's resolv.conf(5), of which each container has a copy.
"""

from __future__ import annotations

import posix

from rootless import log
from rootless.container.network import registry
from rootless.container.network.shared_state import SharedNetwork, overwrite_mounted, publish_missing, restart_helper
from rootless.container.state import store
from rootless.container.state.directory import RESOLVER
from rootless.container.state.lifecycle import STOPPED, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.host import host_network
from rootless.plan.network.helpers import PASTA
from rootless.plan.network.mode import HOST, NONE
from rootless.plan.network.resolv_conf import Names, resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import NetworkState
    from rootless.host.host_network import HostNetwork
    from rootless.options import Options

_LONGEST = 65536
"""Bytes that are read of one; the host's are shorter."""


def reload(options: Options) -> Iterator[str]:
    """Write the resolv.conf of running containers again, and restart helpers; yield what has changed, for people."""
    root = state_root(options.root)
    host = host_network.read()
    for name in SharedNetwork.names(root):
        try:
            if _serve(root, name, host):
                yield f"{name}: slirp4netns has been started again"
        except RootlessError as error:
            log.warning(f"{error.what}: {error.cause}", fix=error.fix)
    for container_id in store.ids(root):
        try:
            changed = _tell(root, container_id, host)
        except (RootlessError, OSError) as error:
            log.warning(f"container {container_id} keeps its resolv.conf: {error}")
            continue
        if changed:
            yield f"{container_id}: {changed}"


def _serve(root: StateRoot, name: str, host: HostNetwork) -> bool:
    """Start the helper of a network in use again if it has ended: return whether it did so; publish missing ports."""
    live = SharedNetwork.existing(root, name)
    if not live:
        return False
    with live:
        live.forget_the_dead()
        if not live.linked():
            return False
        started = not live.alive("helper") and restart_helper(live, host, registry.find(name))
        if live.alive("helper"):
            publish_missing(live)
        return started


def _tell(root: StateRoot, container_id: str, host: HostNetwork) -> str:
    """Write a container's resolv.conf if it would now be another; return what it names, for people."""
    entry = store.unused(root, container_id)
    if entry is None:  # one that a command is making or deleting
        return ""
    with entry:
        state = entry.read()
        network = state.network if state else None
        if state is None or not network or not network.resolver or status(entry, state) == STOPPED:
            return ""
        present = _beginning(entry)
        text = _text(network, host, network.resolver["forwarder"])
        if text != present and network.mode == PASTA:
            # pasta reads the host's servers when it starts: its forwarder leads to an old one
            without = _text(network, host, "")
            text = without if _servers(without) else text
        if text == present:
            return ""
        if not overwrite_mounted(RESOLVER, text, entry.fd):
            raise RootlessError(f"{entry.path}/{RESOLVER}", cause="it cannot be written", fix="restart the container")
        return f"resolv.conf names {', '.join(_servers(text)) or 'no server'}"


def _beginning(entry: ContainerDir) -> str:
    """Return the present text, which the container can make as long as it likes."""
    fd = posix.open(RESOLVER, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=entry.fd)
    try:
        return posix.read(fd, _LONGEST).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def _text(network: NetworkState, host: HostNetwork, forwarder: str) -> str:
    assert network.resolver
    names = Names(network.resolver["servers"], network.resolver["search"], (), ())
    return resolver(names, host, forwarder, shared=network.mode == HOST, alone=network.mode == NONE)


def _servers(text: str) -> list[str]:
    return [line.removeprefix("nameserver ") for line in text.splitlines() if line.startswith("nameserver ")]
