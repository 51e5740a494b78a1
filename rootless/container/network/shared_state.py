"""Shared networks in use: their members, and how a container joins and leaves one.

A network is a bridge in its own network namespace. Each member has a veth pair whose outer end is a port of the bridge.
slirp4netns is one more port and connects the bridge to the outside: it serves any number of hosts on its interface, so
that rootless neither routes nor translates addresses. A netns holder keeps the namespace while there are ports of
members. The kernel removes a port with its container, however that ends: there is no counter, and the death of one
member does not affect the others.
"""

from __future__ import annotations

import errno
import posix

from rootless import files, log
from rootless.container.network.helper_process import await_end, end
from rootless.container.state.directory import NOT_AGED
from rootless.container.state.shared_directory import SharedDirectory
from rootless.errors import EXHAUSTED, RootlessError
from rootless.network import hostfwd
from rootless.network.netns_holder import Namespaces, NetnsHolder
from rootless.network.programs import Program, socket_in
from rootless.plan.network import holder_plan, resolv_conf
from rootless.plan.network.helpers import API_SOCKET, INTERFACE
from rootless.plan.network.ports import from_data
from rootless.procfs import identity, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.container.state.root import StateRoot
    from rootless.host.host_network import HostNetwork
    from rootless.plan.network.helpers import Helper
    from rootless.plan.network.mode import Network
    from rootless.plan.network.ports import Port
    from rootless.plan.network.shared import Shared

_LOCK = "lock"
_PORT = "m"
"""The name of a port of the bridge is this and the number of its member."""
_INSIDE = "eth0"
_NOBODY = (0, 0)
_FIXES = {
    errno.EOPNOTSUPP: "let root load the kernel modules for these interfaces: modprobe -a bridge veth",
    errno.EEXIST: f"rename the interface that is called {_INSIDE} in the container (linux.netDevices of config.json)",
}
"""By errno of rtnetlink(7)."""


class SharedNetwork(SharedDirectory):
    """A network in use.

    Attributes:
        state: `keeper` and `helper` as [process, start time], `members` by the container's id.
    """

    SORT = "@networks"

    def __init__(self, root: StateRoot, name: str, *, create: bool) -> None:
        """Open and lock it, also against a netns holder that looks whether to end; see SharedDirectory.opened()."""
        super().__init__(root, name, create=create)
        try:
            self.lock(self.open_lock())
            self.state: dict[str, Any] = self.read() or {"members": {}}
        except BaseException:
            self.close()
            raise

    @property
    def members(self) -> dict[str, Any]:
        """The containers in it, by their ids.

        Each has its `number`, `addresses`, `names` and published `ports`, and `base`, the part of its hosts file before
        the other members.
        """
        members: dict[str, Any] = self.state["members"]
        return members

    def open_lock(self) -> int:
        """Open the file that is locked with the directory: for the netns holder, which must not hold a directory."""
        return posix.open(_LOCK, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, NOT_AGED | 0o600, dir_fd=self.fd)

    def write(self) -> None:
        """Write the state."""
        self.put(self.state)

    def alive(self, name: str) -> bool:
        """Whether the process of the state's `name` is alive."""
        return is_there(self.state.get(name, _NOBODY))

    def linked(self) -> set[int]:
        """Return the numbers of the members that have a port of the bridge; none where the bridge is gone.

        The kernel removes a port a moment after its container ends. The port of a former member stays while another
        container is in its network namespace.
        """
        if not self.alive("keeper"):
            return set()
        try:
            with open(f"/proc/{self.state['keeper'][0]}/net/dev", "rb") as file:
                interfaces = [line.partition(":")[0].strip() for line in file.read().decode().splitlines()]
        except OSError:
            return set()
        ports = (name.removeprefix(_PORT) for name in interfaces if name.startswith(_PORT))
        return {int(number) for number in ports if number.isdecimal()}

    def present(self) -> dict[str, Any]:
        """Return the members that still have a port: their containers have not ended."""
        linked = self.linked()
        return {each: member for each, member in self.members.items() if member["number"] in linked}

    def forget_the_dead(self, *ended: str) -> None:
        """Drop members whose containers have ended, those in `ended` too, and published ports without a member."""
        self.state["members"] = {each: member for each, member in self.present().items() if each not in ended}
        if self.alive("helper"):
            try:
                kept = {each for member in self.members.values() for each in member["addresses"]}
                hostfwd.keep_only(socket_in(self.fd), kept)
            except OSError as error:
                log.warning(f"network {self.name}: ports of the host stay published: {error}")

    def tell_members(self) -> None:
        """Write the addresses of the other members into the hosts file of each member."""
        known = resolv_conf.known_as({each: member["names"] for each, member in self.members.items()})
        for container_id, member in self.members.items():
            text = member["base"] + "".join(
                f"{address} {known[other_id]}\n"
                for other_id, other in self.members.items()
                if other_id != container_id
                for address in other["addresses"]
            )
            overwrite_mounted(f"{container_id}/hosts", text, self.root.fd)

    def end_serving(self) -> None:
        """End the helper and the netns holder of a network without members; the holder waits for our lock otherwise."""
        end(self.state.get("keeper", _NOBODY))
        await_end(self.state.get("helper", _NOBODY))

    def remove(self) -> None:
        """Remove the directory of a network without members."""
        self.end_serving()
        super().remove()

    @staticmethod
    def unusable(name: str, error: OSError) -> RootlessError:
        """Return the error for a network whose files or interfaces cannot be used: `RL-NETWORK`."""
        number = error.errno or 0
        return RootlessError(
            f"cannot use the network {name}",
            cause=(error.strerror or str(error)).lower() + (f": {error.filename}" if error.filename else ""),
            fix=EXHAUSTED.get(number)
            or ("name a directory that you can write to with --root" if error.filename else _FIXES.get(number, "")),
            code="RL-NETWORK",
        )


