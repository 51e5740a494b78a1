"""Networks that several containers of one user share: `rootless network`, and `--network NAME`.

A network is a bridge in a network namespace of its own. Each member has a link whose other end is a port of the
bridge; slirp4netns is one more port, and by that the way to the outside: it serves any number of hosts on its link,
without routing or address translation of ours. A keeper holds the namespace while there are ports of members, which go
with their containers whatever ends those: so nobody has to count, and the death of one member is nothing to the others.

What the caller asked for is in his configuration, and stays. What there is at the moment is in the state directory.
"""

from __future__ import annotations

import fcntl
import posix
import select

from rootless import files, log, paths
from rootless.bundle import jsontext
from rootless.container.lifecycle import Process, boot_id, identity
from rootless.container.store import LONGEST_ID, is_id, state_root
from rootless.errors import RootlessError
from rootless.network import hostfwd
from rootless.network.keeper import Keeper
from rootless.network.programs import SOCKET, Program
from rootless.plan import names
from rootless.plan.keepers import shared_keeper, socket_in
from rootless.plan.network_helpers import LINK
from rootless.plan.shared_network import Shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from rootless.plan.network import Network
    from rootless.plan.options import Options

_RUNNING = "@networks"
"""Beside the containers; none can have that name."""
_STATE = "state.json"
_PORT = "m"
"""A port of the bridge is called so, and by the number of its member."""
_INSIDE = "eth0"
_PATIENCE = 1000
"""Milliseconds in which what has nothing to do any more ends."""


