"""Checks of this host for container networks: they start the helpers and open sockets as for a container."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

from rootless.doctor.problem import OPTIONAL, Check, Condition, advice, device_fix, install, set_sysctl, sysctl
from rootless.doctor.trial import PATIENCE, become_ordinary, errno_in_child
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

    from rootless.doctor.problem import Host, Problem
    from rootless.host.facts import Facts
    from rootless.host.host_network import HostNetwork

_LONGEST_VERSION = 4096
LOW_PORT = 80
"""A privileged port that people want to publish."""
_LOOPBACK = "a container with its own network namespace has only its loopback"
HELPER = Condition("RL-HOST-NETWORK", "pasta or slirp4netns", _LOOPBACK)
OTHER = Condition(
    "RL-HOST-NETWORK-BOTH",
    "both pasta and slirp4netns",
    "without slirp4netns, networks that containers share have no connection to the outside; without pasta, --network "
    "auto falls back to slirp4netns, unless its libslirp has known flaws, and ports are on IPv4 only",
    OPTIONAL,
)
TUN = Condition("RL-HOST-TUN", f"access to {host_network.TUN}", _LOOPBACK)
BROKEN = Condition("RL-HOST-NETWORK-BROKEN", "a working network helper", _LOOPBACK)
LIBSLIRP = Condition(
    "RL-HOST-LIBSLIRP",
    "a libslirp without known flaws",
    "a hostile container can attack slirp4netns: with --network slirp4netns, and on a shared network",
    OPTIONAL,
)
PASTA_AGE = Condition(
    "RL-HOST-PASTA",
    f"a pasta of {PASTA_SINCE} or later",
    "older ones have fewer options and report no errors",
    OPTIONAL,
)
PORTS = Condition(
    "RL-HOST-PORTS",
    "permission for unprivileged users to listen on low ports",
    f"rootless cannot publish container ports on them, such as {LOW_PORT}",
    OPTIONAL,
)
PING = Condition(
    "RL-HOST-PING",
    "permission for unprivileged users to ping",
    "ping in a container reaches only the container",
    OPTIONAL,
)


def helpers(host: Host) -> Iterable[Problem]:
    """Yield why the helpers do not serve a network namespace."""
    facts, found = host.facts, host.facts.network
    assert found
    if not found.programs:
        yield HELPER.found("neither is in a directory of PATH", install(PASTA, "passt"))
        return
    if error := errno_in_child(lambda: _open_tun(facts)):
        yield TUN.found(f"open: {os.strerror(error)}", device_fix("tun", host_network.TUN, error))
        return
    for name, path in found.programs.items():
        refusal = _try_helper(name, found, facts)
        if refusal:
            yield BROKEN.found(f"{path}: {refusal}", install(name, PACKAGES[name]))
    if len(found.programs) == 1:
        (other,) = {SLIRP, PASTA} - set(found.programs)
        yield OTHER.found(f"{other} is in no directory of PATH", install(other, PACKAGES[other]))


def versions(host: Host) -> Iterable[Problem]:
    """Yield known flaws of the installed versions of the helpers."""
    found = host.facts.network
    assert found
    if SLIRP in found.programs and (flaws := libslirp_flaws(found.libslirp)):
        yield LIBSLIRP.found(flaws, advice("update libslirp, or use pasta"))
    if PASTA in found.programs:
        version = _version(found.programs[PASTA])
        if pasta_date(version) < PASTA_SINCE:
            evidence = f"this is {' '.join(version.split()[1:2]) or 'of an unknown version'}"
            yield PASTA_AGE.found(evidence, install(PASTA, "passt"))


def _version(program: str) -> str:
    """Return what a program prints for --version, on a terminal: a pasta of 2025 flushes nothing to a pipe."""
    try:
        terminal, output = os.openpty()
    except OSError:
        return ""
    null = subprocess.DEVNULL
    with open(terminal, "rb", buffering=0) as reader, open(output, "wb", buffering=0) as writer:
        words = [program, "--version"]
        try:
            subprocess.run(words, stdin=null, stdout=writer, stderr=null, check=False, timeout=PATIENCE / 1000)
            os.set_blocking(terminal, False)
            return (reader.read(_LONGEST_VERSION) or b"").decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired):
            return ""


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
                program.await_ready(PATIENCE)
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


def ports(host: Host) -> Iterable[Problem]:
    """Yield why a low port cannot be published."""

    def listen() -> None:
        become_ordinary(host.facts)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", LOW_PORT))

    name = "net.ipv4.ip_unprivileged_port_start"
    if (error := errno_in_child(listen)) == errno.EACCES:
        evidence = f"bind to port {LOW_PORT}: {os.strerror(error)}, and {name} is {sysctl(name)}"
        yield PORTS.found(evidence, set_sysctl(name, LOW_PORT))


def ping(host: Host) -> Iterable[Problem]:
    """Yield why no ICMP socket can be opened."""

    def open_socket() -> None:
        become_ordinary(host.facts)
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()

    name = "net.ipv4.ping_group_range"
    if (error := errno_in_child(open_socket)) in (errno.EACCES, errno.EPERM):
        evidence = f"an ICMP socket: {os.strerror(error)}, and {name} is {' '.join(sysctl(name).split())}"
        yield PING.found(evidence, set_sysctl(name, "0 2147483647"))


CHECKS = (
    Check(
        "network helpers",
        "started each for a network namespace",
        helpers,
        (HELPER, TUN, BROKEN, OTHER),
        contained=True,
    ),
    Check("versions of network helpers", "compared with known flaws", versions, (LIBSLIRP, PASTA_AGE)),
    Check("low ports", f"listened on {LOW_PORT}", ports, (PORTS,)),
    Check("ping", "opened an ICMP socket", ping, (PING,)),
)
