"""process.terminal: the container's terminal, relayed by a foreground `run` or sent over a socket."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import PATIENCE, Reader, await_end, until
from tests.lib.terminals import Typewriter, edit_a_line, is_raw, press, reopen
from tests.lib.waiting import each_waiter

__all__ = ["each_waiter"]

pytestmark = pytest.mark.usefixtures("each_waiter")


def with_terminal(*args, **process):
    config = base_config(*args)
    config["process"] |= {"terminal": True} | process
    config["process"]["env"].append("TERM=xterm")
    return config


@pytest.fixture
def typewriter(rootless, user):
    """Return a function that runs a command in a container with a terminal, from a terminal."""
    made = []

    def run(*args, flags=(), config=None, **options) -> Typewriter:
        bundle = make_bundle(user, config or with_terminal(*args))
        made.append(Typewriter(user, rootless.argv("run", *flags, "-b", bundle, "c1"), **options))
        return made[-1]

    yield run
    for each in made:
        each.__exit__()


# --- in a terminal ---------------------------------------------------------------------------------------------------


def test_the_program_has_a_terminal(typewriter):
    script = (
        "test -t 0 && test -t 1 && test -t 2 && tty; echo by name >/dev/tty; echo to the console >/dev/console; "
        "stat -c '%t,%T %U %a' /dev/pts/0; stat -c '%t,%T %U' /dev/console; ls -1 /dev/pts; exit 7"
    )
    terminal = typewriter("sh", "-c", script)
    terminal.ends(7)
    lines = [terminal.until(b"\r\n").decode().strip() for _ in range(7)]
    assert lines[:5] == ["/dev/pts/0", "by name", "to the console", "88,0 root 620", "88,0 root"]
    assert sorted(lines[5:]) == ["0", "ptmx"]


def test_the_terminal_belongs_to_the_user_of_the_program(typewriter):
    config = with_terminal("sh", "-c", "stat -c %u:%g /dev/pts/0; echo hello >/dev/pts/0", user={"uid": 33, "gid": 33})
    terminal = typewriter(config=config)
    terminal.ends(0)
    assert terminal.until(b"\r\n").startswith(b"33:")
    assert terminal.until(b"\r\n") == b"hello\r\n"


def is_in_foreground(command):
    """Whether a program with this command line is in its terminal's foreground: /proc/PID/stat, pgrp and tpgid."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if fields[2] == fields[5] and (directory / "cmdline").read_bytes() == command:
                return True
    return False


def test_a_shell_has_job_control(typewriter):
    terminal = typewriter("sh", "-i")
    terminal.until(b"# ")
    terminal.type(b"sleep 1000\r")
    until(lambda: is_in_foreground(b"sleep\0001000\0"), "the shell has put its child in the foreground")
    terminal.type(b"\x1a")
    terminal.until(b"Stopped")
    terminal.until(b"# ")
    terminal.type(b"exit 3\r")
    terminal.until(b"You have stopped jobs.\r\n")
    terminal.until(b"# ")
    terminal.type(b"exit 3\r")
    terminal.ends(3)


def test_terminal_size_follows_the_callers(typewriter):
    config = with_terminal("sh", "-c", "trap 'stty size' WINCH; stty size; while read x; do stty size; done")
    config["process"]["consoleSize"] = {"height": 11, "width": 22}
    terminal = typewriter(config=config, size=(40, 132))
    assert terminal.until(b"\r\n") == b"40 132\r\n"
    terminal.type(b"\r")
    assert terminal.until(b"\r\n") == b"\r\n"
    assert terminal.until(b"\r\n") == b"40 132\r\n"
    terminal.resize(50, 100)
    assert terminal.until(b"\r\n") == b"50 100\r\n", "the program received SIGWINCH"
    terminal.type(b"\x04")
    terminal.ends(0)


def test_callers_terminal_is_raw_during_run(typewriter):
    edit_a_line(typewriter)


@pytest.mark.parametrize(("how", "status"), [("exit", 42), ("kill", 137), ("terminate", 42), ("delete", 137)])
def test_the_callers_terminal_is_restored(typewriter, rootless, how, status):
    terminal = typewriter("sh", "-c", "trap 'exit 42' TERM; exec 3<&0; echo ready; (read x <&3; kill $$) & wait; wait")
    terminal.until(b"ready\r\n")
    assert is_raw(terminal.mode)
    if how == "exit":
        terminal.type(b"\r")
    elif how == "kill":
        assert rootless("kill", "c1", "KILL").returncode == 0
    elif how == "terminate":
        terminal.process.terminate()
    else:
        assert rootless("delete", "--force", "c1").returncode == 0
    terminal.ends(status)
    assert rootless.list() == []


