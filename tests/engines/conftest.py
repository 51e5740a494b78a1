"""The engines, each with its own stores and sockets."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.lib.daemons import daemon, directory, enclosure, image, recorder
from tests.lib.enclosure import Enclosed
from tests.lib.engines import HELPERS, Engine, opened_podman

__all__ = ["directory", "enclosure", "image", "recorder"]


@pytest.fixture(scope="module")
def podman(module_user, image, need, rootless_command):
    """The ordinary user's podman, which calls rootless unless a test names another runtime."""
    with opened_podman(module_user, image, need("podman")) as podman:
        yield podman
    podman.remove_stores()


@pytest.fixture(scope="module")
def podman_in_cgroup2(module_user, enclosure, image, need, rootless_command):
    """The ordinary user's podman on a host with cgroup v2 only, so that crun works too."""
    account = Enclosed(module_user.name, module_user.tmp, enclosure)
    with opened_podman(account, image, need("podman")) as podman:
        yield podman


@pytest.fixture(scope="module")
def podman_in_own_cgroup(module_user, enclosure, image, need, rootless_command):
    """The ordinary user's podman in a cgroup that is delegated to the user."""
    account = Enclosed(module_user.name, module_user.tmp, enclosure, delegated=True)
    with opened_podman(account, image, need("podman")) as podman:
        yield podman


@pytest.fixture(scope="module")
def root_podman(directory, enclosure, image, need, rootless_command):
    """Root's podman."""
    account = Enclosed("root", Path(tempfile.mkdtemp(dir=directory)), enclosure)
    with opened_podman(account, image, need("podman")) as podman:
        yield podman


@pytest.fixture(scope="session")
def docker(directory, enclosure, image, need, recorder):
    """A client of a dockerd that uses helpers/docker/daemon.json and builds with rootless."""
    account = Enclosed("root", Path(tempfile.mkdtemp(dir=directory)), enclosure)
    need("docker-init")
    socket = account.tmp / "socket"
    flags = ["--data-root=/run/docker-data", "--exec-root=/run/docker", "--pidfile=/run/docker.pid"]
    flags += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--default-runtime=rootless"]
    flags.append("--experimental")  # docker checkpoint
    dockerd = [need("dockerd"), f"--config-file={HELPERS}/docker/daemon.json", f"--host=unix://{socket}", *flags]
    path = f"{recorder.command.parent}:{account.env['PATH']}"
    env = {"PATH": path, "DOCKER_BUILDKIT_RUNC_COMMAND": str(recorder.command)}
    docker = Engine(account, [need("docker"), f"--host=unix://{socket}"], {"DOCKER_CONFIG": str(account.tmp)})
    with daemon(account, dockerd, env, docker):
        docker("load", "--quiet", "--input", image, check=True)
        yield docker
        docker("system", "prune", "--all", "--force", check=True)


@pytest.fixture(scope="session")
def ctr(directory, enclosure, image, need, rootless_command):
    """A client of a containerd."""
    account = Enclosed("root", Path(tempfile.mkdtemp(dir=directory)), enclosure)
    socket = account.tmp / "socket"
    config = account.tmp / "config.toml"
    config.write_text(
        f'version = 2\nroot = "/run/containerd-data"\nstate = "/run/containerd"\n[grpc]\naddress = "{socket}"\n'
    )
    ctr = Engine(account, [need("ctr"), "--address", socket], {})
    with daemon(account, [need("containerd"), "--config", config], {}, ctr):
        ctr("images", "import", image, check=True)
        yield ctr


@pytest.fixture
def running(podman):
    """The name of a running container of the ordinary user's podman."""
    name = podman.detach("running")
    yield name
    podman("rm", "--force", "--time=0", name, check=True)
