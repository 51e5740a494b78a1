"""Starting slirp4netns(1) and pasta(1), and knowing when they serve."""

from __future__ import annotations

import fcntl
import posix
import select

from rootless import files
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.init import SIGNALS
from rootless.plan.network_helpers import LINK, PASTA, SLIRP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.network.keeper import Keeper
    from rootless.plan.network import Network
    from rootless.plan.network_helpers import Helper
    from rootless.plan.ports import Port

SOCKET = "network.sock"
_PID_FILE = "network.pid"
_PATIENCE = 10_000
"""Milliseconds after which a helper that says nothing hangs; it is ready within a hundred."""
_TOLD = 400
_MOST_WORDS = 65536
"""Bytes of what a helper may say: a container can make it say a line for each packet."""
_CHATTER = ("WARNING: Support for", "child failed", "parent failed", "do_slirp", "sent tapfd", "received tapfd")
"""Lines of slirp4netns that tell no cause."""


class Program:
    """A helper that has been started.

    Attributes:
        helper: which.
        pid: its process; of pasta, which forks, once it is ready.
    """

    def __init__(self, helper: Helper, network: Network, keeper: Keeper, directory: str) -> None:
        """Start it; nothing is waited for.

        Args:
            helper: which.
            network: what it serves.
            keeper: by whom it finds the namespaces, and whose end ends it.
            directory: of the container, for what it listens on.

        Raises:
            RootlessError: `RL-NETWORK`: it cannot be executed.
        """
        self.helper = helper
        self._path = directory
        self._ready, ready = posix.pipe()
        # a descriptor of its own: whoever locks the directory holds the lock as long as theirs is open anywhere
        here = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        self._words = _bounded_file()
        passed = []
        if helper.name == SLIRP:
            words = _slirp(network, helper, keeper, ready, here)
            passed = [ready, keeper.end, here]
        else:
            words = _pasta(network, helper, keeper, directory)
        # slirp4netns may be another user inside, and we are to connect to its socket; the directory is for us alone
        umask = posix.umask(0)
        try:
            self._started = self.pid = posix.posix_spawn(
                helper.program,
                [helper.program, *words],
                {},
                file_actions=[
                    (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
                    (posix.POSIX_SPAWN_DUP2, self._words, 1),
                    (posix.POSIX_SPAWN_DUP2, self._words, 2),
                    *((posix.POSIX_SPAWN_DUP2, fd, fd) for fd in passed),
                ],
                setsid=True,  # what the caller's terminal sends is not for it
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except OSError as error:
            self._let_go()
            raise _failed(helper, (error.strerror or "").lower(), EXHAUSTED.get(error.errno or 0, "")) from None
        finally:
            posix.umask(umask)
            for fd in (ready, here):
                posix.close(fd)

    def _let_go(self) -> None:
        """Close what is of use until it is ready."""
        files.let_go(self, "_ready", "_words")

    def await_ready(self) -> None:
        """Return when it serves.

        Raises:
            RootlessError: `RL-NETWORK`: it has ended, or says nothing; it is gone.
        """
        process = posix.pidfd_open(self._started)
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if self.helper.name == SLIRP:  # pasta ends when its child serves
                poll.register(self._ready, select.POLLIN)
            ready = dict(poll.poll(_PATIENCE))
            if not ready:
                cause = f"it is not ready after {_PATIENCE // 1000} s"
            elif self.helper.name == SLIRP:
                cause = "" if self._ready in ready and posix.read(self._ready, 1) == b"1" else self._said()
            else:
                cause = "" if self._has_forked() else self._said()
            if cause:
                self.kill()
                raise _failed(self.helper, cause)
        finally:
            posix.close(process)
            self._let_go()

    def _has_forked(self) -> bool:
        """Whether pasta has gone into the background, which it does when it serves."""
        status = posix.waitpid(self._started, 0)[1]
        self._started = self.pid = 0
        if status:
            return False
        try:
            with open(f"{self._path}/{_PID_FILE}", "rb", buffering=0) as file:
                self.pid = int(file.read())
        except (OSError, ValueError):
            return False
        return True

    def publish(self, ports: Sequence[Port], addresses: Sequence[str]) -> None:
        """Lead ports of the host to the container; pasta has been told when it was started.

        Raises:
            RootlessError: `RL-PUBLISH`: one is refused.
        """
        if self.helper.name == SLIRP and ports:
            from rootless.network import backlog, hostfwd

            hostfwd.add(f"{self._path}/{SOCKET}", ports, addresses[0])
            backlog.lengthen(self.pid)
            posix.unlink(f"{self._path}/{SOCKET}")

    def kill(self) -> None:
        """End it and take its status."""
        self._let_go()
        for pid in {self._started, self.pid} - {0}:
            try:
                posix.kill(pid, 9)
                posix.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        self._started = self.pid = 0

    def _said(self) -> str:
        text = posix.pread(self._words, _MOST_WORDS, 0).rstrip(b"\0").decode("utf-8", "replace")
        told = text.partition("\nUsage:")[0]  # of a wrong option; what follows is long
        lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(_CHATTER)]
        return "; ".join(lines[-2:])[-_TOLD:] or "it ended without a word"


def _bounded_file() -> int:
    """Return a file in memory that does not grow beyond _MOST_WORDS."""
    fd = posix.memfd_create("rootless-network-log", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    posix.ftruncate(fd, _MOST_WORDS)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def _slirp(network: Network, helper: Helper, keeper: Keeper, ready: int, directory: int) -> list[str]:
    words = [*helper.arguments, "--enable-seccomp", f"--ready-fd={ready}", f"--exit-fd={keeper.end}"]
    if network.sandbox:
        words.append("--enable-sandbox")
    if helper.addresses:
        words.append("--configure")
    if network.ports or not helper.addresses:
        # by its descriptor: the path may be longer than the address of a socket
        words.append(f"--api-socket=/proc/self/fd/{directory}/{SOCKET}")
    return [*words, str(keeper.pid), LINK]


def _pasta(network: Network, helper: Helper, keeper: Keeper, path: str) -> list[str]:
    words = ["--config-net", "--quiet", *helper.arguments, f"--pid={path}/{_PID_FILE}"]
    for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
        specs = [
            f"{port.address}/{port.outside}:{port.inside}" if port.address else f"{port.outside}:{port.inside}"
            for port in network.ports
            if port.protocol == protocol
        ]
        if not specs and not any(word.startswith((flag, f"--{protocol}-ports")) for word in helper.arguments):
            specs = ["none"]
        for spec in specs:
            words += [flag, spec]
    if posix.geteuid() == 0:
        words += ["--runas", "0:0"]
    words += [f"--userns=/proc/{keeper.pid}/ns/user"] if network.owned else ["--netns-only"]
    return [*words, f"--netns=/proc/{keeper.pid}/ns/net"]


def _failed(helper: Helper, cause: str, fix: str = "") -> RootlessError:
    other = PASTA if helper.name == SLIRP else SLIRP
    return RootlessError(
        f"{helper.name} gives the container no network",
        cause=cause,
        fix=fix or f"try --network {other}, or --network none",
        code="RL-NETWORK",
    )
