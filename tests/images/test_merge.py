"""Images made from layers have the same files as with umoci and podman, and a failure leaves nothing."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from backports import zstd

from rootless.errors import RootlessError
from rootless.image.merge import build
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
from rootless.image.squashfs.image_file import open_image
from rootless.image.store.temporary import left_behind
from tests.lib.layers import DIRECTORY, FIFO, HARD, LINK, entry, layout, packed

CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode()
"""cap_net_bind_service=ep, as the kernel stores it (revision 2 of struct vfs_cap_data)."""

SPARSE = 5 << 20


def sparse_layer(directory):
    """Return a layer with a file that has holes, and one that only ends with one, as GNU tar packs them."""
    tree = directory / "sparse"
    tree.mkdir()
    for name, places in (("holes", (0, 1 << 20, SPARSE - 3)), ("tail", (0,))):
        with open(tree / name, "wb") as file:
            for place in places:
                file.seek(place)
                file.write(b"abc")
            file.truncate(SPARSE)
    command = ["tar", "--create", "--sparse", "--format=pax", "--owner=0", "--group=0", "--mtime=@5", "-C", tree, "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


def changes(*more):
    """Return a layer on top of a Debian one, as engines write them: it has entries for the directories of its files."""
    long = "x" * 200
    return packed(
        entry("etc", DIRECTORY, mtime=10),
        entry("etc/.wh.fstab"),
        entry("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nuser:x:7:8::/:\n", mtime=11),
        entry("etc/.wh.alternatives"),
        entry("etc/apt", DIRECTORY, mtime=12),
        entry("etc/apt/.wh..wh..opq"),
        entry("etc/apt/new", data=b"x", uid=3, gid=4, mode=0o640, mtime=13),
        entry("opt", DIRECTORY, mode=0o3777, uid=9, mtime=14),
        entry(f"opt/{long}", DIRECTORY, mtime=15),
        entry(f"opt/{long}/{long}", data=b"long", mtime=16),
        entry("opt/hard", HARD, f"opt/{long}/{long}", mtime=16),
        entry("opt/setuid", data=b"#!", mode=0o6755, uid=33, gid=34, mtime=17),
        entry("opt/capable", data=b"#!", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}),
        entry("opt/note", data=b"#!", mtime=18, pax_headers={"SCHILY.xattr.user.note": "value"}),
        entry("opt/pipe", FIFO, mtime=19),
        entry("opt/link", LINK, "../../etc", mtime=20),
        entry("opt/bytes\udcff", data=b"x", mtime=21),
        entry("opt/new\nline", data=b"x", mtime=22),
        entry("srv", LINK, "/opt", mtime=23),
        *more,
    )


FIND = ["find", ".", "-mindepth", "1", "-xdev", "-printf", r"%p %m %U %G %y %l %s %n\0"]
"""Names, modes, owners, types, targets, sizes, link counts. Sizes of directories depend on the file system."""
TIMES = ["find", ".", "-mindepth", "1", "!", "-type", "d", "-printf", r"%p %T@\0"]
SUMS = ["find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+"]


def described(output):
    lines = sorted(output.split(b"\0"))
    return [line.rsplit(b" ", 2)[0] if b" d " in line else line for line in lines]


def listing(directory, run=subprocess.run):
    """Return all properties of the files below a directory: lines for the names, the times and the contents."""
    found = described(run(FIND, cwd=directory, capture_output=True, check=True).stdout)
    for words in (TIMES, SUMS):
        found += sorted(run(words, cwd=directory, capture_output=True, check=True).stdout.split(b"\0"))
    return found


def attributes(directory, names=("opt/capable", "opt/note")):
    return [{key: os.getxattr(directory / name, key) for key in os.listxattr(directory / name)} for name in names]


def image_of(paths, config, output, digest="sha256:" + "0" * 64):
    layers = [LayerFile(path) for path in paths]
    return build_image(layers, config=config, manifest_digest=digest, reference="test", output=str(output))


def unpacked(need, image, directory):
    subprocess.run([need("unsquashfs"), "-quiet", "-no-progress", "-d", directory, image], check=True)
    return directory


@pytest.fixture(scope="module")
def debian_layer(trixie):
    return trixie.read_bytes()


@pytest.fixture
def as_root():
    if os.geteuid() != 0:
        pytest.skip("needs root: unpacks files of several owners")


def test_files_are_the_same_as_umoci_unpacks(debian_layer, need, tmp_path, as_root):
    large = packed(entry("large-ids", data=b"x", uid=70_000, gid=(1 << 32) - 2, mtime=24))
    paths, config, _ = layout(tmp_path / "oci", debian_layer, changes(), sparse_layer(tmp_path), large)
    image_of(paths, config, tmp_path / "image.sqsh")
    ours = unpacked(need, tmp_path / "image.sqsh", tmp_path / "ours")
    subprocess.run([need("umoci"), "unpack", "--image", f"{tmp_path}/oci:test", tmp_path / "umoci"], check=True)
    theirs = tmp_path / "umoci/rootfs"
    subprocess.run(["find", theirs, "-type", "c", "-delete"], check=True)  # every container gets its own /dev
    assert listing(ours) == listing(theirs)
    assert attributes(ours) == attributes(theirs)
    assert os.stat(ours / "holes").st_blocks * 512 < SPARSE


def test_files_are_the_same_as_podman_mounts(debian_layer, need, tmp_path, user, as_root):
    paths, config, _ = layout(user.tmp / "oci", debian_layer, changes(), sparse_layer(tmp_path))
    subprocess.run(["chmod", "-R", "a+rX", user.tmp / "oci"], check=True)
    image_of(paths, config, tmp_path / "image.sqsh")
    ours = unpacked(need, tmp_path / "image.sqsh", tmp_path / "ours")
    podman = [need("podman"), "--root", user.tmp / "podman", "--runroot", user.tmp / "podman-run"]
    try:
        pulled = user.run([*podman, "pull", "--quiet", f"oci:{user.tmp}/oci:test"], check=True).stdout.strip()
        mounted = user.run([*podman, "unshare", *podman, "image", "mount", pulled], check=True).stdout.strip()

        def run(words, *, cwd, **options):
            return user.run([*podman, "unshare", "env", "-C", cwd, *words], text=False, stderr=subprocess.DEVNULL)

        assert listing(ours) == listing(mounted, run)
    finally:
        user.run([*podman, "unshare", "rm", "-rf", user.tmp / "podman"])


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, bytes], ids=["gzip", "zstd", "none"])
def test_each_compression_of_layers_gives_the_same_image(tmp_path, compress):
    paths, config, digest = layout(
        tmp_path / "oci", changes(), packed(entry("x", data=b"x" * 300_000)), compress=compress
    )
    image = image_of(paths, config, tmp_path / "image.sqsh", digest)
    other, _, _ = layout(tmp_path / "again", changes(), packed(entry("x", data=b"x" * 300_000)))
    image_of(other, config, tmp_path / "again.sqsh", digest)
    assert (tmp_path / "image.sqsh").read_bytes() == (tmp_path / "again.sqsh").read_bytes()
    assert image.digest == digest
    assert image.config["rootfs"]["type"] == "layers"
    assert image.read("/etc/passwd").endswith(b"user:x:7:8::/:\n")
    with pytest.raises(FileNotFoundError):
        image.read("/etc/group")


def test_the_trailer_has_files_that_are_behind_symlinks(tmp_path):
    layer = packed(entry("etc", LINK, "/data"), entry("data/passwd", LINK, "../x"), entry("x", data=b"root"))
    paths, config, _ = layout(tmp_path / "oci", layer)
    assert image_of(paths, config, tmp_path / "image.sqsh").read("/etc/passwd") == b"root"


def test_a_large_group_file_is_not_read(tmp_path):
    paths, config, _ = layout(tmp_path / "oci", packed(entry("etc/group", data=bytes((1 << 20) + 1))))
    with pytest.raises(RootlessError, match="/etc/group in it has more than 1 MB"):
        image_of(paths, config, tmp_path / "image.sqsh").read("/etc/group")


def test_the_root_has_the_attributes_of_its_entry(tmp_path, need):
    paths, config, _ = layout(tmp_path / "oci", packed(entry("./", DIRECTORY, mode=0o1711, uid=5, gid=6, mtime=7)))
    image = image_of(paths, config, tmp_path / "image.sqsh")
    shown = subprocess.run([need("unsquashfs"), "-lln", "-UTC", image.path], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == ["drwx--x--t", "5/6"]
    assert "1970-01-01 00:00" in shown.stdout


def test_an_image_may_have_no_layers_or_empty_layers(tmp_path):
    image_of([], b"{}", tmp_path / "none.sqsh")
    paths, config, _ = layout(tmp_path / "oci", b"", packed())
    image_of(paths, config, tmp_path / "empty.sqsh")


def failed(tmp_path, paths, config):
    """Return the error of an image that cannot be made, and check that nothing of it is left."""
    output = tmp_path / "output"
    output.mkdir(exist_ok=True)
    with pytest.raises(RootlessError) as caught:
        image_of(paths, config, output / "image.sqsh")
    assert os.listdir(output) == []
    assert "\n" not in str(caught.value)
    return caught.value


def test_layers_with_another_digest_than_configured_are_refused(tmp_path):
    paths, config, _ = layout(tmp_path / "oci", packed(entry("x")), packed(entry("y")))
    error = failed(tmp_path, paths[::-1], config)
    assert (error.code, error.fix) == ("RL-IMAGE", "pull the image again")
    assert str(error).startswith("read layer 1: its content has the digest sha256:")
    assert failed(tmp_path, paths[:1], config).cause.startswith("its configuration has the digests of 2 layers")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[: len(data) // 2], "RL-ARCHIVE"),
        (lambda data: data[:100] + b"\0" * 50 + data[150:], "RL-ARCHIVE"),
        (lambda _: b"no archive", "RL-ARCHIVE"),
        (lambda _: gzip.compress(b"no archive" * 1000), "RL-ARCHIVE"),
        (lambda _: gzip.compress(packed(entry("x", data=b"y" * 5000))[:4000]), "RL-ARCHIVE"),
        (lambda _: gzip.compress(packed(entry("../x"))), "RL-ARCHIVE-ENTRY"),
    ],
)
def test_a_damaged_layer_is_refused(tmp_path, damage, code):
    path = tmp_path / "layer"
    path.write_bytes(damage(gzip.compress(changes())))
    assert failed(tmp_path, [str(path)], b"{}").code == code
    assert failed(tmp_path, [str(tmp_path / "nothing")], b"{}").cause == "No such file or directory"


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b'"' + b"x" * (5 << 20) + b'"'])
def test_a_damaged_configuration_is_refused(tmp_path, config):
    assert failed(tmp_path, [], config).what == "read the image's configuration"


def test_missing_sqfstar_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "find_program", lambda _name: "")
    error = failed(tmp_path, [], b"{}")
    assert (error.cause, "squashfs-tools" in error.fix) == ("sqfstar is not installed", True)


def test_an_error_of_sqfstar_is_shown(tmp_path, monkeypatch):
    program = tmp_path / "sqfstar"
    program.write_text("#!/bin/sh\necho no >&2\necho 'FATAL ERROR: Aborting' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(build, "find_program", lambda _name: str(program))
    paths, config, _ = layout(tmp_path / "oci", packed(entry("x", data=os.urandom(3 << 20))))
    assert failed(tmp_path, paths, config).cause == "sqfstar: no"


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, as_root):
    disk = tmp_path / "output"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk], check=True)
    try:
        for compress in (gzip.compress, bytes):  # the decompressed layer or the squashfs does not fit
            paths, config, _ = layout(
                tmp_path / compress.__name__, packed(entry("x", data=os.urandom(3 << 20))), compress=compress
            )
            error = failed(tmp_path, paths, config)
            assert "no space left on device" in error.cause.lower()
    finally:
        subprocess.run(["umount", disk], check=True)


SCRIPT = """
import sys
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
build_image([LayerFile(sys.argv[1])], config=b"{}", manifest_digest="", reference="", output=sys.argv[2])
"""


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_merge_leaves_a_temporary_file_or_a_whole_image(tmp_path, moment):
    paths, _, _ = layout(tmp_path / "oci", packed(*(entry(str(name), data=os.urandom(100_000)) for name in range(100))))
    output = tmp_path / "output"
    output.mkdir()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, paths[0], output / "image.sqsh"])
    while process.poll() is None and not os.listdir(output):
        time.sleep(0.001)
    time.sleep(moment * 0.03)
    process.kill()
    process.wait()
    fd = os.open(output, os.O_RDONLY)
    assert sorted(set(os.listdir(output)) - {"image.sqsh"}) == sorted(left_behind(fd))
    os.close(fd)
    if (output / "image.sqsh").exists():
        assert open_image(str(output / "image.sqsh")).read("/0")


def test_an_interrupted_merge_leaves_nothing(tmp_path):
    paths, _, _ = layout(tmp_path / "oci", packed(*(entry(str(name), data=os.urandom(100_000)) for name in range(200))))
    output = tmp_path / "output"
    output.mkdir()
    image = output / "image.sqsh"
    for _ in range(10):  # it may end before the signal
        image.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", SCRIPT, paths[0], image], stderr=subprocess.PIPE) as process:
            while process.poll() is None and not has_content(output):
                time.sleep(0.001)  # an image that has content is one that the interrupted process knows of
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()
        if not image.exists():
            break
    assert b"KeyboardInterrupt" in told
    assert os.listdir(output) == []


def has_content(directory) -> bool:
    """Whether a file in a directory has content; one may get another name meanwhile."""
    with suppress(FileNotFoundError):
        return any(each.stat().st_size for each in directory.iterdir())
    return False


def test_open_readers_of_a_replaced_image_read_the_old_one(tmp_path, need):
    first, _, _ = layout(tmp_path / "first", packed(entry("x", data=b"1" * 200_000)))
    second, _, _ = layout(tmp_path / "second", packed(entry("x", data=b"2")))
    image = image_of(first, b"{}", tmp_path / "image.sqsh")
    with open(image.path, "rb") as opened:
        image_of(second, b"{}", tmp_path / "image.sqsh")
        shown = subprocess.run(  # noqa: PLW1510
            [need("unsquashfs"), "-cat", f"/dev/fd/{opened.fileno()}", "x"],
            pass_fds=[opened.fileno()],
            capture_output=True,
        )
    assert shown.stdout == b"1" * 200_000
    assert open_image(image.path).read("/x") == b"2"
