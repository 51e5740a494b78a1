"""The network mode of a container: which network it has, which helper serves it, and its sysctls.

Imported for --network, and for a bundle named on the command line: engines set up networks themselves.

`auto` gives a container with its own network namespace pasta, which hides from the container, has no host file in view,
and publishes ports on IPv6 too. Where pasta is missing or fails, `auto` falls back to slirp4netns, unless its libslirp
has known flaws or hostile processes can look into it. Without either the container has its loopback only.
docs/network.md has the measurements.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.idmaps import IdMaps
from rootless.plan.network import ports, resolv_conf
from rootless.plan.network.helpers import PACKAGES, PASTA, SLIRP, TUN_FIX, command, helper, libslirp_flaws
from rootless.plan.request import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.host.host_network import HostNetwork
    from rootless.plan.context import Context
    from rootless.plan.network.helpers import Helper
    from rootless.plan.network.ports import Port
    from rootless.plan.network.resolv_conf import Names
    from rootless.plan.network.shared import Shared

NONE = "none"
HOST = "host"
CONTAINER = "container"
SHARED = "shared"
"""A network that several containers of the caller share."""

_FILES = ("/etc/resolv.conf", "/etc/hosts")
_UNPUBLISHABLE = {
    HOST: "the container is on the host's network: its ports are the host's",
    CONTAINER: "the ports of a joined network are those of its container",
    NONE: "the container has no network but its loopback",
}
"""Why a container of each mode cannot publish ports."""
_EXPOSES = "slirp4netns would enter in reach of the processes there"


class Network:
    """The network of a container, as decided.

    Attributes:
        mode: NONE, HOST, CONTAINER, SHARED, or the name of the first helper.
        why: the reason for that mode, for people.
        helpers: candidates, in the order in which they are tried.
        required: it is an error when none of them works.
        ports: published ports.
        names: --add-host, --dns and --dns-search.
        host: the host's own network.
        directory: where resolv.conf and hosts are; empty when the container keeps the image's.
        has_own_files: they are written for this container, not those of the one whose network is joined.
        of: id of the container whose network is joined.
        shared: the network that several containers share.
        own_maps: maps of a user namespace with the caller's IDs only, for the helper of a shared network.
        owned: the network namespace belongs to a user namespace of the container.
        exposed: hostile processes may be in that user namespace already, or will see the helper in it.
        as_root: the caller is root: pasta, which would become nobody, stays root.
        by_number: pasta finds the user namespace by a pid, as it has to when it is started by root.
        sandbox: the container has a root, which the sandbox of slirp4netns needs.
        sysctls: values for /proc/sys/net of the namespace that config.json does not set.
    """

    __slots__ = (
        "as_root", "by_number", "directory", "exposed", "has_own_files", "helpers", "host", "mode", "names", "of",
        "own_maps", "owned", "ports", "required", "sandbox", "shared", "sysctls", "why",
    )  # fmt: skip

    def __init__(self, mode: str, why: str, host: HostNetwork, names: Names) -> None:
        self.mode = mode
        self.why = why
        self.host = host
        self.names = names
        self.helpers: list[Helper] = []
        self.required = True
        self.ports: list[Port] = []
        self.directory = ""
        self.has_own_files = False
        self.of = ""
        self.shared: Shared | None = None
        self.own_maps: IdMaps | None = None
        self.owned = False
        self.exposed = False
        self.as_root = False
        self.by_number = False
        self.sandbox = True
        self.sysctls: dict[str, str] = {}

    def __str__(self) -> str:
        """Return it as one line for people."""
        whose = f" {self.of or (self.shared and self.shared.name)}" if self.of or self.shared else ""
        return f"{self.mode}{whose}: {self.why}"

    @property
    def is_served(self) -> bool:
        """Whether a helper of the host serves it."""
        return bool(self.helpers) or self.mode == SHARED

    def files(self, mode: str, helper: Helper | None, own: Sequence[str] = ()) -> tuple[str, str]:
        """Return the texts of resolv.conf and hosts.

        Args:
            mode: how the network is served after all: NONE when no helper could be started.
            helper: what serves it, or None.
            own: the container's addresses, where the helper does not decide them.
        """
        forwarder = helper.dns if helper else self.shared.dns if self.shared else ""
        on_host = self.mode == HOST
        resolver = resolv_conf.resolver(self.names, self.host, forwarder, shared=on_host, alone=mode == NONE)
        if on_host:
            return resolver, resolv_conf.hosts_of_host(self.names, self.host.hosts)
        addresses = own or (helper.addresses if helper else ())
        return resolver, resolv_conf.hosts(self.names, addresses, helper.gateway if helper else "")

    def state(self) -> dict[str, object]:
        """Return what state.json holds of it before it is served, as JSON data."""
        state: dict[str, object] = {"mode": self.mode, "reason": self.why}
        if self.of or self.shared:
            state["of"] = self.of or (self.shared and self.shared.name)
        if self.has_own_files:
            state["files"] = True
        return state

    def details(self) -> list[str]:
        """Return what `explain` says beyond one line: addresses, helpers and their flaws, published ports."""
        lines = [f"{self.shared.subnet} and fd00::/64"] if self.shared else []
        for number, each in enumerate(self.served_by()):
            words = " ".join(command(each, self))
            lines.append(f"{'or, if that fails, by' if number else 'served by'} {words}")
        if flaws := self.flaws():
            lines.append(f"slirp4netns: {flaws}")
        return lines + [f"publish {port}" for port in self.ports]

    def shows_holder(self, helper: Helper) -> bool:
        """Whether a helper looks into the netns holder's namespaces before a process of the container runs."""
        return self.owned and (self.by_number or helper.name == SLIRP)

    def hides(self, helper: Helper) -> bool:
        """Whether a helper has to hide from processes that have every right over the container's user namespace.

        Such a process may come later: another container that joins the user namespace and sees the host's processes.
        pasta hides itself once it serves. Publishing ports needs the sockets of slirp4netns (network/backlog.py).
        """
        if self.mode == SHARED:
            return False  # it serves in a user namespace of its own, which no container has rights over
        return self.owned and (self.exposed or (helper.name == SLIRP and not self.ports))

    def flaws(self) -> str:
        """Return the known flaws of the slirp4netns that serves it or would; empty without any."""
        if any(each.name == SLIRP for each in self.served_by()):
            return libslirp_flaws(self.host.libslirp)
        return ""

    def served_by(self) -> list[Helper]:
        """Return the helpers of the host in the order in which they are tried."""
        shared = self.shared.helper(self.host) if self.shared else None
        return [shared] if shared else self.helpers