def join(
    network: Network, root: StateRoot, container_id: str, own_holder: NetnsHolder
) -> tuple[list[str], list[dict[str, object]]]:
    """Make a container a member; return its addresses, and its published ports as JSON data.

    Args:
        network: the container's.
        root: the state directory.
        container_id: whose files are in `root`.
        own_holder: the netns holder of the container, with a netlink socket of its network namespace.

    Raises:
        RootlessError: `RL-NETWORK` or `RL-PUBLISH`: it cannot join.
    """
    shared = network.shared
    assert shared
    with SharedNetwork.opened(root, shared.name) as live:
        live.forget_the_dead()
        started = None if live.linked() else _start(live, network, shared)
        if restart_helper(live, network.host, shared):
            publish_missing(live)
        holder = started or NetnsHolder(holder_plan.socket_in(live.state["keeper"][0]))
        try:
            member = _connect(live, network, shared, holder, own_holder)
        except BaseException:
            live.forget_the_dead()
            raise
        finally:
            if started:
                started.close()  # the holder stays while there are members
            else:
                holder.kill()
        base = resolv_conf.hosts(network.names, member["addresses"], "")
        own = " ".join(dict.fromkeys((container_id, *network.names.own)))
        ports = [port.as_data() for port in network.ports]
        live.members[container_id] = member | {"names": own, "base": base, "ports": ports}
        live.write()
        live.tell_members()
    return member["addresses"], ports


def _start(live: SharedNetwork, network: Network, shared: Shared) -> NetnsHolder:
    """Start the netns holder and the helper of a network."""
    from rootless.network import interfaces

    live.end_serving()
    lock = live.open_lock()
    try:
        assert network.own_maps
        holder = NetnsHolder(holder_plan.shared_holder(_PORT, lock, network.own_maps), lock=lock)
    finally:
        posix.close(lock)
    try:
        interfaces.make_bridge(holder.netlink)
        live.state["keeper"] = identity(holder.pid)
        helper = shared.helper(network.host)
        if helper:
            _start_helper(live, network, helper, holder)
        holder.go_on()
    except BaseException:
        holder.kill()
        raise
    return holder


def _start_helper(live: SharedNetwork, network: Network, helper: Helper, holder: NetnsHolder) -> None:
    """Start the helper; it ends with the holder."""
    from rootless.network import interfaces

    program = Program(helper, network, holder, live.fd)
    program.await_ready()
    interfaces.attach_to_bridge(holder.netlink, INTERFACE)
    live.state["helper"] = identity(program.pid)


