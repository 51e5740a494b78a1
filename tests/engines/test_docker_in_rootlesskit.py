"""An ordinary user's dockerd in rootlesskit, by helpers/containerd/in-rootlesskit.sh."""

from __future__ import annotations

import pytest

from tests.lib.daemons import daemon
from tests.lib.enclosure import Enclosed
from tests.lib.engines import DOCKER_RUN, HELPERS, IMAGE, Engine


@pytest.fixture(scope="module")
def docker(module_user, enclosure, image, need, recorder):
    """A client of that dockerd."""
    for program in ("dockerd", "rootlesskit", "slirp4netns"):
        need(program)
    account = Enclosed(module_user.name, module_user.tmp, enclosure)
    socket = account.tmp / "socket"
    data = account.runtime_dir / "docker"
    flags = [f"--data-root={data}/data", f"--exec-root={data}/run", f"--pidfile={account.tmp}/pid", "--rootless"]
    flags += ["--iptables=false", "--ip6tables=false", "--bridge=none", f"--host=unix://{socket}"]
    words = [HELPERS / "containerd/in-rootlesskit.sh", "dockerd", f"--config-file={HELPERS}/docker/daemon.json", *flags]
    env = {"PATH": f"{recorder.command.parent}:{account.env['PATH']}", "XDG_DATA_HOME": str(data)}
    docker = Engine(account, [need("docker"), f"--host=unix://{socket}"], {"DOCKER_CONFIG": str(account.tmp)})
    with daemon(account, words, env, docker):
        docker("load", "--quiet", "--input", image, check=True)
        yield docker


def test_a_device_can_have_another_name(docker):
    """No node can be made: rootless finds the host's device by its numbers. runc looks it up by name and fails."""
    script = "stat -c %t,%T /dev/nul2; echo x >/dev/nul2"
    done = docker(*DOCKER_RUN, "--runtime=rootless", "--device=/dev/null:/dev/nul2", IMAGE, "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1,3\n", "")
