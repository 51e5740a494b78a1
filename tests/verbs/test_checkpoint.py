"""`checkpoint` and `restore`, as root, which criu needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import set_namespaces
from tests.lib.bundles import write_config
from tests.lib.checkpoints import (
    ConsoleSocket,
    await_count,
    begin_counting,
    bundle,
    in_cgroup2,
    numbers,
    restore,
    root,
    rootless,
    volume,
)
from tests.lib.containers import Reader, Rootless, await_end

__all__ = ["bundle", "in_cgroup2", "root", "rootless", "volume"]


@pytest.fixture
def counting(rootless, bundle, volume):
    """The first process of a container c1 that counts."""
    return begin_counting(rootless, bundle, volume)


def test_restored_container_continues(rootless, root, bundle, volume, counting):
    done = rootless("checkpoint", "--image-path", "saved", "--work-path", "logs", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    await_end(counting)
    assert rootless.list() == []
    assert "Dumping finished successfully" in (root.tmp / "logs/dump.log").read_text()
    before = len(numbers(volume))
    restore(rootless, bundle, "--detach", "--pid-file", "pid", "c2")
    assert rootless.status("c2") == "running"
    assert (root.tmp / "pid").read_text() == str(rootless.pid("c2"))
    await_count(volume, before + 3)
    restored = rootless.pid("c2")
    (volume / "stop").touch()
    await_end(restored)
    found = numbers(volume)
    assert found == [str(number) for number in range(1, len(found) + 1)], "it did not start again"
    assert rootless.output("c1") == f"last {len(found)}\n"
    assert rootless("delete", "c2").returncode == 0


def test_restore_in_the_foreground(rootless, bundle, volume, counting):
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    (volume / "stop").touch()
    done = rootless("restore", "--bundle", bundle, "--image-path", "saved", "c1", stdout=subprocess.DEVNULL)
    # standard output was a file and must be the same file again
    assert done.returncode == 1
    assert "criu restore: " in done.stderr
    restore(rootless, bundle, "c1", status=7)
    assert rootless.list() == []


def test_pipes_are_those_of_the_caller(rootless, bundle, volume):
    """As with conmon."""

    def begin(*words):
        reader, writer = os.pipe()
        done = rootless(*words, "--detach", "--bundle", bundle, "c1", stdout=writer, stderr=subprocess.DEVNULL)
        os.close(writer)
        assert done.returncode == 0
        return reader

    os.close(begin("run"))
    await_count(volume, 3)
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    reader = begin("restore", "--image-path", "saved")
    (volume / "stop").touch()
    assert Reader(reader).rest().decode() == f"last {len(numbers(volume))}\n"
    os.close(reader)


def test_container_in_a_foreign_network_namespace(rootless, volume, bundle):
    config = json.loads((bundle / "config.json").read_text())
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        path = f"/proc/{holder.pid}/ns/net"
        inode = os.stat(path).st_ino
        set_namespaces(config, "pid", "ipc", "uts", "mount", network=path)
        write_config(bundle, config)
        rootless.create("c1", bundle)
        rootless.start("c1")
        await_count(volume, 3)
        done = rootless("checkpoint", "--image-path", "saved", "c1")
        assert (done.returncode, done.stderr) == (0, "")
        restore(rootless, bundle, "--detach", "c1")
        assert os.stat(f"/proc/{rootless.pid('c1')}/ns/net").st_ino == inode
        holder.kill()


def test_a_container_in_a_user_namespace(rootless, volume, bundle):
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 0, "size": 1000}]
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    write_config(bundle, config)
    rootless.create("c1", bundle)
    rootless.start("c1")
    await_count(volume, 3)
    done = rootless("checkpoint", "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    before = len(numbers(volume))
    restore(rootless, bundle, "--detach", "c1")
    assert Path(f"/proc/{rootless.pid('c1')}/uid_map").read_text().split() == ["0", "0", "1000"]
    await_count(volume, before + 3)


def test_leave_running(rootless, volume, counting):
    done = rootless("checkpoint", "--leave-running", "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert rootless.pid("c1") == counting
    assert rootless.status("c1") == "running"
    await_count(volume, len(numbers(volume)) + 3)


@pytest.mark.parametrize("flags", [(), ("--leave-running",)], ids=["to its end", "running on"])
def test_a_paused_container_can_be_checkpointed(in_cgroup2, bundle, volume, flags):
    """containerd pauses a container before a checkpoint and resumes it afterwards."""
    first = begin_counting(in_cgroup2, bundle, volume)
    assert in_cgroup2("pause", "c1").returncode == 0
    done = in_cgroup2("checkpoint", *flags, "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    if flags:
        assert in_cgroup2.status("c1") == "paused"
        assert in_cgroup2("resume", "c1").returncode == 0
        await_count(volume, len(numbers(volume)) + 3)
    else:
        await_end(first)
        assert in_cgroup2.list() == []
        before = len(numbers(volume))
        restore(in_cgroup2, bundle, "--detach", "c1")
        assert in_cgroup2.status("c1") == "running"
        await_count(volume, before + 3)


def test_checkpoint_after_a_pre_dump(rootless, root, need, counting):
    done = rootless("checkpoint", "--pre-dump", "--image-path", "first", "c1")
    assert rootless.pid("c1") == counting
    can_track = subprocess.run(
        [need("criu"), "check", "--feature", "mem_dirty_track"], capture_output=True, check=False
    )
    if can_track.returncode:
        assert done.returncode == 1
        assert "racking memory is not available" in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, "")
    done = rootless("checkpoint", "--parent-path", "../first", "--image-path", "second", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (root.tmp / "second/parent").resolve() == root.tmp / "first"


def test_refused_checkpoints(rootless, root, bundle, counting):
    rootless.create("c2", bundle)
    assert "container not running: it waits for its start" in rootless("checkpoint", "c2").stderr
    done = rootless("--criu", "/bin/false", "checkpoint", "c1")
    assert done.returncode == 1
    assert done.stderr == f"rootless: criu dump: it exited with status 1; fix: see {root.tmp}/checkpoint/dump.log\n"
    done = rootless("--criu", "/nope", "checkpoint", "c1")
    assert "executable file not found in $PATH: /nope; fix: install criu" in done.stderr
    assert rootless.status("c1") == "running"

    done = rootless("checkpoint", "--image-path", "c1.out", "c1")
    assert done.stderr == f"rootless: cannot use {root.tmp}/c1.out: file exists; fix: name another directory\n"
    done = rootless("restore", "--bundle", bundle, "c3")
    assert f"cannot read {root.tmp}/checkpoint/rootless.json: no such file or directory; fix: name a" in done.stderr
    saved = {"streams": ["", "", ""], "state": json.loads((root.tmp / "state/c1/state.json").read_text())}
    (root.tmp / "checkpoint/rootless.json").write_text(json.dumps(saved))
    done = rootless("restore", "--bundle", bundle, "c1")
    assert "container with given ID already exists" in done.stderr
    done = rootless("restore", "--bundle", bundle, "c3")
    assert done.stderr.startswith("rootless: criu restore: ")
    assert sorted(each["id"] for each in rootless.list()) == ["c1", "c2"]


TALKING = "echo up; while read line; do echo got $line; stty size; tty; done; exit 7"


@pytest.fixture
def talking(bundle):
    """A bundle whose container answers on its terminal."""
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": True, "args": ["sh", "-c", TALKING]}
    write_config(bundle, config)
    return bundle


def type_and_read(master, text, answer):
    os.write(master, text)
    Reader(master).until(answer)


@pytest.mark.parametrize("flags", [(), ("--leave-running",)], ids=["to its end", "running on"])
def test_a_terminal_is_restored_on_the_console_socket(rootless, root, talking, flags):
    with ConsoleSocket(root.tmp / "console") as console:
        rootless.create("c1", talking, "--console-socket", console.path)
        master = console.receive()
        rootless.start("c1")
        type_and_read(master, b"one\n", b"got one\r\n")
        done = rootless("checkpoint", *flags, "--image-path", "saved", "c1")
        assert (done.returncode, done.stderr) == (0, "")
        if flags:
            type_and_read(master, b"two\n", b"got two\r\n")
        os.close(master)
        words = ("restore", "--detach", "--bundle", talking, "--image-path", "saved", "--console-socket", console.path)
        done = rootless(*words, "c2", stdout=subprocess.DEVNULL)
        assert (done.returncode, done.stderr) == (0, "")
        master = console.receive()
        type_and_read(master, b"three\n", b"got three\r\n")
        assert rootless.status("c2") == "running"
        os.close(master)


def test_a_restored_terminal_is_relayed_in_the_foreground(rootless, root, talking):
    with ConsoleSocket(root.tmp / "console") as console:
        rootless.create("c1", talking, "--console-socket", console.path)
        master = console.receive()
        rootless.start("c1")
        type_and_read(master, b"one\n", b"got one\r\n")
        assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
        os.close(master)
    done = rootless("restore", "--bundle", talking, "--image-path", "saved", "c1", input="two\n")
    assert done.returncode == 7, done.stderr
    assert "got two" in done.stdout
    assert "/dev/pts/0" in done.stdout
    assert rootless.list() == []


def test_detached_restore_of_a_terminal_needs_a_console_socket(rootless, talking):
    done = rootless("restore", "--detach", "--bundle", talking, "c1")
    assert done.returncode == 1
    assert "cannot allocate tty if the caller will detach without setting console socket" in done.stderr


def test_a_container_that_waits_for_its_start_is_not_checkpointed_when_it_is_paused(in_cgroup2, bundle):
    in_cgroup2.create("c1", bundle)
    assert in_cgroup2("pause", "c1").returncode == 0
    done = in_cgroup2("checkpoint", "c1")
    assert done.returncode == 1
    assert "container not running: it waits for its start" in done.stderr


@pytest.fixture
def noting(root):
    """A configuration of criu that makes criu write a log file."""
    script = root.tmp / "script"
    script.write_text(f"#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >>{root.tmp}/noted\n")
    script.chmod(0o755)
    config = root.tmp / "criu.conf"
    config.write_text(f"action-script {script}\n")
    return config


def annotate(bundle, value):
    config = json.loads((bundle / "config.json").read_text())
    write_config(bundle, config | {"annotations": {"org.criu.config": str(value)}})


class OnSharedRoot(Rootless):
    """The command on a host whose mounts are shared, as systemd makes them."""

    def __enter__(self):
        words = ["unshare", "--mount", "--propagation=shared", "sh", "-c", "echo; exec sleep 600"]
        self.holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        return self

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()

    def argv(self, *words):
        into = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "env", f"--chdir={self.user.tmp}"]
        return [*into, *super().argv(*words)]


def test_a_masked_file_on_a_host_whose_mounts_are_shared(root, rootless_command, bundle, volume):
    assert "/proc/keys" in json.loads((bundle / "config.json").read_text())["linux"]["maskedPaths"]
    with OnSharedRoot(root, rootless_command) as rootless:
        begin_counting(rootless, bundle, volume)
        done = rootless("checkpoint", "--image-path", "saved", "c1")
        assert (done.returncode, done.stderr) == (0, "")
        before = len(numbers(volume))
        restore(rootless, bundle, "--detach", "c1")
        await_count(volume, before + 3)


WITH_ETC_CRIU = """
set -e
directory=$1 files=$2; shift 2
mount -t tmpfs tmpfs "$directory"
mkdir -p "$directory/work" "$directory/etc/criu"
for file in $files; do cp "$directory/../criu.conf" "$directory/etc/criu/$file"; done
mount -t overlay -o "lowerdir=/etc,upperdir=$directory/etc,workdir=$directory/work" etc /etc
exec "$@"
"""


class WithEtcCriu(Rootless):
    """The command where the administrator has files in /etc/criu."""

    def __init__(self, root, command, files) -> None:
        super().__init__(root, command)
        (root.tmp / "etc").mkdir()
        self.before = ["unshare", "--mount", "sh", "-c", WITH_ETC_CRIU, "sh", str(root.tmp / "etc"), files]

    def argv(self, *words):
        return [*self.before, *super().argv(*words)]


def test_criu_reads_the_file_of_the_annotation(rootless, root, bundle, volume, noting):
    """As in runc and crun: org.criu.config."""
    annotate(bundle, "/etc/criu/site.conf")
    begin_counting(rootless, bundle, volume)
    there = WithEtcCriu(root, rootless.command, "site.conf")
    done = there("checkpoint", "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "post-dump" in (root.tmp / "noted").read_text().split()
    restore(there, bundle, "--detach", "c1")
    assert "post-restore" in (root.tmp / "noted").read_text().split()


@pytest.mark.parametrize(
    "case",
    [
        # the files, the annotation, whether criu reads them
        ("default.conf", None, True),
        ("runc.conf", None, True),
        ("crun.conf", None, True),
        ("runc.conf crun.conf", "", False),
        ("default.conf", "", True),
    ],
)
def test_criu_reads_the_administrators_files(rootless, bundle, volume, noting, case):
    """An empty annotation suppresses the file for runtimes, as in runc and crun."""
    files, annotation, read = case
    if annotation is not None:
        annotate(bundle, annotation)
    begin_counting(rootless, bundle, volume)
    there = WithEtcCriu(rootless.user, rootless.command, files)
    done = there("checkpoint", "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert noting.with_name("noted").exists() == read


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_memory_that_goes_to_a_page_server(rootless, root, volume, bundle, counting):
    server, port = root.tmp / "server", free_port()
    server.mkdir()
    reader, writer = os.pipe()
    serve = ["criu", "page-server", "--address", "127.0.0.1", "--port", str(port), "--images-dir", server]
    with subprocess.Popen([*serve, "--status-fd", str(writer)], pass_fds=(writer,)) as serving:
        os.close(writer)
        assert os.read(reader, 1) == b"\0", "it listens"
        os.close(reader)
        words = ("--image-path", "saved", "--page-server", f"127.0.0.1:{port}")
        done = rootless("checkpoint", *words, "c1")
        assert (done.returncode, done.stderr) == (0, "")
        assert serving.wait() == 0
    assert not list((root.tmp / "saved").glob("pages-*.img"))
    for page in server.glob("page*.img"):
        page.rename(root.tmp / "saved" / page.name)
    before = len(numbers(volume))
    restore(rootless, bundle, "--detach", "c1")
    await_count(volume, before + 3)


@pytest.mark.parametrize("place", ["nowhere", "host:", ":80", "host:port"])
def test_missing_page_server_is_reported(rootless, place, counting):
    done = rootless("checkpoint", "--page-server", place, "c1")
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: --page-server {place}: it is not an address with a port; fix: write ADDRESS:PORT\n"
    )