class Live:
    """What there is of a network now: its directory, open and locked until close().

    Attributes:
        path, fd: the directory.
        state: `bootId`, `keeper` and `helper` as [process, start time], `members` by the container's id.
    """

    def __init__(self, root: str, name: str) -> None:
        """Open it, waiting for whoever changes it.

        Raises:
            OSError: it cannot be made.
        """
        self.path = f"{root}/{_RUNNING}/{name}"
        while True:
            files.make_private(self.path)
            self.fd = posix.open(self.path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if posix.fstat(self.fd).st_nlink:
                break
            posix.close(self.fd)  # somebody has removed it meanwhile
        self.state: dict[str, Any] = {"members": {}}
        try:
            with open(f"{self.path}/{_STATE}", "rb", buffering=0) as file:
                found = jsontext.parse(file.read(), self.path)
        except (FileNotFoundError, RootlessError):
            found = None
        if isinstance(found, dict) and found.get("bootId") == boot_id():
            self.state = found

    @property
    def members(self) -> dict[str, Any]:
        """The containers in it, by their ids.

        Each has its `number`, `addresses` and `names`; `hosts`, a file, and `base`, what is in that before the others;
        `forwarded`, by which slirp4netns knows its ports.
        """
        members: dict[str, Any] = self.state["members"]
        return members

    def write(self) -> None:
        """Note what there is."""
        self.state["bootId"] = boot_id()
        files.put(f"{self.path}/{_STATE}", jsontext.render(self.state, None).encode(), 0o600)

    def alive(self, name: str) -> bool:
        """Whether the process that is noted as `name` is there."""
        pid, start_time = self.state.get(name, (0, 0))
        found = Process.read(pid) if pid else None
        return bool(found and found.alive and found.start_time == start_time)

    def ports(self) -> set[str]:
        """Return the names of the ports that the bridge has; none where it is gone."""
        if not self.alive("keeper"):
            return set()
        try:
            with open(f"/proc/{self.state['keeper'][0]}/net/dev", "rb") as file:
                return {line.partition(":")[0].strip() for line in file.read().decode().splitlines()}
        except OSError:
            return set()

    def forget_the_dead(self) -> None:
        """Drop the members whose containers have ended, and their ports of the host."""
        there = self.ports()
        for container_id, member in list(self.members.items()):
            if f"{_PORT}{member['number']}" not in there:
                self.drop(container_id)

    def drop(self, container_id: str) -> None:
        """Drop a member and its ports of the host."""
        member = self.members.pop(container_id, None)
        if member and member["forwarded"] and self.alive("helper"):
            try:
                hostfwd.remove(f"{self.path}/{SOCKET}", member["forwarded"])
            except RootlessError as error:
                log.warning(f"{error.what}: {error.cause}")

    def tell_members(self) -> None:
        """Write into the hosts file of each member where the others are."""
        for container_id, member in self.members.items():
            others = [other for other_id, other in self.members.items() if other_id != container_id]
            text = member["base"] + "".join(
                f"{address} {other['names']}\n" for other in others for address in other["addresses"]
            )
            try:
                fd = posix.open(member["hosts"], posix.O_WRONLY | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC)
            except OSError:
                continue  # it is being deleted, or its root has taken that into its own hands
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))

    def remove(self) -> None:
        """Remove the directory, once what served the network has ended."""
        for name in ("keeper", "helper"):
            _await_end(self.state.get(name, (0, 0)))
        for name in posix.listdir(self.fd):
            posix.unlink(name, dir_fd=self.fd)
        posix.rmdir(self.path)

    def close(self) -> None:
        """Let others have it."""
        posix.close(self.fd)

    def __enter__(self) -> Self:
        """Return itself: it is locked already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        self.close()


def _await_end(process: tuple[int, int]) -> None:
    pid, start_time = process
    try:
        fd = posix.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        found = Process.read(pid)
        if found and found.start_time == start_time:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(_PATIENCE)
    finally:
        posix.close(fd)


# --- Members ----------------------------------------------------------------------------------------------------------


def join(network: Network, root: str, container_id: str, kept_by: Keeper) -> dict[str, Any]:
    """Make a container a member; return what its state holds of that.

    Args:
        network: what was decided.
        root: the state directory.
        container_id: whose files are in `root`.
        kept_by: its keeper, whose socket speaks of its network namespace.

    Raises:
        RootlessError: `RL-NETWORK` or `RL-PUBLISH`: it cannot be one.
    """
    shared = network.shared
    assert shared
    with _opened(root, shared.name) as live:
        live.forget_the_dead()
        started = None if live.members and live.alive("keeper") else _start(live, network, shared)
        keeper = started or Keeper(socket_in(live.state["keeper"][0]))
        try:
            member = _connect(live, network, shared, keeper, kept_by)
        except OSError as error:
            raise _refused(shared.name, error) from None
        finally:
            if started:
                started.close()  # it stays while there are members
            else:
                keeper.kill()
        base = names.hosts(network.names, member["addresses"], "")
        own = " ".join(dict.fromkeys(name for name in (container_id, *network.names.own) if name))
        live.members[container_id] = member | {"names": own, "base": base, "hosts": f"{root}/{container_id}/hosts"}
        live.write()
        live.tell_members()
    return {
        "addresses": member["addresses"],
        "ports": [port.as_data() for port in network.ports],
    }


def _start(live: Live, network: Network, shared: Shared) -> Keeper:
    """Start what serves a network."""
    from rootless.network import links

    _await_end(live.state.get("keeper", (0, 0)))  # one without members is about to go
    keeper = Keeper(shared_keeper(_PORT), maps=network.own_maps)
    try:
        links.make_bridge(keeper.netlink)
        live.state["keeper"] = identity(keeper.pid)
        helper = shared.helper(network.host)
        if helper:
            program = Program(helper, network, keeper, live.path)
            program.await_ready()
            links.plug_in(keeper.netlink, LINK)
            live.state["helper"] = identity(program.pid)
        else:
            log.warning(
                f"network {shared.name} has no way to the outside: slirp4netns is not installed",
                fix="install slirp4netns",
            )
        keeper.go_on()
    except OSError as error:
        keeper.kill()
        raise _refused(shared.name, error) from None
    except BaseException:
        keeper.kill()
        raise
    return keeper


def _connect(live: Live, network: Network, shared: Shared, keeper: Keeper, kept_by: Keeper) -> dict[str, Any]:
    """Give a container a link to the bridge, its addresses, and the ports of the host."""
    from rootless.network import links

    number = shared.free_number({member["number"] for member in live.members.values()})
    namespace = posix.open(f"/proc/{kept_by.pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        links.make_pair(keeper.netlink, f"{_PORT}{number}", number, namespace, _INSIDE)
    finally:
        posix.close(namespace)
    addresses = shared.addresses(number)
    for address, prefix, gateway in addresses:
        links.settle(kept_by.netlink, address, prefix, gateway)
    forwarded = [hostfwd.add(f"{live.path}/{SOCKET}", port, addresses[0][0]) for port in network.ports]
    return {"number": number, "addresses": [address for address, _, _ in addresses], "forwarded": forwarded}


def leave(root: str, name: str, container_id: str) -> None:
    """Forget a member that has ended; what is left of a network without members goes too."""
    with _opened(root, name) as live:
        live.forget_the_dead()
        live.drop(container_id)
        live.tell_members()
        if live.members:
            live.write()
        else:
            live.remove()


def _opened(root: str, name: str) -> Live:
    try:
        return Live(root, name)
    except OSError as error:
        raise _refused(name, error) from None


def _refused(name: str, error: OSError) -> RootlessError:
    return RootlessError(
        f"cannot use the network {name}", cause=(error.strerror or str(error)).lower(), code="RL-NETWORK"
    )


# --- Definitions ------------------------------------------------------------------------------------------------------


def find(name: str) -> Shared:
    """Return a network that `network create` made.

    Raises:
        RootlessError: `RL-NETWORK`: there is none.
    """
    if not is_id(name):
        raise _unknown(name)
    path = f"{_directory()}/{name}.json"
    try:
        with open(path, "rb", buffering=0) as file:
            found = jsontext.parse(file.read(), path)
        subnet = found["subnet"] if isinstance(found, dict) else ""
        return Shared(name, str(subnet))
    except FileNotFoundError:
        raise _unknown(name) from None
    except (OSError, ValueError, KeyError) as error:
        raise RootlessError(f"network {name}", cause=f"{path}: {error}", fix=f"rm {path}", code="RL-NETWORK") from None


def _unknown(name: str) -> RootlessError:
    there = ", ".join(_names()) or "none yet"
    make = f"rootless network create {name}; or " if is_id(name) else ""
    return RootlessError(
        f"network {name}",
        cause=f"there is no such network; yours: {there}",
        fix=f"{make}use auto, none, host, slirp4netns, pasta, container:ID",
        code="RL-NETWORK",
    )


def _directory() -> str:
    """Return where networks are kept: they outlive the session, as podman's and docker's do."""
    base = paths.variable("XDG_CONFIG_HOME")
    if not base.startswith("/"):
        home = paths.variable("HOME")
        if not home.startswith("/"):
            raise RootlessError("networks are kept in $HOME/.config", cause="HOME is not set", code="RL-NETWORK")
        base = f"{home}/.config"
    return f"{base}/rootless/networks"


def _names() -> list[str]:
    try:
        return sorted(name.removesuffix(".json") for name in posix.listdir(_directory()) if name.endswith(".json"))
    except FileNotFoundError:
        return []


def create(options: Options) -> str:
    """Make a network; return its name.

    Raises:
        RootlessError: `RL-NETWORK`: there is one of that name, or its subnet is taken or makes no sense.
    """
    from rootless.network.subnets import choose

    name = options.container
    if not is_id(name):
        raise RootlessError(
            f"network {name!r}",
            cause="no network can have that name",
            fix=f"use letters, digits and _ + - . only, {LONGEST_ID} at most",
            code="RL-NETWORK",
        )
    if name in _WORDS:
        raise RootlessError(
            f"network {name}",
            cause="--network has that word for something else",
            fix="choose another",
            code="RL-NETWORK",
        )
    taken = {other: find(other).subnet for other in _names()}
    if name in taken:
        raise RootlessError(
            f"network {name}",
            cause="it exists",
            fix=f"rootless network rm {name}, or choose another name",
            code="RL-NETWORK",
        )
    subnet = choose(options.subnet, taken)
    text = jsontext.render({"name": name, "subnet": subnet, "created": log.timestamp()}, 2)
    try:
        files.make_private(_directory())
        files.put(f"{_directory()}/{name}.json", text.encode() + b"\n", 0o600)
    except OSError as error:
        raise _refused(name, error) from None
    return name


_WORDS = ("auto", "none", "host", "slirp4netns", "pasta", "container")


def listed(options: Options) -> list[dict[str, Any]]:
    """Return the networks of the caller, with their members; those that `options.container` names, or all."""
    chosen = [options.container] if options.container else _names()
    return list(_described(state_root(options.root), chosen))


def _described(root: str, chosen: list[str]) -> Iterator[dict[str, Any]]:
    for name in chosen:
        shared = find(name)
        members = {}
        if paths.exists(f"{root}/{_RUNNING}/{name}"):
            with _opened(root, name) as live:
                there = live.ports()
                members = {
                    container_id: member["addresses"]
                    for container_id, member in live.members.items()
                    if f"{_PORT}{member['number']}" in there
                }
        yield shared.as_data() | {"containers": members}


def remove(options: Options) -> None:
    """Remove a network that nobody is in.

    Raises:
        RootlessError: `RL-NETWORK`: there is none, or containers are in it.
    """
    name = options.container
    find(name)
    root = state_root(options.root)
    if paths.exists(f"{root}/{_RUNNING}/{name}"):
        with _opened(root, name) as live:
            live.forget_the_dead()
            if live.members:
                raise RootlessError(
                    f"network {name}",
                    cause=f"containers are in it: {', '.join(live.members)}",
                    fix="delete them first",
                    code="RL-NETWORK",
                )
            live.remove()
    files.unlink(f"{_directory()}/{name}.json")
