from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.archive import rewrite as archive_module
from rootless.image.archive.decompress import Source, decompressed
from rootless.image.archive.rewrite import ALL_IDS, Ids, extract_command, rewrite
from rootless.image.archive.tar_write import SinkError
from tests.lib.layers import DEVICE, DIRECTORY, FIFO, FILE, HARD, LINK, entry, packed


def rewritten(archive, ids=ALL_IDS):
    sink = io.BytesIO()
    contents = rewrite(io.BufferedReader(io.BytesIO(archive)), sink, name="test.tar", ids=ids)
    return contents, sink.getvalue()


def members(archive):
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        return [
            (info, opened.extractfile(info).read() if info.isreg() else b"")  # type: ignore[union-attr]
            for info in opened
        ]


def headers(archive):
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        return list(opened)


def names(archive):
    return [info.name for info in headers(archive)]


def unpack(archive, rootfs):
    command = extract_command(shutil.which("tar") or "tar", str(rootfs), keep_owners=False)
    return subprocess.run(command, input=archive, capture_output=True, check=False)


def refused(*entries, ids=ALL_IDS):
    with pytest.raises(RootlessError) as caught:
        rewritten(packed(*entries), ids)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_about_an_entry_is_kept():
    archive = packed(
        entry(".", DIRECTORY, mode=0o700, uid=5, gid=6),
        entry("./etc", DIRECTORY, mode=0o1777, mtime=1234567890, uname="ignored", gname="ignored"),
        entry("etc/passwd", data=b"root" * 1000, uid=33, gid=2**21 + 1, mode=0o4755, mtime=77.5),
        entry("etc/empty"),
        entry("etc/link", LINK, "/outside/../anywhere"),
        entry("etc/hard", HARD, "./etc/passwd"),
        entry("fifo", FIFO, mode=0o600),
    )
    _, result = rewritten(archive)
    assert [
        (info.name, info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime, data)
        for info, data in members(result)
    ] == [
        (".", DIRECTORY, "", 0o700, 5, 6, 0, b""),
        ("etc", DIRECTORY, "", 0o1777, 0, 0, 1234567890, b""),
        ("etc/passwd", FILE, "", 0o4755, 33, 2**21 + 1, 77, b"root" * 1000),
        ("etc/empty", FILE, "", 0o644, 0, 0, 0, b""),
        ("etc/link", LINK, "/outside/../anywhere", 0o644, 0, 0, 0, b""),
        ("etc/hard", HARD, "etc/passwd", 0o644, 0, 0, 0, b""),
        ("fifo", FIFO, "", 0o600, 0, 0, 0, b""),
    ]
    assert {(info.uname, info.gname) for info, _ in members(result)} == {("", "")}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_odd_bytes_reach_the_disk(tmp_path, form):
    long = "d" * 90 + "/" + "f" * 90
    odd = "new\nline \\ \udcff\udcc3 é '\""
    archive = packed(entry(long, data=b"long"), entry(odd, data=b"odd"), entry("-rf", data=b"dash"), form=form)
    _, result = rewritten(archive)
    assert unpack(result, tmp_path).returncode == 0
    assert {name: (tmp_path / name).read_bytes() for name in (long, odd, "-rf")} == {
        long: b"long",
        odd: b"odd",
        "-rf": b"dash",
    }


@pytest.mark.parametrize("kind", [FILE, DIRECTORY])
def test_the_memory_for_names_has_a_limit(monkeypatch, kind):
    monkeypatch.setattr(archive_module, "_MOST_NAMES", 100_000)
    rewritten(packed(*(entry(f"d/{number}", kind) for number in range(500))))
    assert "the names in the archive take more than" in refused(*(entry(f"d/{number}", kind) for number in range(1000)))
    assert "the names in the archive take more than" in refused(entry("d/" * 700 + "f"))


def test_pending_hard_links_count_towards_the_limit(monkeypatch):
    monkeypatch.setattr(archive_module, "_MOST_NAMES", 100_000)
    links = [entry("same", HARD, "file") for _ in range(100)]
    rewritten(packed(entry("file"), *links))
    assert "the names in the archive take more than" in refused(*links, entry("file"))


