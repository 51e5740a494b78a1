"""`logs --follow` where the kernel does not report changes of a directory: fs.dir-notify-enable is 0."""

from __future__ import annotations

import errno
import fcntl
import os
import signal

import pytest

from rootless.container.observe import logs
from rootless.container.operations import undo
from rootless.container.state import store
from rootless.container.state.directory import LOG
from rootless.container.state.root import StateRoot
from rootless.procfs import identity

LINE = b"2026-05-01T10:00:00.000000000Z stdout F %d\n"


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """The directory of a container whose monitor is this process, and that will not hear of changes."""
    call = fcntl.fcntl

    def without_notification(fd, command, argument=0):
        if command == fcntl.F_NOTIFY:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return call(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", without_notification)
    handler = signal.getsignal(signal.SIGIO)
    with store.claim(StateRoot(str(tmp_path)), "c1", undo.clear) as claimed:
        undo.note(claimed, "monitor", {"process": identity(os.getpid())})
        claimed.put(LOG, LINE % 1)
        yield claimed
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGIO, handler)


def test_output_is_followed_to_its_end(entry):
    held = entry.hold_exit()
    log = logs._Log(entry)
    followed = log.follow()
    assert next(followed).text == b"1"
    entry.append(LOG, LINE % 2)
    assert next(followed).text == b"2"
    os.write(held, b"0 2026-05-01T10:00:00.000000000Z\n")
    os.close(held)
    assert list(followed) == []
    log.close()