def choose(context: Context) -> None:
    """Choose the network of a container, and change its namespaces accordingly.

    Raises:
        RootlessError: `RL-NETWORK`, `RL-PUBLISH`, `RL-NAMES`: the flags make no sense, or this host cannot do it.
    """
    request = context.request
    host = context.facts.network
    assert host
    names = resolv_conf.Names(
        resolv_conf.servers(request.dns),
        request.dns_search,
        resolv_conf.added(request.add_host),
        (context.config.get("hostname") or "", request.container),
    )
    kind, _, rest = request.network.partition(":")
    if kind == AUTO:
        network = _automatic(context, host, names)
    elif kind in (SLIRP, PASTA):
        network = _helped(context, host, names, kind, rest)
    elif kind == CONTAINER:
        network = _joined(context, host, names, rest)
    elif kind == HOST:
        network = _of_the_host(context, host, names)
    elif kind == NONE:
        network = _own_namespace(context, Network(NONE, "asked for", host, names))
    else:
        network = _own_namespace(context, Network(SHARED, "asked for", host, names))
        network.shared = request.shared
    network.ports = ports.published(request.publish)
    _check(context, network)
    if network.mode != NONE or names.hosts or names.servers or names.search:
        network.directory = request.network_files
        network.has_own_files = request.network_files.endswith(f"/{request.container}")
    context.network = network


def settle(context: Context, network: Network) -> None:
    """Decide the rest of the network, which depends on the IDs that the container has."""
    network.owned = "user" in context.created or "user" in context.joined
    network.exposed = network.owned and (_sees_the_host(context) or "user" in context.joined)
    network.as_root = context.facts.uid == 0
    network.by_number = (context.facts.privileged or context.facts.uid == 0) and "user" in context.created
    network.sandbox = context.has_uid(0) and context.has_gid(0)
    if not (network.required or network.sandbox):
        _leave_slirp_out(context, network)
    if network.is_served:
        network.sysctls = _sysctls(context)
    if network.mode == SHARED:
        facts = context.facts
        network.own_maps = IdMaps([(0, facts.uid, 1)], [(0, facts.gid, 1)], "", facts)


