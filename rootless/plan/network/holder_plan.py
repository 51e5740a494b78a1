"""Plans of netns holders (rootless/network/netns_holder.py)."""

from __future__ import annotations

from rootless.linux import CLONE_NEWNET, CLONE_NEWUSER
from rootless.plan import ops
from rootless.plan.namespaces.new_or_joined import new_user
from rootless.plan.network.helpers import INTERFACE, PASTA, SLIRP_ADDRESS6, SLIRP_GATEWAY6
from rootless.plan.network.mode import SHARED
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.network.helpers import Helper
    from rootless.plan.network.mode import Network


def container_holder(network: Network, helper: Helper | None, user: int, net: int) -> list[Op]:
    """Return the operations of the netns holder of a container, which joins its user and network namespaces only.

    The holder ends after the container's first process, and the helper ends with the holder.

    A container that sees the host's processes may have every capability over the user namespace that the holder joins.
    It must not reach the host's files through the holder's /proc/PID/root, so the holder is not dumpable when it joins.
    For a helper that finds the namespaces by pid, the holder is dumpable until the helper is ready; no process of the
    container runs meanwhile.

    Args:
        network: the container's network.
        helper: the helper that serves it; None for a shared network.
        user: the holder's descriptor of the container's user namespace.
        net: the holder's descriptor of the container's network namespace.
    """
    plan = [Op(ops.SPAWN), Op(ops.NON_DUMPABLE)]
    plan += [Op(ops.JOIN, CLONE_NEWUSER, f"/proc/self/fd/{user}")] if network.owned else []
    plan += [Op(ops.JOIN, CLONE_NEWNET, f"/proc/self/fd/{net}"), Op(ops.SESSION)]
    plan += [
        Op(ops.PROC_WRITE, f"sys/{name.replace('.', '/')}", value, on_error=ops.ELSE)
        for name, value in network.sysctls.items()
    ]
    if network.mode == SHARED:
        plan.append(Op(ops.NETLINK))
    if helper and network.shows_holder(helper):
        plan.append(Op(ops.DUMPABLE))
    plan += [Op(ops.READY), Op(ops.WAIT_START), Op(ops.NON_DUMPABLE)]
    if helper and helper.ipv6:
        plan.append(Op(ops.ADDRESS6, 64, INTERFACE, SLIRP_ADDRESS6, SLIRP_GATEWAY6, on_error=ops.ELSE))
    if not helper or helper.name != PASTA:  # pasta would end at this message
        plan.append(Op(ops.READY))
    return [*plan, Op(ops.AWAIT_END)]


def shared_holder(prefix: str, lock: int, maps: IdMaps) -> list[Op]:
    """Return the operations of the netns holder of a shared network.

    Its user namespace is its own: no container has capabilities over it. Helpers and the holders of members enter it.

    Args:
        prefix: the holder stays while network interfaces have names that begin with this.
        lock: the holder's descriptor of a file that a process locks while it creates such an interface.
        maps: the ID maps of its user namespace.
    """
    return [
        Op(ops.SPAWN),
        *new_user(maps),
        Op(ops.BECOME, 0, 0),
        Op(ops.UNSHARE, CLONE_NEWNET),
        Op(ops.SESSION),
        Op(ops.LINK_UP, "lo"),
        Op(ops.NETLINK),
        Op(ops.READY),
        Op(ops.WAIT_START),
        Op(ops.READY),
        Op(ops.AWAIT_LINKS, prefix, f"/proc/self/fd/{lock}"),
    ]


def socket_in(pid: int) -> list[Op]:
    """Return the operations of a process that sends back a netlink socket of the network namespace of `pid`."""
    return [
        Op(ops.SPAWN),
        Op(ops.NON_DUMPABLE),
        Op(ops.JOIN, CLONE_NEWUSER, f"/proc/{pid}/ns/user"),
        Op(ops.JOIN, CLONE_NEWNET, f"/proc/{pid}/ns/net"),
        Op(ops.NETLINK),
        Op(ops.READY),
    ]
