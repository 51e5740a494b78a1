"""`rootless wait` prints the exit status of a container that has ended, or when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import Reader, await_end, until
from tests.lib.detached import detached
from tests.lib.waiting import each_waiter

__all__ = ["detached", "each_waiter"]


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_the_status_of_a_container_that_has_ended(detached, rootless, status):
    detached(f"exit {status}")
    done = rootless("wait", "bundle")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{status}\n", "")


def test_the_status_after_a_signal(detached, rootless):
    pid = detached("echo >/fifo; sleep 1000", end=False)
    with rootless.popen("wait", "bundle", stdout=subprocess.PIPE) as waiting:
        detached.ready()
        os.kill(pid, signal.SIGKILL)
        assert Reader(waiting.stdout).rest() == b"137\n"
        assert waiting.wait(timeout=30) == 0


def test_several_in_the_order_of_the_command_line(rootless, user):
    for name, status in (("one", 1), ("two", 2)):
        rootless("run", "-d", make_bundle(user, base_config("sh", "-c", f"exit {status}"), name=name), check=True)
    assert rootless("wait", "two", "one", "two").stdout == "2\n1\n2\n"


def test_a_container_that_is_deleted_meanwhile_has_its_status(detached, rootless):
    detached("echo >/fifo; sleep 1000", end=False)
    with rootless.popen("wait", "bundle", stdout=subprocess.PIPE) as waiting:
        detached.ready()
        rootless("delete", "--force", "bundle", check=True)
        out = Reader(waiting.stdout).rest()
        assert out == b"137\n" or (out == b"" and waiting.wait(timeout=30) == 1), "or it came after the deletion"


@pytest.mark.usefixtures("each_waiter")
def test_a_container_in_the_foreground(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; read word; exit 5"))
    with rootless.popen("run", bundle, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert Reader(run.stdout).line() == "ready"
        with rootless.popen("wait", "bundle", stdout=subprocess.PIPE) as waiting:
            inode = (rootless.root / "bundle/exit").stat().st_ino
            until(lambda: _waits_for(inode), "the wait for the lock")
            run.stdin.write("end\n")
            run.stdin.flush()
            assert run.wait(timeout=30) == 5
            assert Reader(waiting.stdout).rest() == b"5\n"


@pytest.mark.usefixtures("each_waiter")
def test_a_kept_container(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "exit 6"))
    assert rootless("run", "--keep", bundle).returncode == 6
    assert rootless("wait", "bundle").stdout == "6\n"


def test_an_unknown_status_is_an_error_and_no_number(rootless, user):
    rootless.create("c1", make_bundle(user))
    rootless.start("c1")
    done = rootless("wait", "c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "its exit status is unknown" in done.stderr


def test_a_killed_monitor_is_an_error_when_the_container_has_ended(detached, rootless):
    pid = detached("echo >/fifo; sleep 1000", end=False)
    with rootless.popen("wait", "bundle", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        detached.ready()
        os.kill(detached.monitor, signal.SIGKILL)
        assert rootless.status("bundle") == "running"
        os.kill(pid, signal.SIGKILL)
        assert waiting.wait(timeout=30) == 1
        assert "its exit status is unknown" in waiting.stderr.read()


def test_unknown_names_and_expressions_are_not_found(detached, rootless):
    detached("true")
    for word, cause in (("other", "container does not exist"), (".*", "invalid id format"), ("../bundle", "invalid")):
        done = rootless("wait", word)
        assert (done.returncode, done.stdout) == (1, "")
        assert cause in done.stderr


def test_an_orphan_that_writes_on_does_not_delay_the_status(rootless, user):
    config = base_config("sh", "-c", "sleep 1000 & echo $! >/pid; exit 3")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    bundle = make_bundle(user, config)
    rootless("run", "-d", bundle, check=True)
    assert rootless("wait", "bundle").stdout == "3\n"
    orphan = int((bundle / "rootfs/pid").read_text())
    monitor = next(int(name) for name in os.listdir("/proc") if name.isdigit() and _name(name) == "rootless:mon")
    rootless("delete", "bundle", check=True)
    await_end(monitor)
    os.kill(orphan, signal.SIGKILL)


def _waits_for(inode):
    return any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
