"""Plans of keepers: processes in the namespaces of a network, while that is needed (rootless/network/keeper.py)."""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.network import SHARED
from rootless.plan.network_helpers import LINK, PASTA, SLIRP_ADDRESS6, SLIRP_GATEWAY6
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.network import Network

_NEW_USER = 0x10000000
_NEW_NETWORK = 0x40000000


def keeper(network: Network, pid: int) -> list[Op]:
    """Return the operations of the process that keeps a container's network: in its namespaces, and nothing else of it.

    It stays until the container's first process ends, and the helper until it does.

    Args:
        network: what was decided.
        pid: the container's first process.
    """
    plan = [Op(ops.JOIN, _NEW_USER, f"/proc/{pid}/ns/user")] if network.owned else []
    plan += [Op(ops.JOIN, _NEW_NETWORK, f"/proc/{pid}/ns/net"), Op(ops.SESSION)]
    plan += [
        Op(ops.PROC_WRITE, f"sys/{name.replace('.', '/')}", value, on_error=ops.ELSE)
        for name, value in network.sysctls.items()
    ]
    if network.mode == SHARED:
        plan.append(Op(ops.NETLINK))
    if not network.owned and network.helpers and network.helpers[0].name == PASTA:
        # pasta gives up most of root's rights, and then finds the namespaces only of who has no more: ptrace(2)
        plan.append(Op(ops.CAPABILITIES, 0, 0, 0))
    plan += [Op(ops.READY), Op(ops.WAIT_START)]
    if any(helper.ipv6 for helper in network.helpers):
        plan.append(Op(ops.ADDRESS6, 64, LINK, SLIRP_ADDRESS6, SLIRP_GATEWAY6, on_error=ops.ELSE))
    # a container that sees the processes of the host, with every right over its user namespace, which this one has
    # joined, must not come through it to the host's files (/proc/PID/root)
    return [*plan, Op(ops.NON_DUMPABLE), Op(ops.READY), Op(ops.AWAIT_END)]


def shared_keeper(prefix: str, directory: str) -> list[Op]:
    """Return the operations of the process that keeps a shared network.

    Args:
        prefix: it stays while there are links whose names begin so.
        directory: whoever makes such a link has the lock of this one.
    """
    return [
        Op(ops.NEW_USER),
        Op(ops.BECOME, 0, 0),
        Op(ops.UNSHARE, _NEW_NETWORK),
        Op(ops.SESSION),
        Op(ops.LINK_UP, "lo"),
        Op(ops.NETLINK),
        Op(ops.READY),
        Op(ops.WAIT_START),
        Op(ops.READY),
        Op(ops.AWAIT_LINKS, prefix, directory),
    ]


def socket_in(pid: int) -> list[Op]:
    """Return the operations of a process that only passes a socket, of the network namespace of `pid`."""
    return [
        Op(ops.NON_DUMPABLE),
        Op(ops.JOIN, _NEW_USER, f"/proc/{pid}/ns/user"),
        Op(ops.JOIN, _NEW_NETWORK, f"/proc/{pid}/ns/net"),
        Op(ops.NETLINK),
        Op(ops.READY),
    ]
