"""Have systemd write the ID maps of a new user namespace: systemd-nsresourced.service(8), varlink.org.

    launcher                                                   systemd-nsresourced
    AllocateUserRange, with the user namespace ──────────────▶ writes both maps
                  ◀─────────────────────────────────────────── {"parameters": …} or {"error": …, "parameters": …}

A message is a JSON object that ends with NUL. The range returns to systemd when the namespace ends: there is nothing
to undo. Only root can listen at the socket's path. Nevertheless the answer is bounded in time and size, its descriptors
are not received, and the maps are read from the kernel.
"""

from __future__ import annotations

import posix
from time import monotonic

from rootless import procfs
from rootless.errors import EXHAUSTED, RootlessError
from rootless.jsontext import parse, render
from rootless.launch.scm_rights import connect, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.idmaps import IdMaps

_INTERFACE = "io.systemd.NamespaceResource"
_PATIENCE = 25.0
"""Seconds until the answer is complete; systemd starts the service at the first connection."""
_LARGEST = 1 << 16
_SHOWN = 80
_RANDOM = 4
"""Bytes, because systemd wants a name that no other namespace has, of at most 11 characters after the user's ID."""
_SINGLE = "use --userns single"
_START = 'have an administrator run "systemctl enable --now systemd-nsresourced.socket"'
_REFUSALS = {
    f"{_INTERFACE}.UserNamespaceInterfaceNotSupported": (
        "the kernel does not let systemd restrict file systems (BPF LSM)",
        'have an administrator add "bpf" to lsm= on the kernel\'s command line, and install libbpf',
    ),
    f"{_INTERFACE}.DynamicRangeUnavailable": ("systemd has no IDs to give, as in a container", _SINGLE),
    f"{_INTERFACE}.NoDynamicRange": ("all of its ranges are in use", "end containers"),
    "io.systemd.InteractiveAuthenticationRequired": ("polkit asks for a password", _SINGLE),
    "org.varlink.service.PermissionDenied": ("polkit forbids it", _SINGLE),
}
"""What the errors of systemd mean, and the fixes; the cause of any other is its name."""


def allocate(pid: int, maps: IdMaps) -> None:
    """Have the IDs of the user namespace mapped that process `pid` has created.

    Raises:
        RootlessError: `RL-IDMAP-SYSTEMD`: systemd refuses, or gives no answer that makes sense.
    """
    namespace = posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        reply = _parsed(_call(maps, namespace))
    except OSError as error:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            raise _refused("it does not run", _START) from None
        if isinstance(error, TimeoutError | BlockingIOError):
            raise _refused("it does not answer") from None
        raise _refused((error.strerror or str(error)).lower(), EXHAUSTED.get(error.errno or 0, "")) from None
    finally:
        posix.close(namespace)
    if "error" in reply:
        raise _refused(*_REFUSALS.get(str(reply["error"]), (str(reply["error"])[:_SHOWN], "")))
    for wanted, written in zip((maps.uids, maps.gids), procfs.id_maps(pid), strict=True):
        if [(inside, count) for inside, _, count in wanted] != [(inside, count) for inside, _, count in written]:
            raise _refused("it reports success and has not written the maps")


def _call(maps: IdMaps, namespace: int) -> bytes:
    """Return the answer without its NUL.

    Raises:
        OSError: the connection fails, or the answer takes too long.
        RootlessError: `RL-IDMAP-SYSTEMD`: the answer is too long, or not complete.
    """
    first, _, count = maps.uids[0]
    parameters = {
        "name": f"rl{posix.urandom(_RANDOM).hex()}",
        "size": count,
        "target": first,
        "userNamespaceFileDescriptor": 0,
    }
    request = {"method": f"{_INTERFACE}.AllocateUserRange", "parameters": parameters}
    end = monotonic() + _PATIENCE
    connection = connect(maps.service, _PATIENCE)
    try:
        send(connection, render(request, None).encode() + b"\0", namespace)
        answer = b""
        while b"\0" not in answer:
            if len(answer) > _LARGEST:
                raise _refused("its answer is too long")
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            piece = connection.recv(_LARGEST)
            if not piece:
                raise _refused("it has closed the connection without an answer")
            answer += piece
        return answer.partition(b"\0")[0]
    finally:
        connection.close()


def _parsed(answer: bytes) -> dict[str, object]:
    try:
        reply = parse(answer, "answer")
    except RootlessError as error:
        raise _refused(f"its answer is not JSON: {error.cause}") from None
    if not isinstance(reply, dict):
        raise _refused("its answer is not an object")
    return reply


def _refused(cause: str, fix: str = "") -> RootlessError:
    return RootlessError(
        "systemd-nsresourced gives no IDs",
        cause=cause,
        fix=fix or f"read its log, as root: journalctl -u systemd-nsresourced, or {_SINGLE}",
        code="RL-IDMAP-SYSTEMD",
    )
