"""A container and its network: made side by side with the container, ready before its program."""

from __future__ import annotations

import posix

from rootless import files, log
from rootless.container.operations.network_cleanup import serving_processes
from rootless.container.operations.undo import note
from rootless.container.state import store
from rootless.container.state.directory import HOSTS, RESOLVER
from rootless.errors import RootlessError
from rootless.launch.protocol import NAMESPACES
from rootless.lazy import lazy
from rootless.network import addresses
from rootless.network.netns_holder import Namespaces, NetnsHolder
from rootless.network.programs import Program
from rootless.plan.network.helpers import PASTA, SLIRP, Helper
from rootless.plan.network.holder_plan import container_holder
from rootless.plan.network.mode import NONE, SHARED, Network
from rootless.plan.network.ports import from_data
from rootless.procfs import identity, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.container.network.shared_state import forget_the_dead
    from rootless.container.network.shared_state import join as join_shared_network
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.state.root import StateRoot
    from rootless.network.hostports import reserve
    from rootless.plan.network.ports import Port
    from rootless.plan.ops import Op
else:
    forget_the_dead = lazy("rootless.container.network.shared_state", "forget_the_dead")
    join_shared_network = lazy("rootless.container.network.shared_state", "join")
    reserve = lazy("rootless.network.hostports", "reserve")


def reserve_ports(run: ContainerRun, op: Op) -> None:
    """Find ports of the host that are free, and note in each Port which one it is.

    Raises:
        RootlessError: `RL-PUBLISH`: a port is taken, or forbidden to the caller.
    """
    shared, ports = op.value("network"), op.value("ports")
    if shared:
        forget_the_dead(run.root, shared)
    reserve(ports, op.value("first_port"), lambda port: _publisher(port, run.root))
    run.ports = ports


def write_names(run: ContainerRun, op: Op) -> None:
    """Write the resolv.conf and hosts that the container mounts.

    Raises:
        RootlessError: `RL-STATE`: they cannot be written.
    """
    _write_files(run, op.value("resolv_conf"), op.value("hosts"))


def begin(run: ContainerRun, op: Op) -> None:
    """Begin to serve the network of the container's first process; nothing else waits for it.

    Raises:
        RootlessError: `RL-NETWORK`: it cannot be served.
    """
    network: Network = op.value("network")
    if network.is_served:
        run.network = Attachment(run, network)
        run.network.start()


def wait(run: ContainerRun, _op: Op) -> None:
    """Return when the network is usable; add its addresses and ports to the container's state.

    Raises:
        RootlessError: `RL-NETWORK`: no helper works, and the caller requires one.
    """
    assert run.network
    run.network.finish()


class Attachment:
    """The network of a container that is being made."""

    def __init__(self, run: ContainerRun, network: Network) -> None:
        """Take the container's namespaces; nothing is started yet."""
        assert run.state.network
        self._run = run
        self._network = network
        if run.ports:
            network.ports = run.ports  # with the port numbers that were found
        self._state = run.state.network
        self._helpers = list(network.helpers)
        self._holder: NetnsHolder | None = None
        self._program: Program | None = None
        self._namespaces = Namespaces(*run.passed.pop(NAMESPACES))
        self._process = posix.pidfd_open(run.pid)

    def start(self) -> None:
        """See begin()."""
        self._note()
        if self._network.mode == SHARED:
            self._hold(None)
        else:
            self._start_next()
        if self._warns_of_slirp():
            self._network.host.ask_for_libslirp()

    def _note(self) -> None:
        """Note the processes that serve it, as far as they have started."""
        data: dict[str, Any] = {"wait": bool(self._network.ports)}
        if self._network.mode == SHARED:
            data["shared"] = self._state.of
        if self._program:
            data["helper"] = identity(self._program.pid)
        if self._holder:
            data["holder"] = identity(self._holder.pid)
        note(self._run.entry, "network", data)

    def _hold(self, helper: Helper | None) -> NetnsHolder:
        """Start the netns holder for a helper; a previous one ends."""
        if self._holder:
            self._holder.kill()
        taken = self._namespaces
        operations = container_holder(self._network, helper, taken.user, taken.network)
        self._holder = NetnsHolder(operations, process=self._process, namespaces=taken)
        return self._holder

    def _start_next(self) -> None:
        """Start the next helper that can be started, if there is one."""
        self._program = None
        while self._helpers and not self._program:
            holder = self._hold(self._helpers[0])
            try:
                self._program = Program(self._helpers[0], self._network, holder, self._run.entry.fd)
            except RootlessError as error:
                self._give_up(error)

    def finish(self) -> None:
        """See wait()."""
        if not self._holder:
            return
        try:
            if self._network.mode == SHARED:
                self._join_shared(self._holder)
            elif program := self._await_helper():
                self._record(program, self._holder)
            else:
                self._holder.kill()
            if self._warns_of_slirp() and (flaws := self._network.flaws()):
                log.warning(f"slirp4netns: {flaws}", fix="use --network pasta, or update libslirp")
        finally:
            self._holder.close()
            self._close_fds()

    def _warns_of_slirp(self) -> bool:
        """Whether the caller has asked for slirp4netns, which may have known flaws."""
        return self._network.required and any(each.name == SLIRP for each in self._network.helpers)

    def _await_helper(self) -> Program | None:
        """Return the first helper that works."""
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
        """Drop the first helper, and log the reason.

        Raises:
            RootlessError: `error`, if it was the last helper that meets the request.
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
        self._rewrite_files(self._helpers[0] if self._helpers else None)

    def _record(self, program: Program, holder: NetnsHolder) -> None:
        own = program.helper.addresses
        if not own:
            own = addresses.of(holder.pid)
            self._rewrite_files(program.helper, own)
        self._state.addresses = list(own)
        self._state.ports = [port.as_data() for port in self._network.ports]
        self._note()

    def _join_shared(self, holder: NetnsHolder) -> None:
        self._note()
        run = self._run
        joined = join_shared_network(self._network, run.root, run.entry.container_id, holder)
        self._state.addresses, self._state.ports = joined
        holder.go_on()

    def _rewrite_files(self, helper: Helper | None, own: Sequence[str] = ()) -> None:
        if self._state.resolver:
            self._state.resolver["forwarder"] = self._network.forwarder(helper)
            _write_files(self._run, *self._network.files(self._state.mode, helper, own))

    def abort(self) -> None:
        """End the processes that serve it."""
        if self._program:
            self._program.kill()
        if self._holder:
            self._holder.kill()
        self._close_fds()

    def _close_fds(self) -> None:
        self._network.host.stop_asking()
        self._namespaces.close()
        files.close_fds(self, "_process")


def _write_files(run: ContainerRun, resolver: str, hosts: str) -> None:
    """Write them in place: they may be mounted already."""
    run.entry.put(RESOLVER, resolver.encode("utf-8", "surrogateescape"), 0o644)
    run.entry.put(HOSTS, hosts.encode("utf-8", "surrogateescape"), 0o644)


def _publisher(port: Port, root: StateRoot) -> str:
    """Return the container that has published a port of the host and may still have it; empty when none has."""
    for container_id in store.ids(root):
        try:
            with store.find(root, container_id, lock=False) as entry:
                state = entry.read()
                serving = serving_processes(entry)
        except RootlessError:
            continue
        if not (state and state.network and state.is_of_this_boot()) or (serving and not is_there(serving[0])):
            continue
        taken = [from_data(data) for data in state.network.ports or ()]
        if any((other.outside, other.protocol) == (port.outside, port.protocol) for other in taken):
            return container_id
    return ""
