"""The network of a container: set up while the container is created, ready before its program, gone with it."""

from __future__ import annotations

import posix

from rootless import files, log
from rootless.container.network import helper_process
from rootless.container.state import store
from rootless.container.state.state import NetworkState
from rootless.errors import RootlessError
from rootless.launch.fd_messages import Received
from rootless.network import addresses
from rootless.network.hostports import reserve
from rootless.network.netns_holder import Namespaces, NetnsHolder
from rootless.network.programs import Program
from rootless.plan.network import resolv_conf
from rootless.plan.network.helpers import PASTA, SLIRP, Helper
from rootless.plan.network.holder_plan import container_holder
from rootless.plan.network.mode import HOST, NONE, SHARED, Network
from rootless.plan.network.ports import from_data
from rootless.procfs import identity, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.container.state.store import StateRoot
    from rootless.plan.network.ports import Port

_RESOLVER = "resolv.conf"
_HOSTS = "hosts"


class Attachment:
    """The network of a container that is being created.

    Attributes:
        reader: receives the container's namespaces from the executor; None for a network without a helper.
    """

    def __init__(self, network: Network, entry: ContainerDir, state: State) -> None:
        """Write resolv.conf and hosts, and reserve the published ports.

        Raises:
            RootlessError: `RL-PUBLISH`: a port cannot be published.
        """
        self._network = network
        self._entry = entry
        self._helpers = list(network.helpers)
        self._holder: NetnsHolder | None = None
        self._program: Program | None = None
        self._process = -1
        self._namespaces = Namespaces()
        self.reader = Received(self._namespaces.takers()) if network.is_served else None
        if network.ports:
            if network.shared:
                from rootless.container.network import shared_state

                shared_state.forget_the_dead(entry.root, network.shared.name)
            reserve(network.ports, network.host.first_port, lambda port: _publisher(port, entry.root))
        self._state = state.network = NetworkState(network.mode, network.why)
        if network.of or network.shared:
            self._state.of = network.of or (network.shared.name if network.shared else "")
        if network.directory == entry.path:
            self._state.files = True
            self._write_files(self._helpers[0] if self._helpers else None)

    def begin(self, pid: int) -> None:
        """Start the helper of the container whose first process is `pid`, without waiting for it.

        Raises:
            RootlessError: it cannot be started.
        """
        if not self._network.is_served:
            return
        self._process = posix.pidfd_open(pid)
        if self._network.mode == SHARED:
            self._hold(None)
        else:
            self._start_next()
        if self._warns_of_slirp():
            self._network.host.ask_for_libslirp()

    def _hold(self, helper: Helper | None) -> NetnsHolder:
        """Start the netns holder for a helper; a previous one ends."""
        if self._holder:
            self._holder.kill()
        taken = self._namespaces
        operations = container_holder(self._network, helper, taken.user, taken.network)
        self._holder = NetnsHolder(operations, process=self._process, namespaces=taken)
        return self._holder

    def _start_next(self) -> None:
        """Start the next helper, or the first after it that can be started."""
        self._program = None
        while self._helpers and not self._program:
            holder = self._hold(self._helpers[0])
            try:
                self._program = Program(self._helpers[0], self._network, holder, self._entry.fd)
            except RootlessError as error:
                self._give_up(error)

    def finish(self) -> None:
        """Return when the network works, and write it into the container's state.

        Raises:
            RootlessError: no helper works, and the caller requires one.
        """
        if not self._holder:
            return
        try:
            if self._network.mode == SHARED:
                self._join_shared(self._holder)
            elif program := self._await_helper():
                self._note(program, self._holder)
            else:
                self._holder.kill()
            if self._warns_of_slirp() and (flaws := self._network.flaws()):
                log.warning(f"slirp4netns: {flaws}", fix="use --network pasta, or update libslirp")
        finally:
            self._holder.close()
            self._close_fds()

    def _warns_of_slirp(self) -> bool:
        """Whether the caller chose slirp4netns, which may have known flaws."""
        return self._network.required and any(each.name == SLIRP for each in self._network.helpers)

    def _await_helper(self) -> Program | None:
        """Return the first helper that serves."""
        while (program := self._program) and self._holder:
            try:
                program.await_ready()
            except RootlessError as error:
                self._give_up(error)
                self._start_next()
            else:
                if program.helper.name == PASTA:
                    self._holder.hide()
                else:
                    self._holder.go_on()
                program.publish(self._network.ports, program.helper.addresses)
                return program
        return None

    def _give_up(self, error: RootlessError) -> None:
        """Drop the first helper, and log it.

        Raises:
            RootlessError: `error`, when no other helper can serve the container.
        """
        del self._helpers[0]
        if self._network.required or (self._network.ports and not self._helpers):
            raise error
        why = f"{error.what}: {error.cause}"
        if self._helpers and self._helpers[0].name == SLIRP and (flaws := self._network.flaws()):
            self._helpers.clear()
            why += f"; slirp4netns is not used: {flaws}"
            if self._network.ports:
                raise error
        self._state.mode = self._helpers[0].name if self._helpers else NONE
        self._state.reason = why
        if self._helpers:
            log.info(f"{why}: {self._helpers[0].name} is used")
        else:
            log.warning(f"the container has its loopback only: {why}", fix=error.fix)
        self._write_files(self._helpers[0] if self._helpers else None)

    def _note(self, program: Program, holder: NetnsHolder) -> None:
        helper = program.helper
        own = helper.addresses
        if not own:
            own = addresses.of(holder.pid)
            self._write_files(helper, own)
        self._state.addresses = own
        self._state.ports = [port.as_data() for port in self._network.ports]
        self._state.helper = identity(program.pid)
        self._state.holder = identity(holder.pid)

    def _join_shared(self, holder: NetnsHolder) -> None:
        from rootless.container.network import shared_state

        self._state.holder = identity(holder.pid)
        joined = shared_state.join(self._network, self._entry.root, self._entry.container_id, holder)
        self._state.addresses, self._state.ports = joined["addresses"], joined["ports"]
        holder.go_on()

    def _write_files(self, helper: Helper | None, own: Sequence[str] = ()) -> None:
        """Write resolv.conf and hosts in place: they may be mounted already."""
        network, said = self._network, self._network.names
        if not self._state.files:
            return
        on_host, alone = network.mode == HOST, self._state.mode == NONE
        forwarder = helper.dns if helper else network.shared.dns if network.shared else ""
        resolver = resolv_conf.resolver(said, network.host, forwarder, shared=on_host, alone=alone)
        if on_host:
            hosts = resolv_conf.hosts_of_host(said, network.host.hosts)
        else:
            hosts = resolv_conf.hosts(
                said, own or (helper.addresses if helper else ()), helper.gateway if helper else ""
            )
        self._entry.put(_RESOLVER, resolver.encode("utf-8", "surrogateescape"), 0o644)
        self._entry.put(_HOSTS, hosts.encode("utf-8", "surrogateescape"), 0o644)

    def abort(self) -> None:
        """Kill the helper and the netns holder."""
        if self._program:
            self._program.kill()
        if self._holder:
            self._holder.kill()
        self._close_fds()

    def _close_fds(self) -> None:
        self._network.host.stop_asking()
        self._namespaces.close()
        files.close_fds(self, "_process")


def _publisher(port: Port, root: StateRoot) -> str:
    """Return the id of the container that published a host port and may still use it; empty without one."""
    for container_id in store.ids(root):
        try:
            with store.find(root, container_id, lock=False) as entry:
                state = entry.read()
        except RootlessError:
            continue
        network = state.network if state else None
        if not network:
            continue
        serving = network.helper or network.holder
        if serving and not is_there(serving):
            continue
        taken = [from_data(data) for data in network.ports or ()]
        if any((other.outside, other.protocol) == (port.outside, port.protocol) for other in taken):
            return container_id
    return ""


def end(root: StateRoot, state: State) -> None:
    """End the helper and the netns holder of a container that has ended, and wait until its host ports are free."""
    network = state.network
    if not (network and state.is_of_this_boot()):
        return
    if network.helper:
        helper_process.end(network.helper, wait=bool(network.ports))
    if network.holder:
        helper_process.end(network.holder)
    if network.mode == SHARED:
        from rootless.container.network import shared_state

        try:
            shared_state.leave(root, network.of, state.id)
        except RootlessError as error:  # the next container that joins repeats it
            log.warning(f"{error.what}: {error.cause}", fix=error.fix)
