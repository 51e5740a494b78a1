"""What there is on this host to give a container a network without root, and what the host resolves names with."""

from __future__ import annotations

import posix
import select

from rootless import files
from rootless.files import text_of
from rootless.host.subids import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAMS = ("slirp4netns", "pasta")
TUN = "/dev/net/tun"
_PATIENCE = 1000
"""Milliseconds after which a program that is asked for its version hangs."""


class HostNetwork:
    """The host's own network, as far as a container's depends on it.

    Attributes:
        programs: the path of each helper that is installed, by its name.
        libslirp: the version of the library that slirp4netns is made of; read when it matters, which takes 4 ms.
        tun: why the caller cannot make a link with /dev/net/tun; empty when that is possible.
        resolver: the lines of the host's resolv.conf(5), comments left out.
        hosts: the text of the host's hosts(5).
        ipv6: it has IPv6.
        first_port: the lowest port that an ordinary user may listen on, ip(7) ip_unprivileged_port_start.
    """

    def __init__(
        self,
        programs: dict[str, str],
        *,
        libslirp: str | None = None,
        tun: str = "",
        resolver: Sequence[str] = (),
        hosts: str = "",
        ipv6: bool = True,
        first_port: int = 1024,
    ) -> None:
        self.programs = programs
        self._libslirp = libslirp
        self._asked: Asked | None = None
        self.tun = tun
        self.resolver = resolver
        self.hosts = hosts
        self.ipv6 = ipv6
        self.first_port = first_port

    def ask_for_libslirp(self) -> None:
        """Begin to read the version of libslirp: who does something else meanwhile does not wait for it."""
        if self._libslirp is None and not self._asked:
            self._asked = Asked(self.programs["slirp4netns"])

    @property
    def libslirp(self) -> str:
        """The version of libslirp; empty where slirp4netns does not say."""
        if self._libslirp is None:
            self.ask_for_libslirp()
            lines = self._asked.answer().splitlines() if self._asked else ()
            versions = [line.partition(" ")[2].strip() for line in lines if line.startswith("libslirp:")]
            self._libslirp = versions[0] if versions else ""
        return self._libslirp

    def stop_asking(self) -> None:
        """End a question whose answer does not matter any more."""
        if self._asked:
            self._asked.end()

    def resolv_conf_entry(self, word: str) -> list[str]:
        """Return what follows a keyword of resolv.conf(5), a line each: `nameserver`, `search`, `options`."""
        return [line.partition(" ")[2].strip() for line in self.resolver if line.partition(" ")[0] == word]


class Asked:
    """A program that has been asked for its version."""

    def __init__(self, program: str) -> None:
        """Start it."""
        self._pid = 0
        self._output, output = posix.pipe()
        try:
            streams = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in (0, 2)]
            actions = [*streams, (posix.POSIX_SPAWN_DUP2, output, 1)]
            self._pid = posix.posix_spawn(program, [program, "--version"], {}, file_actions=actions)
        except OSError:
            return
        finally:
            posix.close(output)

    def answer(self) -> str:
        """Return what it says, once; nothing where it cannot be executed, or hangs."""
        output = b""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while poll.poll(_PATIENCE) and (part := posix.read(self._output, 4096)):
            output += part
        self.end()
        return output.decode("utf-8", "replace")

    def end(self) -> None:
        """End it, if it has not ended."""
        files.close_fds(self, "_output")
        pid, self._pid = self._pid, 0
        if pid:
            posix.kill(pid, 9)
            posix.waitpid(pid, 0)


def read() -> HostNetwork:
    """Look. What cannot be read is as if it were not there."""
    found = {name: find_program(name) for name in _PROGRAMS}
    lines = [" ".join(line.split()) for line in text_of("/etc/resolv.conf").splitlines()]
    first_port = text_of("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return HostNetwork(
        {name: path for name, path in found.items() if path},
        tun=_tun(),
        resolver=[line for line in lines if line and line[0] not in "#;"],
        hosts=text_of("/etc/hosts"),
        ipv6=text_of("/proc/sys/net/ipv6/conf/all/disable_ipv6") == "0",
        first_port=int(first_port) if first_port.isdigit() else 1024,
    )


def _tun() -> str:
    try:
        posix.close(posix.open(TUN, posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        return f"{TUN}: {(error.strerror or str(error)).lower()}"
    return ""
