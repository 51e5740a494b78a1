"""Image files: the trailer behind a squashfs is read back, other tools ignore it, and damage is refused."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.bundles import unpacked as unpacked_module
from rootless.image.squashfs import image_file, unsquashfs
from rootless.image.squashfs.image_file import open_image, write_trailer
from rootless.image.squashfs.server import open_file
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.rootfs.confine import UNSQUASHFS_FILE, unsquash
from tests.lib.executor import as_user
from tests.lib.squashfs import make_sif, spy

DIGEST = "sha256:" + "1a" * 32
CONFIG = {"architecture": "amd64", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "NAME=ü"]}}
PASSWD = b"root:x:0:0:root:/root:/bin/sh\n\xff:x:1:1::/:\n"


@pytest.fixture
def squashfs(tmp_path, need):
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").write_bytes(PASSWD)
    (tree / "etc/link").symlink_to("../etc/passwd")
    (tree / "etc/large").write_bytes(bytes(image_file.LARGEST_FILE + 1))
    path = tmp_path / "image.sqsh"
    subprocess.run([need("mksquashfs"), tree, path, "-quiet", "-no-progress"], check=True)
    return path


def with_trailer(path, **changes):
    with open(path, "r+b") as file:
        properties = dict(config=CONFIG, digest=DIGEST, reference="registry/name:tag", files={"/etc/passwd": PASSWD})
        write_trailer(file.fileno(), **(properties | changes))
    return open_image(str(path))


def refused(path):
    with pytest.raises(RootlessError) as caught:
        open_image(str(path))
    assert caught.value.code == "RL-IMAGE"
    assert "\n" not in str(caught.value)
    return caught.value.cause


def test_a_written_trailer_is_read_back(squashfs):
    image = with_trailer(squashfs)
    assert (image.config, image.digest, image.reference) == (CONFIG, DIGEST, "registry/name:tag")
    assert (image.offset, image.read("/etc/passwd")) == (0, PASSWD)
    with pytest.raises(FileNotFoundError):
        image.read("/etc/group")


def test_unsquashfs_that_is_taken_over_reaches_nothing_of_the_caller(user, need, monkeypatch):
    """What it would do if an image could make it, done by a program in its place."""
    (user.tmp / "tree").mkdir()
    path = user.tmp / "image.sqsh"
    subprocess.run([need("mksquashfs"), user.tmp / "tree", path, "-quiet", "-no-progress"], check=True)
    path.chmod(0o644)
    with spy(user, image=UNSQUASHFS_FILE, status=0, to_stderr=False) as program:
        monkeypatch.setattr(unsquashfs, "find_program", lambda _: str(program))
        said = as_user(user, lambda: open_image(str(path)).read("/etc/passwd"))
    assert said.decode().splitlines() == [f"read {program}", "hsqs"]


def test_the_spy_succeeds_in_everything_where_nothing_confines_it(user):
    (user.tmp / "image").write_bytes(b"hsqs")
    with spy(user, image=3, status=0, to_stderr=False, confined=False) as program:
        said = user.run(["sh", "-c", f"{program} 3<{user.tmp}/image"], check=True).stdout.splitlines()
    assert [line.split()[0] for line in said[:4]] == ["read"] * 4
    assert said[4:] == [
        "listed",
        "made a file",
        "made a directory",
        "truncated",
        "changed the mode",
        "changed the time",
        "signalled",
        "connected",
        "made a socket",
        "hsqs",
    ]


def test_a_host_that_forbids_namespaces_has_unsquashfs(squashfs, monkeypatch):
    def forbidden(*arguments, namespaces, private):
        plan = unsquash(*arguments, namespaces=namespaces, private=private)
        return [Op(ops.SPAWN), Op(ops.JOIN, CLONE_FLAGS["user"], "/none")] if namespaces else plan

    monkeypatch.setattr(unsquashfs, "unsquash", forbidden)
    assert open_image(str(squashfs)).read("/etc/link") == PASSWD
    with pytest.raises(FileNotFoundError):
        open_image(str(squashfs)).read("/etc/group")


def test_a_second_trailer_replaces_the_first(squashfs):
    with_trailer(squashfs, config=CONFIG | {"author": "x" * 100_000})
    assert with_trailer(squashfs).config == CONFIG
    assert os.stat(squashfs).st_size % 4096


def test_unsquashfs_sees_no_trailer(squashfs, need):
    listing = [need("unsquashfs"), "-lln", squashfs]
    before = subprocess.run(listing, capture_output=True, check=True).stdout
    with_trailer(squashfs)
    assert subprocess.run(listing, capture_output=True, check=True).stdout == before


def test_files_of_an_image_without_trailer_are_read_from_its_squashfs(squashfs):
    image = open_image(str(squashfs))
    assert (image.config, image.digest) == ({}, "")
    assert image.read("/etc/passwd") == PASSWD
    assert image.read("/etc/link") == PASSWD
    with pytest.raises(FileNotFoundError):
        image.read("/etc/nothing")
    with pytest.raises(RootlessError, match="/etc/large in it has more than 1 MB"):
        image.read("/etc/large")


def test_the_squashfs_of_a_sif_file_is_found(squashfs, tmp_path):
    image = open_image(str(make_sif(squashfs, tmp_path / "image.sif")))
    assert (image.offset, image.config) == (8192, {})
    assert image.read("/etc/passwd") == PASSWD


def test_sif_files_without_a_plain_squashfs_root_are_refused(squashfs, tmp_path):
    path = tmp_path / "image.sif"
    assert refused(make_sif(squashfs, path, filesystem=5)) == "its root file system is encrypted"
    assert refused(make_sif(squashfs, path, filesystem=2)) == "its root is no squashfs"
    assert refused(make_sif(squashfs, path, role=3)) == "it has no primary system partition"
    assert refused(make_sif(squashfs, path, offset=-1)) == "its root is no squashfs"
    assert refused(make_sif(squashfs, path, offset=1 << 62)) == "it holds no squashfs file system"
    assert refused(make_sif(squashfs, path, total=1 << 40)) == "its SIF header is damaged"


def test_files_that_are_not_images_are_refused(squashfs, tmp_path):
    whole = squashfs.read_bytes()
    path = tmp_path / "x"
    assert refused(path) == "No such file or directory"
    path.write_bytes(b"")
    assert refused(path) == "it holds no squashfs file system"
    path.write_bytes(whole[:200])
    assert refused(path) == "it is cut short"
    assert refused(tmp_path) == "it is not a file"
    path.unlink()
    os.mkfifo(path)
    assert refused(path) == "it is not a file"


@pytest.mark.parametrize(
    "trailer",
    [
        b"rootless image 1 5",
        b"rootless image 1 \n{}",
        b"rootless image 1 -1\n{}",
        b"rootless image 1 5\n{}",
        b"rootless image 1 2\n[]",
        b"rootless image 1 999999999999\n{}",
        b"rootless image 1 100000\n" + b"[" * 100_000,
    ],
)
def test_a_damaged_trailer_is_refused(squashfs, trailer):
    with open(squashfs, "ab") as file:
        file.write(trailer)
    assert refused(squashfs).startswith("its trailer is damaged")


def test_an_image_replaced_after_opening_is_refused(squashfs, tmp_path):
    image, other = open_image(str(squashfs)), tmp_path / "other.sqsh"
    os.close(image.open())
    other.write_bytes(squashfs.read_bytes())
    os.replace(other, squashfs)
    for use in (lambda: image.read("/etc/passwd"), lambda: SquashfsTar(image)):
        with pytest.raises(RootlessError, match="it was changed or exchanged meanwhile"):
            use()
    os.unlink(squashfs)
    os.mkfifo(squashfs)
    with pytest.raises(RootlessError, match="it was changed or exchanged meanwhile"):
        image.read("/etc/passwd")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_a_regular_file_is_served(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(RootlessError, match="it is not a file") as caught:
        open_file(str(tmp_path / "x"))
    assert caught.value.code == "RL-IMAGE"


def test_an_image_replaced_before_unpacking_is_not_kept(squashfs, tmp_path, monkeypatch):
    """Otherwise a good image, to which a symlink led at first, would be unpacked with the attacker's files."""
    evil, link = tmp_path / "evil.sqsh", tmp_path / "link.sqsh"
    evil.write_bytes(squashfs.read_bytes())
    link.symlink_to(squashfs)
    directory = unpacked_module.bundle_directory

    def exchange(target):
        link.unlink()
        link.symlink_to(evil)
        return directory(target)

    monkeypatch.setattr(unpacked_module, "bundle_directory", exchange)
    with pytest.raises(RootlessError, match="it was changed or exchanged meanwhile"):
        unpacked_module.unpacked(str(link), str(tmp_path / "store"), "/state", has_device=False)
    assert os.listdir(tmp_path / "store/unpacked") == []


