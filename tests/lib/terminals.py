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


def is_raw(mode) -> bool:
    """Whether settings pass every key on."""
    return not mode[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


# --- conversations with a program; `start` runs one and returns its Typewriter ---------------------------------------


def edit_a_line(start):
    """Correct a line before its end: the caller's terminal is raw, and the container's echoes and edits lines."""
    terminal = start("sh", "-c", 'echo ready; read line; echo "<$line>"')
    terminal.until(b"ready\r\n")
    assert is_raw(terminal.mode)
    terminal.type(b"abc\x7f\r")
    assert terminal.until(b">\r\n") == b"abc\x08 \x08\r\n<ab>\r\n"
    terminal.ends(0)


def press(start, key, name):
    """Press a key that is a signal: the program gets it."""
    terminal = start("sh", "-c", f"trap 'echo; echo {name}; exit 42' {name}; echo ready; sleep 1000 & wait; wait")
    terminal.until(b"ready\r\n")
    terminal.type(key)
    terminal.until(f"\r\n{name}\r\n".encode())
    terminal.ends(42)


def reopen(start, name):
    """Let a program close its terminal, and open it again by name."""
    script = (
        "echo ready; exec 3>/data/x </dev/null >/dev/null 2>&1; read line </dev/null; "
        f'exec >{name}; echo again; exec >/dev/null; exec <{name}; read line; echo "<$line>" >{name}'
    )
    terminal = start("sh", "-c", script)
    terminal.until(b"ready\r\nagain\r\n")
    terminal.type(b"input\r")
    terminal.until(b"<input>\r\n")
    terminal.ends(0)
