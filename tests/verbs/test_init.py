"""`run --init`: process 1 is a reaper, and the program its child."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.configurations import PODMAN_SECCOMP
from tests.lib.containers import Reader, resident, until
from tests.lib.detached import detached
from tests.lib.waiting import each_waiter

__all__ = ["detached", "each_waiter"]


@pytest.fixture
def runs(rootless, user):
    """Return a function that runs a shell script with --init."""

    def run(script, *flags, **changes) -> subprocess.CompletedProcess:
        config = base_config("sh", "-c", script)
        config["linux"] |= changes
        return rootless("run", "--init", *flags, "--bundle", make_bundle(user, config), "c1")

    return run


def test_the_program_is_the_child_of_process_1(runs):
    done = runs("cat /proc/1/comm; echo $$ $PPID; tr '\\0' ' ' </proc/1/environ; ls /proc/1/fd")
    assert (done.returncode, done.stdout, done.stderr) == (0, "init\n2 1\n", "")


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_the_status_is_the_programs(runs, status):
    assert runs(f"exit {status}").returncode == status


def test_a_signal_that_ends_the_program_is_its_status(runs):
    assert runs("kill -ABRT $$").returncode == 128 + signal.SIGABRT


def test_orphans_are_reaped(runs):
    orphans = "for i in 1 2 3; do (sh -c 'exit 3' & exec true); done; (sh -c 'read word </fifo' & echo $! >/tmp/pid)"
    end = "read pid </tmp/pid; test -e /proc/$pid && echo alive >&2; echo >/fifo"
    wait = "set -- 1 2 3; while [ $# -gt 2 ]; do set -- /proc/[0-9]*; done; echo $*"
    done = runs(f"mkfifo /fifo; {orphans}; {end}; {wait}")
    assert done.stderr == "alive\n"
    assert done.stdout == "/proc/1 /proc/2\n"


def test_signals_are_forwarded(rootless, user):
    names = ("TERM", "HUP", "USR1", "INT", "WINCH")
    script = f'for s in {" ".join(names)}; do trap "echo $s" $s; done; sleep 1000 & echo ready; while :; do wait; done'
    bundle = make_bundle(user, base_config("sh", "-c", script))
    with rootless.popen("run", "--init", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        for name in names:
            rootless("kill", "c1", name, check=True)
            assert reader.line() == name
        rootless("kill", "c1", "KILL", check=True)
        assert run.wait(timeout=30) == 137


def test_a_default_action_ends_the_program(rootless, user):
    """As process 1 itself, a program without a handler would not feel the signal."""
    config = base_config("sleep", "1000")
    rootless("run", "-d", "--init", make_bundle(user, config), check=True)
    assert rootless("stop", "bundle").returncode == 0
    assert rootless("wait", "bundle").stdout == "143\n"


def test_it_can_be_entered_and_is_small(detached, rootless):
    pid = detached("echo >/fifo; sleep 1000", "--init", end=False)
    detached.ready()
    assert rootless.status("bundle") == "running"
    done = rootless("exec", "bundle", "sh", "-c", "echo /proc/[12]")
    assert (done.returncode, done.stdout) == (0, "/proc/1 /proc/2\n")
    assert resident(pid) < 1000
    assert os.listdir(f"/proc/{pid}/fd") == []


def test_it_holds_nothing_of_the_host_and_its_program_cannot_be_changed(runs):
    script = """
        (: >>/proc/1/exe) && echo written
        dd if=/dev/zero of=/proc/1/exe bs=1 count=1 conv=notrunc 2>/dev/null && echo overwritten
        grep -c rootless-plan /proc/1/maps
        grep -c rw-s /proc/1/maps
    """
    done = runs(script)
    assert done.stdout == "0\n0\n"
    assert "/proc/1/exe" in done.stderr


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_it_is_under_the_seccomp_filter_and_rights_of_the_program(rootless, user, no_new_privileges):
    rights = "grep -E '^(Seccomp|Cap|NoNewPrivs|Uid|Groups)' /proc/{}/status"
    script = f"{rights.format(1)} >/tmp/1; {rights.format('self')} >/tmp/2; cmp /tmp/1 /tmp/2 && cat /tmp/1"
    config = base_config("sh", "-c", script)
    config["process"]["noNewPrivileges"] = no_new_privileges
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    done = rootless("run", "--init", "--bundle", make_bundle(user, config), "c1")
    assert "Seccomp:\t2\n" in done.stdout, done


def test_a_terminal_belongs_to_the_program(rootless, user):
    config = base_config("sh", "-c", "trap 'echo got it' INT; echo ready; read word; exit 3")
    config["process"]["terminal"] = True
    script = " ".join(rootless.argv("run", "--init", "--bundle", str(make_bundle(user, config)), "c1"))
    with user.popen(["script", "-qec", script, "/dev/null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        run.stdin.write("\x03")
        run.stdin.flush()
        reader.until(b"got it")
        run.stdin.write("end\n")
        run.stdin.flush()
        assert run.wait(timeout=30) == 3


def test_a_program_that_is_missing_is_the_same_error(rootless, user):
    bundle = make_bundle(user, base_config("nope"))
    said = [rootless("run", *flags, "--bundle", bundle, "c1") for flags in ([], ["--init"])]
    assert said[0].stderr == said[1].stderr
    assert said[0].returncode == said[1].returncode == 1
    assert rootless.list() == []


def test_a_program_that_cannot_be_executed_is_the_same_error(rootless, user):
    bundle = make_bundle(user, base_config("/broken"))
    (bundle / "rootfs/broken").write_text("#!/no/such/interpreter\n")
    (bundle / "rootfs/broken").chmod(0o755)
    said = [rootless("run", *flags, "--bundle", bundle, "c1") for flags in ([], ["--init"])]
    assert said[0].stderr == said[1].stderr
    assert "no/such/interpreter" in said[0].stderr
    assert rootless.list() == []


def test_without_a_pid_namespace_orphans_are_reaped_too(rootless, user):
    script = (
        "mkfifo /fifo; (sh -c 'read word </fifo' & echo $! >/tmp/pid); read pid </tmp/pid; test -e /proc/$pid && "
        "echo alive; echo >/fifo; while [ -e /proc/$pid ]; do :; done; echo gone"
    )
    config = base_config("sh", "-c", script)
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    done = rootless("run", "--init", "--bundle", make_bundle(user, config), "c1")
    assert (done.returncode, done.stdout) == (0, "alive\ngone\n")


@pytest.mark.parametrize("shared", [(), ("pid",)], ids=["pid namespace", "no pid namespace"])
def test_a_container_in_the_foreground_ends_when_its_rootless_is_killed(rootless, user, each_waiter, shared):
    config = base_config("sh", "-c", "echo ready; exec sleep 1000")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] not in shared]
    bundle = make_bundle(user, config)
    with rootless.popen("run", "--init", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as run:
        reader = Reader(run.stdout)
        assert reader.line() == "ready"
        run.kill()
        assert reader.rest() == b""  # no process of the container holds it open
    until(lambda: rootless.status("c1") == "stopped", "the end of process 1, which waits for the others")


def test_a_detached_container_outlives_its_rootless(rootless, user):
    bundle = make_bundle(user, base_config("sleep", "1000"))
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    rootless("run", "--init", "--detach", "--bundle", bundle, "c1", check=True, **streams)
    assert rootless.status("c1") == "running"