def test_very_long_names_and_targets():
    name, target = "/".join(["x" * 200] * 15), "/".join([".."] * 1000)
    _, result = rewritten(packed(entry(name, LINK, target)))
    assert [(info.name, info.linkname) for info, _ in members(result)] == [(name, target)]


def test_absolute_names_are_relative_to_the_root():
    _, result = rewritten(packed(entry("/etc//./passwd"), entry("/hard", HARD, "//etc/passwd")))
    assert [(info.name, info.linkname) for info, _ in members(result)] == [
        ("etc/passwd", ""),
        ("hard", "etc/passwd"),
    ]


@pytest.mark.parametrize("name", ["..", "../x", "/../x", "a/../../x", "a/..", "a/../b"])
def test_a_name_that_goes_up_is_refused(name):
    assert "leads out of the root filesystem" in refused(entry("a", DIRECTORY), entry(name))


def test_an_error_names_the_entry_on_one_line():
    assert refused(entry("evil\n../\x1b[31m/../x")).startswith("unpack the entry evil\\n../\\x1b[31m/../x: ")


@pytest.mark.parametrize("target", ["../../etc/passwd", "/../etc/passwd", "a/../../x"])
def test_a_hard_link_that_goes_up_is_refused(target):
    assert "leads out" in refused(entry("a/b"), entry("x", HARD, target))


@pytest.mark.parametrize("target", ["etc/passwd", "/etc/passwd", "link/passwd"])
def test_hard_link_to_a_file_outside_the_archive_is_refused(target):
    assert "not in the archive" in refused(entry("link", LINK, "/etc"), entry("x", HARD, target))


def test_a_hard_link_to_a_directory_or_itself():
    assert "hard link to the directory" in refused(entry("d", DIRECTORY), entry("x", HARD, "d"))
    assert "hard link to the directory" in refused(entry("x", HARD, "."))
    assert "not in the archive" in refused(entry("x", HARD, "x"))
    assert names(rewritten(packed(entry("x"), entry("x", HARD, "x")))[1]) == ["x"]


def test_hard_links_before_their_target(tmp_path):
    archive = packed(entry("a", HARD, "b"), entry("b", HARD, "d/c"), entry("d", DIRECTORY), entry("d/c", data=b"c"))
    _, result = rewritten(archive)
    assert names(result) == ["d", "d/c", "b", "a"]
    assert unpack(result, tmp_path).returncode == 0
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "d/c").stat().st_ino


@pytest.mark.parametrize("target", ["/tmp", "..", "dir", "nowhere"])
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, LINK, FIFO])
def test_nothing_is_written_through_a_symlink_in_an_archive(target, kind):
    message = refused(entry("dir", DIRECTORY), entry("link", LINK, target), entry("link/x", kind, "y"))
    assert "unpack the entry link/x: it would be written through link, which is a symbolic link" in message


def test_nothing_is_written_through_a_hard_link_to_a_symlink():
    assert "through hard" in refused(entry("link", LINK, "/"), entry("hard", HARD, "link"), entry("hard/etc/passwd"))


def test_a_name_keeps_its_kind():
    assert "it is a directory, and the archive has it as a symbolic link" in refused(
        entry("x", LINK, "/etc"), entry("x", DIRECTORY)
    )
    assert "it is a symbolic link" in refused(entry("d/x"), entry("d", LINK, "/etc"))
    assert "it is a file, and" in refused(entry("x", LINK, "/etc"), entry("x"))
    assert "it is a symbolic link" in refused(entry(".", LINK, "/etc"))
    assert "it is a file" in refused(entry("."))
    assert "through x, which is a file" in refused(entry("x"), entry("x/y"))


def test_the_last_entry_of_a_name_counts(tmp_path):
    _, result = rewritten(
        packed(entry("x", data=b"old"), entry("x", data=b"new"), entry("l", LINK, "a"), entry("l", LINK, "b"))
    )
    assert unpack(result, tmp_path).returncode == 0
    assert (tmp_path / "x").read_bytes() == b"new"
    assert os.readlink(tmp_path / "l") == "b"


