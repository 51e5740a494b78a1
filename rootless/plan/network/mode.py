"""Choose the network of a container: its mode, the helper that serves it, and its sysctls.

Imported for --network, and for a bundle that the command line names without an engine: engines set up networks
themselves.

For a container with its own network namespace, `auto` chooses pasta, which hides from the container, sees no file of
the host, and publishes ports on IPv6 too. If pasta is missing or fails, `auto` falls back to slirp4netns, unless its
libslirp has known vulnerabilities or hostile processes could inspect it. Without a helper the container has its
loopback only. docs/network.md has measurements.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.idmaps import IdMaps
from rootless.plan.network import ports, resolv_conf
from rootless.plan.network.helpers import PACKAGES, PASTA, SLIRP, command, helper, libslirp_flaws, tun_fix
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
"""A network that several containers of one user share."""

_FILES = ("/etc/resolv.conf", "/etc/hosts")
_UNPUBLISHABLE = {
    HOST: "the container is on the host's network: its ports are the host's",
    CONTAINER: "the ports of a joined network are those of its container",
    NONE: "the container has its loopback only",
}
"""Why a container of each mode cannot publish ports."""
_EXPOSES = "would expose slirp4netns to the processes in it"


class Network:
    """The network of a container, as decided.

    Attributes:
        mode: NONE, HOST, CONTAINER, SHARED, or the name of the first helper.
        why: the reason for that mode, for people.
        helpers: candidates, in the order in which they are tried.
        required: it is an error if none of them works.
        ports: published ports.
        names: --add-host, --dns and --dns-search.
        host: the host's own network.
        directory: where resolv.conf and hosts are; empty if the container keeps those of the image.
        has_own_files: resolv.conf and hosts belong to this container, not to the one whose network it joins.
        of: id of the container whose network is joined; empty in other modes.
        shared: the shared network; None in other modes.
        own_maps: ID maps with the caller's IDs only, for the user namespace of a shared network's helper.
        owned: the network namespace belongs to a user namespace that the container creates or joins.
        exposed: hostile processes may be in that user namespace already, or may see the helper in it.
        as_root: the caller is root: pasta must not become nobody.
        by_number: pasta finds the user namespace by pid, as it must if root starts it.
        sandbox: the container has uid and gid 0, which the sandbox of slirp4netns needs.
        sysctls: names and values to write below /proc/sys, unless config.json sets them.
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
            mode: the final mode: NONE if no helper could be started.
            helper: the helper that serves the network, or None.
            own: the container's addresses, if the helper does not determine them.
        """
        on_host = self.mode == HOST
        forwarder = self.forwarder(helper)
        resolver = resolv_conf.resolver(self.names, self.host, forwarder, shared=on_host, alone=mode == NONE)
        if on_host:
            return resolver, resolv_conf.hosts_of_host(self.names, self.host.hosts)
        addresses = own or (helper.addresses if helper else ())
        return resolver, resolv_conf.hosts(self.names, addresses, helper.gateway if helper else "")

    def forwarder(self, helper: Helper | None) -> str:
        """Return the address at which its helper forwards DNS queries; empty without one."""
        return helper.dns if helper else self.shared.dns if self.shared else ""

    def state(self) -> dict[str, object]:
        """Return its entry in state.json before a helper serves it, as JSON data."""
        state: dict[str, object] = {"mode": self.mode, "reason": self.why}
        if self.of or self.shared:
            state["of"] = self.of or (self.shared and self.shared.name)
        if self.has_own_files:
            forwarder = self.forwarder(self.helpers[0] if self.helpers else None)
            state["files"] = True
            state["resolver"] = {"servers": self.names.servers, "search": self.names.search, "forwarder": forwarder}
        return state

    def details(self) -> list[str]:
        """Return further lines for `explain`: addresses, helpers and their vulnerabilities, published ports."""
        lines = [f"{self.shared.subnet} and fd00::/64"] if self.shared else []
        for number, each in enumerate(self.served_by()):
            words = " ".join(command(each, self))
            lines.append(f"{'or, if that fails, by' if number else 'served by'} {words}")
        if flaws := self.flaws():
            lines.append(f"slirp4netns: {flaws}")
        return lines + [f"publish {port}" for port in self.ports]

    def shows_holder(self, helper: Helper) -> bool:
        """Whether a helper finds the namespaces by the netns holder's pid, so that the holder must be dumpable."""
        return self.owned and (self.by_number or helper.name == SLIRP)

    def hides(self, helper: Helper) -> bool:
        """Whether a helper must not be dumpable: processes may have every capability over its user namespace.

        Such a process may appear later: a container that joins the user namespace and sees the host's processes. pasta
        makes itself non-dumpable. To publish ports, rootless needs access to slirp4netns (network/backlog.py).
        """
        if self.mode == SHARED:
            return False  # the user namespace is the helper's own: no container has capabilities over it
        return self.owned and (self.exposed or (helper.name == SLIRP and not self.ports))

    def flaws(self) -> str:
        """Describe the known vulnerabilities of slirp4netns if it is a candidate; empty if there are none."""
        if any(each.name == SLIRP for each in self.served_by()):
            return libslirp_flaws(self.host.libslirp)
        return ""

    def served_by(self) -> list[Helper]:
        """Return the candidates in the order in which they are tried."""
        shared = self.shared.helper(self.host) if self.shared else None
        return [shared] if shared else self.helpers


