"""Cached Plans with a terminal: the front door relays it without Python, and with the same outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import termios

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import PATIENCE, Reader, until
from tests.lib.native import MOST_MEMORY, Runs, plans, proportional_memory, warm
from tests.lib.terminals import Typewriter, edit_a_line, press, reopen

__all__ = ["plans"]  # the fixture

OFF = {"ROOTLESS_FRONT": "0"}
GATE = 'test ! -e /data/go || exec "$@"'
"""A script that ends at once until a file is there: so the Plan of a program that talks is cached before it does."""


@pytest.fixture
def runs(rootless, need, plans):
    """The command, whose cache is empty."""
    return Runs(rootless, need)


@pytest.fixture(params=["run", "exec"])
def cached(request, rootless, runs):
    """Return a function that makes a container with a program, and returns the cached command that runs it."""
    user = rootless.user

    def make(*args) -> list[str]:
        config = base_config("sh", "-c", GATE, "sh", *args)
        config["process"]["terminal"] = True
        words = ["run", "-b", str(user.tmp / "bundle"), "c1"]
        if request.param == "exec":
            config = base_config("sleep", "1000")
            words = ["exec", "-it", "c1", "sh", "-c", GATE, "sh", *args]
        bundle = make_bundle(user, config)
        if request.param == "exec":
            rootless.create("c1", bundle)
            rootless.start("c1")
        warm(runs, *words)
        (bundle / "rootfs/data/go").touch()
        return words

    return make


@pytest.fixture
def native(cached, rootless, runs):
    """Return a function that runs a program in a container, from a terminal, by a cached Plan."""
    made = []

    def run(*args, **options) -> Typewriter:
        made.append(Typewriter(rootless.user, runs.argv(*cached(*args)), **options))
        return made[-1]

    yield run
    for each in made:
        each.__exit__()
    assert runs.is_native()


def test_program_has_a_terminal_of_the_callers_size(native):
    script = "test -t 0 && test -t 1 && test -t 2 && tty; echo by name >/dev/tty; stty size; exit 7"
    terminal = native("sh", "-c", script, size=(31, 97))
    assert [terminal.until(b"\r\n") for _ in range(3)] == [b"/dev/pts/0\r\n", b"by name\r\n", b"31 97\r\n"]
    terminal.ends(7)


def test_size_follows_the_callers(native):
    terminal = native("sh", "-c", "trap 'stty size' WINCH; stty size; while read x; do stty size; done")
    assert terminal.until(b"\r\n") == b"24 80\r\n"
    terminal.resize(50, 100)
    assert terminal.until(b"\r\n") == b"50 100\r\n"
    terminal.type(b"\x04")
    terminal.ends(0)


def test_callers_terminal_is_raw_meanwhile(native):
    edit_a_line(native)


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "INT"), (b"\x1a", "TSTP")])
def test_keys_that_are_signals_go_to_the_program(native, key, name):
    press(native, key, name)


def test_many_lines_of_output_arrive(native):
    terminal = native("sh", "-c", "seq 1 50000; exit 6")
    received = terminal.until(b"\r\n50000\r\n")
    assert received.split() == [str(number).encode() for number in range(1, 50001)]
    terminal.ends(6)


def test_a_program_that_closes_its_terminal_can_open_it_again(native):
    reopen(native, "/dev/pts/0")


def test_typed_ahead_input_reaches_the_program(cached, rootless):
    words = cached("sh", "-c", 'read line; echo "<$line>"')
    with Typewriter(rootless.user, ["sh", "-c", 'read go; exec "$@"', "sh", *rootless.argv(*words)]) as terminal:
        terminal.type(b"go\nfor the program\n")
        terminal.until(b"<for the program>\r\n")
        terminal.ends(0)


def test_hangup_ends_the_program(cached, rootless):
    words = cached("sh", "-c", "trap 'exit 5' HUP; echo ready; sleep 1000 & wait; wait")
    terminal = Typewriter(rootless.user, rootless.argv(*words))
    terminal.until(b"ready\r\n")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert terminal.process.wait(timeout=PATIENCE) == 5


@pytest.mark.parametrize("text", ["one\ntwo", ""])
def test_input_and_output_over_pipes_are_those_of_python(cached, rootless, runs, text):
    words = cached("sh", "-c", "stty -echo; stty -a | grep -o .onlcr; cat; echo '<end>'")
    done, native = runs(*words, input=text)
    assert native
    assert done.stdout.endswith(f"{text}<end>\n")
    assert "-onlcr\n" in done.stdout
    python = rootless(*words, input=text, env=OFF)
    # input before `stty -echo` was echoed
    assert [(each.returncode, each.stderr, each.stdout[-len(text) - 6 :]) for each in (done, python)] == [
        (0, "", f"{text}<end>\n")
    ] * 2


def test_a_job_in_the_background_does_not_change_the_terminal(cached, rootless, runs):
    """The terminal is the shell's: the front door leaves the job to Python."""
    words = cached("sh", "-c", "echo ran")
    script = 'set -m; "$@" & wait %1; echo "status $?"'
    with Typewriter(rootless.user, ["sh", "-c", script, "sh", *runs.argv(*words)]) as terminal:
        before = termios.tcgetattr(terminal.slave)
        terminal.until(b"status ")
        assert termios.tcgetattr(terminal.slave) == before
        terminal.until(b"\r\n")
    assert not runs.is_native()