def _automatic(context: Context, host: HostNetwork, names: Names) -> Network:
    if "network" in context.joined:
        return Network(NONE, "config.json names the namespace: its creator sets it up", host, names)
    if "network" not in context.created:
        return Network(HOST, "config.json asks for no network namespace", host, names)
    found = [name for name in (PASTA, SLIRP) if name in host.programs]
    if SLIRP in found and (_sees_the_host(context) or "user" in context.joined):
        found.remove(SLIRP)  # it lives in the user namespace of the container
    reason = "" if PASTA in found else "pasta is not installed"
    fix = "install passt"
    if not found and SLIRP in host.programs:
        reason += ", and the container could look into slirp4netns"
    elif not found:
        reason = "neither pasta nor slirp4netns is installed"
    elif reason and (flaws := libslirp_flaws(host.libslirp)):
        reason, fix, found = (
            f"{reason}, and {flaws}",
            "install passt, or accept slirp4netns with --network slirp4netns",
            [],
        )
    if found and host.tun:
        reason, fix, found = host.tun, TUN_FIX, []
    if not found:
        context.warn_ignored("", f"the container has its loopback only: {reason}", fix)
        return Network(NONE, reason, host, names)
    network = Network(found[0], reason or "it shields the host best", host, names)
    network.helpers = [helper(name, "", host) for name in found]
    network.required = False
    return network


def _sees_the_host(context: Context) -> bool:
    """Whether the container sees processes of the host: it has no new pid namespace."""
    return "pid" not in context.created


def _leave_slirp_out(context: Context, network: Network) -> None:
    """Drop slirp4netns where its sandbox does not work: every file of the caller would be in its view."""
    network.helpers = [each for each in network.helpers if each.name != SLIRP]
    if network.mode == SLIRP:
        network.mode = NONE
        network.why = f"{network.why}, and slirp4netns has no sandbox in a container without a root"
        if network.ports:
            raise RootlessError(
                "cannot publish ports",
                cause=network.why,
                fix="install passt, or use --network slirp4netns",
                code="RL-PUBLISH",
            )
        context.warn_ignored("", f"the container has its loopback only: {network.why}", "install passt")


def _helped(context: Context, host: HostNetwork, names: Names, name: str, rest: str) -> Network:
    if name not in host.programs:
        raise _refused(context, f"{name} is not installed", f"install {PACKAGES[name]}, or use --network auto")
    if host.tun:
        raise _refused(context, host.tun, TUN_FIX)
    if name == SLIRP and "user" in context.joined:
        place = f"{context.places['user']}.path"
        raise _refused(
            context, f"the container joins a user namespace (config.json: {place}), which {_EXPOSES}", "use pasta"
        )
    network = _own_namespace(context, Network(name, "asked for", host, names))
    network.helpers = [helper(name, rest, host)]
    return network


def _of_the_host(context: Context, host: HostNetwork, names: Names) -> Network:
    if "network" in context.created or "network" in context.joined:
        context.created.discard("network")
        context.joined.pop("network", None)
        context.adapted("linux.namespaces", "no network namespace is created: --network host")
    return Network(HOST, "asked for", host, names)


def _own_namespace(context: Context, network: Network) -> Network:
    if "network" in context.joined:
        raise _refused(
            context,
            f"the container is to join {context.joined['network']} (config.json: {context.places['network']}.path)",
            "leave --network out (the creator of that namespace sets it up), or remove the path",
        )
    if "network" not in context.created:
        context.created.add("network")
        context.places["network"] = "linux.namespaces"
        context.adapted("linux.namespaces", f"a network namespace is added: --network {context.request.network}")
    return network


def _joined(context: Context, host: HostNetwork, names: Names, container: str) -> Network:
    peer = context.request.peer
    assert peer
    if context.request.userns and "user" in peer.namespaces:
        raise _refused(
            context,
            f"its user namespace is that of container {container}, so --userns {context.request.userns} has no effect",
            "leave --userns out",
        )
    if names.hosts or names.servers or names.search:
        raise _refused(
            context,
            f"--add-host, --dns and --dns-search need a network of its own; this one belongs to container {container}",
            f"pass them when you create container {container}",
        )
    for namespace, file in (("user", "user"), ("network", "net")):
        context.created.discard(namespace)
        context.joined.pop(namespace, None)
        if namespace in peer.namespaces:
            context.joined[namespace] = f"/proc/{peer.pid}/ns/{file}"
            context.places[namespace] = "linux.namespaces"
    context.adapted("linux.namespaces", f"the network and user namespaces are those of container {container}")
    network = Network(CONTAINER, "asked for", host, names)
    network.of = container
    return network


