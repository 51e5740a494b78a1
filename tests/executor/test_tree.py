"""The executor's side of `cp`: the stream of files that it receives."""

from __future__ import annotations

import os
import stat

from rootless.container.inside.tree_stream import END, Entry, pack
from rootless.launch.protocol import READY
from rootless.plan import ops
from rootless.plan.ops import Op
from tests.lib.containers import until
from tests.lib.executor import Executor, as_user, failure

RECEIVE = [Op(ops.NEW_USER), Op(ops.YIELD), Op(ops.BECOME, 0, 0)]
LONG_AGO = 1000000000


def stream_in() -> int:
    """Make a pipe the standard input of this process, which as_user() made; return its other end."""
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    return writer


def test_a_file_renamed_over_a_received_one_keeps_its_owner(user, need):
    need("newgidmap")
    into = user.tmp / "into"

    def steps():
        into.mkdir()
        (into / "secret").write_text("secret")
        stream = stream_in()
        running = Executor([*RECEIVE, Op(ops.RECEIVE_TREE, str(into)), Op(ops.READY)], all_ids=True)
        os.write(stream, pack(Entry(b"file", stat.S_IFREG | 0o666, 1, 1, LONG_AGO, size=7)) + b"con")
        running.message()
        running.map_ids()
        running.answer(b"G")
        until((into / "file").exists, "the file is there")
        received = os.open(into / "file", os.O_RDWR)
        (into / "secret").rename(into / "file")
        os.write(stream, b"tent" + END)
        last = running.until_settled()
        running.leave()
        running.wait()
        return last, os.read(received, 10), os.fstat(received), (into / "file").stat()

    last, content, status, taken = as_user(user, steps)
    assert (last.kind, content) == (READY, b"content"), last
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o666, LONG_AGO)
    assert status.st_uid not in (0, user.uid)
    assert taken.st_uid == user.uid
    assert taken.st_mtime > LONG_AGO


def test_a_hard_link_target_behind_a_symlink_is_refused(user):
    into = user.tmp / "into"

    def steps():
        into.mkdir()
        (user.tmp / "secret").write_text("secret")
        (into / "directory").symlink_to(user.tmp)
        os.write(stream_in(), pack(Entry(b"link", stat.S_IFREG | 0o666, target=b"directory/secret")) + END)
        return failure([*RECEIVE, Op(ops.RECEIVE_TREE, str(into)), Op(ops.READY)])

    assert as_user(user, steps) == ("receive_tree", "ELOOP", "openat2")
