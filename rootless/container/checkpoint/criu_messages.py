"""criu as a service on a socket (`criu swrk`): the only way in which it gives up the other side of a terminal.

    rootless                                      criu
    DUMP or RESTORE, with a file of options ────▶
              ◀────────────────────────────────── NOTIFY script, for orphan-pts-master with a descriptor
    NOTIFY, go on ──────────────────────────────▶
              ◀────────────────────────────────── DUMP or RESTORE, success, pid

The messages are those of criu's images/rpc.proto, in the encoding of protocol buffers: numbers of fields and values.
Only what has no place in a file of options (criu(8), "Configuration files") is in a message.
"""

from __future__ import annotations

import fcntl
import os
import socket

from rootless import files

DUMP = 1
RESTORE = 2
_NOTIFY = 6

# of criu_req and criu_resp
_TYPE = 1
_OPTIONS = 2
_NOTIFY_SUCCESS = 3
_SUCCESS = 2
_RESTORED = 4
# of criu_opts
IMAGES_FD = 1
PID = 2
LOG_LEVEL = 9
LOG_FILE = 10
_NOTIFY_SCRIPTS = 12
WORK_FD = 17
_SIBLING = 26
_ORPHAN_PTS_MASTER = 50
_OPTIONS_FILE = 51
# of criu_restore_resp
_RESTORED_PID = 1

_OUT_OF_THE_WAY = 16
"""Below are the numbers of descriptors that criu gets."""
_LARGEST = 65536
_OF_BYTES = 2
"""The kind of a field whose value is bytes that follow its length; the others here are numbers, of kind 0."""
_LONG = 7
"""How many bits of a number are in one byte of it."""

Fields = dict[int, "int | bytes"]


class Service:
    """One criu that is asked once.

    Attributes:
        theirs: the end of the connection that criu gets.
        master: the terminal's other side, once it has come, or -1; the caller closes it.
    """

    def __init__(self, number: int = -1) -> None:
        """Connect; `number` is what criu's end of the connection is to be, whatever else has that number."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with ours:
            self._ours = socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY))
        self.theirs = theirs.detach()
        if number not in (-1, self.theirs):
            os.dup2(self.theirs, number)
            files.close_fds(self, "theirs")
            self.theirs = number
        os.set_inheritable(self.theirs, True)  # noqa: FBT003 - the signature of the standard library
        self.master = -1

    def ask(self, kind: int, options: Fields, lines: str) -> int:
        """Have criu dump or restore; return the pid of what it has restored, and -1 where it fails.

        Args:
            kind: DUMP or RESTORE.
            options: fields of criu_opts.
            lines: the file of options.
        """
        files.close_fds(self, "theirs")
        with open(os.memfd_create("criu-options", os.MFD_CLOEXEC), "wb") as file:
            file.write(lines.encode("utf-8", "surrogateescape"))
            file.flush()
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}".encode()
            more: Fields = {_NOTIFY_SCRIPTS: 1, _SIBLING: 1} if kind == RESTORE else {}
            more |= {_ORPHAN_PTS_MASTER: 1, _OPTIONS_FILE: path}
            return self._talk({_TYPE: kind, _OPTIONS: encoded(options | more)})

    def close(self) -> None:
        """Close what is open."""
        self._ours.close()
        files.close_fds(self, "theirs")

    def _talk(self, message: Fields) -> int:
        try:
            self._ours.send(encoded(message))
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._ours, _LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
                answer = decoded(data)
                if descriptors:
                    self.master = descriptors[0]
                if answer.get(_TYPE) != _NOTIFY:
                    restored = decoded(_bytes(answer.get(_RESTORED))).get(_RESTORED_PID, 0)
                    return restored if answer.get(_SUCCESS) and isinstance(restored, int) else -1
                self._ours.send(encoded({_TYPE: _NOTIFY, _NOTIFY_SUCCESS: 1}))
        except (BrokenPipeError, ConnectionResetError):
            return -1


def encoded(fields: Fields) -> bytes:
    """Return a message of these fields."""
    found = b""
    for number, value in fields.items():
        if isinstance(value, int):
            found += _varint(number << 3) + _varint(value)
        else:
            found += _varint(number << 3 | _OF_BYTES) + _varint(len(value)) + value
    return found


def decoded(data: bytes) -> Fields:
    """Return the fields of a message; those that are neither numbers nor bytes do not come from criu."""
    fields: Fields = {}
    rest = memoryview(data)
    while rest:
        tag, rest = _number(rest)
        value, rest = _number(rest)
        if tag & 7 == _OF_BYTES:
            fields[tag >> 3], rest = bytes(rest[:value]), rest[value:]
        else:
            fields[tag >> 3] = value
    return fields


def options_text(words: list[str]) -> str:
    """Return a command line of options as a file of options has them: one in a line, its argument in quotes."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--"):
            lines.append(word.removeprefix("--"))
        else:
            lines[-1] += ' "' + word.replace('"', '\\"') + '"'
    return "".join(f"{line}\n" for line in lines)


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >> _LONG:
        found.append(value & 0x7F | 0x80)
        value >>= _LONG
    return bytes([*found, value])


def _number(data: memoryview) -> tuple[int, memoryview]:
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << index * _LONG
        if not byte & 0x80:
            return value, data[index + 1 :]
    return value, data[:0]
