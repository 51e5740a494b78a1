"""The stream of `cp`: what comes out of a container is hostile."""

from __future__ import annotations

import io
import stat

import pytest

from rootless.container.everyday.tree_stream import Entry, entries, pack
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
