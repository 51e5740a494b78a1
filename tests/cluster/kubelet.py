"""What kubectl needs between itself and containerd's streaming server: parts of the API server and of the kubelet.

One container, `pod`, can be asked for. The server answers the questions that precede a stream, asks containerd for the
stream's address as the kubelet does, and then passes on the bytes of both sides: they speak SPDY with each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.lib.netbox import socket_of

_RESOURCES = [
    {"name": name, "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["create", "get"]}
    for name in ("pods", "pods/exec", "pods/attach", "pods/portforward")
]
_POD = "/api/v1/namespaces/tests/pods/pod"
_SPDY_ONLY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


class _Handler(BaseHTTPRequestHandler):
    """One request of kubectl."""

    server: Kubelet

    def do_GET(self) -> None:
        """Answer a question."""
        spec = {"containers": [{"name": "main"} | self.server.fields]}
        answers = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _RESOURCES},
            _POD: {
                "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "pod", "namespace": "tests"},
                "spec": spec, "status": {"phase": "Running"},
            },
        }  # fmt: skip
        found = answers.get(urlsplit(self.path).path)
        answer = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        """Connect both sides."""
        assert self.headers["Upgrade"] == "SPDY/3.1"
        address = urlsplit(self.server.stream(self.path.removeprefix(f"{_POD}/")))
        self.close_connection = True
        with socket_of(self.server.pod.cri.pid()) as behind:
            behind.connect((address.hostname, address.port))
            behind.settimeout(None)
            behind.sendall(f"POST {address.path} HTTP/1.1\r\n{self.headers}".encode())
            back = threading.Thread(target=_copy, args=(behind.recv, self.connection))
            back.start()
            _copy(self.rfile.read1, behind)
            back.join()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _copy(receive, destination: socket.socket) -> None:
    """Pass on bytes until one side closes."""
    with contextlib.suppress(OSError):
        while data := receive(65536):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(socket.SHUT_RDWR)


class Kubelet(ThreadingHTTPServer):
    """The server, and kubectl as its client.

    Attributes:
        pod: a pod.
        container: its container, which can be asked for.
        fields: fields of its specification: tty, stdin.
    """

    def __init__(self, pod, container, directory: Path, **fields: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pod = pod
        self.container = container
        self.fields = fields
        self._directory = directory
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def stream(self, request: str) -> str:
        """Return the address of the stream for a request: `exec?command=…`."""
        verb, _, query = request.partition("?")
        asked = parse_qs(query)
        cri = self.pod.cri
        if verb == "portforward":
            return cri.call("PortForward", pod_sandbox_id=self.pod.id).url
        fields = {name: asked.get(name) == ["true"] for name in ("stdin", "stdout", "stderr", "tty")}
        if verb == "attach":
            return cri.call("Attach", container_id=self.container.id, **fields).url
        return cri.call("Exec", container_id=self.container.id, cmd=asked["command"], **fields).url

    def argv(self, *words: str) -> list[str]:
        """Return the command line of kubectl for `words`."""
        return ["kubectl", f"--server=http://127.0.0.1:{self.server_port}", "--namespace=tests", *words]

    def popen(self, argv, *, env=None, **options) -> subprocess.Popen:
        """Start kubectl."""
        own = {"HOME": str(self._directory), "KUBECONFIG": "/dev/null"} | _SPDY_ONLY
        return subprocess.Popen(argv, env=os.environ | own | (env or {}), cwd=self._directory, **options)

    def run(self, *words: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Run kubectl to its end: its exit status and output."""
        pipe = subprocess.PIPE
        with self.popen(self.argv(*words), stdin=pipe, stdout=pipe, stderr=pipe) as process:
            out, err = process.communicate(given, timeout=60)
        return process.returncode, out, err

    @property
    def uid(self) -> int:
        """The user who runs kubectl, for a Typewriter."""
        return os.geteuid()
