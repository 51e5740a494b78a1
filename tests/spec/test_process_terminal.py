"""config.md "Process", terminal and consoleSize: each property set, and observed from inside."""

from __future__ import annotations

import os
import select
import socket

import pytest

from tests.lib.boxes import SHORT, add_probe, config_with_maps
from tests.lib.bundles import base_config


def terminal(box, config):
    """Run a container with a terminal over a console socket; return its output."""
    path = box.user.tmp / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(SHORT)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        box.create(config, *config["process"].pop("script"), flags=["--console-socket", path])
        with listener.accept()[0] as connection:
            master = socket.recv_fds(connection, 100, 1)[1][0]
    box.user.run([*box.command, "start", "held"], check=True, timeout=SHORT)
    written = b""
    try:
        while select.select([master], [], [], SHORT)[0] and (data := os.read(master, 1000)):
            written += data
    except OSError:
        pass  # EIO: no process has the terminal open any more
    finally:
        os.close(master)
    return written.decode().splitlines()


@pytest.mark.spec("process.terminal", "process.consoleSize")
def test_terminal(either, need):
    add_probe(either, need)
    config = config_with_maps(either.user)
    size = {"height": 33, "width": 101}
    config["process"] |= {"terminal": True, "consoleSize": size, "script": ["probe size; tty; stat -c %F /dev/console"]}
    assert terminal(either, config) == ["101 33", "/dev/pts/0", "character special file"]


@pytest.mark.spec("process.terminal", "process.consoleSize")
def test_console_size(box, need):
    add_probe(box, need)
    config = base_config()
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"height": 33, "width": 101}
    done = box.run(config, "probe size; tty; stat -c '%F %u' /dev/console", check=True)
    assert done.stdout.splitlines() == ["101 33", "/dev/pts/0", "character special file 0"]


def test_console_size_means_nothing_without_a_terminal(either):
    config = config_with_maps(either.user)
    config["process"]["consoleSize"] = {"height": 33, "width": 101}
    assert either.lines(config, "tty || true") == ["not a tty"]
