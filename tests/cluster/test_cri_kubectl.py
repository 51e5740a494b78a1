"""kubectl's streams into Kubernetes pods over SPDY: exec, attach, port forwarding, cp; with rootless and with runc."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import pytest

from tests.cluster.kubelet import Kubelet
from tests.lib.containers import PATIENCE, Reader, until
from tests.lib.engines import FOREVER
from tests.lib.terminals import Typewriter

DATA = bytes(range(256)) * 1000
RESIZED = 'until [ "$(stty size 2>/dev/null)" = "{}" ]; do :; done'
"""Waits for a size of the terminal."""


@pytest.fixture(scope="module", params=["rootless", "runc"])
def pod(cri, need, request):
    """A pod of each runtime, for all tests."""
    need("kubectl")
    with cri.pod(request.param) as pod:
        yield pod


@pytest.fixture
def kubelet(pod, tmp_path):
    """Return a function that starts the test's container, which kubectl then reaches over SPDY only."""
    with contextlib.ExitStack() as stack:

        def start(*command, **fields):
            container = pod.start(*command, **fields)
            stack.callback(container.remove)
            return stack.enter_context(Kubelet(pod, container, tmp_path, **fields))

        yield start


def test_exec_has_streams_and_an_exit_status(kubelet):
    running = kubelet(*FOREVER)
    script = "echo err >&2; cat; echo out; exit 7"
    code, out, err = running.run("exec", "--stdin", "pod", "--", "sh", "-c", script, given=DATA)
    assert (code, out) == (7, DATA + b"out\n")
    assert err == b"err\ncommand terminated with exit code 7\n"
    assert running.run("exec", "pod", "--", "true") == (0, b"", b"")


def test_exec_has_a_terminal_that_is_resized(kubelet):
    running = kubelet(*FOREVER)
    script = f"tty; {RESIZED.format('31 71')}; echo up; {RESIZED.format('45 123')}; read line; exit 130"
    argv = running.argv("exec", "--stdin", "--tty", "pod", "--", "sh", "-c", script)
    with Typewriter(running, argv, size=(31, 71)) as terminal:
        assert terminal.until(b"\n").startswith(b"/dev/pts/")
        terminal.until(b"up\r\n")
        terminal.resize(45, 123)
        terminal.type(b"typed\r")
        terminal.ends(130)


def test_exec_of_a_missing_program_fails(kubelet):
    code, out, err = kubelet(*FOREVER).run("exec", "pod", "--", "nope")
    assert code != 0
    assert out == b""
    assert b'"nope": executable file not found in $PATH' in err


def test_attach_reaches_the_streams_more_than_once(kubelet):
    script = "while read line; do echo out $line; echo err $line >&2; done"
    running = kubelet("sh", "-c", script, stdin=True)
    for line in (b"one", b"two"):
        pipe = subprocess.PIPE
        argv = running.argv("attach", "--quiet", "--stdin", "pod")
        with running.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            assert Reader(process.stdout).until(b"\n") == b"out " + line + b"\n"
            Reader(process.stderr).until(b"err " + line + b"\n")
            process.kill()
    assert running.container.running


def test_a_forwarded_port_reaches_the_pod(kubelet):
    running = kubelet("nc", "-ll", "-p", "8888", "-e", "cat")
    until(lambda: running.container.sh("nc 127.0.0.1 8888 </dev/null")[0] == 0, "it listens")
    with running.popen(running.argv("port-forward", "pod/pod", ":8888"), stdout=subprocess.PIPE) as process:
        forwarding = Reader(process.stdout).line()  # Forwarding from 127.0.0.1:39251 -> 8888
        port = int(forwarding.split()[2].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(DATA)
            client.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: client.recv(65536), b"")) == DATA
        process.terminate()


def test_cp_copies_files_both_ways(kubelet, tmp_path):
    running = kubelet(*FOREVER)
    running.container.sh("ln -s busybox /bin/tar")
    (tmp_path / "file").write_bytes(DATA)
    for words in (["file", "pod:/tmp/copy"], ["pod:/tmp/copy", "back"]):
        code, _, err = running.run("cp", *words)
        assert code == 0, err
    assert (tmp_path / "back").read_bytes() == DATA