def test_device_nodes_and_their_hard_links_are_left_out():
    archive = packed(
        entry("dev/null", DEVICE),
        entry("dev/hard", HARD, "dev/null"),
        entry("dev/sda", tarfile.BLKTYPE),
        entry("dev/fifo", FIFO),
    )
    contents, result = rewritten(archive)
    assert contents.devices == ["dev/null", "dev/hard", "dev/sda"]
    assert names(result) == ["dev/fifo"]
    assert contents.entries == 1


def test_ids_outside_the_map_are_refused():
    ids = Ids([(0, 1), (1, 65536)], [(0, 1), (1, 65536)])
    rewritten(packed(entry("x", uid=65536, gid=65536)), ids)
    message = refused(entry("ok"), entry("x", uid=65537), entry("y", uid=70000), ids=ids)
    assert "the entry x: its uid 65537 is not in your id map, which has 65537 uids; fix: " in message
    assert "--add-subuids" in message
    assert "its gid 100000" in refused(entry("x", gid=100000), ids=ids)


def test_extended_attributes(tmp_path):
    capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode()
    high_bytes = "\udcfe=\udcff\n"
    attributes = {
        "SCHILY.xattr.user.comment": "é=\n1",
        "SCHILY.xattr.user.bytes": high_bytes,
        "SCHILY.xattr.security.capability": capability,
        "SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0\0",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "comment": "neither kept nor told",
    }
    contents, result = rewritten(packed(entry("x" * 150, data=b"data", pax_headers=attributes)))
    ((info, data),) = members(result)
    assert (info.name, data) == ("x" * 150, b"data")
    assert info.pax_headers == {
        "SCHILY.xattr.user.comment": "é=\n1",
        "SCHILY.xattr.user.bytes": high_bytes,
        "SCHILY.xattr.security.capability": capability,
    }
    assert contents.xattrs == {"security.selinux", "trusted.overlay.opaque"}


def test_sparse_files_keep_their_holes(tmp_path):
    source = tmp_path / ("é" * 60)
    with source.open("wb") as file:
        for position, text in ((1 << 20, b"middle"), (3 << 20, b"x" * 5000)):
            file.seek(position)
            file.write(text)
        file.truncate(1 << 32)
    for form in ("--format=gnu", "--format=posix"):
        packing = ["tar", "-C", tmp_path, "-cS", form, "--owner=:3000000", source.name]
        archive = subprocess.run(packing, capture_output=True, check=True).stdout
        contents, result = rewritten(archive)
        assert len(result) < 1 << 20
        assert [(info.uid, info.mtime) for info in headers(result)] == [(3000000, int(source.stat().st_mtime))]
        assert contents.size < 1 << 20
        rootfs = tmp_path / form
        rootfs.mkdir()
        assert unpack(result, rootfs).returncode == 0
        copy = rootfs / source.name
        assert copy.stat().st_size == 1 << 32
        assert copy.stat().st_blocks * 512 < 1 << 20
        with copy.open("rb") as file:
            beginning = file.read(4 << 20)
        assert beginning == bytes(1 << 20) + b"middle" + bytes((2 << 20) - 6) + b"x" * 5000 + bytes((1 << 20) - 5000)


@pytest.mark.parametrize("name", ["link\0/../x", "a\0b"])
def test_a_pax_header_with_a_nul_in_a_path_is_refused(name):
    assert "there is a NUL in its name" in refused(entry("x", pax_headers={"path": name}))


def test_types_that_no_root_filesystem_has_are_refused():
    assert "entries of type b'M' are not known" in refused(entry("x", b"M"))


def damaged(data):
    with pytest.raises(RootlessError) as caught:
        rewritten(data)
    return str(caught.value)


def test_an_archive_cut_anywhere_is_refused():
    whole = packed(entry("a", data=b"a" * 600), entry("b" * 300), entry("c", data=b"c"))
    end = len(whole.rstrip(b"\0")) + 511 & ~511
    for length in range(0, end, 64):
        assert damaged(whole[:length]).startswith("read test.tar: damaged, cut short, or no tar archive: ")
    assert names(rewritten(whole[: end + 1024])[1]) == ["a", "b" * 300, "c"]


def test_a_damaged_header_is_not_the_end_of_the_archive():
    whole = bytearray(packed(entry("a"), entry("b"), entry("c")))
    whole[512 + 3] ^= 1
    assert "damaged" in damaged(bytes(whole))


