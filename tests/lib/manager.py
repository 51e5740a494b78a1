"""A systemd manager that gives the answers of a test; jeepney encodes its messages."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import jeepney
from jeepney.low_level import HeaderFields, MessageType, Parser

JOB = "/org/freedesktop/systemd1/job/1"


class Manager(threading.Thread):
    """A listener on the manager's socket in a runtime directory, for one connection.

    Attributes:
        heard: the received calls: (method, arguments).
    """

    def __init__(self, directory: Path, answers, *, owner: int | None = None) -> None:
        """Listen in a thread.

        Args:
            directory: the runtime directory.
            answers: functions that return the messages to send after each call, given its serial number.
            owner: the uid of the manager; by default that of the tests.
        """
        super().__init__(daemon=True)
        self._path = directory / "systemd/private"
        self._socket = socket.socket(socket.AF_UNIX)
        self._answers = answers
        self.heard = []
        caller = os.geteuid()
        os.seteuid(caller if owner is None else owner)
        try:
            self._path.parent.mkdir()
            self._socket.bind(str(self._path))
            self._socket.listen()
        finally:
            os.seteuid(caller)

    def run(self) -> None:
        heard = b""
        while not heard:  # a connection without a call only checks that the manager runs
            try:
                connection, _ = self._socket.accept()
            except OSError:  # no connection
                return
            with connection:
                if heard := connection.recv(4096):
                    self._socket.shutdown(socket.SHUT_RDWR)  # the client has closed the connection
                    self._talk(connection, heard)

    def _talk(self, connection: socket.socket, heard: bytes) -> None:
        while not heard.endswith(b"BEGIN\r\n"):
            if not (data := connection.recv(4096)):
                return
            heard += data
        connection.sendall(b"DATA\r\nOK 0123\r\n")
        parser = Parser()
        for answer in self._answers:
            while not (message := parser.get_next_message()):
                if not (data := connection.recv(65536)):
                    return
                parser.add_data(data)
            self.heard.append((message.header.fields[HeaderFields.member], message.body))
            for each in answer(message.header.serial):
                connection.sendall(each)

    def close(self) -> None:
        """Stop, and remove the socket."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._socket.close()
        self._path.unlink()
        self._path.parent.rmdir()


def reply(serial, signature="", body=()):
    """Return the answer to a call."""
    made = jeepney.Message(jeepney.Header(jeepney.Endianness.little, MessageType.method_return, 0, 1, 0, 5,
                                          {HeaderFields.reply_serial: serial}), ())  # fmt: skip
    if signature:
        made.header.fields[HeaderFields.signature] = signature
        made.body = body
    return made.serialise()


def failure(serial, name, text):
    """Return the answer to a call that fails."""
    made = jeepney.Message(jeepney.Header(jeepney.Endianness.little, MessageType.error, 0, 1, 0, 6,
                                          {HeaderFields.reply_serial: serial, HeaderFields.error_name: name,
                                           HeaderFields.signature: "s"}), (text,))  # fmt: skip
    return made.serialise()


def removed(job, outcome):
    """Return the signal for the end of a job."""
    made = jeepney.new_signal(
        jeepney.DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager"),
        "JobRemoved", "uoss", (1, job, "x.scope", outcome),
    )  # fmt: skip
    return made.serialise(serial=9)
