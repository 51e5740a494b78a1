"""Descriptors and sockets between the caller, the container and listeners: pidfd, LISTEN_FDS, NOTIFY_SOCKET."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import PATIENCE, Reader, await_end, executors, until
from tests.lib.reports import Manager, tell

__all__ = ["tell"]  # fixture


@pytest.fixture
def bundle(user):
    return make_bundle(user)


def configure(bundle, *script, config=None):
    """Write a config whose program runs `script`."""
    config = config or base_config()
    config["process"]["args"] = ["sh", "-c", "\n".join(script)]
    write_config(bundle, config)
    return config


# --pidfd-socket


class Taker:
    """A socket that receives one descriptor."""

    def __init__(self, path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        here = os.open(path.parent, os.O_PATH)
        self._socket.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        path.chmod(0o777)
        self._socket.listen()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def take(self):
        """Return the descriptor and the data that came with it."""
        connection, _ = self._socket.accept()
        with connection:
            data, (fd,), _, _ = socket.recv_fds(connection, 4096, 4)
            assert connection.recv(1) == b""
        return fd, data


def pid_of(pidfd):
    """Return the process of a pidfd."""
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


@pytest.mark.parametrize("verb", ["create", "run --detach"])
def test_the_pidfd_of_the_first_process(rootless, bundle, user, verb):
    configure(bundle, "exec sleep 600 2>/dev/null")
    with Taker(user.tmp / "taker") as taker:
        flags = ("--pidfd-socket", taker.path)
        if verb == "create":
            rootless.create("c1", bundle, *flags)
        else:
            words = (*verb.split(), "--bundle", bundle, *flags, "c1")
            rootless(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        pidfd, said = taker.take()
    assert said == b"standard"
    pid = rootless.pid("c1")
    assert pid_of(pidfd) == pid
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    await_end(pid)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


def test_the_pidfd_of_another_process(rootless, bundle, user):
    configure(bundle, "exec sleep 600")
    rootless.create("c1", bundle)
    rootless.start("c1")
    with Taker(user.tmp / "taker") as taker:
        words = ("exec", "--detach", "--pid-file", user.tmp / "pid", "--pidfd-socket", taker.path, "c1", "sleep", "600")
        rootless(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        pidfd, said = taker.take()
    assert said == b"setns"
    assert pid_of(pidfd) == int((user.tmp / "pid").read_text())
    os.close(pidfd)


def test_foreground_run_sends_the_pidfd(rootless, bundle, user):
    configure(bundle, "exit 5")
    with Taker(user.tmp / "taker") as taker:
        assert rootless("run", "--bundle", bundle, "--pidfd-socket", taker.path, "c1").returncode == 5
        pidfd, _ = taker.take()
        os.close(pidfd)


def test_annotation_names_the_receiver_of_the_pidfd(rootless, bundle, user):
    deep = user.tmp / ("d" * 100)
    deep.mkdir()
    with Taker(deep / "taker") as taker:
        config = base_config() | {"annotations": {"run.oci.pidfd_receiver": str(taker.path)}}
        configure(bundle, "true", config=config)
        rootless("run", "--bundle", bundle, "c1", check=True)
        pidfd, _ = taker.take()
        os.close(pidfd)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_pidfd_without_a_receiver_is_an_error(rootless, bundle, user, verb):
    configure(bundle, "touch /data/program")
    done = rootless(verb, "--bundle", bundle, "--pidfd-socket", "nowhere", "c1")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: --pidfd-socket nowhere: connect: no such file or directory; "
        "fix: start the program that listens there before you create the container\n"
    )
    assert not (bundle / "rootfs/data/program").exists()
    assert rootless.list() == []
    assert not executors(user)


def test_error_names_the_annotation_without_a_listener(rootless, bundle):
    configure(bundle, "true", config=base_config() | {"annotations": {"run.oci.pidfd_receiver": "/nowhere"}})
    done = rootless("run", "--bundle", bundle, "c1")
    assert "--pidfd-socket" not in done.stderr
    assert '(config.json: annotations["run.oci.pidfd_receiver"])' in done.stderr


# LISTEN_FDS


OPEN = 'exec 3<"$D/three" 4<"$D/four" 5<"$D/five"; '
SHOW = ('echo "${LISTEN_FDS-none} ${LISTEN_PID-none} ${LISTEN_FDNAMES-none}"', "cat <&3; cat <&4 || echo shut")


def listening(user, *words, own_pid=True, **env):
    """Run a command with three open files from 3 on, and its own pid in LISTEN_PID."""
    for name in ("three", "four", "five"):
        (user.tmp / name).write_text(f"{name}\n")
    script = OPEN + ("export LISTEN_PID=$$; " if own_pid else "") + 'exec "$@"'
    words = ["sh", "-c", script, "sh", *words]
    return user.run(words, env={"D": str(user.tmp)} | env, timeout=PATIENCE)


def test_descriptors_of_a_service_manager(either, user):
    config = config_with_maps(user)
    config["process"]["args"] = ["sh", "-c", "\n".join(SHOW)]
    write_config(either.path, config)
    words = [*either.command, "run", "--bundle", either.path, "box"]
    done = listening(user, *words, LISTEN_FDS="2")
    assert done.stdout.splitlines()[:3] == ["2 1 none", "three", "four"], done.stderr


def test_listen_fds_come_before_preserved_fds(rootless, bundle, user):
    config = base_config()
    config["process"]["env"] += ["LISTEN_FDS=7", "LISTEN_PID=7"]
    configure(bundle, *SHOW, "cat <&5; ls /proc/self/fd", config=config)
    words = rootless.argv("run", "--preserve-fds", "2", "--bundle", bundle, "c1")
    done = listening(user, *words, LISTEN_FDS="1", LISTEN_FDNAMES="web:admin")
    assert done.stdout.split() == ["1", "1", "web:admin", "three", "four", "five", *"0123456"], done.stderr


def test_listen_fds_of_another_process_are_not_passed(rootless, bundle, user):
    configure(bundle, SHOW[0], "ls /proc/self/fd")
    words = rootless.argv("run", "--bundle", bundle, "c1")
    done = listening(user, *words, own_pid=False, LISTEN_FDS="2", LISTEN_PID="1")
    assert done.stdout.split() == ["none", "none", "none", *"0123"], done.stderr


def test_listen_fds_without_a_pid_are_not_passed(either, user):
    """sd_listen_fds(3): without LISTEN_PID, LISTEN_FDS is not addressed to the runtime."""
    config = config_with_maps(user)
    config["process"]["args"] = ["sh", "-c", "\n".join((SHOW[0], "ls /proc/self/fd"))]
    write_config(either.path, config)
    words = [*either.command, "run", "--bundle", either.path, "box"]
    for count in ("2", "9", "x"):
        done = listening(user, *words, own_pid=False, LISTEN_FDS=count)
        assert done.stdout.split() == ["none", "none", "none", *"0123"], done.stderr


def test_listen_pid_without_a_pid_namespace_is_a_warning(rootless, bundle, user):
    config = base_config("true")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    configure(bundle, "true", config=config)
    done = listening(user, *rootless.argv("run", "--bundle", bundle, "c1"), LISTEN_FDS="1")
    assert done.returncode == 0
    assert "LISTEN_PID" in done.stderr


@pytest.mark.parametrize(
    ("count", "said"), [("x", "LISTEN_FDS=x: it is not a number"), ("9", "LISTEN_FDS=9: descriptor 6 is not open")]
)
def test_wrong_count_of_descriptors_is_reported_with_its_source(rootless, bundle, user, count, said):
    configure(bundle, "true")
    done = listening(user, *rootless.argv("run", "--bundle", bundle, "c1"), LISTEN_FDS=count)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {said}; fix: ")


# NOTIFY_SOCKET


@pytest.fixture
def reporting(bundle, tell):
    """Put the reporting program into the image."""
    target = bundle / "rootfs/bin/tell"
    shutil.copy(tell, target)
    target.chmod(0o755)


@pytest.mark.usefixtures("reporting")
@pytest.mark.parametrize("abstract", [False, True])
def test_notifications_of_a_foreground_run(rootless, bundle, user, abstract):
    script = ("tell STATUS=begun MAINPID=1", "tell READY=1", "tell WATCHDOG=1", "tell STOPPING=1; echo $?")
    configure(bundle, *script)
    with Manager(user, abstract=abstract) as manager:
        done = rootless("run", "--bundle", bundle, "c1", env=manager.env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
        assert [manager.report() for _ in range(4)] == [["STATUS=begun"], ["READY=1"], ["WATCHDOG=1"], ["STOPPING=1"]]
        assert manager.silent()


@pytest.mark.usefixtures("reporting")
@pytest.mark.parametrize("verb", ["run", "start"])
def test_start_waits_until_the_program_is_ready(rootless, bundle, user, verb):
    os.mkfifo(bundle / "rootfs/data/fifo")
    (bundle / "rootfs/data/fifo").chmod(0o666)
    configure(
        bundle, "tell STATUS=begun", "read line < /data/fifo", "tell READY=1 MAINPID=1 STATUS=well", "exec sleep 600"
    )
    with Manager(user) as manager:
        if verb == "run":
            words = ("run", "--detach", "--bundle", bundle, "c1")
        else:
            rootless.create("c1", bundle, env=manager.env)
            words = ("start", "c1")
        process = rootless.popen(*words, env=manager.env, stdout=subprocess.DEVNULL)
        assert manager.report() == ["STATUS=begun"]
        assert process.poll() is None
        # meanwhile other commands may use the container
        assert rootless.status("c1") == "running"
        assert manager.silent()
        with open(bundle / "rootfs/data/fifo", "w") as fifo:
            fifo.write("\n")
        assert manager.report() == ["READY=1", "STATUS=well", f"MAINPID={rootless.pid('c1')}"]
        assert process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("reporting")
@pytest.mark.parametrize("verb", ["run", "start"])
def test_program_that_ends_before_it_is_ready_is_reported(rootless, bundle, user, verb):
    configure(bundle, "tell STATUS=leaving")
    with Manager(user) as manager:
        if verb == "run":
            words = ("run", "--detach", "--bundle", bundle, "c1")
        else:
            rootless.create("c1", bundle, env=manager.env)
            words = ("start", "c1")
        assert rootless(*words, env=manager.env, stdout=subprocess.DEVNULL).returncode == 0
        assert manager.report() == ["STATUS=leaving"]
        assert manager.silent()


@pytest.mark.usefixtures("reporting")
def test_start_without_a_manager_does_not_wait(rootless, bundle, user):
    configure(bundle, "exec sleep 600")
    with Manager(user) as manager:
        rootless.create("c1", bundle, env=manager.env)
    rootless.start("c1")
    assert rootless.status("c1") == "running"


def test_notify_socket_belongs_to_the_container(rootless, bundle, user):
    """It is not in a directory of the host, and every user of the container can use it."""
    config = base_config()
    config["root"]["readonly"] = True
    config["process"]["env"].append("NOTIFY_SOCKET=/elsewhere")
    script = ("echo $NOTIFY_SOCKET", "stat -c %a:%F /run/notify/notify.sock", "grep /run/notify /proc/self/mountinfo")
    (bundle / "rootfs/run/notify").mkdir(parents=True)
    configure(bundle, *script, config=config)
    with Manager(user) as manager:
        done = rootless("run", "--bundle", bundle, "c1", env=manager.env, check=True)
    address, mode, mount = done.stdout.splitlines()
    assert (address, mode) == ("/run/notify/notify.sock", "777:socket")
    assert " / /run/notify rw,nosuid,nodev,noexec" in mount
    assert " - tmpfs " in mount


def test_ended_manager_is_no_error(rootless, bundle, user):
    configure(bundle, "echo well")
    done = rootless("run", "--bundle", bundle, "c1", env={"NOTIFY_SOCKET": str(user.tmp / "nowhere")})
    assert (done.returncode, done.stdout) == (0, "well\n")


def test_without_a_manager_there_is_no_socket(rootless, bundle):
    configure(bundle, "echo ${NOTIFY_SOCKET-none}; ls /run/notify")
    assert rootless("run", "--bundle", bundle, "c1").stdout == "none\n"


# process.consoleSize


def test_the_size_of_the_console(rootless, bundle, user):
    """The master arrives with the size already set."""
    config = base_config("stty", "size")
    config["process"] |= {"terminal": True, "consoleSize": {"height": 43, "width": 132}}
    write_config(bundle, config)
    with Taker(user.tmp / "console") as taker:
        rootless("run", "--detach", "--bundle", bundle, "--console-socket", taker.path, "c1", check=True)
        master, _ = taker.take()
        assert Reader(master).line() == "43 132"
        os.close(master)
    until(lambda: rootless.status("c1") == "stopped", "the program ends")
