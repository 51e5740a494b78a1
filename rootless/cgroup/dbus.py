"""As much of D-Bus as it takes to ask systemd for something (D-Bus specification, "Message Protocol").

It stands on the way to every container that has a scope: a library that does this well takes 30 ms to import, which is
more than all the rest takes together. The tests compare every byte with one.
"""

from __future__ import annotations

import _socket
from _struct import Struct, pack, unpack_from
from _struct import error as StructError  # type: ignore[attr-defined] # noqa: N812 - a class, in typeshed elsewhere
from sys import byteorder
from time import monotonic

from rootless.plan.cgroup.dbus_types import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

CALL = 1
RETURN = 2
ERROR = 3
SIGNAL = 4

PATH = 1
INTERFACE = 2
MEMBER = 3
ERROR_NAME = 4
REPLY_SERIAL = 5
DESTINATION = 6
SIGNATURE = 8

_TYPES = {PATH: "o", INTERFACE: "s", MEMBER: "s", DESTINATION: "s", SIGNATURE: "g"}
_FIXED = {
    "y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I",
}  # fmt: skip
"""Struct's letter for each type of a fixed size."""
_ALIGNMENT = {
    "y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "h": 4,
    "s": 4, "o": 4, "g": 1, "a": 4, "(": 8, "{": 8, "v": 1,
}  # fmt: skip
_NATIVE = "<" if byteorder == "little" else ">"
_HEAD = Struct("=BBBBIII")
"""Byte order, type, flags, version, length of the body, serial, length of the header fields."""
_ORDER = {ord("l"): "<", ord("B"): ">"}
_LARGEST = 1 << 24
"""Bytes of a message; the specification allows eight times that, systemd's answers have some hundred."""

SECONDS = 90.0
"""How long an answer may take: as long as systemd gives a unit to start."""
_SO_PEERCRED = 17


