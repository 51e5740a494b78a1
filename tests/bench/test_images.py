"""How long an image takes to run next to the same root file system unpacked, and to podman; what its server holds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import make_bundle
from tests.lib.containers import until
from tests.lib.engines import IMAGE, make_image, opened_podman
from tests.lib.squashfs import servers


@pytest.fixture
def archive(user):
    """An archive of a busybox image, as `docker save` writes it."""
    return make_image(user.tmp)


def proportional(pid):
    """Return the memory of a process in kB: its own, and its part of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@pytest.fixture
def image(user, archive, rootless_command):
    """The file of that image in a store."""
    store = user.tmp / "store"
    words = ["run", "--store", store, "--network", "none", f"docker-archive:{archive}", "true"]
    user.run([rootless_command, *words], check=True)
    (file,) = store.glob("sha256-*.sqsh")
    return file


@pytest.fixture
def podman(user, archive, need):
    """The ordinary user's podman, which has the image."""
    with opened_podman(user, archive, need("podman")) as podman:
        yield podman
    podman.remove_stores()


def test_run_of_an_image(user, image, podman, rootless_command, medians, note):  # noqa: PLR0917 - fixtures
    run = [rootless_command, "run", "--network", "none"]
    theirs = [*podman.under("runc"), "run", "--rm", "--network=none", IMAGE, "true"]
    steps = [
        {"name": "unpacked", "argv": [*run, str(make_bundle(user))]},
        {"name": "image", "argv": [*run, str(image), "true"]},
        {"name": "image, keep-id", "argv": [*run, "--userns", "keep-id", str(image), "true"]},
        {"name": "podman with runc", "argv": theirs, "orphans": True},
    ]
    found = medians(steps, env=podman.env)
    for name, (cpu, wall) in found.items():
        note(f"`run` of a busybox image, {name}: {cpu:.1f} ms of CPU, {wall:.1f} wall")
    more = found["image"][1] - found["unpacked"][1]
    ratio = found["image"][1] / found["podman with runc"][1]
    note(f"`run` of a busybox image: {more:.1f} ms of wall more than unpacked, {ratio:.2f} x podman")


def test_memory_of_a_container_of_an_image(user, image, rootless_command, note):
    before = servers()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ["run", "-d", "--name", "held", "--network", "none", image, "sleep", "1000"]
    user.run([rootless_command, *words], check=True, **quiet)
    (server,) = servers() - before
    state = json.loads(user.run([rootless_command, "state", "held"], check=True).stdout)
    held = {"its server": proportional(server), "its program": proportional(state["pid"])}
    user.run([rootless_command, "delete", "--force", "held"], check=True)
    until(lambda: server not in servers(), "the end of the server")
    note("MB of memory of a container of an image: " + ", ".join(f"{k} {v / 1024:.1f}" for k, v in held.items()))
