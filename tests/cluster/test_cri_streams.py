"""Streams of containers in Kubernetes pods: exec, attach, port forwarding, logs; with rootless and with runc."""

from __future__ import annotations

import collections
import json
import os
from urllib.parse import urlsplit

import pytest
import websocket

from tests.lib.containers import until
from tests.lib.engines import FOREVER
from tests.lib.netbox import socket_of

IN, OUT, ERR, STATUS, SIZE = range(5)
"""Channels of exec and attach; a forwarded port has two, for data and for errors."""

RESIZED = 'until [ "$(stty size 2>/dev/null)" = "{}" ]; do :; done'
"""Waits for a size of the terminal: containerd may pass on later input before it."""


class Stream:
    """A connection to containerd's streaming server, as `kubectl exec` has through the kubelet."""

    def __init__(self, cri, url: str, query: str = "") -> None:
        address = urlsplit(url)
        self._socket = socket_of(cri.pid())
        self._socket.connect((address.hostname, address.port))
        place = f"ws://{address.netloc}{address.path}{query}"
        self._web = websocket.create_connection(place, socket=self._socket, subprotocols=["v4.channel.k8s.io"])
        self._came = collections.defaultdict(bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()
        self._socket.close()  # which the client does not, if the server closed first

    def send(self, data: bytes, channel: int = IN) -> None:
        """Send data on a channel."""
        self._web.send_binary(bytes([channel]) + data)

    def until(self, end: bytes, channel: int = OUT) -> bytes:
        """Return what comes on a channel up to `end`."""
        while end not in self._came[channel]:
            assert self._receive(), f"{end!r} does not come; there is {dict(self._came)}"
        found, _, self._came[channel] = self._came[channel].partition(end)
        return found + end

    def rest(self) -> tuple[int, bytes, bytes]:
        """Return the exit status, and the rest of the output, when the program has ended."""
        while self._receive():
            pass
        status = json.loads(self._came[STATUS])
        causes = status.get("details", {}).get("causes", [])
        (code,) = [int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode"] or [0]
        assert (status["status"] == "Success") == (code == 0), status
        return code, self._came[OUT], self._came[ERR]

    def _receive(self) -> bool:
        """Whether another message came, not the end."""
        opcode, data = self._web.recv_data()
        if opcode != websocket.ABNF.OPCODE_BINARY:
            return False
        self._came[data[0]] += data[1:]
        return True


@pytest.fixture(params=["rootless", "runc"])
def pod(cri, request):
    """A pod of each runtime."""
    with cri.pod(request.param) as pod:
        yield pod


@pytest.fixture
def execute(cri):
    """Return a function that runs a command in a container, with streams."""

    def execute(container, *argv, tty=False):
        fields = {"container_id": container.id, "cmd": argv, "tty": tty, "stdin": True}
        return Stream(cri, cri.call("Exec", **fields, stdout=True, stderr=not tty).url)

    return execute


@pytest.fixture
def attach(cri):
    """Return a function that attaches to a container's streams."""

    def attach(container, *, tty=False):
        fields = {"container_id": container.id, "tty": tty, "stdin": True}
        return Stream(cri, cri.call("Attach", **fields, stdout=True, stderr=not tty).url)

    return attach


def test_exec_has_streams_and_an_exit_status(pod, execute):
    container = pod.start(*FOREVER)
    with execute(container, "sh", "-c", "echo err >&2; read line; echo out $line; exit 7") as stream:
        assert stream.until(b"\n", ERR) == b"err\n"
        stream.send(b"in\n")
        assert stream.rest() == (7, b"out in\n", b"")
    with execute(container, "seq", "100000") as stream:
        code, out, _ = stream.rest()
        assert (code, out.count(b"\n")) == (0, 100000)


def test_exec_has_a_terminal_of_the_requested_size(pod, execute):
    container = pod.start(*FOREVER)
    script = f"tty; {RESIZED.format('45 123')}; read line; stty size; kill -INT $$"
    with execute(container, "sh", "-c", script, tty=True) as stream:
        assert stream.until(b"\n").startswith(b"/dev/pts/")
        stream.send(b'{"Width": 123, "Height": 45}', SIZE)
        stream.send(b"in\n")
        assert stream.rest() == (130, b"in\r\n45 123\r\n", b"")


def test_attach_reaches_the_streams_more_than_once(pod, attach):
    container = pod.start("sh", "-c", "while read line; do echo out $line; done; echo err >&2; exit 3", stdin=True)
    for line in (b"one", b"two"):
        with attach(container) as stream:
            stream.send(line + b"\n")
            assert stream.until(b"\n") == b"out " + line + b"\n"
    assert container.running


def test_attach_resizes_the_terminal(pod, attach):
    script = f"{RESIZED.format('11 99')}; stty size; read line"
    container = pod.start("sh", "-c", script, stdin=True, tty=True)
    with attach(container, tty=True) as stream:
        stream.send(b'{"Width": 99, "Height": 11}', SIZE)
        assert stream.until(b"11 99\r\n")


@pytest.mark.parametrize("network", ["POD", "NODE"])
@pytest.mark.parametrize("handler", ["rootless", "runc"])
def test_a_forwarded_port_reaches_the_pod(cri, handler, network):
    with cri.pod(handler, namespaces={"network": getattr(cri.api, network)}) as pod:
        container = pod.start("nc", "-ll", "-p", "8888", "-e", "cat")
        until(lambda: container.sh("nc 127.0.0.1 8888 </dev/null")[0] == 0, "it listens")
        url = cri.call("PortForward", pod_sandbox_id=pod.id, port=[8888]).url
        with Stream(cri, url, "?port=8888") as stream:
            stream.send(b"through\n")
            assert stream.until(b"through\n", 0) == (8888).to_bytes(2, "little") + b"through\n"


def test_output_is_logged_and_the_log_can_be_rotated(cri, pod):
    container = pod.start("sh", "-c", "echo out; echo err >&2; trap 'echo again' USR1; while :; do sleep 0.1; done")
    until(lambda: len(container.log.read_text().splitlines()) == 2, "its output")
    lines = [line.split()[1:] for line in container.log.read_text().splitlines()]
    assert sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"]]
    os.rename(container.log, f"{container.log}.1")
    cri.call("ReopenContainerLog", container_id=container.id)
    assert container.sh("kill -USR1 1") == (0, "", "")
    until(lambda: container.log.read_text().endswith(" stdout F again\n"), "the new file")