def restart_helper(live: SharedNetwork, host: HostNetwork, shared: Shared) -> bool:
    """Start the helper of a network in use again if it has ended; return whether it has been started.

    What prevents it is a warning: the members still reach each other. The helper publishes no ports yet.
    """
    helper = shared.helper(host)
    if not helper or live.alive("helper"):
        return False
    from rootless.plan.network.mode import SHARED, Network
    from rootless.plan.network.resolv_conf import Names

    network = Network(SHARED, "", host, Names((), (), (), ()))
    network.owned = True  # the netns holder has made the user namespace
    namespaces = Namespaces()
    process = -1
    try:
        pid = live.state["keeper"][0]
        process = posix.pidfd_open(pid)
        namespaces.user = posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
        namespaces.network = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        if not live.alive("keeper"):
            return False
        files.unlink(API_SOCKET, live.fd)
        operations = holder_plan.container_holder(network, helper, namespaces.user, namespaces.network)
        # slirp4netns has to see the end of the first holder, whose pipe has gone with the last slirp4netns
        holder = NetnsHolder(operations, process=process, namespaces=namespaces)
        try:
            _start_helper(live, network, helper, holder)
            live.write()  # before anything else fails: nobody may start another one beside it
            holder.go_on()
        except BaseException:
            holder.kill()
            raise
        holder.close()
    except (RootlessError, OSError) as error:
        log.warning(f"network {shared.name} has no connection to the outside: {error}")
        return False
    finally:
        namespaces.close()
        if process >= 0:
            posix.close(process)
    return True


def publish_missing(live: SharedNetwork) -> None:
    """Publish the ports of members that are not published; what prevents it is a warning for each."""
    wanted = [(from_data(port), each) for each, member in live.members.items() for port in member.get("ports", ())]
    try:
        published = hostfwd.published(socket_in(live.fd)) if wanted else set()
    except OSError as error:
        log.warning(f"network {live.name}: ports may not be published: {error}", fix="run rootless network reload")
        return
    for port, container_id in wanted:
        if hostfwd.listening(port) not in published:
            _publish_or_warn(live, port, live.members[container_id]["addresses"][0], container_id)


def _publish_or_warn(live: SharedNetwork, port: Port, address: str, container_id: str) -> None:
    try:
        _publish(live, [port], address)
    except RootlessError as error:
        log.warning(
            f"container {container_id}: {error.what}: {error.cause}", fix="free it, then run rootless network reload"
        )


def _publish(live: SharedNetwork, ports: Sequence[Port], address: str) -> None:
    if ports:
        from rootless.network import backlog

        hostfwd.add(socket_in(live.fd), ports, address)
        backlog.lengthen(live.state["helper"][0])


def _connect(
    live: SharedNetwork, network: Network, shared: Shared, holder: NetnsHolder, own_holder: NetnsHolder
) -> dict[str, Any]:
    """Connect a container to the bridge; set its addresses and publish its ports."""
    from rootless.network import interfaces

    number = shared.free_number(live.linked())
    inside = (_INSIDE, shared.hardware(number))
    interfaces.make_pair(holder.netlink, f"{_PORT}{number}", number, own_holder.namespaces.network, inside)
    addresses = shared.addresses(number)
    for address, prefix, gateway in addresses:
        interfaces.configure_inside(own_holder.netlink, address, prefix, gateway)
    _publish(live, network.ports, addresses[0][0])
    return {"number": number, "addresses": [address for address, _, _ in addresses]}


def leave(root: StateRoot, name: str, container_id: str) -> None:
    """Forget a member that has ended; remove a network without members."""
    for _ in range(2):
        live = SharedNetwork.to_leave(root, name)
        if not live:
            return
        with live:
            live.forget_the_dead(container_id)
            if not live.linked():
                live.remove()
                return
            live.write()
            live.tell_members()
            if live.members:
                return
        # the kernel removes the last ports in a moment; then the holder ends
        await_end(live.state["keeper"])


def forget_the_dead(root: StateRoot, name: str) -> None:
    """Unpublish the ports of members that have ended."""
    live = SharedNetwork.existing(root, name)
    if live:
        with live:
            live.forget_the_dead()
            live.write()


def overwrite_mounted(path: str, text: str, directory: int) -> bool:
    """Overwrite a file that is mounted in a container; return whether that was possible."""
    try:
        # O_NONBLOCK: the container may hold a lease on the file, for which open(2) would wait
        flags = posix.O_WRONLY | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open(path, flags, dir_fd=directory)
    except OSError:
        return False  # the container is being deleted, or its root has replaced the file
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    return True