SIMPLE = st.none() | st.booleans() | st.integers() | st.text()
JSON = SIMPLE | st.lists(SIMPLE) | st.dictionaries(st.text(), SIMPLE)


@given(trailer=st.fixed_dictionaries({}, optional=dict.fromkeys(("digest", "reference", "config", "files"), JSON)))
def test_trailer_properties_of_the_wrong_type_count_as_missing(trailer):
    image = image_file.ImageFile("x", (0, 0, 0, 0), 0, 0)
    image.take(trailer)
    assert isinstance(image.config, dict)
    assert isinstance(image.reference, str)
    assert image.digest == ""


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 8192 + 95), byte=st.integers(0, 255))
def test_a_changed_byte_in_the_headers_is_refused_or_read(tmp_path_factory, position, byte):
    directory = tmp_path_factory.getbasetemp()
    path = directory / "squashfs"
    path.write_bytes(struct.pack("<I24xHH8xQ", 0x73717368, 4, 0, 4096).ljust(4096, b"\0"))
    path = make_sif(path, directory / "changed.sif")
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(bytes([byte]))
    try:
        image = open_image(str(path))
    except RootlessError as error:
        assert error.code == "RL-IMAGE"  # noqa: PT017 - either outcome is right
    else:
        assert 0 <= image.offset < os.stat(path).st_size
