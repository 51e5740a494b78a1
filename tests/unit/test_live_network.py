"""A live shared network: its directory, and slirp4netns behind its socket."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading

import pytest

from rootless.container.network import reload
from rootless.container.network.shared_state import SharedNetwork, publish_missing
from rootless.container.operations import undo
from rootless.container.state import shared_directory, store
from rootless.container.state.root import StateRoot
from rootless.errors import RootlessError
from rootless.network import hostfwd
from rootless.options import Options
from rootless.plan.network.helpers import API_SOCKET
from rootless.plan.network.ports import Port
from rootless.procfs import identity

pytestmark = pytest.mark.usefixtures("closed")


def test_directory_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    (tmp_path / "@networks").mkdir()
    make, made = shared_directory.make, []

    def make_and_lose(name, above):
        make(name, above)
        if name == "backend":
            made.append(name)
            if len(made) == 1:
                os.rmdir(name, dir_fd=above)

    monkeypatch.setattr(shared_directory, "make", make_and_lose)
    with SharedNetwork.opened(StateRoot(str(tmp_path)), "backend") as live:
        assert os.path.samestat(os.stat(live.path), os.fstat(live.fd))
    assert len(made) == 2


def test_directory_removed_meanwhile_stays_removed(tmp_path, monkeypatch):
    """A container that joins makes it, and nobody who only looks."""
    root, directory, flock = StateRoot(str(tmp_path)), tmp_path / "@networks/backend", fcntl.flock

    def wait(fd, operation):
        flock(fd, operation)
        directory.rmdir()

    directory.mkdir(parents=True)
    monkeypatch.setattr(shared_directory.fcntl, "flock", wait)
    assert SharedNetwork.existing(root, "backend") is None
    assert SharedNetwork.existing(root, "another") is None
    monkeypatch.setattr(SharedNetwork, "names", lambda _root: ["backend"])
    assert list(reload.reload(Options(root=str(tmp_path)))) == []
    assert list(directory.parent.iterdir()) == []


def test_state_of_another_boot_or_shape_is_not_used(tmp_path):
    directory = tmp_path / "@networks/backend"
    directory.mkdir(parents=True)
    for text in ("", "[]", "{", '{"bootId": "another", "members": {"c1": {"number": 4}}}'):
        (directory / "state.json").write_text(text)
        with SharedNetwork.opened(StateRoot(str(tmp_path)), "backend") as live:
            assert (live.members, live.linked()) == ({}, set())


def test_state_is_not_read_through_a_symlink(tmp_path):
    directory = tmp_path / "@networks/backend"
    directory.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("{}")
    (directory / "state.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RootlessError) as caught:
        SharedNetwork.opened(StateRoot(str(tmp_path)), "backend")
    assert (caught.value.what, caught.value.code) == ("cannot use the network backend", "RL-NETWORK")


def test_container_is_deleted_even_if_its_network_cannot_be_left(tmp_path, capfd):
    (tmp_path / "@networks").mkdir()
    (tmp_path / "@networks/backend").write_text("no directory")
    with store.claim(StateRoot(str(tmp_path)), "c1", undo.clear) as entry:
        undo.note(entry, "network", {"wait": False, "shared": "backend"})
        undo.remove(entry)
    assert "cannot use the network backend" in capfd.readouterr().err


def test_helper_is_asked_once_for_the_ports_of_all_members(tmp_path):
    asked = []

    def serve():
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                asked.append(json.loads(connection.makefile("rb").read()))
                connection.sendall(b'{"entries": [{"proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8081}]}')

    with SharedNetwork.opened(StateRoot(str(tmp_path)), "backend") as live, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{live.path}/{API_SOCKET}")
        listening.listen()
        live.state["helper"] = identity(os.getpid())
        for number in (1, 2, 3):
            port = Port("tcp", "", 8079 + number, 80)
            live.members[f"c{number}"] = {"addresses": [f"10.89.0.{number}"], "ports": [port.as_data()] * (number < 3)}
        serving = threading.Thread(target=serve)
        serving.start()
        publish_missing(live)
        serving.join()
    assert [each["execute"] for each in asked] == ["list_hostfwd", "add_hostfwd"]
    assert (asked[1]["arguments"]["host_port"], asked[1]["arguments"]["guest_addr"]) == (8080, "10.89.0.1")


def test_wait_for_a_helper_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(hostfwd, "_PATIENCE", 0.1)
    path = str(tmp_path / "network.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with pytest.raises(RootlessError, match="timed out") as caught:
            hostfwd.add(path, [Port("tcp", "", 8080, 80)], "10.89.0.4")
        assert caught.value.code == "RL-PUBLISH"
        with pytest.raises(TimeoutError):
            hostfwd.keep_only(path, ())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b'{"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}', "slirp_add_hostfwd failed"),
        (b"{", "cannot be understood"),
        (b"[]", "cannot be understood"),
        (b"", "cannot be understood"),
    ],
)
def test_refusal_of_a_helper_is_reported(tmp_path, answer, cause):
    path = str(tmp_path / "network.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                while connection.recv(1000):
                    pass
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(RootlessError, match=cause) as caught:
            hostfwd.add(path, [Port("tcp", "", 8080, 80)], "10.89.0.4")
        serving.join()
    assert caught.value.code == "RL-PUBLISH"
