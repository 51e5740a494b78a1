"""Network helpers that misbehave: programs of the tests play them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from rootless.errors import RootlessError
from rootless.launch import spawn
from rootless.network import backlog, hostfwd, hostports, programs
from rootless.plan.network.helpers import Helper
from rootless.plan.network.ports import Port

NETWORK = SimpleNamespace(
    ports=(), sandbox=True, owned=True, as_root=False, by_number=False, hides=lambda _: True, exposed=False
)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a shell script as a helper."""

    def start_program(name, script):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return programs.Program(Helper(name, str(program), []), NETWORK, holder, directory)

    watched, end = os.pipe()
    directory = os.open(tmp_path, os.O_PATH)
    holder = SimpleNamespace(pid=os.getpid(), end=watched, namespaces=SimpleNamespace(user=watched, network=watched))
    yield start_program
    for fd in (watched, end, directory):
        os.close(fd)


@pytest.mark.parametrize("name", ["slirp4netns", "pasta"])
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("exec sleep 1000", "it is not ready after 0 s"),
        ("echo first >&2; echo no such thing >&2; exit 1", "first; no such thing"),
        ("exit 1", "it exited and reported no error"),
        ("kill -KILL $$", "it exited and reported no error"),
    ],
)
def test_a_helper_that_does_not_serve_is_ended_and_its_last_words_are_reported(start, monkeypatch, name, script, cause):
    monkeypatch.setattr(programs, "_PATIENCE", 900 if "sleep" in script else 20_000)
    program = start(name, script)
    started = program.pid
    with pytest.raises(RootlessError) as caught:
        program.await_ready()
    assert (caught.value.code, caught.value.cause) == ("RL-NETWORK", cause)
    with pytest.raises(ChildProcessError):
        os.waitpid(started, os.WNOHANG)


def test_output_of_a_helper_is_bounded(start, monkeypatch):
    """A container can make slirp4netns print a line for each packet, by setting its interface down."""
    monkeypatch.setattr(programs, "_PATIENCE", 20_000)
    program = start("slirp4netns", "echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo last; exit 1")
    with pytest.raises(RootlessError) as caught:
        program.await_ready()
    assert caught.value.cause.endswith("x" * 100)
    words = spawn.bounded_file("log", programs._MOST_WORDS)
    assert os.write(words, b"x" * 65536) == 65536
    with pytest.raises(PermissionError):
        os.write(words, b"x")
    os.close(words)


def test_a_helper_that_cannot_be_executed(tmp_path):
    with open(os.devnull, "rb") as null:
        namespaces = SimpleNamespace(user=null.fileno(), network=null.fileno())
        holder = SimpleNamespace(pid=1, end=null.fileno(), namespaces=namespaces)
        with pytest.raises(RootlessError) as caught:
            programs.Program(Helper("pasta", str(tmp_path), []), NETWORK, holder, -1)
    assert (caught.value.code, caught.value.cause) == ("RL-NETWORK", "permission denied")


@pytest.fixture
def slirp(tmp_path):
    """Return a function that makes a socket that answers requests with these texts; it returns the requests."""

    def listen(*answers):
        def serve():
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    asked.append(json.loads(connection.makefile("rb").read()))
                    connection.sendall(answer)

        server.append(threading.Thread(target=serve))
        server[0].start()
        return asked

    asked, server = [], []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        yield listen
        for thread in server:
            thread.join()


ENTRIES = (
    b'{"entries": [{"id": 1, "guest_addr": "10.89.0.4"}, {"id": 2, "guest_addr": "10.89.0.5"}, '
    b'{"id": 3, "guest_addr": "10.89.0.6"}]}'
)


@pytest.mark.parametrize("answer", [ENTRIES, b'{"return": ' + ENTRIES + b"}"])
def test_only_ports_of_members_are_kept(slirp, tmp_path, answer):
    asked = slirp(answer, b'{"return": {}}', b'{"return": {}}')
    hostfwd.keep_only(str(tmp_path / "socket"), {"10.89.0.5"})
    assert [(each["execute"], each["arguments"]) for each in asked[1:]] == [
        ("remove_hostfwd", {"id": 1}),
        ("remove_hostfwd", {"id": 3}),
    ]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b'{"error": {"desc": "bad request: add_hostfwd"}}', "slirp4netns: bad request: add_hostfwd"),
        (b'{"error": 1}', "slirp4netns: its answer cannot be understood"),
        (b"", "slirp4netns: its answer cannot be understood"),
        (b"[]", "slirp4netns: its answer cannot be understood"),
    ],
)
def test_a_port_that_slirp4netns_refuses(slirp, tmp_path, answer, cause):
    (asked,) = [slirp(answer)]
    with pytest.raises(RootlessError) as caught:
        hostfwd.add(str(tmp_path / "socket"), [Port("tcp", "", 8080, 80)], "10.0.2.100")
    assert (caught.value.code, caught.value.cause) == ("RL-PUBLISH", cause)
    assert asked[0]["arguments"] == {
        "proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080, "guest_addr": "10.0.2.100", "guest_port": 80,
    }  # fmt: skip


def test_ended_slirp4netns_has_no_ports(tmp_path):
    hostfwd.keep_only(str(tmp_path / "socket"), ())
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        hostfwd.keep_only(str(tmp_path / "socket"), ())


def test_backlog_of_another_process_is_raised(need):
    """libslirp calls listen(2) with 1."""
    source = """
import socket
listening = socket.create_server(("127.0.0.1", 0), backlog=1)
print(listening.getsockname()[1], flush=True)
input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", source], **pipes) as process:
        port = int(process.stdout.readline())
        assert waiting(need, port) == 1
        backlog.lengthen(process.pid)
        assert waiting(need, port) >= 128
        process.communicate("\n")
    backlog.lengthen(process.pid)  # the process has ended, and nothing happens


def waiting(need, port):
    """Return the number of connections that may wait on a port."""
    shown = subprocess.run([need("ss"), "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True)
    return int(shown.stdout.split()[2])


def reserve(*ports, first_port=1024):
    with pytest.raises(RootlessError) as caught:
        hostports.reserve(ports, first_port, lambda _: "")
    assert caught.value.code == "RL-PUBLISH"
    return caught.value


@pytest.mark.parametrize("number", [0, 8080])
def test_address_missing_on_the_host_is_reported(number):
    error = reserve(Port("tcp", "192.0.2.77", number, 80))
    assert error.cause == "the host has no address 192.0.2.77"


@pytest.mark.parametrize(
    ("outside", "first_port", "free"), [(80, 1024, 8080), (80, 10_000, 10_000), (60_000, 61_000, 61_000)]
)
def test_privileged_port_comes_with_an_unprivileged_alternative(monkeypatch, outside, first_port, free):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hostports, "_bind", refuse)
    assert reserve(Port("tcp", "", outside, 80), first_port=first_port).fix.startswith(f"use port {free}, or ")
