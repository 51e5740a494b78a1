"""Terminals that run a command, as for a person."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import time

from tests.lib.containers import PATIENCE, Reader


class Typewriter:
    """A terminal that is the controlling terminal of a command."""

    def __init__(self, user, argv, size=(24, 80), env=None) -> None:
        self.master, self.slave = pty.openpty()
        os.fchown(self.slave, user.uid, -1)
        mode = termios.tcgetattr(self.slave)
        mode[6][termios.VERASE] = b"\x08"  # an unusual setting by which a test recognises the terminal
        termios.tcsetattr(self.slave, termios.TCSANOW, mode)
        self.original = termios.tcgetattr(self.slave)
        self.resize(*size)
        self.process = user.popen(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={"TERM": "xterm"} | (env or {}),
        )
        self._reader = Reader(self.master)
        self.until = self._reader.until

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in {self.master, self.slave}:
            os.close(fd)

    @property
    def mode(self):
        return termios.tcgetattr(self.slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize_until(self, end, *sizes):
        """Give it these sizes in turn, each second, until `end` comes."""
        deadline = time.monotonic() + PATIENCE
        while not self._reader.comes(end, 1) and time.monotonic() < deadline:
            for size in sizes:
                self.resize(*size)
        self.until(end)

    def type(self, data):
        os.write(self.master, data)

    def ends(self, status):
        assert self.process.wait(timeout=PATIENCE) == status
        assert self.mode == self.original, "the terminal's settings are restored"
