"""A foreground `run` or `exec` waits in little memory: Python hands over to helpers/front/attend.c."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import PATIENCE, Reader, children_of, readable, until
from tests.lib.terminals import Typewriter
from tests.lib.waiting import AT_ONCE, BY_PYTHON, is_attended, until_attended

MOST = 600
"""KB of memory, the shared pages in proportion (PSS)."""
READY = "echo ready; read word; exit 7"
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
NO_STREAMS = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def held_memory(user, pid):
    """Return the KB that a process holds, as its user sees it."""
    lines = user.run(["cat", f"/proc/{pid}/smaps_rollup"], check=True).stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def with_terminal(script):
    config = base_config("sh", "-c", script)
    config["process"]["terminal"] = True
    return config


def nothing_is_left(rootless):
    assert list(rootless.root.iterdir()) == []


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True], ids=["", "with a terminal"])
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_waiting_process_is_small(rootless, user, verb, terminal):
    words = ["run", "--bundle", make_bundle(user, base_config("sh", "-c", READY)), *["-it"] * terminal, "c1"]
    if verb == "exec":
        bundle = make_bundle(user, base_config("sleep", "600"), name="idle")
        rootless("run", "-d", "--bundle", bundle, "c1", **NO_STREAMS, check=True)
        words = ["exec", *["-it"] * terminal, "c1", "sh", "-c", READY]
    with Typewriter(user, rootless.argv(*words)) as typewriter:
        typewriter.until(b"ready\r\n")
        until_attended(typewriter.process.pid)
        if terminal:
            typewriter.type(b"half a line")
            typewriter.until(b"half a line")
        assert held_memory(user, typewriter.process.pid) <= MOST
        typewriter.type(b"\r")
        typewriter.ends(7)


def test_readers_of_ps_see_the_command(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", READY))
    with rootless.popen("run", "--bundle", bundle, "c1", **PIPES) as run:
        until_attended(run.pid)
        assert f"\0run\0--bundle\0{bundle}\0c1\0" in Path(f"/proc/{run.pid}/cmdline").read_text()
        until(lambda: Path(f"/proc/{run.pid}/comm").read_text() == "rootless\n", "the name")
        run.stdin.close()


def test_it_holds_only_the_descriptors_that_it_needs(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", READY))
    with rootless.popen("run", bundle, **PIPES) as run:
        until_attended(run.pid)
        names = lambda: {os.readlink(path) for path in Path(f"/proc/{run.pid}/fd").iterdir() if int(path.name) > 2}  # noqa: E731
        needed = {"anon_inode:[pidfd]", "anon_inode:[signalfd]", f"{rootless.root}/bundle/exit"}
        until(lambda: names() == needed, "only those")
        run.stdin.close()


# --- the same as Python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 7, 99, 100, 255])
@pytest.mark.parametrize("poststop", [False, True], ids=["", "with a hook"])
def test_the_status_is_the_programs(rootless, user, status, poststop):
    config = base_config("sh", "-c", f"exit {status}")
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]} if poststop else {}
    done = rootless("run", "--bundle", make_bundle(user, config), "c1", env=AT_ONCE)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    nothing_is_left(rootless)


@pytest.mark.parametrize("env", [BY_PYTHON, AT_ONCE], ids=["by Python", "by attend"])
def test_a_poststop_hook_has_the_callers_signals(rootless, user, env):
    found = user.tmp / "found"
    script = f"cat >/dev/null; grep -E '^Sig(Blk|Ign)' /proc/self/status >{found}"
    config = base_config("true")
    config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    words = ["sh", "-c", "trap '' USR2; exec \"$@\"", "sh"]
    words += rootless.argv("run", "--bundle", make_bundle(user, config), "c1")
    assert user.run(words, env=env).returncode == 0
    usr2 = 1 << signal.SIGUSR2 - 1
    assert found.read_text() == f"SigBlk:\t{0:016x}\nSigIgn:\t{usr2:016x}\n"


def test_a_warning_of_the_end_goes_to_the_log(rootless, user):
    config = base_config("sh", "-c", "exit 7")
    config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    log = ["--log", user.tmp / "log", "--log-format", "json"]
    done = rootless(*log, "run", "--bundle", make_bundle(user, config), "c1", env=AT_ONCE)
    assert (done.returncode, done.stderr) == (7, "")
    records = [json.loads(line) for line in (user.tmp / "log").read_text().splitlines()]
    assert [record["where"] for record in records if record["level"] == "warning"] == ["hooks.poststop[0]"]
    nothing_is_left(rootless)


def test_a_kept_container_stays(rootless, user):
    done = rootless("run", "--keep", make_bundle(user, base_config("sh", "-c", "exit 6")), env=AT_ONCE)
    assert done.returncode == 6
    assert rootless("wait", "bundle").stdout == "6\n"


def test_a_container_of_the_same_name_that_follows_stays(rootless, user):
    """Another command removes the container, and makes a new one, while the old one's caller has been stopped."""
    bundle = make_bundle(user, base_config("sh", "-c", READY))
    with rootless.popen("run", "--bundle", bundle, "c1", **PIPES) as run:
        until_attended(run.pid)
        run.send_signal(signal.SIGSTOP)
        rootless("delete", "--force", "c1", check=True)
        second = make_bundle(user, base_config("sleep", "600"), name="second")
        rootless("run", "-d", "--bundle", second, "c1", **NO_STREAMS, check=True)
        run.send_signal(signal.SIGCONT)
        assert run.wait(PATIENCE) == 137
    assert rootless.status("c1") == "running"