def test_callers_terminal_is_unchanged_if_run_fails(typewriter):
    terminal = typewriter("/nope")
    terminal.ends(1)
    assert b"no such file or directory" in terminal.until(b"\r\n")


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "INT"), (b"\x1a", "TSTP"), (b"\x1c", "QUIT")])
def test_keys_that_are_signals_go_to_the_program(typewriter, key, name):
    press(typewriter, key, name)


def test_end_of_input_key_reaches_the_program(typewriter):
    terminal = typewriter("sh", "-c", "stty -echo; echo ready; cat; echo end")
    terminal.until(b"ready\r\n")
    terminal.type(b"line\r")
    assert terminal.until(b"\r\n") == b"line\r\n"
    terminal.type(b"\x04")
    assert terminal.until(b"\r\n") == b"end\r\n"
    terminal.ends(0)


def test_typed_ahead_input_reaches_the_container(rootless, user):
    bundle = make_bundle(user, with_terminal("sh", "-c", 'read line; echo "<$line>"'))
    script = 'read go; exec "$@"'
    with Typewriter(user, ["sh", "-c", script, "sh", *rootless.argv("run", "-b", bundle, "c1")]) as terminal:
        terminal.type(b"go\nfor the container\n")
        terminal.until(b"<for the container>\r\n")
        terminal.ends(0)


def test_hangup_of_the_terminal_ends_the_program(rootless, user):
    bundle = make_bundle(user, with_terminal("sh", "-c", "trap 'exit 5' HUP; echo ready; sleep 1000 & wait; wait"))
    terminal = Typewriter(user, rootless.argv("run", "-b", bundle, "c1"))
    terminal.until(b"ready\r\n")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(timeout=PATIENCE) == 5
    assert rootless.list() == []


def test_a_program_that_closes_its_terminal_can_open_it_again(typewriter):
    reopen(typewriter, "/dev/console")


def _exchange(terminal, data, end):
    """Type `data` as fast as the terminal accepts it; return the output up to `end`."""
    os.set_blocking(terminal.master, False)
    deadline = time.monotonic() + PATIENCE
    received = b""
    while not received.endswith(end):
        assert time.monotonic() < deadline, f"stuck; {len(data)} bytes to go, received {len(received)}"
        readable, writable, _ = select.select([terminal.master], [terminal.master] if data else [], [], 1)
        if writable:
            data = data[os.write(terminal.master, data[:4096]) :]
        if readable:
            received += os.read(terminal.master, 65536)
    return received


def test_a_big_paste_arrives(typewriter):
    data = os.urandom(100_000).translate(bytes(33 + byte % 90 for byte in range(256)))
    terminal = typewriter("sh", "-c", f"stty raw -echo; echo ready; head -c {len(data)} | md5sum; echo end")
    terminal.until(b"ready\n")
    received = _exchange(terminal, data, b"end\n")
    assert received.split()[0].decode() == hashlib.md5(data).hexdigest()
    terminal.ends(0)


def test_large_data_in_both_directions(typewriter):
    data = os.urandom(100_000).translate(bytes(33 + byte % 90 for byte in range(256)))
    terminal = typewriter("sh", "-c", f"stty raw -echo; echo ready; head -c {len(data)}; echo; echo end")
    terminal.until(b"ready\n")
    assert _exchange(terminal, data, b"end\n") == data + b"\nend\n"
    terminal.ends(0)


def test_many_lines_are_edited_and_echoed(typewriter, user):
    lines = b"".join(b"%07d %s\n" % (number, b"x" * 60) for number in range(1500))
    terminal = typewriter("sh", "-c", "echo ready; cat >/data/file; echo end")
    terminal.until(b"ready\r\n")
    echoed = _exchange(terminal, lines.replace(b"\n", b"\r") + b"\x04", b"end\r\n")
    assert echoed == lines.replace(b"\n", b"\r\n") + b"end\r\n"
    assert (user.tmp / "bundle/rootfs/data/file").read_bytes() == lines
    terminal.ends(0)


