"""The store of images: parallel pulls, SIGKILL, Ctrl-C, a full disk; and images that are in no registry."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import tarfile
import threading
import time
from contextlib import suppress

import pytest

from tests.lib.containers import until
from tests.lib.engines import make_image
from tests.lib.registry import ARCHITECTURE, Front, Puller, busybox_image, digest_of, layer, opened

CONTENT = bytes(range(256)) * 4000
KILLS = 200 if os.environ.get("ROOTLESS_TEST_SWEEP") == "full" else 6


@pytest.fixture(scope="module")
def registry(tmp_path_factory, need):
    """A registry that speaks plain HTTP, with the image `box`."""
    for program in ("docker-registry", "sqfstar", "unsquashfs"):
        need(program)
    with opened(tmp_path_factory.mktemp("registry"), tls=False) as registry:
        registry.image = busybox_image(layer({"etc/note": CONTENT}), layer({"etc/other": b"x" * 100_000}))
        registry.put("box", registry.image)
        yield registry


@pytest.fixture
def puller(user, rootless_command, registry):
    puller = Puller(user, rootless_command)
    puller.configure(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true')
    puller.name = f"{registry.host}/box:latest"
    return puller


def assert_whole(puller):
    """Check that there is one image, that it is correct, and that prune leaves no other file."""
    [listed] = puller.listed()
    assert listed["reference"] == puller.name
    assert puller.content("etc/note") == CONTENT
    puller("image", "prune", check=True)
    assert len(puller.files()) == 3, puller.files()


def test_ten_parallel_pulls_of_one_image_succeed(puller):
    pulls = [puller.popen("pull", puller.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(10)]
    outcomes = [(*each.communicate(), each.returncode) for each in pulls]
    assert {(err, status) for _, err, status in outcomes} == {("", 0)}
    assert len({out for out, _, _ in outcomes}) == 1
    assert not [name for name in puller.files() if name.rpartition("/")[2].startswith(".")]
    assert_whole(puller)


def pulls_through(puller, front, count):
    """Start pulls of one image through a front."""
    name = f"{front.host}/box"
    return [puller.popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(count)]


@pytest.fixture
def front(puller, registry):
    front = Front(registry.host)
    puller.configure(f'[[registry]]\nlocation = "{front.host}"\ninsecure = true')
    yield front
    front.close()


def slowly(registry, asked, gate):
    """Return a rule by which the first answer for the large layer stops in its middle until `gate` is set."""
    large = max(registry.image.blobs, key=lambda each: len(registry.image.blobs[each]))

    def rule(request):
        if not request.path.endswith(large):
            return False
        asked.append(request.headers.get("Range", ""))
        if len(asked) > 1:
            return False
        body = registry.image.blobs[large]
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        gate.wait(30)
        request.wfile.write(body[len(body) // 2 :])
        return True

    return rule


def half_written(puller):
    def found():
        with suppress(FileNotFoundError):  # another one may remove its file meanwhile
            sizes = [path.stat().st_size for path in (puller.images / "blobs/sha256").glob(".*")]
            return max(sizes, default=0) > len(CONTENT) // 4
        return False

    until(found, "half of the layer")


def test_parallel_pulls_download_each_blob_once(puller, registry, front):
    gate = threading.Event()
    front.rule = slowly(registry, [], gate)
    pulls = pulls_through(puller, front, 5)
    half_written(puller)
    pulls += pulls_through(puller, front, 5)
    gate.set()
    outcomes = [(*each.communicate(), each.returncode) for each in pulls]
    assert {(err, status) for _, err, status in outcomes} == {("", 0)}
    blobs = [path for path, _ in front.requests if "/blobs/" in path]
    assert len(blobs) == len(set(blobs)) == 4


def test_a_pull_continues_what_another_one_leaves_when_it_is_killed(puller, registry, front):
    asked, gate = [], threading.Event()
    front.rule = slowly(registry, asked, gate)
    [first] = pulls_through(puller, front, 1)
    half_written(puller)
    [second] = pulls_through(puller, front, 1)
    until(lambda: len([path for path, _ in front.requests if "/manifests/" in path]) > 1, "the second pull")
    assert asked == [""], "the second one waits"
    first.kill()
    first.communicate()
    assert second.communicate()[1] == ""
    assert second.returncode == 0
    [again] = asked[1:]
    assert again.startswith("bytes=")
    assert int(again.removeprefix("bytes=").rstrip("-")) > 0
    gate.set()


def test_a_pull_does_not_wait_for_one_that_does_not_get_on(puller, registry, front):
    asked, gate = [], threading.Event()
    front.rule = slowly(registry, asked, gate)
    [first] = pulls_through(puller, front, 1)
    half_written(puller)
    first.send_signal(signal.SIGSTOP)
    puller.env["ROOTLESS_REGISTRY_TIMEOUT"] = "0.5"
    [second] = pulls_through(puller, front, 1)
    assert second.communicate()[1] == ""
    assert second.returncode == 0
    assert asked == ["", ""]
    first.kill()
    first.communicate()
    gate.set()


def test_a_killed_pull_leaves_an_intact_store(puller):
    begin = time.monotonic()
    puller.pull(puller.name)
    duration = time.monotonic() - begin
    moments = random.Random(1)
    for _ in range(KILLS):
        if puller.listed():
            puller("image", "rm", puller.name, check=True)
        with puller.popen("pull", puller.name, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as pull:
            try:
                pull.wait(moments.uniform(0.1, duration))
            except subprocess.TimeoutExpired:
                pull.kill()
        for path in (puller.images / "blobs/sha256").glob("[!.]*"):
            assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    puller.pull(puller.name)
    assert_whole(puller)


def test_an_interrupted_pull_is_resumed(puller, registry):
    large = max(registry.image.blobs, key=lambda each: len(registry.image.blobs[each]))
    front = Front(registry.host)
    name = f"{front.host}/box"
    puller.configure(f'[[registry]]\nlocation = "{front.host}"\ninsecure = true')

    def half(request):
        if large not in request.path:
            return False
        status, headers, body = front.fetch(request.path, request.headers)
        request.answer(status, body[: len(body) // 2], headers, length=len(body))
        until(lambda: [path for path in parts() if path.stat().st_size], "the arrival of the first half")
        pull.send_signal(signal.SIGINT)
        pull.wait()
        return True

    def parts():
        return (puller.images / "blobs/sha256").glob(f".{large.partition(':')[2]}.*")

    front.rule = half
    with puller.popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pull:
        out, err = pull.communicate()
    assert (pull.returncode, out, err) == (128 + signal.SIGINT, "", "")
    front.rule = None
    front.requests.clear()
    puller.pull(name)
    [headers] = [headers for path, headers in front.requests if large in path]
    assert int(headers["Range"].removeprefix("bytes=").rstrip("-")) > 100_000
    front.close()


def test_a_full_disk_is_an_error_and_leaves_an_intact_store(puller, user, require_root):
    puller.images.mkdir(parents=True)
    os.chown(puller.images, user.uid, user.gid)
    options = f"size=1500k,uid={user.uid},gid={user.gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", puller.images], check=True)
    try:
        words = puller.refused("pull", puller.name)
        assert "no space left on device" in words
        assert "fix: free some space" in words
        assert not list(puller.images.glob("*.sqsh"))
        subprocess.run(["mount", "-o", "remount,size=20m", puller.images], check=True)
        puller.pull(puller.name)
        assert_whole(puller)
    finally:
        subprocess.run(["umount", puller.images], check=True)


def test_a_store_that_is_not_writable_or_not_private_is_an_error(puller, user):
    words = puller.refused("pull", "--store", "/proc/images", puller.name)
    assert "open the image store /proc/images" in words
    shared = user.tmp / "group"
    shared.mkdir()
    os.chown(shared, user.uid, user.gid)
    shared.chmod(0o775)
    words = puller.refused("pull", "--store", shared, puller.name)
    assert "others can write to it; fix: use it for reading only: ROOTLESS_ADDITIONAL_IMAGES" in words


# --- images that are in no registry


def packed(directory, archive, mode="w"):
    with tarfile.open(archive, mode) as tar:
        tar.add(directory, arcname=".")
    return archive


def test_layouts_are_pulled_from_directories_and_archives(puller, user):
    layout = busybox_image(layer({"etc/note": CONTENT})).write_layout(user.tmp / "layout", tag="13")
    paths = {puller.pull(f"oci:{layout}"), puller.pull(f"oci:{layout}:13"), puller.pull("oci:layout")}
    paths.add(puller.pull(f"oci-archive:{packed(layout, user.tmp / 'layout.tar')}"))
    paths.add(puller.pull(f"oci-archive:{packed(layout, user.tmp / 'layout.tar.gz', 'w:gz')}:13"))
    [path] = paths
    assert puller.content("etc/note", path) == CONTENT
    assert "it has no image of that name; fix: name one of 13" in puller.refused("pull", "oci:layout:12")
    assert "No such file or directory" in puller.refused("pull", "oci:missing")
    assert "is damaged, or no archive" in puller.refused("pull", f"oci-archive:{layout}/index.json")
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)
    puller("image", "prune", check=True)
    assert "its digest is" in puller.refused("pull", "oci:layout")


def test_archives_of_docker_save_are_pulled(puller, user):
    archive = make_image(user.tmp, "localhost/box:1")
    path = puller.pull(f"docker-archive:{archive}")
    assert path == puller.pull("docker-archive:box.tar:localhost/box:1")
    assert b"BusyBox" in puller.content("bin/busybox", path)
    words = puller.refused("pull", "docker-archive:box.tar:other")
    assert "it has no image of that name; fix: name one of localhost/box:1" in words
    subprocess.run(["gzip", "-k", archive], check=True)
    assert path == puller.pull("docker-archive:box.tar.gz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Config": "../../../../etc/passwd"}, "no such file"),
        ({"Config": "/etc/passwd"}, "no such file"),
        ({"Layers": ["missing"]}, "does not name the digests"),
        ({"Layers": 3}, "it has 0 images"),
        ({"Config": "loop"}, "no such file"),
    ],
)
def test_a_hostile_archive_reads_nothing_of_the_host(puller, user, change, words):
    config = {"os": "linux", "architecture": ARCHITECTURE, "rootfs": {"type": "layers", "diff_ids": []}}
    entry = {"Config": "config.json", "RepoTags": ["a:1"], "Layers": []} | change
    with tarfile.open(user.tmp / "bad.tar", "w") as tar:
        for name, data in (("config.json", config), ("manifest.json", [entry])):
            content = json.dumps(data).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (("loop", "loop"), ("etc/passwd", "/etc/passwd")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    assert words in puller.refused("pull", "docker-archive:bad.tar").lower()


def test_images_of_podman_are_pulled(puller, user, need):
    for program in ("podman", "skopeo"):
        need(program)
    archive = make_image(user.tmp, "localhost/stored:1")
    storage = user.tmp / "storage"
    settings = user.tmp / "storage.conf"
    places = f'rootless_storage_path = "{storage}"\ngraphroot = "{storage}"\nrunroot = "{user.tmp}/storage-run"\n'
    settings.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    environment = {**puller.env, "CONTAINERS_STORAGE_CONF": str(settings)}
    user.run(["podman", "load", "--quiet", "--input", archive], env=environment, check=True)
    path = puller.pull("containers-storage:localhost/stored:1", env={"CONTAINERS_STORAGE_CONF": str(settings)})
    assert b"BusyBox" in puller.content("bin/busybox", path)
    words = puller.refused("pull", "containers-storage:missing", env={"CONTAINERS_STORAGE_CONF": str(settings)})
    assert "skopeo: " in words
    assert "skopeo: " in puller.refused("pull", "docker-daemon:missing:1", env={"DOCKER_HOST": "unix:///missing"})
    user.run(["podman", "unshare", "rm", "-rf", storage], env=environment)
