"""`rootless run -d` keeps the output, and `rootless logs` prints it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import Reader, await_end, executors, resident, until
from tests.lib.detached import detached

__all__ = ["detached"]

RECORD = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*")
MOST = 10_000_000


def printed(rootless, *flags):
    done = rootless("logs", *flags, "bundle")
    assert done.returncode == 0, done
    return done.stdout, done.stderr


def test_each_stream_is_kept_and_printed_on_its_own(detached, rootless):
    detached("echo one; echo two >&2; printf three")
    assert printed(rootless) == ("one\nthree", "two\n")
    log = (rootless.root / "bundle/log").read_bytes()
    assert all(RECORD.fullmatch(line) for line in log.splitlines())
    assert b" stdout P three\n" in log


def test_the_log_goes_with_the_container(detached, rootless):
    detached("echo one")
    assert rootless("delete", "bundle").returncode == 0
    assert list(rootless.root.iterdir()) == []
    assert "container does not exist" in rootless("logs", "bundle").stderr


def test_tail_counts_lines_of_both_streams(detached, rootless):
    detached("for i in 1 2 3 4 5; do echo $i; done; echo err >&2; printf end")
    assert printed(rootless, "--tail", "2") == ("end", "err\n")
    assert printed(rootless, "--tail", "3") == ("5\nend", "err\n")
    assert printed(rootless, "--tail", "0") == ("", "")
    assert printed(rootless, "--tail=all")[0] == "1\n2\n3\n4\n5\nend"


def test_since_compares_times(detached, rootless):
    detached("echo one")
    assert printed(rootless, "--since", "1h30m")[0] == "one\n"
    assert printed(rootless, "--since", "2001-01-01T00:00:00Z")[0] == "one\n"
    assert printed(rootless, "--since", "2100-01-01")[0] == ""
    assert printed(rootless, "--since", "4102444800")[0] == ""


@pytest.mark.parametrize("flag", ["--since=yesterday", "--since=m", "--since=²", "--tail=-1", "--tail=x"])
def test_wrong_flags_are_named(detached, rootless, flag):
    detached("true")
    done = rootless("logs", flag, "bundle")
    assert done.returncode != 0
    assert flag.partition("=")[0] in done.stderr
    assert "fix:" in done.stderr


def test_timestamps_begin_each_line_once(detached, rootless):
    detached("printf a; sleep 0.1; echo b")  # two records, one line
    out = printed(rootless, "-t")[0]
    assert re.fullmatch(r"\S+Z ab\n", out)


def test_follow_prints_what_comes_and_ends_with_the_container(detached, rootless):
    detached("echo begin; read word </fifo; echo $word; printf last", end=False)
    with rootless.popen("logs", "-f", "bundle", stdout=subprocess.PIPE) as logs:
        reader = Reader(logs.stdout)
        assert reader.line() == "begin"
        detached.fifo.write_text("word\n")
        assert reader.line() == "word"
        assert reader.rest() == b"last"
        assert logs.wait(timeout=30) == 0


def test_follow_ends_when_the_monitor_is_killed(detached, rootless):
    detached("echo begin; sleep 1000", end=False)
    with rootless.popen("logs", "-f", "bundle", stdout=subprocess.PIPE) as logs:
        reader = Reader(logs.stdout)
        assert reader.line() == "begin"
        os.kill(detached.monitor, signal.SIGKILL)
        assert logs.wait(timeout=30) == 0


def test_follow_ends_with_the_status_though_the_monitor_stays(detached, rootless):
    """It stays as long as a process outside the container's pid namespace holds the output, and reports no more."""
    detached("echo begin; sleep 1000", end=False)
    with rootless.popen("logs", "-f", "bundle", stdout=subprocess.PIPE) as logs:
        assert Reader(logs.stdout).line() == "begin"
        (detached.place / "exit").write_text("0 2026-05-01T10:00:00.000000000Z\n")  # its lock is still held
        assert logs.wait(timeout=30) == 0


def test_follow_goes_on_in_the_next_file(detached, rootless):
    detached("yes 0123456789012345678901234567890123456789 | head -c 29930000; echo end", end=False)
    with rootless.popen("logs", "-f", "bundle", stdout=subprocess.PIPE) as logs:
        assert Reader(logs.stdout).rest().endswith(b"\nend\n")
        assert logs.wait(timeout=30) == 0


def test_the_oldest_output_goes_at_the_bound(detached, rootless):
    detached("yes 0123456789 | head -c 5999994; echo end")
    files = [rootless.root / "bundle" / name for name in ("log", "log.1")]
    assert MOST / 2 - 100_000 < sum(file.stat().st_size for file in files) <= MOST
    lines = printed(rootless)[0].splitlines()
    assert lines[-1] == "end"
    assert set(lines[1:-1]) == {"0123456789"}, "the first may have lost its beginning"