def choose(context: Context) -> None:
    """Set context.network, and change the container's namespaces accordingly.

    Raises:
        RootlessError: `RL-NETWORK`, `RL-PUBLISH`, `RL-NAMES`: flags are invalid, contradict config.json, or need a
            helper that this host does not have.
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
    """Decide the rest, which depends on the container's ID maps."""
    network.owned = "user" in context.created or "user" in context.joined
    network.exposed = network.owned and (_sees_the_host(context) or "user" in context.joined)
    network.as_root = context.facts.uid == 0
    is_new = "user" in context.created and "user" not in context.shared
    network.by_number = (context.facts.privileged or context.facts.uid == 0) and is_new
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
        return Network(NONE, "config.json names the namespace: its creator sets up the network", host, names)
    if "network" not in context.created:
        return Network(HOST, "config.json asks for no network namespace", host, names)
    found = [name for name in (PASTA, SLIRP) if name in host.programs]
    if SLIRP in found and (_sees_the_host(context) or "user" in context.joined):
        found.remove(SLIRP)  # it runs in the user namespace of the container, which could ptrace it
    reason = "" if PASTA in found else "pasta is not installed"
    fix = "install passt"
    if not found and SLIRP in host.programs:
        reason += ", and the container could inspect slirp4netns"
    elif not found:
        reason = "neither pasta nor slirp4netns is installed"
    elif reason and (flaws := libslirp_flaws(host.libslirp)):
        reason, fix, found = (
            f"{reason}, and {flaws}",
            "install passt, or accept slirp4netns with --network slirp4netns",
            [],
        )
    if found and host.tun:
        reason, fix, found = host.tun, tun_fix(host), []
    if not found:
        context.warn_ignored("", f"the container has its loopback only: {reason}", fix)
        return Network(NONE, reason, host, names)
    network = Network(found[0], reason or "it shields the host best", host, names)
    network.helpers = [helper(name, "", host) for name in found]
    network.required = False
    return network


def _sees_the_host(context: Context) -> bool:
    """Whether the container sees processes of the host, because it has no new pid namespace."""
    return "pid" not in context.created


def _leave_slirp_out(context: Context, network: Network) -> None:
    """Drop slirp4netns, whose sandbox does not work here: without it slirp4netns sees every file of the caller."""
    network.helpers = [each for each in network.helpers if each.name != SLIRP]
    if network.mode == SLIRP:
        network.mode = NONE
        network.why = f"{network.why}, and the sandbox of slirp4netns needs a container with uid and gid 0"
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
        raise _refused(context, host.tun, tun_fix(host))
    if name == SLIRP and ("user" in context.joined or context.request.join):
        place = f"config.json: {context.places['user']}.path" if "user" in context.joined else "--join"
        raise _refused(context, f"the container joins a user namespace ({place}), which {_EXPOSES}", "use pasta")
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
            f"the container joins {context.joined['network']} (config.json: {context.places['network']}.path)",
            "leave --network out (the creator of that namespace sets up its network), or remove the path",
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
            f"the container gets the user namespace of {container}, so --userns {context.request.userns} has no effect",
            "leave --userns out",
        )
    if names.hosts or names.servers or names.search:
        raise _refused(
            context,
            f"--add-host, --dns and --dns-search have no effect on the network of another container, {container}",
            f"pass them to the command that creates {container}",
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
    """Refuse flags that contradict each other or cannot work."""
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
    """Refuse to publish ports of a shared network that has no helper; warn about such a network."""
    cause, fix = shared.problem(network.host)
    if not cause:
        return
    what = f"network {shared.name} has no connection to the outside"
    if network.ports:
        raise RootlessError(f"cannot publish ports: {what}", cause=cause, fix=fix, code="RL-PUBLISH")
    context.warn_ignored("", f"{what}: {cause}", fix)


def _check_ports_of_slirp(context: Context, network: Network) -> None:
    """Refuse ports on IPv6 addresses, which slirp4netns cannot publish, unless another helper can."""
    six = next((port for port in network.ports if ":" in port.address), None)
    if not six:
        if network.mode != PASTA and any(not port.address for port in network.ports):
            context.adapted("", "ports are published on the host's IPv4 addresses only, because of slirp4netns")
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
    """Return sysctls that make IPv6 addresses usable immediately and permit unprivileged ping (icmp(7))."""
    written = context.linux.get("sysctl") or {}
    wanted = {
        "net.ipv6.conf.all.accept_dad": "0",
        "net.ipv6.conf.default.accept_dad": "0",
        "net.ipv6.conf.default.accept_ra": "0",
        "net.ipv4.ping_group_range": _groups(context),
    }
    return {name: value for name, value in wanted.items() if name not in written}


def _groups(context: Context) -> str:
    """Return a ping_group_range of all the container's gids; the kernel compares them as gids of the host."""
    lines = sorted((outside, inside, count) for inside, outside, count in context.gid_map) or [(0, 0, 1)]
    _, last, count = lines[-1]
    return f"{lines[0][1]} {min(last + count - 1, 2**31 - 1)}"


def file_mounts(context: Context) -> list[dict[str, Any]]:
    """Return mounts of resolv.conf and hosts, as elements of `mounts`, unless config.json mounts something there."""
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
            # rbind and not bind, which falls back to it; read-only, because a container must not fill the host's disk
            "options": ["rbind", "ro", "nosuid", "nodev", "noexec", "rprivate"],
        }
        for path in _FILES
        if path not in taken
    ]
