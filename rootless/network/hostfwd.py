"""Published ports of slirp4netns, by its API socket, which knows IPv4 only: slirp4netns(1) "API SOCKET"."""

from __future__ import annotations

from rootless import jsontext
from rootless.errors import RootlessError
from rootless.launch.scm_rights import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from rootless.plan.network.ports import Port

_OUTSIDE = ("proto", "host_addr", "host_port")
_LONGEST_ANSWER = 65536
_PATIENCE = 10
"""Seconds of silence after which it hangs."""


def published(socket: str) -> set[tuple[object, ...]]:
    """Return the published ports, as listening() returns each.

    Raises:
        OSError: slirp4netns refuses to tell.
    """
    entries = _call(socket, "list_hostfwd", {}).get("entries", ())
    return {tuple([each[key] for key in _OUTSIDE]) for each in entries}


def listening(port: Port) -> tuple[object, ...]:
    """Return the protocol, address and number of a published port on the host."""
    return port.protocol, port.address or "0.0.0.0", port.outside  # noqa: S104 - every address was asked for


def add(socket: str, ports: Sequence[Port], address: str) -> None:
    """Publish container ports on the host.

    Args:
        socket: the path of the API socket.
        ports: what to publish.
        address: the container's.

    Raises:
        RootlessError: `RL-PUBLISH`: slirp4netns or the kernel refuses one; keep_only() unpublishes the others.
    """
    for port in ports:
        outside = dict(zip(_OUTSIDE, listening(port), strict=True))
        arguments = outside | {"guest_addr": address, "guest_port": port.inside}
        try:
            _call(socket, "add_hostfwd", arguments)
        except OSError as error:
            raise RootlessError(
                f"cannot publish {port}",
                cause=f"slirp4netns: {(error.strerror or str(error)).lower()}",
                fix="use a port that nothing listens on, or --network pasta",
                code="RL-PUBLISH",
            ) from None


def keep_only(socket: str, addresses: Collection[str]) -> None:
    """Unpublish the ports of other addresses than these: of containers that have ended.

    Raises:
        OSError: slirp4netns refuses it.
    """
    try:
        for entry in _call(socket, "list_hostfwd", {}).get("entries", ()):
            if entry["guest_addr"] not in addresses:
                _call(socket, "remove_hostfwd", {"id": entry["id"]})
    except (ConnectionError, FileNotFoundError):
        return  # it has ended, and its ports with it


def _call(socket: str, command: str, arguments: dict[str, object]) -> dict[str, Any]:
    text = jsontext.render({"execute": command, "arguments": arguments}, None)
    connection = connect(socket)
    connection.settimeout(_PATIENCE)
    try:
        connection.sendall(text.encode())
        connection.shutdown(1)  # SHUT_WR: the request is whole
        answer = b""
        while part := connection.recv(_LONGEST_ANSWER):
            answer += part
    finally:
        connection.close()
    try:
        reply = jsontext.parse(answer, socket)
    except RootlessError:
        reply = None
    if not isinstance(reply, dict) or "error" in reply:
        error = reply["error"] if isinstance(reply, dict) else None
        raise OSError(str(error.get("desc", "")) if isinstance(error, dict) else "its answer cannot be understood")
    returned = reply.get("return", reply)  # list_hostfwd answers without that word
    return returned if isinstance(returned, dict) else {}
