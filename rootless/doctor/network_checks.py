"""Checks of this host for container networks: they start the helpers and open sockets as for a container."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from typing import TYPE_CHECKING

from rootless.doctor.problem import Problem, become_ordinary, errno_in_child, install, set_sysctl, sysctl
from rootless.errors import RootlessError
from rootless.host import host_network
from rootless.linux import CLONE_NEWNET
from rootless.network.netns_holder import NetnsHolder
from rootless.network.programs import Program
from rootless.plan import ops
from rootless.plan.idmaps import IdMaps
from rootless.plan.namespaces.new_or_joined import new_user
from rootless.plan.network.helpers import PACKAGES, PASTA, PASTA_SINCE, SLIRP, helper, libslirp_flaws, pasta_date
from rootless.plan.network.mode import Network
from rootless.plan.network.resolv_conf import Names
from rootless.plan.ops import Op

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.host.facts import Facts
    from rootless.host.host_network import HostNetwork

LOW_PORT = 80
"""A privileged port that people want to publish."""
_LOOPBACK = "a container with its own network namespace has only its loopback without it"
_WITHOUT = {
    SLIRP: "networks that containers share have no connection to the outside without it",
    PASTA: "--network auto falls back to slirp4netns, unless its libslirp has known flaws; ports are on IPv4 only",
}


def problems(facts: Facts, *, try_them: bool) -> Iterable[Problem]:
    """Yield what is missing; `try_them` starts the helpers, which takes a user namespace."""
    host = host_network.read()
    if not host.programs:
        yield Problem("pasta or slirp4netns", _LOOPBACK, install(PASTA, "passt"))
    elif error := errno_in_child(lambda: _open_tun(facts)):
        what = f"access to {host_network.TUN} ({os.strerror(error)})"
        yield Problem(what, _LOOPBACK, tun_fix(error))
    elif try_them:
        for name, path in host.programs.items():
            refusal = _try_helper(name, host, facts)
            if refusal:
                yield Problem(f"a working {path} ({refusal})", _LOOPBACK, install(name, PACKAGES[name]))
    if len(host.programs) == 1:
        (other,) = {SLIRP, PASTA} - set(host.programs)
        yield Problem(other, _WITHOUT[other], install(other, PACKAGES[other]), optional=True)
    yield from _versions(host)
    yield from _sockets(facts)


def _versions(host: HostNetwork) -> Iterable[Problem]:
    """Yield known flaws of the installed versions of the helpers."""
    if SLIRP in host.programs and (flaws := libslirp_flaws(host.libslirp)):
        why = "a hostile container can attack slirp4netns: with --network slirp4netns, and on a shared network"
        yield Problem(f"a libslirp without known flaws ({flaws})", why, "update libslirp, or use pasta", optional=True)
    if PASTA in host.programs:
        version = host_network.Asked(host.programs[PASTA]).answer()
        if pasta_date(version) < PASTA_SINCE:
            found = " ".join(version.split()[1:2]) or "of an unknown version"
            what = f"a pasta of {PASTA_SINCE} or later (this is {found})"
            yield Problem(
                what, "older ones have fewer options and report no errors", install(PASTA, "passt"), optional=True
            )


def _try_helper(name: str, host: HostNetwork, facts: Facts) -> str:
    """Start a helper for a network namespace; return why it fails, or nothing."""
    network = Network(name, "", host, Names((), (), (), ()))
    network.owned = True
    network.as_root = facts.uid == 0
    maps = IdMaps([(0, facts.uid, 1)], [(0, facts.gid, 1)], "", facts)
    operations = [
        Op(ops.SPAWN),
        *new_user(maps),
        Op(ops.BECOME, 0, 0),
        Op(ops.UNSHARE, CLONE_NEWNET),
        Op(ops.PASS_NAMESPACES),
        Op(ops.READY),
        Op(ops.WAIT_START),
    ]
    with tempfile.TemporaryDirectory() as path:
        directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            holder = NetnsHolder(operations)
            try:
                program = Program(helper(name, "", host), network, holder, directory)
                program.await_ready()
                program.kill()
            finally:
                holder.kill()
        except RootlessError as error:
            return "" if error.code == "RL-INIT" else error.cause
        finally:
            os.close(directory)
    return ""


def _open_tun(facts: Facts) -> None:
    become_ordinary(facts)
    os.close(os.open(host_network.TUN, os.O_RDWR))


def tun_fix(error: int) -> str:
    """Return the command that lets users open /dev/net/tun, now and after the next boot."""
    if error in (errno.EACCES, errno.EPERM):
        rule = 'KERNEL=="tun", MODE="0666"'
        return f"echo '{rule}' | sudo tee /etc/udev/rules.d/90-rootless.rules && sudo chmod 666 /dev/net/tun"
    return "echo tun | sudo tee /etc/modules-load.d/rootless.conf && sudo modprobe tun"


def _sockets(facts: Facts) -> Iterable[Problem]:
    def listen() -> None:
        become_ordinary(facts)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", LOW_PORT))

    def ping() -> None:
        become_ordinary(facts)
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()

    name = "net.ipv4.ip_unprivileged_port_start"
    if errno_in_child(listen) == errno.EACCES:
        yield Problem(
            f"permission for unprivileged users to listen on ports below {sysctl(name)} ({name})",
            f"rootless cannot publish container ports on them, such as {LOW_PORT}",
            set_sysctl(name, LOW_PORT),
            optional=True,
        )
    name = "net.ipv4.ping_group_range"
    if errno_in_child(ping) in (errno.EACCES, errno.EPERM):
        yield Problem(
            f"permission for unprivileged users to ping ({name} is {' '.join(sysctl(name).split())})",
            "ping in a container reaches only the container",
            set_sysctl(name, "0 2147483647"),
            optional=True,
        )
