"""The container's network: whose it is, which helper of the host serves it, and what is set in it.

Imported for a caller who says --network, and for a person who names a bundle: an engine has a network made itself.

`auto` gives a container that has a network namespace of its own pasta: it hides from the container, has no file of the
host in view, and publishes ports over IPv6 as well. When it is missing or fails, it is slirp4netns, if nothing is known
against its libslirp and nothing hostile can look into it; without either the container has its loopback only.
docs/network.md has the figures that this rests on.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.idmaps import IdMaps
from rootless.plan.network import ports, resolv_conf
from rootless.plan.network.helpers import PACKAGES, PASTA, SLIRP, TUN_FIX, helper, libslirp_flaws
from rootless.plan.request import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
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
"""A network of the caller's own, with other containers in it."""

_FILES = ("/etc/resolv.conf", "/etc/hosts")
_EXPOSES = "slirp4netns would enter in reach of the processes there"


class Network:
    """What was decided.

    Attributes:
        mode: NONE, HOST, CONTAINER, SHARED, or that of the first helper.
        why: the reason for that mode, for people.
        helpers: those that are tried, in this order.
        required: that none of them works is an error.
        ports: what is published.
        names: what the caller says about names.
        host: the host's own network.
        directory: where resolv.conf and hosts are written; empty when the container keeps the image's.
        of: the container whose network it is.
        shared: the network that it shares with other containers.
        own_maps: of a user namespace with the caller alone, for what serves that one.
        owned: the network namespace belongs to a user namespace of the container's.
        exposed: processes that may be hostile are in that one already, or will see what serves the network there.
        by_number: pasta, which root calls, finds the user namespace by the number of a process.
        sandbox: that one has a root, whom the sandbox of slirp4netns needs.
        sysctls: what is written to /proc/sys/net of the namespace, unless config.json does.
    """

    __slots__ = (
        "by_number", "directory", "exposed", "helpers", "host", "mode", "names", "of", "own_maps", "owned", "ports",
        "required", "sandbox", "shared", "sysctls", "why",
    )  # fmt: skip

    def __init__(self, mode: str, why: str, host: HostNetwork, said: Names) -> None:
        self.mode = mode
        self.why = why
        self.host = host
        self.names = said
        self.helpers: list[Helper] = []
        self.required = True
        self.ports: list[Port] = []
        self.directory = ""
        self.of = ""
        self.shared: Shared | None = None
        self.own_maps: IdMaps | None = None
        self.owned = False
        self.exposed = False
        self.by_number = False
        self.sandbox = True
        self.sysctls: dict[str, str] = {}

    def __str__(self) -> str:
        """Return it as one line for people."""
        whose = f" {self.of or (self.shared and self.shared.name)}" if self.of or self.shared else ""
        return f"{self.mode}{whose}: {self.why}"

    @property
    def is_served(self) -> bool:
        """Whether something of the host serves it."""
        return bool(self.helpers) or self.mode == SHARED

    def shows_keeper(self, helper: Helper) -> bool:
        """Whether a helper has to look into the keeper's namespaces, before anything of the container runs."""
        return self.owned and (self.by_number or helper.name == SLIRP)

    def hides(self, helper: Helper) -> bool:
        """Whether a helper has to hide from processes that have every right over the container's user namespace.

        They may come later: another container that joins it, and sees the processes of the host. pasta hides itself
        when it serves. The sockets of slirp4netns are needed to publish ports (rootless/network/backlog.py).
        """
        if self.mode == SHARED:
            return False  # it serves in a user namespace of its own, which no container has rights over
        return self.owned and (self.exposed or (helper.name == SLIRP and not self.ports))

    def flaws(self) -> str:
        """Return what is known against the slirp4netns that serves it, or would; nothing where nothing is."""
        if any(each.name == SLIRP for each in self.served_by()):
            return libslirp_flaws(self.host.libslirp)
        return ""

    def served_by(self) -> list[Helper]:
        """Return the helpers of the host in the order in which they are tried."""
        shared = self.shared.helper(self.host) if self.shared else None
        return [shared] if shared else self.helpers

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data."""
        data: dict[str, object] = {"mode": self.mode, "reason": self.why}
        if self.of or self.shared:
            data["of"] = self.of or (self.shared and self.shared.name)
        if self.shared:
            data["subnet"] = self.shared.subnet
        if self.served_by():
            data["helpers"] = [[each.program, *each.arguments] for each in self.served_by()]
        if flaws := self.flaws():
            data["flaws"] = flaws
        if self.ports:
            data["ports"] = [port.as_data() for port in self.ports]
        return data


def choose(context: Context) -> None:
    """Decide, and change which namespaces the container gets accordingly.

    Raises:
        RootlessError: `RL-NETWORK`, `RL-PUBLISH`, `RL-NAMES`: what is asked for makes no sense, or cannot be had here.
    """
    request = context.request
    host = context.facts.network
    assert host
    said = resolv_conf.Names(
        resolv_conf.servers(request.dns),
        request.dns_search,
        resolv_conf.added(request.add_host),
        (context.config.get("hostname") or "", request.container),
    )
    kind, _, rest = request.network.partition(":")
    if kind == AUTO:
        network = _automatic(context, host, said)
    elif kind in (SLIRP, PASTA):
        network = _helped(context, host, said, kind, rest)
    elif kind == CONTAINER:
        network = _joined(context, host, said, rest)
    elif kind == HOST:
        network = _of_the_host(context, host, said)
    elif kind == NONE:
        network = _own_namespace(context, Network(NONE, "asked for", host, said))
    else:
        network = _own_namespace(context, Network(SHARED, "asked for", host, said))
        network.shared = request.shared
    network.ports = ports.published(request.publish)
    _check(context, network)
    if network.mode != NONE or said.hosts or said.servers or said.search:
        network.directory = request.network_files
    context.network = network


def settle(context: Context, network: Network) -> None:
    """Decide what depends on the ids that the container has."""
    network.owned = "user" in context.created or "user" in context.joined
    network.exposed = network.owned and (_sees_the_host(context) or "user" in context.joined)
    network.by_number = (context.facts.privileged or context.facts.uid == 0) and "user" in context.created
    network.sandbox = context.has_uid(0) and context.has_gid(0)
    if not (network.required or network.sandbox):
        _leave_slirp_out(context, network)
    if network.is_served:
        network.sysctls = _sysctls(context)
    if network.mode == SHARED:
        facts = context.facts
        network.own_maps = IdMaps([(0, facts.uid, 1)], [(0, facts.gid, 1)], "", facts)


def _automatic(context: Context, host: HostNetwork, said: Names) -> Network:
    if "network" in context.joined:
        return Network(NONE, "config.json names the namespace: whoever made it sets it up", host, said)
    if "network" not in context.created:
        return Network(HOST, "config.json asks for no network namespace", host, said)
    there = [name for name in (PASTA, SLIRP) if name in host.programs]
    if SLIRP in there and (_sees_the_host(context) or "user" in context.joined):
        there.remove(SLIRP)  # it lives in the user namespace of the container
    lack = "" if PASTA in there else "pasta is not installed"
    fix = "install passt"
    if not there and SLIRP in host.programs:
        lack += ", and the container could look into slirp4netns"
    elif not there:
        lack = "neither pasta nor slirp4netns is installed"
    elif lack and (flaws := libslirp_flaws(host.libslirp)):
        lack, fix, there = f"{lack}, and {flaws}", "install passt, or take slirp4netns with --network slirp4netns", []
    if there and host.tun:
        lack, fix, there = host.tun, TUN_FIX, []
    if not there:
        context.warn_ignored("", f"the container has its loopback only: {lack}", fix)
        return Network(NONE, lack, host, said)
    network = Network(there[0], lack or "it shields the host best", host, said)
    network.helpers = [helper(name, "", host) for name in there]
    network.required = False
    return network


def _sees_the_host(context: Context) -> bool:
    """Whether the container sees processes of the host: it has no pid namespace of its own, or joins anybody's."""
    return "pid" not in context.created


