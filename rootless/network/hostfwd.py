"""Published ports of slirp4netns, by its API socket, which knows IPv4 only: slirp4netns(1) "API SOCKET"."""

from __future__ import annotations

from rootless.bundle import jsontext
from rootless.errors import RootlessError
from rootless.launch.sockets import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.ports import Port

_LONGEST_ANSWER = 65536


def add(socket: str, ports: Sequence[Port], address: str) -> list[int]:
    """Lead ports of the host to a container; return the numbers by which remove() takes them back.

    Args:
        socket: the path of the API socket.
        ports: what to publish: all of them, or none when one is refused.
        address: the container's.

    Raises:
        RootlessError: `RL-PUBLISH`: slirp4netns or the kernel says no.
    """
    numbers: list[int] = []
    try:
        for port in ports:
            arguments = {
                "proto": port.protocol,
                "host_addr": port.address or "0.0.0.0",  # noqa: S104 - every address was asked for
                "host_port": port.outside,
                "guest_addr": address,
                "guest_port": port.inside,
            }
            numbers.append(int(_call(socket, "add_hostfwd", arguments, str(port))["id"]))
    except BaseException:
        remove(socket, numbers)
        raise
    return numbers


def remove(socket: str, numbers: Sequence[int]) -> None:
    """Take ports back.

    Raises:
        RootlessError: `RL-PUBLISH`: slirp4netns says no.
    """
    for number in numbers:
        _call(socket, "remove_hostfwd", {"id": number}, str(number))


def _call(socket: str, command: str, arguments: dict[str, object], what: str) -> dict[str, int]:
    text = jsontext.render({"execute": command, "arguments": arguments}, None)
    try:
        connection = connect(socket)
        connection.sendall(text.encode())
        connection.shutdown(1)  # SHUT_WR: the request is whole
        answer = b""
        while part := connection.recv(_LONGEST_ANSWER):
            answer += part
        connection.close()
    except OSError as error:
        raise _refused(what, (error.strerror or str(error)).lower()) from None
    reply = jsontext.parse(answer, socket)
    returned = reply.get("return") if isinstance(reply, dict) else None
    if not isinstance(returned, dict):
        said = reply.get("error") if isinstance(reply, dict) else None
        raise _refused(what, str(said.get("desc", "")) if isinstance(said, dict) else "it cannot be understood")
    return returned


def _refused(what: str, cause: str) -> RootlessError:
    return RootlessError(
        f"cannot publish {what}",
        cause=f"slirp4netns: {cause}",
        fix="use a port that nothing listens on, or --network pasta",
        code="RL-PUBLISH",
    )
