"""The launcher's call of systemd-nsresourced, with services that refuse, lie, or are hostile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootless.errors import RootlessError
from rootless.host.facts import Facts
from rootless.launch import allocate_ids
from rootless.plan.idmaps import UNKNOWN, IdMaps
from tests.lib import nsresourced

SERVICE = Path(nsresourced.__file__)
LINE = (0, UNKNOWN, 65536)


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    """Return a function that returns the error with which a service of this kind is left."""
    monkeypatch.setattr(allocate_ids, "_PATIENCE", 1.0)
    path = tmp_path / "socket"
    started = []

    def refused(kind):
        service = subprocess.Popen([sys.executable, SERVICE, path, kind], stdout=subprocess.PIPE, text=True)
        started.append(service)
        assert service.stdout.readline() == "listens\n"
        before = os.listdir("/proc/self/fd")
        with pytest.raises(RootlessError) as caught:
            allocate_ids.allocate(os.getpid(), IdMaps((LINE,), (LINE,), "", Facts(), str(path)))
        assert os.listdir("/proc/self/fd") == before
        return caught.value

    yield refused
    for service in started:
        service.kill()
        service.communicate()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            f"{nsresourced.NAME}.UserNamespaceInterfaceNotSupported",
            "the kernel does not let systemd restrict file systems (BPF LSM); fix: have an administrator add",
        ),
        (f"{nsresourced.NAME}.NoDynamicRange", "all of its ranges are in use; fix: end containers"),
        ("org.varlink.service.PermissionDenied", "polkit forbids it; fix: use --userns single"),
        ("org.varlink.service.MethodNotFound", "org.varlink.service.MethodNotFound; fix: read its log, as root:"),
        ("x\nrootless: " + "x" * 200, "x\\nrootless: " + "x" * 68 + "; fix: "),
        (nsresourced.CLOSED, "it has closed the connection without an answer; fix: "),
        (nsresourced.SILENT, "it does not answer; fix: "),
        (nsresourced.SLOW, "it does not answer; fix: "),
        (nsresourced.FLOOD, "its answer is too long; fix: "),
        (nsresourced.LIE, "it reports success and has not written the maps; fix: "),
        ("text", "its answer is not JSON: line 1 column 1: expecting value; fix: "),
        ("array", "its answer is not an object; fix: "),
        ("twice", 'its answer is not JSON: the key "error" stands twice in one object; fix: '),
        ("deep", "its answer is not JSON: arrays or objects are nested too deeply; fix: "),
    ],
)
def test_each_answer_that_is_no_grant_is_one_error(refusal, kind, told):
    error = refusal(kind)
    assert error.code == "RL-IDMAP-SYSTEMD"
    assert str(error).startswith(f"systemd-nsresourced gives no IDs: {told}")


def test_a_service_that_accepts_nobody_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(allocate_ids, "_PATIENCE", 0.5)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        other.connect(str(tmp_path / "socket"))
        with pytest.raises(RootlessError, match="gives no IDs") as caught:
            allocate_ids.allocate(os.getpid(), IdMaps((LINE,), (LINE,), "", Facts(), str(tmp_path / "socket")))
    assert caught.value.cause == "it does not answer"


@pytest.mark.parametrize("left", [True, False])
def test_a_service_that_has_stopped_is_an_error(tmp_path, left):
    """systemd leaves its socket in the file system."""
    path = tmp_path / "socket"
    if left:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    with pytest.raises(RootlessError, match="gives no IDs") as caught:
        allocate_ids.allocate(os.getpid(), IdMaps((LINE,), (LINE,), "", Facts(), str(path)))
    assert caught.value.cause == "it does not run"
    assert "systemctl enable --now systemd-nsresourced.socket" in caught.value.fix
