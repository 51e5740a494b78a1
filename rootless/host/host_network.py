"""The host's network as far as containers depend on it: helpers, /dev/net/tun, resolv.conf, hosts."""

from __future__ import annotations

import errno
import posix
import select

from rootless import files, paths
from rootless.files import text_of
from rootless.host.subids import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAMS = ("slirp4netns", "pasta")
TUN = "/dev/net/tun"
_PATIENCE = 1000
"""Milliseconds after which a program that prints no version counts as hanging."""


class HostNetwork:
    """The host's network, as far as containers depend on it.

    Attributes:
        programs: the paths of installed helpers, by name.
        libslirp: the version of slirp4netns's library; read at its first use, which takes 4 ms.
        tun: why the caller cannot open /dev/net/tun; empty if it can. Read at its first use.
        tun_is_closed: the reason is that its permissions forbid it; comes with `tun`.
        resolver: the lines of the host's resolv.conf(5) without comments.
        hosts: the text of the host's hosts(5).
        ipv6: the host has IPv6.
        first_port: the lowest port that an ordinary user may listen on (ip_unprivileged_port_start in ip(7)).
    """

    def __init__(
        self,
        programs: dict[str, str],
        *,
        libslirp: str | None = None,
        tun: str | None = "",
        tun_is_closed: bool = False,
        resolver: Sequence[str] = (),
        hosts: str = "",
        ipv6: bool = True,
        first_port: int = 1024,
    ) -> None:
        self.programs = programs
        self._libslirp = libslirp
        self._asked: Asked | None = None
        self._tun = tun
        self.tun_is_closed = tun_is_closed
        self.resolver = resolver
        self.hosts = hosts
        self.ipv6 = ipv6
        self.first_port = first_port

    def ask_for_libslirp(self) -> None:
        """Start slirp4netns to read the version of libslirp later, so that other work can happen meanwhile."""
        if self._libslirp is None and not self._asked:
            self._asked = Asked(self.programs["slirp4netns"])

    @property
    def libslirp(self) -> str:
        """The version of libslirp; empty if slirp4netns does not print it."""
        if self._libslirp is None:
            self.ask_for_libslirp()
            lines = self._asked.answer().splitlines() if self._asked else ()
            versions = [line.partition(" ")[2].strip() for line in lines if line.startswith("libslirp:")]
            self._libslirp = versions[0] if versions else ""
        return self._libslirp

    def stop_asking(self) -> None:
        """End slirp4netns if it is still running and its version is not needed."""
        if self._asked:
            self._asked.end()

    @property
    def tun(self) -> str:
        """Why the caller cannot open /dev/net/tun; empty if it can."""
        if self._tun is None:
            self._tun, self.tun_is_closed = _tun()
        return self._tun

    def resolv_conf_entry(self, word: str) -> list[str]:
        """Return the values of all lines of resolv.conf(5) with a keyword: `nameserver`, `search` or `options`."""
        return [line.partition(" ")[2].strip() for line in self.resolver if line.partition(" ")[0] == word]


class Asked:
    """A program that runs with --version."""

    def __init__(self, program: str) -> None:
        """Start it."""
        paths.noted(paths.UNKNOWN, program)
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
        """Return its output; what it has printed if it hangs, and nothing if it cannot be executed."""
        output = b""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while poll.poll(_PATIENCE) and (part := posix.read(self._output, 4096)):
            output += part
        self.end()
        return output.decode("utf-8", "replace")

    def end(self) -> None:
        """Kill it if it is still running, and reap it."""
        files.close_fds(self, "_output")
        pid, self._pid = self._pid, 0
        if pid:
            posix.kill(pid, 9)
            posix.waitpid(pid, 0)


def read() -> HostNetwork:
    """Return the host's network. A file that cannot be read counts as missing."""
    found = {name: find_program(name) for name in _PROGRAMS}
    lines = [" ".join(line.split()) for line in text_of("/etc/resolv.conf").splitlines()]
    first_port = text_of("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return HostNetwork(
        {name: path for name, path in found.items() if path},
        tun=None,
        resolver=[line for line in lines if line and line[0] not in "#;"],
        hosts=text_of("/etc/hosts"),
        ipv6=text_of("/proc/sys/net/ipv6/conf/all/disable_ipv6") == "0",
        first_port=int(first_port) if first_port.isdigit() else 1024,
    )


def _tun() -> tuple[str, bool]:
    paths.noted(paths.UNKNOWN, TUN)
    try:
        posix.close(posix.open(TUN, posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        return f"{TUN}: {(error.strerror or str(error)).lower()}", error.errno in (errno.EACCES, errno.EPERM)
    return "", False
