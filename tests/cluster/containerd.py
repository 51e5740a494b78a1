"""containerd with its CRI plugin, as root and as an ordinary user in rootlesskit, with helpers/containerd."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.lib import cri as client
from tests.lib.accounts import PROVIDED, account
from tests.lib.bundles import own
from tests.lib.containers import until
from tests.lib.daemons import daemon
from tests.lib.enclosure import Enclosed
from tests.lib.engines import HELPERS, IMAGE, Engine, make_image

_NETWORKS = """
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{}/cni"
"""
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.7.0/24"}]]},
        }
    ],
}
_WITHOUT_CONTROLLERS = """
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
disable_cgroup = true
"""
"""Without CAP_SYS_RESOURCE and controllers, runc cannot apply the plugin's defaults."""
_ENTER = """
target=$(cat "$1/child_pid")
shift
exec nsenter -U -m -n -p -i -u -C --preserve-credentials -t "$target" "$@"
"""
_RESTARTED = """
trap 'kill $daemon; wait; exit' TERM
while :; do
    flock "$0" true
    "$@" &
    daemon=$!
    wait $daemon || :
done
"""
"""Restarts a daemon as a service manager does, when nobody has the file locked."""


class Containerd:
    """A containerd that is restarted when it ends, with its configuration.

    Attributes:
        account: the account that runs it.
        socket: the path of its socket.
    """

    def __init__(self, account) -> None:
        self.account = account
        self.socket = account.tmp / "socket"
        self._lock = account.tmp / "lock"

    @contextmanager
    def running(self, recorder, archives):
        """Run it with these images; stop it at the end."""
        self._lock.touch()
        (self.account.tmp / "cni").mkdir()
        (self.account.tmp / "cni/pods.conflist").write_text(json.dumps(_NETWORK))
        own(self.account, self.account.tmp)
        enter = ["sh", "-euc", _ENTER, "sh", self.account.tmp / "kit"] if self.account.uid else []
        ctr = Engine(self.account, [*enter, "ctr", "--address", self.socket, "--namespace", "k8s.io"], {})
        env = {
            "PATH": f"{recorder.command.parent}:{self.account.env['PATH']}",
            "ROOTLESSKIT_STATE": str(self.account.tmp / "kit"),
            # overlayfs accepts changes on a tmpfs, whatever the disk is
            "XDG_DATA_HOME": f"{self.account.runtime_dir}/data",
        }
        with daemon(self.account, self._words(), env, ctr):
            for archive in archives:
                ctr("images", "import", archive, check=True)
            yield

    def _words(self) -> list:
        """Return the command line that runs it."""
        config = self.account.tmp / "config.toml"
        networks = _NETWORKS.format(self.account.tmp)
        containerd = ["containerd", "--config", config, "--address", self.socket]
        restarted = ["sh", "-euc", _RESTARTED, self._lock, *containerd]
        if self.account.uid:
            config.write_text((HELPERS / "containerd/rootless.toml").read_text() + networks)
            return [HELPERS / "containerd/in-rootlesskit.sh", *restarted]
        # root of a pod's user namespace has to come through, as through /run
        self.account.run(["install", "-d", "/run/cri"], check=True)
        imported = self.account.tmp / "rootful.toml"
        imported.write_text((HELPERS / "containerd/rootful.toml").read_text() + networks + _WITHOUT_CONTROLLERS)
        config.write_text(f'version = 2\nroot = "/run/cri/data"\nstate = "/run/cri/state"\nimports = ["{imported}"]\n')
        return restarted

    @contextmanager
    def down(self, cri, number: int):
        """End it by this signal; start it again at the end."""
        pid = cri.pid()
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.kill(pid, number)
            until(lambda: not Path(f"/proc/{pid}").exists(), "containerd has ended")
            yield
        until(lambda: _is_ready(cri), "containerd is ready")


def _is_ready(cri) -> bool:
    """Whether its CRI plugin is initialized."""
    try:
        return bool(cri.call("Status").status.conditions)
    except grpc.RpcError:
        return False


@pytest.fixture(scope="session")
def cri_modules(need):
    """The modules of the CRI's messages and services."""
    for program in ("containerd", "rootlesskit", "slirp4netns"):
        need(program)
    if not (client.SOURCES / client.DEFINITIONS[0]).exists():
        pytest.skip(f"needs the definition of the CRI, {PROVIDED}")
    with tempfile.TemporaryDirectory() as directory:
        client.compiled(Path(directory))
        yield client.imported(Path(directory))


@pytest.fixture(scope="session")
def cri_user(request):
    """The ordinary user, with a directory for the session."""
    yield from account(0, request)


@pytest.fixture(scope="session", params=["root", "rootlesskit"])
def containerd(request, directory, enclosure, image, recorder):
    """Root's containerd, and an ordinary user's containerd."""
    if request.param == "root":
        account = Enclosed("root", Path(tempfile.mkdtemp(dir=directory)), enclosure)
    else:
        user = request.getfixturevalue("cri_user")
        account = Enclosed(user.name, user.tmp, enclosure)
    sandbox = make_image(account.tmp, "registry.k8s.io/pause:3.8", ("sleep", "1000000"))
    containerd = Containerd(account)
    with containerd.running(recorder, [image, sandbox]):
        yield containerd


@pytest.fixture(scope="session")
def cri(containerd, cri_modules):
    """Its CRI."""
    account = containerd.account
    options = {"uid": account.uid, "gid": account.gid, "tmp": account.tmp, "image": IMAGE}
    with client.opened_cri(cri_modules, containerd.socket, **options) as opened:
        yield opened