@pytest.mark.parametrize("call", ["recvmsg", "socketpair", "clone"])
def test_a_failed_call_leaves_it_to_python(cached, rootless, runs, call):
    words = cached("sh", "-c", "echo ran; exit 3")
    inject = ["-e", f"inject={call}:error=ENOMEM:when=1"]
    with Typewriter(rootless.user, runs.argv(*words, strace=inject)) as terminal:
        terminal.until(b"ran\r\n")
        terminal.ends(3)
    assert not runs.is_native()
    assert [each["id"] for each in rootless.list()] == (["c1"] if words[0] == "exec" else [])


def test_waiting_is_small(cached, rootless, require_root):
    words = cached("sh", "-c", "echo up; read line")
    with Typewriter(rootless.user, rootless.argv(*words)) as terminal:
        terminal.until(b"up\r\n")
        size = proportional_memory(terminal.process.pid)
        terminal.type(b"\r")
        terminal.ends(0)
    assert 0 < size < MOST_MEMORY


def test_blocked_relay_can_be_ended(cached, rootless):
    words = cached("sh", "-c", "trap 'kill $!; exit 42' TERM; while echo y; do :; done & wait")
    ours, theirs = os.pipe()
    with rootless.popen(*words, stdin=subprocess.PIPE, stdout=theirs) as run:
        reader = Reader(ours)
        assert reader.line() == "y"
        os.close(theirs)
        run.send_signal(signal.SIGTERM)
        reader.rest()
        assert run.wait(timeout=PATIENCE) == 42
    os.close(ours)
    until(lambda: words[0] == "exec" or rootless.list() == [], "the container is gone")


@pytest.mark.parametrize("cached", ["run"], indirect=True)
def test_terminal_that_a_stopped_job_has_lost_stays_as_it_is(cached, rootless, runs):
    slow = ["-e", "inject=socketpair:delay_enter=500000:when=1"]
    argv = ["bash", "-c", 'set -m; "$@"; bg; wait; echo over; read x', "bash", *runs.argv(*cached("true"), strace=slow)]
    with Typewriter(rootless.user, argv) as terminal:
        until(lambda: "TIOCGPGRP" in runs.trace.read_text(), "the front door has asked whose the terminal is")
        os.killpg(os.tcgetpgrp(terminal.master), signal.SIGSTOP)
        terminal.until(b"over")
        assert terminal.mode == terminal.original
    assert runs.is_native()
