"""The engines, each with its own stores and sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.accounts import PROVIDED, RUN
from tests.lib.bundles import own
from tests.lib.containers import until
from tests.lib.enclosure import Enclosed, Enclosure, stop
from tests.lib.engines import HELPERS, Engine, Recorder, make_image, opened_podman


@pytest.fixture(scope="session")
def image(directory, need):
    """The archive of an image that every engine can load."""
    need("busybox")
    return make_image(directory)


@pytest.fixture(scope="session")
def enclosure(need):
    """Namespaces for the processes that root starts."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces and cgroups")
    need("tini")
    enclosure = Enclosure()
    yield enclosure
    enclosure.close()


@pytest.fixture(scope="session")
def directory():
    """A directory for the engines of the session, on a path that everyone may search."""
    directory = Path(tempfile.mkdtemp(prefix="engines-", dir=RUN or None))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def recorder(directory, rootless_command):
    """`rootless` with a record of its calls."""
    return Recorder(directory / "recorded", rootless_command)


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
    with _daemon(account, dockerd, env, docker):
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
    with _daemon(account, [need("containerd"), "--config", config], {}, ctr):
        ctr("images", "import", image, check=True)
        yield ctr


@pytest.fixture(scope="session")
def cri_modules(need):
    """The modules of the CRI's messages and services."""
    from tests.engines import cri

    for program in ("containerd", "rootlesskit", "slirp4netns"):
        need(program)
    if not (cri.SOURCES / cri.DEFINITIONS[0]).exists():
        pytest.skip(f"needs the definition of the CRI, {PROVIDED}")
    with tempfile.TemporaryDirectory() as directory:
        yield cri.compiled(Path(directory))


@pytest.fixture(scope="session")
def root_cri(directory, enclosure, image, recorder, cri_modules):
    """The CRI of root's containerd, with helpers/containerd/rootless.toml."""
    account = Enclosed("root", Path(tempfile.mkdtemp(dir=directory)), enclosure)
    with _cri(account, [], recorder, cri_modules, image) as opened:
        yield opened


@pytest.fixture(scope="module")
def user_cri(module_user, enclosure, image, recorder, cri_modules):
    """The CRI of an ordinary user's containerd, in rootlesskit."""
    account = Enclosed(module_user.name, module_user.tmp, enclosure)
    words = ["rootlesskit", "--net=slirp4netns", "--disable-host-loopback", "--copy-up=/etc", "--copy-up=/run"]
    # replaces symlinks to directories of root's containerd
    places = 'rm -f /run/containerd /run/netns; mount -t tmpfs tmpfs /var/lib/cni; exec "$@"'
    words += ["--state-dir", account.tmp / "kit", "sh", "-euc", places, "sh"]
    with _cri(account, words, recorder, cri_modules, image) as opened:
        yield opened


@contextmanager
def _cri(account, prefix, recorder, modules, image):
    """Run a containerd with the CRI plugin and the images for it."""
    from tests.engines import cri

    run = "/run/cri" if account.uid == 0 else f"{account.runtime_dir}/cri"
    account.run(["install", "-d", run], check=True)  # as /run is, for root of a user namespace
    config = cri.write_config(account.tmp, run, binary=recorder.command, nested=account.uid != 0)
    archives = (image, make_image(account.tmp, cri.SANDBOX_IMAGE, ("sleep", "1000000")))
    own(account, account.tmp)
    socket = account.tmp / "socket"
    ctr = Engine(account, ["ctr", "--address", socket, "--namespace", "k8s.io"], {})
    with _daemon(account, [*prefix, "containerd", "--config", config], {}, ctr):
        for archive in archives:
            ctr("images", "import", archive, check=True)
        with cri.opened_cri(account, modules, socket) as opened:
            yield opened


@contextmanager
def _daemon(account, words, env, client):
    """Run a daemon; yield when its client reaches it, and stop the daemon at the end."""
    log = account.tmp / "log"
    with log.open("w") as file:
        daemon = account.popen(words, env=env, stdout=file, stderr=file)
    try:

        def answers():
            assert daemon.poll() is None, log.read_text()[-2000:]
            return client("version").returncode == 0

        until(answers, f"{words[0]} answers")
        yield
    finally:
        stop(daemon)


@pytest.fixture
def running(podman):
    """The name of a running container of the ordinary user's podman."""
    name = podman.detach("running")
    yield name
    podman("rm", "--force", "--time=0", name, check=True)
