"""A client of containerd's CRI plugin, similar to the kubelet, made from Debian's copy of the CRI's definition."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

# gRPC's handlers for fork(2) write to the standard error of every program that the tests start, and start threads in
# Python children.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc

from tests.lib.engines import FOREVER, HELPERS, IMAGE

SOURCES = Path("/usr/share/gocode/src")
DEFINITIONS = ("k8s.io/cri-api/pkg/apis/runtime/v1/api.proto", "github.com/gogo/protobuf/gogoproto/gogo.proto")
SANDBOX_IMAGE = "localhost/pause:latest"
_CALL = 60  # seconds, until a hanging call fails
_CONFIG = """
version = 2
root = "{run}/data"
state = "{run}/state"
imports = ["{directory}/rootless.toml"]
[grpc]
address = "{directory}/socket"
"""
_PLUGIN = """
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
disable_apparmor = {nested}
# without CAP_SYS_RESOURCE and controllers, runc cannot apply the plugin's defaults
restrict_oom_score_adj = true
disable_cgroup = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{directory}/cni"
"""
"""Added to the settings of helpers/containerd/rootless.toml for the same plugin."""
_CNI = {"cniVersion": "0.4.0", "name": "tests"}
_BRIDGE = {"type": "bridge", "bridge": "pods0", "isGateway": True}
_ADDRESSES = {"type": "host-local", "ranges": [[{"subnet": "10.88.7.0/24"}]]}


def write_config(directory: Path, run: str, *, binary: Path, nested: bool = False) -> Path:
    """Write containerd's configuration: helpers/containerd, the CRI plugin's own settings, and a bridge for the pods.

    Args:
        directory: where it is written; containerd's socket is made there.
        run: a directory for its state and images.
        binary: the runtime.
        nested: it runs in a user namespace.
    """
    (directory / "cni").mkdir()
    network = json.dumps(_CNI | {"plugins": [_BRIDGE | {"ipam": _ADDRESSES | {"dataDir": f"{directory}/cni-data"}}]})
    (directory / "cni/tests.conflist").write_text(network)
    helper = (HELPERS / "containerd/rootless.toml").read_text()
    assert 'BinaryName = "rootless"' in helper
    plugin = helper.replace('BinaryName = "rootless"', f'BinaryName = "{binary}"') + _PLUGIN
    values = {"directory": directory, "run": run, "sandbox": SANDBOX_IMAGE, "nested": str(nested).lower()}
    (directory / "rootless.toml").write_text(plugin.format(**values))
    (directory / "config.toml").write_text(_CONFIG.format(**values))
    return directory / "config.toml"


def compiled(directory: Path):
    """Return the modules of the CRI's messages and of its services."""
    words = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([*words, *DEFINITIONS], cwd=directory, check=True)
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
        runtime: the RuntimeService.
        account: the account that runs containerd.
    """

    def __init__(self, account, api, services, channel) -> None:
        self.account = account
        self.api = api
        self.runtime = services.RuntimeServiceStub(channel)
        self._made = 0

    def call(self, method: str, **fields):
        """Call a method of the RuntimeService; its request has these fields."""
        request = getattr(self.api, f"{method}Request")(**fields)
        return getattr(self.runtime, method)(request, timeout=_CALL)

    @contextmanager
    def pod(self, *, handler="rootless", linux=None, **namespaces):
        """Yield a running pod; stop and remove it at the end.

        Args:
            handler: the runtime's name.
            linux: the LinuxPodSandboxConfig's own fields.
            namespaces: the fields of its NamespaceOption; as with the kubelet, each container has its own processes.
        """
        namespaces = {"pid": self.api.CONTAINER} | namespaces
        self._made += 1
        name = f"pod{self._made}"
        context = {"namespace_options": namespaces}
        config = self.api.PodSandboxConfig(
            metadata={"name": name, "uid": name, "namespace": "tests"},
            hostname="" if namespaces.get("network") == self.api.NODE else "in-a-pod",
            linux={"security_context": context} | (linux or {}),
        )
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

    def create(self, *command, name="main", mounts=(), devices=(), **context) -> Container:
        """Create a container that runs `command`; `context` is of its security context."""
        namespaces = self.config.linux.security_context.namespace_options
        config = self.cri.api.ContainerConfig(
            metadata={"name": name},
            image={"image": IMAGE},
            command=list(command or FOREVER),
            mounts=mounts,
            devices=devices,
            linux={"security_context": {"namespace_options": namespaces} | context},
        )
        made = self.cri.call("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return Container(self.cri, made.container_id)

    def start(self, *command, **options) -> Container:
        """Create a container and start it."""
        container = self.create(*command, **options)
        self.cri.call("StartContainer", container_id=container.id)
        return container


class Container:
    """A container of a pod."""

    def __init__(self, cri: Cri, container: str) -> None:
        self.cri = cri
        self.id = container

    @property
    def status(self):
        """The plugin's status of it."""
        return self.cri.call("ContainerStatus", container_id=self.id).status

    def sh(self, *script) -> tuple[int, str, str]:
        """Run a script in it: its exit status and output."""
        done = self.cri.call("ExecSync", container_id=self.id, cmd=["sh", "-c", "\n".join(script)], timeout=_CALL // 2)
        return done.exit_code, done.stdout.decode(), done.stderr.decode()

    def stop(self, timeout: int = 5) -> None:
        """Stop it."""
        self.cri.call("StopContainer", container_id=self.id, timeout=timeout)

    def remove(self) -> None:
        """Remove it."""
        self.cri.call("RemoveContainer", container_id=self.id)


@contextmanager
def opened_cri(account, modules, socket: Path):
    """Connect to the containerd of an account."""
    api, services = modules
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        yield Cri(account, api, services, channel)