def _check(context: Context, network: Network) -> None:
    """Refuse flags that do not go together."""
    if network.ports and not (network.helpers or network.mode == SHARED):
        raise RootlessError(
            f"cannot publish ports with --network {context.request.network}",
            cause=f"{_UNPUBLISHABLE[network.mode]} ({network.why})",
            fix="leave --publish out, or use --network pasta",
            code="RL-PUBLISH",
        )
    if network.shared:
        _check_shared(context, network, network.shared)
    if network.mode == SHARED or any(each.name == SLIRP for each in network.helpers):
        _check_ports_of_slirp(context, network)
    reached = network.mode == HOST or any(each.gateway for each in network.helpers)
    if not reached and any(address == resolv_conf.HOST_GATEWAY for address, _ in network.names.hosts):
        raise RootlessError(
            f"--add-host …:{resolv_conf.HOST_GATEWAY}",
            cause="the host's loopback is closed to the container",
            fix="open it: --network slirp4netns:allow_host_loopback=true",
            code="RL-NAMES",
        )


def _check_shared(context: Context, network: Network, shared: Shared) -> None:
    """Refuse ports of a shared network that nothing connects to the outside."""
    cause, fix = shared.problem(network.host)
    if not cause:
        return
    what = f"network {shared.name} has no way to the outside"
    if network.ports:
        raise RootlessError(f"cannot publish ports: {what}", cause=cause, fix=fix, code="RL-PUBLISH")
    context.warn_ignored("", f"{what}: {cause}", fix)


def _check_ports_of_slirp(context: Context, network: Network) -> None:
    """Refuse ports on addresses of IPv6, which slirp4netns cannot publish, unless another helper can."""
    six = next((port for port in network.ports if ":" in port.address), None)
    if not six:
        if network.mode != PASTA and any(not port.address for port in network.ports):
            context.adapted("", "ports are published on the host's IPv4 addresses only: slirp4netns supports no others")
        return
    network.helpers = [each for each in network.helpers if each.name != SLIRP]
    if not network.helpers:
        raise RootlessError(
            f"cannot publish {six}",
            cause="slirp4netns publishes ports on IPv4 addresses only",
            fix="name an IPv4 address" if network.mode == SHARED else "use --network pasta",
            code="RL-PUBLISH",
        )
    network.mode = network.helpers[0].name


def _refused(context: Context, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"--network {context.request.network}", cause=cause, fix=fix, code="RL-NETWORK")


def _sysctls(context: Context) -> dict[str, str]:
    """Return sysctls for addresses that work at once, and for ping without privileges (icmp(7))."""
    written = context.linux.get("sysctl") or {}
    wanted = {
        "net.ipv6.conf.all.accept_dad": "0",
        "net.ipv6.conf.default.accept_dad": "0",
        "net.ipv6.conf.default.accept_ra": "0",
        "net.ipv4.ping_group_range": _groups(context),
    }
    return {name: value for name, value in wanted.items() if name not in written}


def _groups(context: Context) -> str:
    """Return the first and the last of the container's groups; the kernel has them in the order of the host's ids."""
    lines = sorted((outside, inside, count) for inside, outside, count in context.gid_map) or [(0, 0, 1)]
    _, last, count = lines[-1]
    return f"{lines[0][1]} {min(last + count - 1, 2**31 - 1)}"


def file_mounts(context: Context) -> list[dict[str, Any]]:
    """Return mounts of resolv.conf and hosts over the image's, as elements of `mounts`, where config.json has none."""
    network = context.network
    if not network or not network.directory:
        return []
    taken = {mount["destination"].rstrip("/") for mount in context.config.get("mounts") or ()}
    if "/etc" in taken:
        context.adapted("mounts", "config.json mounts /etc: its resolv.conf and hosts are used")
        return []
    return [
        {
            "destination": path,
            "type": "bind",
            "source": f"{network.directory}/{path.rpartition('/')[2]}",
            # as bind, with nothing to fall back on; they lie in the state directory, which a container must not fill
            "options": ["rbind", "ro", "nosuid", "nodev", "noexec", "rprivate"],
        }
        for path in _FILES
        if path not in taken
    ]