# --- the hand-over ---------------------------------------------------------------------------------------------------

RT = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8])
def test_signals_that_arrive_around_the_hand_over_are_forwarded(rootless, user, after):
    traps = "; ".join(f"trap 'echo {number}' {number}" for number in RT)
    config = base_config("sh", "-c", f"{traps}; trap 'exit 7' TERM; echo ready; sleep 1000 & while :; do wait; done")
    words = ["run", "--bundle", make_bundle(user, config), "c1"]
    with rootless.popen(*words, stdout=subprocess.PIPE, env={"ROOTLESS_ATTEND_AFTER": str(after)}) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        for number in RT:
            run.send_signal(number)
        assert sorted(int(reader.line()) for _ in RT) == list(RT)
        until_attended(run.pid)
        for number in RT:
            run.send_signal(number)
        assert sorted(int(reader.line()) for _ in RT) == list(RT)
        run.terminate()
        assert run.wait(PATIENCE) == 7


@pytest.mark.parametrize(
    "call",
    ["execve:delay_enter=1000000:when=3", "execve:delay_exit=1000000:when=3", "prctl:delay_enter=1000000:when=1"],
)
def test_a_signal_during_the_hand_over_is_forwarded(rootless, user, need, call):
    """The calls are those of `rootless`, Python, and the program that waits."""
    script = "trap 'echo got it; exit 42' USR1; echo ready; sleep 1000 & while :; do wait; done"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    trace = ["-o", user.tmp / "trace", "-e", f"trace={call.partition(':')[0]}", "-e", f"inject={call}"]
    words = [need("strace"), *trace, *rootless.argv("run", "-b", bundle, "c1")]
    with user.popen(words, stdout=subprocess.PIPE, env={"ROOTLESS_ATTEND_AFTER": "200"}) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        [pid] = children_of(run.pid)
        until(lambda: blocks(pid, signal.SIGUSR1), "the hand-over")
        os.kill(pid, signal.SIGUSR1)
        assert reader.line() == "got it"
        assert run.wait(PATIENCE) == 42
    nothing_is_left(rootless)


def blocks(pid, number):
    """Whether a process has blocked a signal."""
    text = Path(f"/proc/{pid}/status").read_text()
    return bool(int(text.partition("SigBlk:")[2].split()[0], 16) >> number - 1 & 1)


@pytest.mark.parametrize("error", ["EACCES", "ENOENT", "E2BIG", "ETXTBSY"])
def test_python_waits_if_the_program_cannot_be_executed(rootless, user, need, error):
    bundle = make_bundle(user, with_terminal("read word; echo got $word; exit 7"))
    trace = user.tmp / "trace"
    inject = ["-e", "trace=execve", "-e", f"inject=execve:error={error}:when=3"]  # after `rootless` and Python
    words = [need("strace"), "-o", trace, *inject, *rootless.argv("run", "-b", bundle, "c1")]
    with user.popen(words, env=AT_ONCE, stderr=subprocess.PIPE, **PIPES) as run:
        until(lambda: trace.exists() and "launch/bin/front-" in trace.read_text(), "the hand-over fails")
        out, complaint = run.communicate("word\n", timeout=PATIENCE)
    assert (run.returncode, complaint) == (7, "")
    assert "got word" in out
    nothing_is_left(rootless)


def test_the_front_door_can_be_switched_off(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", READY))
    with rootless.popen("run", "--bundle", bundle, "c1", env=AT_ONCE | BY_PYTHON, **PIPES) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        assert not readable(run.stdout.fileno(), 0.2)
        assert not is_attended(run.pid)
        run.stdin.close()


def test_unwritten_output_is_complete_after_the_hand_over(rootless, user):
    """Python hands over when it holds no bytes: the reader waits, and then reads everything."""
    bundle = make_bundle(user, with_terminal("seq 1 50000; echo end; read word; exit 7"))
    with rootless.popen("run", "--bundle", bundle, "c1", env={"ROOTLESS_ATTEND_AFTER": "100"}, **PIPES) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "1"
        assert not is_attended(run.pid)
        numbers = reader.until(b"end\n").split()[:-1]
        assert numbers == [str(number).encode() for number in range(2, 50001)]
        until_attended(run.pid)
        run.stdin.write("word\n")
        run.stdin.flush()
        assert run.wait(PATIENCE) == 7


@pytest.mark.parametrize("env", [BY_PYTHON, AT_ONCE], ids=["by Python", "by attend"])
def test_streams_that_do_not_block(rootless, user, env):
    """The caller may share them with a program that has made them so."""
    bundle = make_bundle(user, with_terminal("stty -echo; echo ready; read word; echo got $word; seq 1 50000; exit 7"))
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with rootless.popen("run", "--bundle", bundle, "c1", stdin=subprocess.PIPE, stdout=writing, env=env) as run:
        os.set_blocking(run.stdin.fileno(), False)
        os.close(writing)
        reader = Reader(reading)
        assert reader.line() == "ready"
        run.stdin.write("word\n")
        run.stdin.flush()
        assert reader.line() == "got word"
        assert reader.rest().split() == [str(number).encode() for number in range(1, 50001)]
        assert run.wait(PATIENCE) == 7
    os.close(reading)


def test_a_terminal_is_restored_if_the_program_that_waits_has_changed(rootless, user):
    with Typewriter(user, rootless.argv("run", "-b", make_bundle(user, with_terminal(READY)), "c1")) as terminal:
        terminal.until(b"ready\r\n")
        until_attended(terminal.process.pid)
        terminal.type(b"word\r")
        terminal.ends(7)
