"""A stand-in for systemd-nsresourced, which needs systemd and BPF: it grants, refuses, lies or stays silent.

    python3 nsresourced.py SOCKET ANSWER

Run as root. It listens at SOCKET and answers every call of AllocateUserRange. tests/system uses the real service.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import sys
import time

START = 0x7000_0000
"""The first of the IDs that it gives."""
CLONE_NEWUSER = 0x1000_0000
NAME = "io.systemd.NamespaceResource"
SILENT, SLOW, FLOOD, CLOSED = "silent", "slow", "flood", "closed"
LIE, DESCRIPTORS, GRANT = "lie", "descriptors", "grant"
SUCCESS = b'{"parameters": {}}\0'
TEXTS = {
    LIE: SUCCESS,
    CLOSED: b"",
    "text": b"no JSON\0",
    "array": b"[]\0",
    "twice": b'{"error": "a", "error": "b"}\0',
    "deep": b"[" * 60000 + b"\0",
}


def write_maps(namespace):
    """Map 65536 IDs, by a process that joins the namespace."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        assert ctypes.CDLL(None).setns(namespace, CLONE_NEWUSER) == 0
        os.write(theirs, b"joined")
        time.sleep(600)
    assert os.read(ours, 6) == b"joined"
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
            file.write(f"0 {START} 65536\n")
    os.kill(child, 9)
    os.waitpid(child, 0)


def grant(connection, namespace):
    """Do as systemd does."""
    write_maps(namespace)
    connection.sendall(SUCCESS)


def grant_with_descriptors(connection, namespace):
    """Send many descriptors along."""
    write_maps(namespace)
    connection.sendmsg([SUCCESS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 200))])


def send_for_ever(connection, blanks, pause):
    """Send an answer that does not end."""
    while True:
        connection.sendall(b" " * blanks)
        time.sleep(pause)


ANSWERS = {
    GRANT: grant,
    DESCRIPTORS: grant_with_descriptors,
    SILENT: lambda connection, _: connection.recv(1),
    SLOW: lambda connection, _: send_for_ever(connection, 1, 0.01),
    FLOOD: lambda connection, _: send_for_ever(connection, 65536, 0),
}
"""By kind; any other is one of TEXTS or the name of an error."""


def answer(connection, kind):
    """Read one call, and answer it."""
    data, (namespace,), *_ = socket.recv_fds(connection, 4096, 1)
    call = json.loads(data.removesuffix(b"\0"))
    assert call.pop("method") == f"{NAME}.AllocateUserRange"
    assert call["parameters"].pop("name").isalnum()
    assert call == {"parameters": {"size": 65536, "target": 0, "userNamespaceFileDescriptor": 0}}
    if kind in ANSWERS:
        ANSWERS[kind](connection, namespace)
    else:
        error = json.dumps({"error": kind, "parameters": {}}).encode() + b"\0"
        connection.sendall(TEXTS.get(kind, error))


def serve(path, kind):
    """Serve until killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen()
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                answer(connection, kind)
            except ConnectionError:
                continue


if __name__ == "__main__":
    serve(*sys.argv[1:])