def _leave_slirp_out(context: Context, network: Network) -> None:
    """Do without slirp4netns where it would have every file of the caller's in view."""
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


def _helped(context: Context, host: HostNetwork, said: Names, name: str, rest: str) -> Network:
    if name not in host.programs:
        raise _refused(
            context, f"{name} is not installed", f"install {PACKAGES[name]}, or leave the choice to --network auto"
        )
    if host.tun:
        raise _refused(context, host.tun, TUN_FIX)
    if name == SLIRP and "user" in context.joined:
        place = f"{context.places['user']}.path"
        raise _refused(
            context, f"the container joins a user namespace (config.json: {place}), which {_EXPOSES}", "use pasta"
        )
    network = _own_namespace(context, Network(name, "asked for", host, said))
    network.helpers = [helper(name, rest, host)]
    return network


def _of_the_host(context: Context, host: HostNetwork, said: Names) -> Network:
    if "network" in context.created or "network" in context.joined:
        context.created.discard("network")
        context.joined.pop("network", None)
        context.adapted("linux.namespaces", "the network namespace is left out: --network host")
    return Network(HOST, "asked for", host, said)


def _own_namespace(context: Context, network: Network) -> Network:
    if "network" in context.joined:
        raise _refused(
            context,
            f"the container is to join {context.joined['network']} (config.json: {context.places['network']}.path)",
            "leave --network out: whoever made that namespace sets it up; or remove the path",
        )
    if "network" not in context.created:
        context.created.add("network")
        context.places["network"] = "linux.namespaces"
        context.adapted("linux.namespaces", f"a network namespace is added: --network {context.request.network}")
    return network


