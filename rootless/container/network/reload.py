"""`rootless network reload`: tell running containers of the host's present network.

A VPN, another Wi-Fi or a suspend change the host's resolv.conf(5), of which each container has a copy.
"""

from __future__ import annotations

from rootless import log
from rootless.container.network import registry
from rootless.container.network.shared_state import SharedNetwork, overwrite_mounted, restart_helper
from rootless.container.state import store
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

    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import NetworkState
    from rootless.host.host_network import HostNetwork
    from rootless.options import Options

_RESOLVER = "resolv.conf"


def reload(options: Options) -> Iterator[str]:
    """Write the resolv.conf of running containers again, and restart helpers; yield what has changed, for people."""
    root = state_root(options.root)
    host = host_network.read()
    for name in SharedNetwork.names(root):
        with SharedNetwork.opened(root, name) as live:
            live.forget_the_dead()
            if live.linked() and restart_helper(live, host, registry.find(name)):
                yield f"{name}: slirp4netns has been started again"
    for container_id in store.ids(root):
        try:
            changed = _tell(root, container_id, host)
        except (RootlessError, OSError) as error:  # it is being deleted, or damaged
            log.debug(f"{container_id}: {error}")
            continue
        if changed:
            yield f"{container_id}: {changed}"


def _tell(root: StateRoot, container_id: str, host: HostNetwork) -> str:
    """Write a container's resolv.conf if it would now be another; return what it names, for people."""
    with store.find(root, container_id) as entry:
        state = entry.read()
        network = state.network if state else None
        if state is None or not network or not network.resolver or status(entry, state) == STOPPED:
            return ""
        present = entry.content(_RESOLVER).decode("utf-8", "surrogateescape")
        text = _text(network, host, network.resolver["forwarder"])
        if text != present and network.mode == PASTA:
            # pasta reads the host's servers when it starts: its forwarder leads to an old one
            without = _text(network, host, "")
            text = without if _servers(without) else text
        if text == present:
            return ""
        overwrite_mounted(f"{container_id}/{_RESOLVER}", text, root.fd)
        return f"resolv.conf names {', '.join(_servers(text)) or 'no server'}"


def _text(network: NetworkState, host: HostNetwork, forwarder: str) -> str:
    assert network.resolver
    names = Names(network.resolver["servers"], network.resolver["search"], (), ())
    return resolver(names, host, forwarder, shared=network.mode == HOST, alone=network.mode == NONE)


def _servers(text: str) -> list[str]:
    return [line.removeprefix("nameserver ") for line in text.splitlines() if line.startswith("nameserver ")]
