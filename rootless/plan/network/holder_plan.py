"""Plans of netns holders: processes that hold the namespaces of a network (rootless/network/netns_holder.py)."""

from __future__ import annotations

from rootless.linux import CLONE_NEWNET, CLONE_NEWUSER
from rootless.plan import ops
from rootless.plan.network.helpers import LINK, PASTA, SLIRP_ADDRESS6, SLIRP_GATEWAY6
from rootless.plan.network.mode import SHARED
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.network.helpers import Helper
    from rootless.plan.network.mode import Network


def keeper(network: Network, helper: Helper | None, user: int, net: int) -> list[Op]:
    """Return the operations of the process that keeps a container's network: in its namespaces, and nothing else of it.

    It stays until the container's first process ends, and the helper until it does.

    A container that sees the processes of the host, with every right over the user namespace that this one joins, must
    not come through it to the host's files (/proc/PID/root): it hides before that. Where a helper finds the namespaces
    by its number, it shows itself until that one is ready, while nothing of the container runs.

    Args:
        network: what was decided.
        helper: which one serves it; none where it is shared with other containers.
        user: the descriptor of the container's user namespace in that process.
        net: that of its network namespace.
    """
    plan = [Op(ops.NON_DUMPABLE)]
    plan += [Op(ops.JOIN, CLONE_NEWUSER, f"/proc/self/fd/{user}")] if network.owned else []
    plan += [Op(ops.JOIN, CLONE_NEWNET, f"/proc/self/fd/{net}"), Op(ops.SESSION)]
    plan += [
        Op(ops.PROC_WRITE, f"sys/{name.replace('.', '/')}", value, on_error=ops.ELSE)
        for name, value in network.sysctls.items()
    ]
    if network.mode == SHARED:
        plan.append(Op(ops.NETLINK))
    if helper and network.shows_keeper(helper):
        plan.append(Op(ops.DUMPABLE))
    plan += [Op(ops.READY), Op(ops.WAIT_START), Op(ops.NON_DUMPABLE)]
    if helper and helper.ipv6:
        plan.append(Op(ops.ADDRESS6, 64, LINK, SLIRP_ADDRESS6, SLIRP_GATEWAY6, on_error=ops.ELSE))
    if not helper or helper.name != PASTA:  # which a message would kill
        plan.append(Op(ops.READY))
    return [*plan, Op(ops.AWAIT_END)]


def shared_keeper(prefix: str, lock: int) -> list[Op]:
    """Return the operations of the process that keeps a shared network.

    No container has rights over its user namespace, which helpers and the keepers of members look into.

    Args:
        prefix: it stays while there are links whose names begin so.
        lock: a descriptor, in that process, of a file that is locked by each process that makes such a link.
    """
    return [
        Op(ops.NEW_USER),
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
    """Return the operations of a process that only passes a socket, of the network namespace of `pid`."""
    return [
        Op(ops.NON_DUMPABLE),
        Op(ops.JOIN, CLONE_NEWUSER, f"/proc/{pid}/ns/user"),
        Op(ops.JOIN, CLONE_NEWNET, f"/proc/{pid}/ns/net"),
        Op(ops.NETLINK),
        Op(ops.READY),
    ]
