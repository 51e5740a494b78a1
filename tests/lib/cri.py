"""A client of containerd's CRI plugin, similar to the kubelet, made from Debian's copy of the CRI's definition."""

from __future__ import annotations

import importlib
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc

SOURCES = Path("/usr/share/gocode/src")
DEFINITIONS = ("k8s.io/cri-api/pkg/apis/runtime/v1/api.proto", "github.com/gogo/protobuf/gogoproto/gogo.proto")
_CALL = 60  # seconds, until a hanging call fails


def compiled(directory: Path) -> None:
    """Write the modules of the CRI's messages and of its services."""
    words = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([*words, *DEFINITIONS], cwd=directory, check=True)


def imported(directory: Path):
    """Return the modules that compiled() wrote."""
    sys.path.insert(0, str(directory))
    try:
        name = "k8s.io.cri_api.pkg.apis.runtime.v1.api_pb2"
        return importlib.import_module(name), importlib.import_module(f"{name}_grpc")
    finally:
        sys.path.remove(str(directory))


class Cri:
    """The CRI of one containerd.

    Attributes:
        api: the messages, by name.
        uid, gid: the IDs of the user who runs containerd.
        socket: the path of its socket.
        tmp: a directory of that user, for volumes and logs.
        image: the image of containers.
    """

    def __init__(self, api, services, channel, *, uid: int, gid: int, socket: Path, tmp: Path, image: str) -> None:
        self.api = api
        self.uid = uid
        self.gid = gid
        self.socket = socket
        self.tmp = tmp
        self.image = image
        self._services = (services.RuntimeServiceStub(channel), services.ImageServiceStub(channel))
        self._made = 0

    def method(self, name: str):
        """Return a method of the RuntimeService or of the ImageService."""
        return next(getattr(service, name) for service in self._services if hasattr(service, name))

    def call(self, method: str, request: str = "", **fields):
        """Call a method; its request has these fields. It waits for a containerd that is about to start.

        Args:
            method: its name.
            request: the name of its request's message, if it is not METHODRequest.
            fields: the fields.
        """
        message = getattr(self.api, request or f"{method}Request")(**fields)
        return self.method(method)(message, timeout=_CALL, wait_for_ready=True)

    def refusal(self, method: str, **fields) -> tuple[grpc.StatusCode, str]:
        """Call a method that fails: its status code and message."""
        try:
            self.call(method, **fields)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"{method} succeeds")

    def pid(self) -> int:
        """Return the process id of containerd."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            return struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def states(self) -> set[str]:
        """Return the IDs of the pods and containers of which the runtimes keep a state."""
        return {path.name for path in Path(f"/proc/{self.pid()}/root/run/containerd/runc/k8s.io").iterdir()}

    def pod_config(self, *, namespaces=None, security=None, linux=None, **fields):
        """Return the configuration of another pod.

        Args:
            namespaces: fields of its NamespaceOption; as with the kubelet, each container has its own processes.
            security: further fields of its LinuxSandboxSecurityContext.
            linux: further fields of its LinuxPodSandboxConfig.
            fields: further fields of its PodSandboxConfig.
        """
        self._made += 1
        name = f"pod{self._made}"
        namespaces = {"pid": self.api.CONTAINER} | (namespaces or {})
        context = {"namespace_options": namespaces} | (security or {})
        return self.api.PodSandboxConfig(
            metadata={"name": name, "uid": name, "namespace": "tests"},
            hostname="" if namespaces.get("network") == self.api.NODE else "in-a-pod",
            log_directory=str(self.tmp / "logs" / name),
            linux={"security_context": context} | (linux or {}),
            **fields,
        )

    @contextmanager
    def pod(self, handler: str = "rootless", **options):
        """Yield a running pod; stop and remove it at the end.

        Args:
            handler: the runtime's name.
            options: pod_config()'s.
        """
        config = self.pod_config(**options)
        made = self.call("RunPodSandbox", config=config, runtime_handler=handler)
        pod = Pod(self, made.pod_sandbox_id, config)
        try:
            yield pod
        finally:
            self.call("StopPodSandbox", pod_sandbox_id=pod.id)
            self.call("RemovePodSandbox", pod_sandbox_id=pod.id)


class Pod:
    """A running sandbox."""

    def __init__(self, cri: Cri, sandbox: str, config) -> None:
        self.cri = cri
        self.id = sandbox
        self.config = config

    @property
    def status(self):
        """The plugin's status of it."""
        return self.cri.call("PodSandboxStatus", pod_sandbox_id=self.id).status

    def create(self, *command, name="main", security=None, resources=None, **fields) -> Container:
        """Create a container.

        Args:
            command: its command.
            name: its name; its log is NAME.log.
            security: fields of its LinuxContainerSecurityContext.
            resources: fields of its LinuxContainerResources.
            fields: further fields of its ContainerConfig.
        """
        namespaces = self.config.linux.security_context.namespace_options
        linux = {"security_context": {"namespace_options": namespaces} | (security or {})}
        config = self.cri.api.ContainerConfig(
            metadata={"name": name},
            image={"image": self.cri.image},
            command=list(command),
            log_path=f"{name}.log",
            linux=linux | ({"resources": resources} if resources else {}),
            **fields,
        )
        made = self.cri.call("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return Container(self.cri, made.container_id, Path(self.config.log_directory, f"{name}.log"))

    def start(self, *command, **options) -> Container:
        """Create a container and start it."""
        container = self.create(*command, **options)
        self.cri.call("StartContainer", container_id=container.id)
        return container


class Container:
    """A container of a pod.

    Attributes:
        log: the file of its log.
    """

    def __init__(self, cri: Cri, container: str, log: Path) -> None:
        self.cri = cri
        self.id = container
        self.log = log

    @property
    def status(self):
        """The plugin's status of it."""
        return self.cri.call("ContainerStatus", container_id=self.id).status

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.status.state == self.cri.api.CONTAINER_RUNNING

    @property
    def exited(self) -> bool:
        """Whether it has exited."""
        return self.status.state == self.cri.api.CONTAINER_EXITED

    def exec(self, *argv) -> tuple[int, str, str]:
        """Run a command in it: its exit status and output."""
        done = self.cri.call("ExecSync", container_id=self.id, cmd=argv, timeout=_CALL // 2)
        return done.exit_code, done.stdout.decode(), done.stderr.decode()

    def sh(self, *script) -> tuple[int, str, str]:
        """Run a script in it: its exit status and output."""
        return self.exec("sh", "-c", "\n".join(script))

    def stop(self, timeout: int = 5) -> None:
        """Stop it."""
        self.cri.call("StopContainer", container_id=self.id, timeout=timeout)

    def remove(self) -> None:
        """Remove it."""
        self.cri.call("RemoveContainer", container_id=self.id)


@contextmanager
def opened_cri(modules, path: Path, **options):
    """Connect to a containerd; `options` are those of Cri."""
    api, services = modules
    # after a restart of containerd, connect at once
    backoff = [(f"grpc.{name}_reconnect_backoff_ms", 50) for name in ("min", "initial", "max")]
    with grpc.insecure_channel(f"unix://{path}", options=backoff) as channel:
        yield Cri(api, services, channel, socket=path, **options)