def test_output_before_the_end_is_complete(typewriter):
    terminal = typewriter("seq", "1", "50000")
    received = terminal.until(b"\r\n50000\r\n")
    assert received.split() == [str(number).encode() for number in range(1, 50001)]
    terminal.ends(0)


# --- without a terminal of the caller --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["one\ntwo\n", "one\ntwo", "", "\n"])
def test_input_over_a_pipe_ends_as_if_typed(rootless, user, text):
    bundle = make_bundle(user, with_terminal("sh", "-c", "stty -echo; cat; echo '<end>'"))
    done = rootless("run", "-b", bundle, "c1", input=text)
    assert done.returncode == 0
    # input before `stty -echo` was echoed
    assert done.stdout.replace("\r", "").endswith(text + "<end>\n")
    assert done.stderr == ""


def test_null_input_ends_a_shell(rootless, user):
    bundle = make_bundle(user, with_terminal("sh"))
    assert rootless("run", "-b", bundle, "c1").returncode == 0
    assert rootless("run", "-b", bundle, "c1", input="exit 9\n").returncode == 9


def test_console_size_counts_without_a_callers_terminal(rootless, user):
    config = with_terminal("stty", "size", consoleSize={"height": 33, "width": 99})
    assert rootless("run", "-b", make_bundle(user, config), "c1").stdout == "33 99\n"


def test_large_output_to_a_slow_reader(rootless, user):
    bundle = make_bundle(user, with_terminal("sh", "-c", "seq 1 100000; exit 6"))
    with rootless.popen("run", "-b", bundle, "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "1"
        # it waits for this reader, and still reacts to signals
        run.send_signal(signal.SIGWINCH)
        assert rootless.status("c1") == "running"
        numbers = reader.rest().split()
        assert numbers == [str(number).encode() for number in range(2, 100001)]
        assert run.wait(timeout=PATIENCE) == 6


def test_blocked_relay_can_be_ended(rootless, user):
    script = "trap 'kill $!; exit 42' TERM; while echo y; do :; done & wait"
    bundle = make_bundle(user, with_terminal("sh", "-c", script))
    ours, theirs = os.pipe()
    with rootless.popen("run", "-b", bundle, "c1", stdin=subprocess.PIPE, stdout=theirs) as run:
        reader = Reader(ours)
        assert reader.line() == "y"
        until(lambda: not select.select([], [theirs], [], 0)[1], "the pipe is full")
        os.close(theirs)
        pid = rootless.pid("c1")
        run.terminate()
        await_end(pid)
        reader.rest()
        assert run.wait(timeout=PATIENCE) == 42
    os.close(ours)


# --- over a socket ---------------------------------------------------------------------------------------------------


class Listener:
    """A console socket as in conmon and containerd's shim: it receives one descriptor."""

    def __init__(self, user, path) -> None:
        self.path = Path(path)
        self.socket = socket.socket(socket.AF_UNIX)
        directory = os.open(self.path.parent, os.O_PATH)
        self.socket.bind(f"/proc/self/fd/{directory}/{self.path.name}")
        os.close(directory)
        self.socket.listen(1)
        own(user, self.path)

    def receive(self):
        """Return the terminal, which must be the only descriptor."""
        self.socket.settimeout(PATIENCE)
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(PATIENCE)
            data, descriptors, _, _ = socket.recv_fds(connection, 4096, 10)
            assert data, "a descriptor needs at least one byte of data"
            assert len(descriptors) == 1
            assert connection.recv(100) == b"", "no process keeps the socket open"
        self.socket.close()
        return descriptors[0]


@pytest.mark.parametrize("verb", ["create", "run --detach"])
def test_the_terminal_is_sent_over_the_socket(rootless, user, verb):
    config = with_terminal("sh", "-c", 'stty size; tty; read line; echo "<$line>"; exit 4')
    config["process"]["consoleSize"] = {"height": 30, "width": 60}
    bundle = make_bundle(user, config)
    listener = Listener(user, user.tmp / "socket")
    words = ["--bundle", bundle, "--console-socket", listener.path, "c1"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert rootless(*verb.split(), *words, **quiet).returncode == 0
    master = listener.receive()
    assert os.isatty(master)
    pid = rootless.pid("c1")
    if verb == "create":
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)} == {"/dev/pts/0"}
        rootless.start("c1")
    terminal = Reader(master)
    assert terminal.until(b"\r\n") == b"30 60\r\n"
    assert terminal.until(b"\r\n") == b"/dev/pts/0\r\n"
    os.write(master, b"typed\r")
    assert terminal.until(b">\r\n") == b"typed\r\n<typed>\r\n"
    await_end(pid)
    assert terminal.rest() == b""
    os.close(master)
    assert rootless("delete", "c1").returncode == 0


