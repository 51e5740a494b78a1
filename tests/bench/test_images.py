"""How long an image takes to run, compared with an unpacked root file system and with podman; memory of its server."""

from __future__ import annotations

import io
import json
import random
import statistics
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.lib.bundles import make_bundle, own
from tests.lib.containers import until
from tests.lib.engines import IMAGE, make_image, opened_podman
from tests.lib.native import SETTLED
from tests.lib.registry import Image, opened
from tests.lib.squashfs import servers

ROUNDS = 2
FILES = 10_000
BYTES = 12_000  # average size of a file, half of it random
READ = "find /many -type f -exec cat {} + > /dev/null"


@pytest.fixture
def archive(user):
    """An archive of a busybox image, as `docker save` writes it."""
    return make_image(user.tmp)


def proportional(pid):
    """Return the proportional memory of a process in kB (Pss)."""
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


def test_duration_of_run_of_an_image(user, image, podman, rootless_command, medians, note):  # noqa: PLR0917 - fixtures
    words = ["run", "--network", "none"]
    run = [f"{rootless_command}.py", *words]  # never by a cached Plan
    theirs = [*podman.under("runc"), "run", "--rm", "--network=none", IMAGE, "true"]
    steps = [
        {"name": "unpacked", "argv": [*run, str(make_bundle(user))]},
        {"name": "image", "argv": [*run, str(image), "true"]},
        {"name": "image, for the third time", "argv": [rootless_command, *words, str(image), "true"]},
        {"name": "unpacked, for the third time", "argv": [rootless_command, *words, str(user.tmp / "bundle")]},
        {"name": "image, keep-id", "argv": [*run, "--userns", "keep-id", str(image), "true"]},
        {"name": "podman with runc", "argv": theirs, "orphans": True},
    ]
    until(lambda: time.time() - (user.tmp / "bundle").stat().st_ctime > SETTLED, "files may be in a cached Plan")
    for _ in range(2):
        user.run(
            ["sh", "-ec", " && ".join(" ".join(steps[each]["argv"]) for each in (2, 3))], env=podman.env, check=True
        )
    found = medians(steps, env=podman.env)
    for name, (cpu, wall) in found.items():
        note(f"`run` of a busybox image, {name}: {cpu:.1f} ms of CPU, {wall:.1f} wall")
    more = found["image"][1] - found["unpacked"][1]
    ratio = found["image"][1] / found["podman with runc"][1]
    note(f"`run` of a busybox image: {more:.1f} ms of wall more than unpacked, {ratio:.2f} x podman")
    for what in ("image", "unpacked"):
        cpu, wall = (found[f"{what}, for the third time"][each] / found[what][each] for each in range(2))
        note(f"`run` for the third time, {what}: {cpu:.2f} of the CPU and {wall:.2f} of the wall time of a planned one")
        assert max(cpu, wall) < 1


def test_memory_of_a_container_of_an_image_and_its_server(user, image, rootless_command, note):
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


def many_files():
    """Return a layer of FILES files in a hundred directories."""
    packed = io.BytesIO()
    numbers = random.Random(1)
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(FILES):
            entry = tarfile.TarInfo(f"many/{number % 100}/{number}")
            content = numbers.randbytes(numbers.randrange(BYTES)) + b"a line of text\n" * (BYTES // 30)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def large(user, podman, trixie, tmp_path):
    """The name of an image of 200 MB, Debian and many files, in a registry that both commands may use."""
    image = Image()
    image.manifest([trixie.read_bytes(), many_files()], command=["true"])
    with opened(tmp_path / "registry", tls=False) as registry:
        registry.put("large", image)
        settings = user.tmp / "config/containers/registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        own(user, settings)
        yield f"{registry.host}/large:latest"


def test_duration_of_pull_and_first_run(user, podman, large, rootless_command, note):
    """Both stores are empty, and on the same file system."""
    store = podman.directory / "images"
    env = podman.env | {"ROOTLESS_IMAGES": str(store)}
    ours = [rootless_command, "run", "--network", "none", f"docker://{large}", "true"]
    theirs = [*podman.under("runc"), "run", "--rm", "--quiet", "--tls-verify=false", "--network=none", large, "true"]
    walls = {"rootless": [], "podman": []}
    for _ in range(ROUNDS):
        for name, words in (("rootless", ours), ("podman", theirs)):
            begin = time.monotonic()
            user.run(words, env=env, check=True, timeout=300)
            walls[name].append(time.monotonic() - begin)
        user.run(["rm", "-rf", store], check=True)
        podman("rmi", "--force", large, check=True)
    found = {name: statistics.median(each) for name, each in walls.items()}
    ratio = found["rootless"] / found["podman"]
    note(f"pull and first run of a 200 MB image: {found['rootless']:.1f} s of wall, {ratio:.2f} x podman")


def test_duration_of_reading_every_file_of_an_image(user, podman, large, rootless_command, medians, note):  # noqa: PLR0917 - fixtures
    """The page cache is warm: this measures the cost of FUSE."""
    file = user.tmp / "large.sqsh"
    user.run([rootless_command, "pull", "--output", file, f"docker://{large}"], env=podman.env, check=True, timeout=300)
    bundle = user.tmp / "unpacked"
    user.run([rootless_command, "new", bundle, "--from", file, "--", "sh", "-c", READ], check=True, timeout=300)
    run = [rootless_command, "run", "--network", "none"]
    steps = [
        {"name": "unpacked", "argv": [*run, str(bundle)]},
        {"name": "image", "argv": [*run, str(file), "sh", "-c", READ]},
    ]
    found = medians(steps)
    ratio = found["image"][1] / found["unpacked"][1]
    note(f"reading {FILES} files: {found['image'][1]:.0f} ms of wall from an image, {ratio:.2f} x unpacked")