def _joined(context: Context, host: HostNetwork, said: Names, container: str) -> Network:
    peer = context.request.peer
    assert peer
    if context.request.userns and "user" in peer.namespaces:
        raise _refused(
            context,
            f"the user namespace is that of container {container} too, so --userns {context.request.userns} has no say",
            "leave --userns out",
        )
    if said.hosts or said.servers or said.search:
        raise _refused(
            context,
            f"--add-host, --dns and --dns-search are for a network of its own, this one is container {container}'s",
            f"say them when you make container {container}",
        )
    for namespace, file in (("user", "user"), ("network", "net")):
        context.created.discard(namespace)
        context.joined.pop(namespace, None)
        if namespace in peer.namespaces:
            context.joined[namespace] = f"/proc/{peer.pid}/ns/{file}"
            context.places[namespace] = "linux.namespaces"
    context.adapted("linux.namespaces", f"the network and user namespaces are those of container {container}")
    network = Network(CONTAINER, "asked for", host, said)
    network.of = container
    return network


def _check(context: Context, network: Network) -> None:
    """Refuse what does not go together."""
    if network.ports and not (network.helpers or network.mode == SHARED):
        reasons = {
            HOST: "the container is on the host's network: its ports are the host's",
            CONTAINER: "the ports of a joined network are those of its container",
            NONE: "the container has no network but its loopback",
        }
        raise RootlessError(
            f"cannot publish ports with --network {context.request.network}",
            cause=f"{reasons[network.mode]} ({network.why})",
            fix="leave --publish out, or use --network pasta",
            code="RL-PUBLISH",
        )
    lack, fix = network.shared.lack(network.host) if network.shared else ("", "")
    if network.shared and lack:
        what = f"network {network.shared.name} has no way to the outside"
        if network.ports:
            raise RootlessError(f"cannot publish ports: {what}", cause=lack, fix=fix, code="RL-PUBLISH")
        context.warn_ignored("", f"{what}: {lack}", fix)
    by_slirp = network.mode == SHARED or any(each.name == SLIRP for each in network.helpers)
    six = next((port for port in network.ports if ":" in port.address), None)
    if six and by_slirp:
        network.helpers = [each for each in network.helpers if each.name != SLIRP]
        if not network.helpers:
            raise RootlessError(
                f"cannot publish {six}",
                cause="slirp4netns publishes ports on addresses of IPv4 only",
                fix="use --network pasta" if network.mode != SHARED else "name an address of IPv4",
                code="RL-PUBLISH",
            )
        network.mode = network.helpers[0].name
    elif by_slirp and network.mode != PASTA and any(not port.address for port in network.ports):
        context.adapted("", "ports are published on the host's addresses of IPv4 only: slirp4netns has no others")
    reached = network.mode == HOST or any(each.gateway for each in network.helpers)
    if not reached and any(address == resolv_conf.HOST_GATEWAY for address, _ in network.names.hosts):
        raise RootlessError(
            f"--add-host …:{resolv_conf.HOST_GATEWAY}",
            cause="the host's loopback is closed to the container",
            fix="open it: --network slirp4netns:allow_host_loopback=true",
            code="RL-NAMES",
        )


def _refused(context: Context, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"--network {context.request.network}", cause=cause, fix=fix, code="RL-NETWORK")


def _sysctls(context: Context) -> dict[str, str]:
    """Return what the namespace gets for addresses that are there at once, and for ping without rights (icmp(7))."""
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
        context.adapted(
            "mounts", "what is mounted on /etc says how names are found: resolv.conf and hosts stay as they are"
        )
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