def test_headers_upon_headers_are_refused():
    record = b"11 comment=\n".ljust(512, b"\0")
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 11
    assert "damaged" in damaged((header.tobuf(tarfile.USTAR_FORMAT) + record) * 20000 + packed(entry("a")))


@pytest.mark.parametrize("data", [b"", b"hello", b"hello" * 1000, bytes(10240), os.urandom(4096)])
def test_from_refuses_other_files_than_archives(data):
    assert damaged(data).startswith("read test.tar: ")


def test_image_archive_is_refused_with_a_fix():
    message = refused(entry("blobs/sha256/abc"), entry("oci-layout"), entry("manifest.json"))
    assert "an image with its layers" in message
    assert "podman export" in message


def test_archive_with_or_without_a_shell():
    assert rewritten(packed(entry("bin/sh")))[0].has_file("/bin/sh")
    usr_merged = (entry("bin", LINK, "usr/bin"), entry("usr/bin/dash"), entry("usr/bin/sh", LINK, "/bin/../bin/dash"))
    assert rewritten(packed(*usr_merged))[0].has_file("/bin/sh")
    assert not rewritten(packed(entry("bin", LINK, "/usr/bin"), entry("usr/x")))[0].has_file("/bin/sh")
    assert not rewritten(packed(entry("bin/sh", LINK, "sh")))[0].has_file("/bin/sh")
    assert not rewritten(packed(entry("bin/sh", DIRECTORY)))[0].has_file("/bin/sh")


class Closed(io.RawIOBase):
    def write(self, _data):
        raise BrokenPipeError


def test_broken_pipe_is_not_reported_as_a_bad_archive():
    with pytest.raises(SinkError):
        rewrite(io.BufferedReader(io.BytesIO(packed(entry("a")))), Closed(), name="test.tar", ids=ALL_IDS)


