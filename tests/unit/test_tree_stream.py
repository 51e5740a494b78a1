"""The stream of `cp`: what comes out of a container is hostile."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile

import pytest

from rootless.container.inside.tree_files import from_files
from rootless.container.inside.tree_stream import Entry, entries, pack
from rootless.container.inside.tree_tar import to_tar
from rootless.errors import RootlessError

FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def read(data):
    return [(entry, content.read()) for entry, content in entries(io.BytesIO(data))]


def test_what_is_packed_is_read():
    xattrs = {"user.a": b"", "user.\udcff": b"\0\xff", "security.capability": b"x" * 20}
    there = [
        (Entry(b"", stat.S_IFDIR), b""),
        (Entry(b"a/b", FILE, 1, 2, -3, 4), b"text"),
        (Entry(b"l", LINK), b""),
        (Entry(b"x", FILE, 1, 2, -3, 4, b"", xattrs, (5, 1 << 63)), b"text"),
    ]
    assert read(b"".join(pack(entry) + content for entry, content in there)) == there


@pytest.mark.parametrize(
    "entry",
    [
        *(Entry(path, FILE) for path in (b"..", b".", b"/", b"/etc", b"a/../b", b"a//b", b"a/", b"a\0b")),
        Entry(b"x" * 4097, FILE),
        Entry(b"x", FILE, size=1 << 62),
        Entry(b"x", LINK, target=b"x" * 4097),
        Entry(b"x", LINK, target=b"a\0b"),
        Entry(b"x", FILE, xattrs={"": b"x"}),
        Entry(b"x", FILE, xattrs={"user.a\0b": b"x"}),
        Entry(b"x", FILE, xattrs={"user.a": b"x" * (1 << 18)}),
    ],
)
def test_impossible_entries_are_refused(entry):
    with pytest.raises(RootlessError) as caught:
        read(pack(entry))
    assert caught.value.code == "RL-CP"


@pytest.mark.parametrize("left", [1, 55, 56, 58, 61, 78, 80, 83])
def test_a_stream_that_ends_within_an_entry_is_no_stream(left):
    with pytest.raises(EOFError):
        read((pack(Entry(b"name", FILE, size=4, xattrs={"user.a": b"value"})) + b"text")[:left])


@pytest.mark.parametrize("data", [b"\0" * 7, b"\2\0\0\0\1\0\0\0a\0", b"\2\0\0\0\1\0\0\0abc", b"\xff" * 16 + b"a\0"])
def test_impossible_attributes_are_refused(data):
    head = struct.pack("=IIIIIIqQQQ", FILE, 0, 0, 1, 0, len(data), 0, 0, 0, 0)
    with pytest.raises(RootlessError, match="impossible"):
        read(head + b"x" + data)


def test_hard_links_and_attributes_are_in_the_archive(capfd):
    both = {"user.colour": b"\xffblue", "user.overlay.opaque": b"y", "security.selinux": b"label"}
    one = Entry(b"one", FILE, size=4, inode=(7, 8), xattrs=both)
    other = one._replace(path=b"other")
    another = one._replace(path=b"removed and made again", mtime=5)
    sink = io.BytesIO()
    to_tar(io.BytesIO(b"".join(pack(entry) + b"text" for entry in (one, other, another))), "d", sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        first, second, third = archive
        assert (first.name, second.name, third.name) == ("d/one", "d/other", "d/removed and made again")
        assert (second.islnk(), second.linkname, third.isreg()) == (True, "d/one", True)
        assert archive.extractfile(third).read() == b"text"
        assert first.pax_headers == {"SCHILY.xattr.user.colour": "\udcffblue"}
    assert capfd.readouterr().err == "rootless: warning: cp: left out extended attributes: user.overlay.opaque\n"


@pytest.mark.parametrize("name", ["file", "directory"])
def test_no_symlink_below_a_source_is_followed(tmp_path, monkeypatch, name):
    """Another user who can write there exchanges what cp has just looked at."""
    source, secret = tmp_path / "source", tmp_path / "secret"
    source.mkdir()
    secret.mkdir()
    (secret / "file").write_text("secret")
    if name == "directory":
        (source / name).mkdir()
    else:
        (source / name).write_text("text")
    look = os.stat

    def look_before_it_is_exchanged(path, **options):
        found = look(path, **options)
        if os.path.basename(path) == name:
            os.rename(source / name, tmp_path / "old")
            os.symlink(secret / "file" if name == "file" else secret, source / name)
        return found

    monkeypatch.setattr(os, "stat", look_before_it_is_exchanged)
    output = io.BytesIO()
    with pytest.raises(OSError, match=name):
        from_files(str(source), "copy", (0, 0), output)
    assert b"secret" not in output.getvalue()