class DBusError(Exception):
    """An error that the other side has answered with.

    Attributes:
        name: its name, such as ``org.freedesktop.systemd1.UnitExists``.
        text: its message.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Message:
    """A message that has come.

    Attributes:
        kind: RETURN, ERROR or SIGNAL.
        fields: its header, by number.
        body: its values.
    """

    __slots__ = ("body", "fields", "kind")

    def __init__(self, kind: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.body = body


class Connection:
    """One connection to a bus, or to a service that has a socket of its own.

    Attributes:
        peer: process, user and group of who listens, as this process sees them; a process of 0 is in another pid
            namespace.
    """

    def __init__(self, path: str) -> None:
        """Connect.

        The other side learns the user id from the socket: in a user namespace this process knows a wrong one.

        Raises:
            OSError: there is no such socket, no process listens, or connecting is denied.
        """
        self._buffer = bytearray()
        self._serial = 0
        self._signals: list[Message] = []
        self._replies: dict[int, Message] = {}
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(SECONDS)
            self._socket.connect(path)
            self.peer: tuple[int, int, int] = unpack_from(
                "iII", self._socket.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12)
            )
            self._deadline = monotonic() + SECONDS
            self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
            # a message that came together with this would lie there until the next one: systemd waits for its socket
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, destination: str, path: str, interface: str, member: str, signature: str, *body: object) -> int:
        """Call a method and return the number that its reply will have."""
        self._serial += 1
        fields = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
        self._socket.sendall(message(CALL, self._serial, fields, signature, body))
        return self._serial

    def reply(self, serial: int) -> list[Any]:
        """Return what a method has returned.

        Raises:
            DBusError: it has failed.
            OSError: the connection is broken, or SECONDS have gone by.
        """
        while serial not in self._replies:
            self._take()
        reply = self._replies.pop(serial)
        if reply.kind == ERROR:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise DBusError(str(reply.fields.get(ERROR_NAME, "")), text)
        return reply.body

    def signal(self, wanted: Callable[[Message], bool]) -> Message:
        """Return the first signal that is wanted, of those that have come and those that come.

        Raises:
            OSError: the connection is broken, or SECONDS have gone by.
        """
        while True:
            for each in self._signals:
                if wanted(each):
                    self._signals.remove(each)
                    return each
            self._signals.clear()
            self._take()

    def _take(self) -> None:
        """Wait for one more message."""
        while not (end := _length(self._buffer)) or len(self._buffer) < end:
            self._read()
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        try:
            received = parse(whole)
        except (ValueError, KeyError, IndexError, StructError):
            raise OSError(0, "its answer is not D-Bus") from None
        if received.kind == SIGNAL:
            self._signals.append(received)
        elif received.kind in (RETURN, ERROR):
            self._replies[received.fields.get(REPLY_SERIAL, 0)] = received

    def _authenticate(self) -> None:
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                self._read()
                continue
            self._buffer = rest
            if line.startswith(b"OK "):
                return
            if line.strip() != b"DATA":
                raise PermissionError(0, f"it refuses the connection: {line.decode(errors='replace')}")

    def _read(self) -> None:
        self._socket.settimeout(max(self._deadline - monotonic(), 0.001))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise TimeoutError(0, f"no answer within {SECONDS:.0f} seconds") from None
        if not data:
            raise ConnectionResetError(0, "the connection has been closed")
        self._buffer += data


def message(kind: int, serial: int, fields: dict[int, str], signature: str, body: Sequence[object]) -> bytes:
    """Return a message as it is sent.

    Raises:
        StructError, TypeError: `body` is not what `signature` says.
    """
    data = bytearray()
    _append(data, f"({signature})" if signature else "()", body)
    if signature:
        fields = {**fields, SIGNATURE: signature}
    header = bytearray(_HEAD.pack(ord("l" if _NATIVE == "<" else "B"), kind, 0, 1, len(data), serial, 0))
    start = len(header)
    for number, value in fields.items():
        _append(header, "(yv)", (number, (_TYPES[number], value)))
    header[start - 4 : start] = pack("=I", len(header) - start)
    _pad(header, 8)
    return bytes(header + data)


def parse(data: bytes) -> Message:
    """Return the message that `data` is.

    Raises:
        ValueError, KeyError, IndexError, StructError: it is none.
    """
    order = _ORDER[data[0]]
    position = [12]
    fields: dict[int, Any] = dict(_take(data, position, "a(yv)", order))
    _skip(position, 8)
    signature = str(fields.get(SIGNATURE, ""))
    body = [_take(data, position, each, order) for each in types(signature)]
    return Message(data[1], fields, body)


def _length(buffer: bytearray) -> int:
    """Return the length of the message at the beginning of `buffer`; 0 while it is unknown."""
    if len(buffer) < _HEAD.size:
        return 0
    if buffer[0] not in _ORDER:
        raise OSError(0, "its answer is not D-Bus")
    (body, _, fields) = unpack_from(_ORDER[buffer[0]] + "III", buffer, 4)
    length = int(_HEAD.size + (fields + 7) // 8 * 8 + body)
    if length > _LARGEST:
        raise OSError(0, f"it sends a message of {length} bytes")
    return length


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-len(out) % alignment)


def _append(out: bytearray, signature: str, value: Any) -> None:  # noqa: ANN401 - its type is `signature`
    """Append a value of one complete type. What `out` begins with is aligned to eight bytes in the message."""
    letter = signature[0]
    _pad(out, _ALIGNMENT[letter])
    if letter in _FIXED:
        out += pack(_NATIVE + _FIXED[letter], value)
    elif letter in "so":
        text = value.encode()
        out += pack(_NATIVE + "I", len(text)) + text + b"\0"
    elif letter == "g":
        out += bytes((len(value),)) + value.encode() + b"\0"
    elif letter == "v":
        _append(out, "g", value[0])
        _append(out, *value)
    elif letter == "a":
        _append_array(out, signature[1:], value)
    else:
        kinds = types(signature[1:-1])
        if len(kinds) != len(value):
            raise TypeError(f"{len(value)} values for {signature}")
        for kind, each in zip(kinds, value, strict=True):
            _append(out, kind, each)


def _append_array(out: bytearray, element: str, value: Any) -> None:  # noqa: ANN401 - as its caller
    at = len(out)
    out += bytes(4)
    _pad(out, _ALIGNMENT[element[0]])
    start = len(out)
    if element == "y":
        out += bytes(value)
    else:
        for each in value.items() if element[0] == "{" else value:
            _append(out, element, each)
    out[at : at + 4] = pack(_NATIVE + "I", len(out) - start)


def _skip(position: list[int], alignment: int) -> None:
    position[0] += -position[0] % alignment


def _take(data: bytes, position: list[int], signature: str, order: str) -> Any:  # noqa: ANN401 - its type is `signature`
    """Return the value of one complete type at `position`, and go past it."""
    letter = signature[0]
    _skip(position, _ALIGNMENT[letter])
    if letter in _FIXED:
        code = order + _FIXED[letter]
        (value,) = unpack_from(code, data, position[0])
        position[0] += Struct(code).size
        return bool(value) if letter == "b" else value
    if letter in "sog":
        length = _take(data, position, "y" if letter == "g" else "u", order)
        start = position[0]
        position[0] += length + 1
        if position[0] > len(data):
            raise ValueError("a string that goes past the end")
        return data[start : start + length].decode(errors="replace")
    if letter == "v":
        (kind,) = types(_take(data, position, "g", order))
        return _take(data, position, kind, order)
    if letter == "a":
        length = _take(data, position, "u", order)
        _skip(position, _ALIGNMENT[signature[1]])
        end = position[0] + length
        if end > len(data):
            raise ValueError("an array that goes past the end")
        found = []
        while position[0] < end:
            found.append(_take(data, position, signature[1:], order))
        return dict(found) if signature[1] == "{" else found
    return tuple(_take(data, position, each, order) for each in types(signature[1:-1]))