def compressed(data, program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this host")
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd", "cat"])
def test_compressed_archives(tmp_path, program):
    data = packed(*(entry(str(index), data=os.urandom(10000)) for index in range(100)))
    packed_file = compressed(data, program) if program != "cat" else data
    path = tmp_path / "archive with no telling name"
    path.write_bytes(packed_file)
    counted: list[int] = []
    with Source(str(path)) as source:
        source.progress = counted.append
        with decompressed(source) as stream:
            assert stream.read(5) + stream.read(1 << 30) == data
        assert source.size == sum(counted) == len(packed_file)


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed_archives_that_are_cut_short(tmp_path, program):
    data = packed(*(entry(str(index), data=os.urandom(10000)) for index in range(10)))
    whole = compressed(data, program)
    for length in (8, len(whole) // 2, len(whole) - 3):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        with (
            pytest.raises(RootlessError, match="damaged, cut short"),
            Source(str(path)) as source,
            decompressed(source) as stream,
        ):
            rewrite(stream, io.BytesIO(), name="cut", ids=ALL_IDS)


def test_damaged_zstd_is_refused(tmp_path):
    whole = bytearray(compressed(packed(entry("a", data=os.urandom(10000))), "zstd"))
    whole[len(whole) // 2] ^= 1
    whole[6] ^= 0xFF
    (tmp_path / "wrong").write_bytes(whole)
    with (
        pytest.raises(RootlessError, match="read wrong: ") as caught,
        Source(str(tmp_path / "wrong")) as source,
        decompressed(source) as stream,
    ):
        rewrite(stream, io.BytesIO(), name="wrong", ids=ALL_IDS)
    assert caught.value.code == "RL-ARCHIVE"


def test_consecutive_zstd_frames_are_one_archive(tmp_path):
    one, two = compressed(b"one" * 1000, "zstd"), compressed(b"two", "zstd")
    (tmp_path / "file").write_bytes(one + two)
    with Source(str(tmp_path / "file")) as source:
        assert decompressed(source).read() == b"one" * 1000 + b"two"


def test_zstd_without_a_decompressor_names_the_package(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    for name in ("compression", "backports"):
        monkeypatch.setitem(sys.modules, name, None)
    with Source(str(tmp_path / "file")) as source, pytest.raises(RootlessError) as caught:
        decompressed(source)
    assert (caught.value.code, caught.value.fix) == ("RL-ARCHIVE", "install it: pip install backports.zstd")


def read_xz(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with Source(str(tmp_path / "file")) as source:
        return decompressed(source).read()


def with_dictionary(data, size_code):
    """Return an xz stream whose header asks for a dictionary of another size (xz's file format, 5.3.1)."""
    start, length = 12, (data[12] + 1) * 4
    block = bytearray(data[start : start + length])
    block[block.index(b"\x21\x01") + 2] = size_code
    block[-4:] = zlib.crc32(block[:-4]).to_bytes(4, "little")
    return data[:start] + block + data[start + length :]


def test_consecutive_xz_streams_are_one_archive(tmp_path):
    one, two = lzma.compress(b"one" * 1000), lzma.compress(b"two")
    for data in (one + two, one + bytes(8) + two + bytes(4), with_dictionary(one, 28) + two):  # 28: 64 MB, as xz -9
        assert read_xz(tmp_path, data) == b"one" * 1000 + b"two"


def test_xz_that_takes_gigabytes_to_decompress_is_refused(tmp_path):
    with pytest.raises(RootlessError, match="takes more than 256 MB of memory") as caught:
        read_xz(tmp_path, with_dictionary(lzma.compress(b"data"), 40))
    assert caught.value.code == "RL-ARCHIVE"


def test_wrong_checksum_at_the_end_is_refused(tmp_path):
    whole = bytearray(gzip.compress(packed(entry("a", data=b"a"))))
    whole[-8] ^= 1
    path = tmp_path / "wrong"
    path.write_bytes(whole)
    with (
        pytest.raises(RootlessError, match="CRC"),
        Source(str(path)) as source,
        decompressed(source) as stream,
    ):
        rewrite(stream, io.BytesIO(), name="wrong", ids=ALL_IDS)


@pytest.mark.parametrize(("path", "reason"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_unreadable_archive_is_refused(tmp_path, path, reason):
    with pytest.raises(RootlessError) as caught:
        Source(str(tmp_path / path))
    assert str(caught.value) == f"open {tmp_path / path}: {reason}"


# Few different parts, so that entries collide; "out" is a directory beside the root file system.
parts = st.sampled_from(["a", "b", "..", ".", "", "out", "\udcff", "c\nd"])
paths = st.lists(parts, min_size=1, max_size=4).map("/".join).filter(bool)
entries = st.builds(
    entry,
    name=paths,
    kind=st.sampled_from([FILE, HARD, LINK, DIRECTORY, DEVICE, FIFO]),
    target=paths,
    data=st.just(b""),
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(entries, min_size=1, max_size=8))
def test_filtered_entries_stay_inside(generated):
    try:
        _, result = rewritten(packed(*generated))
    except RootlessError:
        return
    links: set[str] = set()
    there: set[str] = set()
    for info, _ in members(result):
        parts_of_name = info.name.split("/")
        assert info.name == "." or not {"", ".", ".."} & set(parts_of_name)
        assert not any("/".join(parts_of_name[:length]) in links for length in range(1, len(parts_of_name)))
        assert info.type in {FILE, HARD, LINK, DIRECTORY, FIFO}
        if info.islnk():
            assert info.linkname in there
        if info.issym() or (info.islnk() and info.linkname in links):
            links.add(info.name)
        else:
            assert info.name not in links
        there.add(info.name)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, min_size=2, max_size=6))
def test_unpacked_files_stay_inside(tmp_path_factory, generated):
    try:
        _, result = rewritten(packed(*generated))
    except RootlessError:
        return
    place = tmp_path_factory.mktemp("place")
    (place / "out").mkdir()
    rootfs = place / "rootfs"
    rootfs.mkdir()
    unpack(result, rootfs)
    assert sorted(path.name for path in place.iterdir()) == ["out", "rootfs"]
    assert list((place / "out").iterdir()) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(entries, min_size=1, max_size=4), st.data())
def test_a_damaged_archive_gives_an_error_or_a_safe_archive(generated, data):
    whole = bytearray(packed(*generated))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, result = rewritten(bytes(whole))
    except RootlessError:
        return
    assert not any(".." in name.split("/") for name in names(result))
