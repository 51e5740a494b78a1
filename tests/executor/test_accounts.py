"""ACCOUNT of the executor: a line for a user in files of a hostile image."""

from __future__ import annotations

import os

import pytest

from rootless.plan import ops
from rootless.plan.ops import Op
from tests.lib.bundles import own
from tests.lib.executor import NOTHING, as_user, failure, make_root, rooted, run

LINE = "user:*:1000:1000::/:/bin/sh"
ACCOUNT = Op(ops.ACCOUNT, "/etc/passwd", "user", "1000", LINE)
LONGEST = 4 << 20


@pytest.fixture
def root(user):
    root = make_root(user)
    (root / "etc").mkdir()
    return root


def added(user, root, content):
    """Return what the operation makes of a file."""
    path = root / "etc/passwd"
    path.write_bytes(content)
    own(user, root)
    as_user(user, run_it, root)
    return path.read_bytes()


def run_it(root):
    run(rooted(root, ACCOUNT))


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"root:x:0:0::/:/bin/sh\n",
        b"root:x:0:0::/:/bin/sh",
        b"use:x:1\nuser2:x:10000\nuserr\n",
        b"a:1000:5:1000:1000:1000:user\n",
        b"a:user:1\n",
        b"\n:::::\n::\n",
        b"user\0:x:7\nx:x:1000\0:\n\0\n",
        b"user" * 4000 + b":x:1\n",
        b"x" * (LONGEST - 1) + b"\n",
    ],
    ids=lambda before: repr(before[:30]),
)
def test_the_line_is_added_to_the_file(user, root, before):
    newline = b"\n" if before and not before.endswith(b"\n") else b""
    assert added(user, root, before) == before + newline + LINE.encode() + b"\n"


@pytest.mark.parametrize(
    "before",
    [
        b"user:x:5:5::/:/bin/sh\n",
        b"a:x:0:\nother:x:1000:5::/:/bin/sh",
        b"#" * 4094 + b"\nuser:x:5:5::/:\n",
        b"#" * 4090 + b"\nb:x:1000:5::/:\n",
    ],
)
def test_a_name_or_an_id_that_is_there_stays(user, root, before):
    assert added(user, root, before) == before


def test_an_image_without_the_file_gets_none(user, root):
    own(user, root)
    as_user(user, run_it, root)
    assert list((root / "etc").iterdir()) == []


def test_links_are_followed_inside_the_root(user, root):
    (root / "etc/passwd").symlink_to("../../../../lib/names")
    (root / "lib").mkdir()
    (root / "lib/names").write_text("a:x:1\n")
    own(user, root)
    as_user(user, run_it, root)
    assert (root / "lib/names").read_text() == f"a:x:1\n{LINE}\n"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (os.mkfifo, "EINVAL"),
        (os.mkdir, "EINVAL"),
        (lambda path: path.symlink_to("/proc/self/fd/1"), "EXDEV"),
        (lambda path: path.symlink_to("passwd"), "ELOOP"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), LONGEST + 1), "EFBIG"),
    ],
    ids=["a pipe", "a directory", "a descriptor", "a loop", "a large file"],
)
def test_another_kind_of_file_is_refused_unread(user, root, make, error):
    make(root / "etc/passwd")
    own(user, root)

    def fails():
        return failure(rooted(root, Op(ops.BIND, ops.RECURSIVE, *NOTHING[1:], "/proc", "/proc"), ACCOUNT))

    assert as_user(user, fails)[:2] == ("account", error)


def test_a_file_that_is_mounted_in_the_root_is_not_written_to(user, root):
    mounted = root / "mounted"
    mounted.write_text("a:x:1\n")
    (root / "etc/passwd").touch()
    own(user, root)

    def fails():
        return failure(rooted(root, Op(ops.BIND, *NOTHING, str(mounted), "/etc/passwd"), ACCOUNT))

    assert as_user(user, fails) == ("account", "EXDEV", "openat2")
    assert mounted.read_text() == "a:x:1\n"
