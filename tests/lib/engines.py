"""The engines as their users call them, and the image that they load."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lib.accounts import CHECKOUT, RUN
from tests.lib.bundles import make_rootfs, own
from tests.lib.containers import until

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = "localhost/box:latest"
FOREVER = ("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")
"""A command for a container that runs until SIGTERM and then exits with 9."""
HELPERS = CHECKOUT / "helpers"
_SETTINGS = """
[containers]
netns = "none"
# where no controller is, runc and crun cannot set a limit that podman asks for unasked
pids_limit = 0
cgroups = "no-conmon"
[engine]
events_logger = "file"
"""


def make_image(directory: Path, name: str = IMAGE, command: Sequence[str] = ("sh",), **settings) -> Path:
    """Return an archive of a busybox image, as from `docker save`, with `command` as its default command.

    The image's configuration has more `settings`, such as Labels.
    """
    layer = subprocess.run(
        ["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", make_rootfs(directory / "rootfs"), "-c", "."],
        check=True,
        capture_output=True,
    ).stdout
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": list(command)} | settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests/engines"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": layer,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    archive = directory / "box.tar"
    with tarfile.open(archive, "w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive


class Recorder:
    """`rootless` for engines to call, with a record of every call.

    Attributes:
        command: its path.
    """

    def __init__(self, directory: Path, command: str) -> None:
        directory.mkdir()
        self.command = directory / "rootless"
        self._record = directory / "calls"
        self._record.touch()
        self._record.chmod(0o666)
        self.command.write_text(f'#!/bin/sh\necho "$*" >>{self._record}\nexec {command} "$@"\n')
        self.command.chmod(0o755)

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._record.read_text().splitlines())

    def made(self, since: int = 0) -> list[str]:
        """Return the calls of create and run, without the first `since` calls."""
        calls = self._record.read_text().splitlines()[since:]
        return [call for call in calls if {"create", "run"} & set(call.split())]


class Engine:
    """A command line client of an engine.

    Attributes:
        account: the account that calls it.
        command: the first words of its command line.
        env: variables that are added to the account's environment.
    """

    def __init__(self, account, command, env) -> None:
        self.account = account
        self.command = list(map(str, command))
        self.env = env

    def argv(self, *words) -> list[str]:
        """Return the command line for `words`."""
        return [*self.command, *map(str, words)]

    def __call__(self, *words, **options) -> subprocess.CompletedProcess:
        """Run it to its end."""
        return self.account.run(self.argv(*words), env=self.env, **options)

    def out(self, *words, **options) -> str:
        """Run it, expect success, and return its output without the last newline."""
        return self(*words, check=True, **options).stdout.removesuffix("\n")

    def popen(self, argv, *, env=None, **options) -> subprocess.Popen:
        """Start a whole command line, for a Typewriter."""
        return self.account.popen(argv, env=self.env | (env or {}), **options)

    @property
    def uid(self) -> int:
        """The uid of the account."""
        return self.account.uid


class Podman(Engine):
    """podman with a private store and the configuration in helpers/.

    Attributes:
        directory: its stores and sockets, and the state of rootless.
    """

    def __init__(self, account, directory: Path, podman: str) -> None:
        self.directory = directory
        self.podman = podman
        self._configure(account.tmp / "config")
        self._stores = [f"--root={directory}/store", f"--runroot={directory}/run"]
        env = {
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_CONFIG_HOME": str(account.tmp / "config"),
            "PATH": f"{RUN}/bin:{account.env['PATH']}",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "TMPDIR": str(directory),
        }
        super().__init__(account, [], env)
        self.command = self.under("rootless")
        own(account, account.tmp)

    @staticmethod
    def _configure(directory: Path) -> None:
        settings = directory / "containers/containers.conf.d"
        settings.mkdir(parents=True)
        shutil.copy(HELPERS / "podman/rootless.conf", settings)
        (settings / "tests.conf").write_text(_SETTINGS)

    def under(self, runtime: str) -> list[str]:
        """Return the first words of podman with a runtime."""
        stores = [*self._stores, f"--tmpdir={self.directory}/tmp", "--storage-driver=overlay"]
        return [self.podman, "--cgroup-manager=cgroupfs", *stores, "--runtime", runtime]

    def buildah(self, buildah: str, *words) -> subprocess.CompletedProcess:
        """Run buildah on the same store."""
        return self.account.run([buildah, *self._stores, "--storage-driver=overlay", *words], env=self.env)

    def with_runtime(self, runtime: str, *words, **options) -> subprocess.CompletedProcess:
        """Run it with another runtime."""
        return self.account.run([*self.under(runtime), *map(str, words)], env=self.env, **options)

    def run(self, *words, **options) -> subprocess.CompletedProcess:
        """Run a container to its end, and remove it."""
        return self("run", "--rm", *words, **options)

    def detach(self, name: str, *flags, command=FOREVER) -> str:
        """Run a container in the background; return its name when it is running."""
        self("run", "--detach", "--name", name, *flags, IMAGE, *command, check=True)
        if command is FOREVER:
            until(lambda: "up" in self.out("logs", name), f"{name} is up")
        return name

    def inspect(self, name: str, template: str) -> str:
        """Return the output of `podman inspect` for a container."""
        return self.out("inspect", "--format", f"{{{{{template}}}}}", name)

    def left(self) -> list[str]:
        """Return leftovers when no container exists: files in rootless's state directory, and processes."""
        state = self.account.run(["ls", "-A", self.directory / "rootless"]).stdout.split()
        state = [name for name in state if not name.startswith("@")]  # files that outlive containers, such as a cache
        return state + [line for _, line in self.processes()]

    def processes(self) -> list[tuple[int, str]]:
        """Return running processes that were started for its containers."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if entry.name.isdecimal() and str(self.directory) in line and ("conmon" in line or "rootless" in line):
                found.append((int(entry.name), line))
        return found

    def close(self) -> None:
        """Remove all containers and check that nothing is left."""
        self("pod", "rm", "--all", "--force", "--time=0", check=True)
        self("rm", "--all", "--force", "--time=0", check=True)
        until(lambda: not self.processes(), "conmon ends")
        assert self.left() == []

    def remove_stores(self) -> None:
        """Remove an ordinary user's stores."""
        # the process that keeps podman's user namespace and the mounts in it
        os.kill(int((self.directory / "libpod/tmp/pause.pid").read_text()), signal.SIGKILL)
        remove = ["rm", "-rf", self.directory]
        self.account.run(["unshare", "--map-root-user", "--map-auto", *remove], cwd="/", check=True)


@contextmanager
def opened_podman(account, image: Path, podman: str):
    """Yield a Podman that has the image; at the end nothing may be left of its containers."""
    made = account.run(["mktemp", "-d", f"{account.runtime_dir}/podman-XXXXXX"], check=True).stdout.strip()
    # a container's root, in a user namespace that root creates, must be able to search it, as /run and /var/lib
    account.run(["chmod", "0711", made], check=True)
    opened = Podman(account, Path(made), podman)
    opened("load", "--quiet", "--input", image, check=True)
    yield opened
    opened.close()


DOCKER_RUN = ["run", "--rm", "--pull=never", "--network=none"]


OPEN = "mknod /made c 10 229; for how in '</made' '>/made'; do (eval : $how) && echo $how; done; echo made"
"""A script that creates a device that containers do not have, and tries to read and write it."""
