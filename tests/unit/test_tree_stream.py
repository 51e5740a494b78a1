"""The stream of `cp`: what comes out of a container is hostile."""

from __future__ import annotations

import io
import os
import stat

import pytest

from rootless.container.inside.tree_stream import Entry, entries, from_files, pack
from rootless.errors import RootlessError

FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def read(data):
    return [(entry, content.read()) for entry, content in entries(io.BytesIO(data))]


def test_what_is_packed_is_read():
    there = [(Entry(b"", stat.S_IFDIR), b""), (Entry(b"a/b", FILE, 1, 2, -3, 4), b"text"), (Entry(b"l", LINK), b"")]
    assert read(b"".join(pack(entry) + content for entry, content in there)) == there


@pytest.mark.parametrize(
    "entry",
    [
        *(Entry(path, FILE) for path in (b"..", b".", b"/", b"/etc", b"a/../b", b"a//b", b"a/", b"a\0b")),
        Entry(b"x" * 4097, FILE),
        Entry(b"x", FILE, size=1 << 62),
        Entry(b"x", LINK, target=b"x" * 4097),
        Entry(b"x", LINK, target=b"a\0b"),
    ],
)
def test_impossible_entries_are_refused(entry):
    with pytest.raises(RootlessError) as caught:
        read(pack(entry))
    assert caught.value.code == "RL-CP"


@pytest.mark.parametrize("left", [1, 39, 40, 42, 45])
def test_a_stream_that_ends_within_an_entry_is_no_stream(left):
    with pytest.raises(EOFError):
        read((pack(Entry(b"name", FILE, size=4)) + b"text")[:left])


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