def test_foreground_run_can_send_its_terminal(rootless, user):
    bundle = make_bundle(user, with_terminal("sh", "-c", "tty; exit 4"))
    listener = Listener(user, user.tmp / "socket")
    with rootless.popen("run", "-b", bundle, "--console-socket", listener.path, "c1", stdout=subprocess.PIPE) as run:
        master = listener.receive()
        assert Reader(master).until(b"\r\n") == b"/dev/pts/0\r\n"
        assert run.wait(timeout=PATIENCE) == 4
        assert run.stdout.read() == ""
        os.close(master)


@pytest.mark.parametrize("where", ["long", "relative"])
def test_the_path_of_the_socket(rootless, user, where):
    directory = user.tmp / ("d" * 100) / ("e" * 100) if where == "long" else user.tmp
    directory.mkdir(parents=True, exist_ok=True)
    listener = Listener(user, directory / "the socket")
    path = "the socket" if where == "relative" else listener.path
    done = rootless.create("c1", make_bundle(user, with_terminal("true")), "--console-socket", path, cwd=user.tmp)
    assert done.returncode == 0
    os.close(listener.receive())


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("nobody", "connection refused"),
        ("missing", "no such file or directory"),
        ("missing/socket", "no such file or directory"),
        ("file", "connection refused"),
        ("n" * 300, "too long"),
        ("/", ""),
        ("", ""),
    ],
)
def test_console_socket_without_a_listener_is_reported(rootless, user, path, cause):
    (user.tmp / "file").touch()
    own(user, user.tmp / "file")
    Listener(user, user.tmp / "nobody").socket.close()
    bundle = make_bundle(user, with_terminal("true"))
    for verb in (["create"], ["run", "-d"]):
        done = rootless(*verb, "-b", bundle, "--console-socket", path, "c1")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "internal error" not in done.stderr
        assert cause in done.stderr
        assert "(config.json: process.terminal)" in done.stderr
    assert rootless.list() == []


@pytest.mark.parametrize("verb", ["create", "run --detach"])
def test_a_detached_terminal_needs_a_socket(rootless, user, verb):
    done = rootless(*verb.split(), "-b", make_bundle(user, with_terminal("true")), "c1")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: terminal: cannot allocate tty if the caller will detach without setting console socket "
        "(config.json: process.terminal); fix: add --console-socket PATH\n"
    )
    assert rootless.list() == []


@pytest.mark.parametrize("verb", ["create", "run --detach", "run"])
def test_a_socket_without_a_terminal_is_refused(rootless, user, verb):
    listener = Listener(user, user.tmp / "socket")
    bundle = make_bundle(user, base_config("true"))
    done = rootless(*verb.split(), "-b", bundle, "--console-socket", listener.path, "c1")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: terminal: cannot use console socket if the container has no terminal")
    assert rootless.list() == []
    listener.socket.close()


def test_a_terminal_without_devpts(rootless, user):
    config = with_terminal("true")
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "devpts"]
    done = rootless("run", "-b", make_bundle(user, config), "c1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "(config.json: process.terminal)" in done.stderr
    assert "devpts" in done.stderr


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_line_ends_are_unchanged_without_a_callers_terminal(either, user, verb):
    config = config_with_maps(user, "echo", "hello")
    words = [*either.command, "run", "--bundle", either.path, "box"]
    if verb == "run":
        config["process"]["terminal"] = True
        write_config(either.path, config)
    else:
        either.create(config, "sleep 600")
        words = [*either.command, "exec", "--tty", "held", "echo", "hello"]
    master, slave = pty.openpty()  # runc needs a terminal on some stream
    try:
        done = user.run(words, stdin=slave, stderr=slave, text=False)
    finally:
        os.close(master)
        os.close(slave)
    assert (done.returncode, done.stdout) == (0, b"hello\n")