def test_a_huge_line_needs_little_memory_and_is_kept_as_it_is(detached, rootless):
    detached("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    out = printed(rootless)[0]
    assert out == "x" * 3_000_000 + "\nend\n"


def test_bytes_of_any_value_are_kept(detached, rootless, user):
    detached(r"printf '\000\377\033[31mred\033[0m\r\n'")
    done = user.run(rootless.argv("logs", "bundle"), text=False)
    assert done.stdout == b"\0\xff\x1b[31mred\x1b[0m\r\n"


def test_a_terminal_is_not_commanded_by_the_output(detached, rootless, user):
    detached(r"printf '\033[31mred\033[0m \033]0;title\007\233 \302\233end\n'")
    done = user.run(["script", "-qec", " ".join(rootless.argv("logs", "bundle")), "/dev/null"], text=False)
    assert b"\x1b[31mred\x1b[0m \\x1b]0;title\\x07\\udc9b \\x9bend" in done.stdout


def test_the_monitor_is_small_and_no_python_waits(detached, rootless, user):
    pid = detached("sleep 1000", end=False)
    monitor = detached.monitor
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == monitor
    assert resident(monitor) < 1000
    assert "rootless-plan" not in Path(f"/proc/{monitor}/maps").read_text()
    running = [path.read_text() for path in Path("/proc").glob("[0-9]*/comm") if path.stat().st_uid == user.uid]
    assert not [name for name in running if name.startswith(("python", "rootless")) and name != "rootless:mon\n"]
    descriptors = os.listdir(f"/proc/{monitor}/fd")
    assert len(descriptors) == 6, [os.readlink(f"/proc/{monitor}/fd/{fd}") for fd in descriptors]
    rootless("delete", "--force", "bundle", check=True)
    await_end(monitor)


@pytest.fixture
def small_disk(rootless, user, require_root):
    """A state directory with room for 300 kB."""
    rootless.root.mkdir()
    owner = f"uid={user.uid},gid={user.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=300k,mode=700,{owner}", "small", rootless.root], check=True)
    yield rootless.root
    rootless("delete", "--force", "bundle")
    subprocess.run(["umount", "-l", rootless.root], check=True)


def test_a_full_disk_neither_blocks_nor_ends_the_container(rootless, user, small_disk):
    fifo = user.tmp / "bundle/rootfs/fifo"
    script = "yes 0123456789 | head -c 1000000; read word </fifo; echo $word; sleep 1000"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    os.mkfifo(fifo)
    os.chmod(fifo, 0o666)
    rootless("run", "-d", bundle, check=True)
    fifo.write_text("more\n")  # returns when the container has written all of that
    log = small_disk / "bundle/log"
    lines = log.read_bytes().splitlines()
    assert lines
    assert all(RECORD.fullmatch(line) for line in lines), "whole records only"
    assert rootless.status("bundle") == "running"


def test_output_after_a_full_disk_says_what_is_missing(rootless, user, small_disk):
    fifo = user.tmp / "bundle/rootfs/fifo"
    script = "yes 0123456789 | head -c 1000000; read word </fifo; echo $word; sleep 1000"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    os.mkfifo(fifo)
    os.chmod(fifo, 0o666)
    rootless("run", "-d", bundle, check=True)
    log = small_disk / "bundle/log"
    with fifo.open("w") as file:  # opened when the container has written all of that
        subprocess.run(["mount", "-o", "remount,size=900k", small_disk], check=True)
        file.write("more\n")
    until(lambda: b" more\n" in log.read_bytes(), "the last line")
    # the monitor may not have read all when the disk has room again
    missing = b" F [output is missing here: it could not be written]"
    assert [line for line in log.read_bytes().splitlines() if line.endswith(missing)]


def test_runcs_form_keeps_the_callers_streams(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo here"))
    done = rootless("run", "-d", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "here\n")
    logs = rootless("logs", "c1")
    assert logs.returncode == 1
    assert "its output is not kept" in logs.stderr
    assert {path.name for path in (rootless.root / "c1").iterdir()} == {"config.json", "state.json", "status"}


def test_the_caller_can_go_and_its_pipe_is_not_held(detached, rootless):
    detached("sleep 1000", end=False)  # would wait for the end of its standard output


def test_signals_do_not_end_the_monitor(detached, rootless):
    detached("trap 'echo bye; exit 3' TERM; echo begin; while :; do sleep 0.05; done", end=False)
    monitor = detached.monitor
    until(lambda: printed(rootless)[0] == "begin\n", "the first line")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        os.kill(monitor, number)
    rootless("kill", "bundle", check=True)
    await_end(monitor)
    assert printed(rootless)[0] == "begin\nbye\n"


def test_explain_shows_the_monitor(rootless, user):
    bundle = make_bundle(user)
    assert "start the monitor" not in rootless("explain", bundle).stdout
    shown = rootless("explain", "-d", bundle).stdout
    assert f"start the monitor, whose log has at most {MOST} bytes" in shown


def test_a_container_that_cannot_start_leaves_nothing(rootless, user):
    for number, args in enumerate((["nope"], ["/etc/passwd"])):
        bundle = make_bundle(user, base_config(*args), name=f"b{number}")
        done = rootless("run", "-d", bundle)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
    assert list(rootless.root.iterdir()) == []
    until(lambda: not executors(user) and not monitors(user), "the end of the processes")


def monitors(user):
    found = Path("/proc").glob("[0-9]*/comm")
    return [path for path in found if path.stat().st_uid == user.uid and path.read_text() == "rootless:mon\n"]
