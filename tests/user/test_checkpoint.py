"""`checkpoint` and `restore`, by root: criu needs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import User
from tests.user.boxes import add_mount, make_volume, set_namespaces
from tests.user.bundles import base_config, make_bundle, write_config
from tests.user.cgroup2 import InView, View
from tests.user.containers import Reader, Rootless, await_end, until

COUNTING = """
i=0
while ! test -e /volume/stop; do i=$((i+1)); echo $i >>/volume/numbers; sleep 0.05; done
echo last $i
exit 7
"""


@pytest.fixture
def root(require_root, need, request):
    """The superuser, as a user of the command, where criu works."""
    check = subprocess.run([need("criu"), "check"], capture_output=True, text=True, check=False)
    if check.returncode:
        pytest.skip(f"needs a kernel that criu works on: {check.stdout}{check.stderr}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("ROOTLESS_TEST_RUN") or None) as directory:
        yield User("root", Path(directory))


@pytest.fixture
def rootless(root, rootless_command):
    with Rootless(root, rootless_command) as command:
        yield command


@pytest.fixture
def volume(root):
    return make_volume(root)


@pytest.fixture
def bundle(root, volume):
    config = base_config("sh", "-c", COUNTING)
    add_mount(config, "/volume", "bind", str(volume), "rbind", "rw")
    config["linux"]["maskedPaths"] = ["/proc/keys", "/proc/scsi"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]
    return make_bundle(root, config)


@pytest.fixture
def counting(rootless, bundle, volume):
    """The first process of a container c1 that counts."""
    rootless.create("c1", bundle)
    rootless.start("c1")
    await_count(volume, 3)
    return rootless.pid("c1")


def numbers(volume):
    path = volume / "numbers"
    return path.read_text().split() if path.exists() else []


def await_count(volume, number):
    until(lambda: len(numbers(volume)) >= number, f"it counts to {number}")


def restore(rootless, bundle, *words, status=0):
    """Make the container anew that c1 was; its standard output and error are the same files again."""
    tmp = rootless.user.tmp
    with (tmp / "c1.out").open("ab") as out, (tmp / "c1.err").open("ab") as err:
        done = rootless("restore", "--bundle", bundle, "--image-path", "saved", *words, stdout=out, stderr=err)
    assert done.returncode == status, rootless.complaints("c1")


def test_a_container_goes_on_where_it_was(rootless, root, bundle, volume, counting):
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
    assert found == [str(number) for number in range(1, len(found) + 1)], "it did not begin anew"
    assert rootless.output("c1") == f"last {len(found)}\n"
    assert rootless("delete", "c2").returncode == 0


def test_a_restored_container_in_the_foreground(rootless, bundle, volume, counting):
    assert rootless("checkpoint", "--image-path", "saved", "c1").returncode == 0
    (volume / "stop").touch()
    done = rootless("restore", "--bundle", bundle, "--image-path", "saved", "c1", stdout=subprocess.DEVNULL)
    # standard output was a file, and has to be the same file again
    assert done.returncode == 1
    assert "criu restore: " in done.stderr
    restore(rootless, bundle, "c1", status=7)
    assert rootless.list() == []


def test_pipes_are_those_of_the_caller(rootless, bundle, volume):
    """As conmon does it."""

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


def test_a_container_in_a_network_of_somebody_else(rootless, volume, bundle):
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


def test_a_container_that_runs_on(rootless, volume, counting):
    done = rootless("checkpoint", "--leave-running", "--image-path", "saved", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert rootless.pid("c1") == counting
    assert rootless.status("c1") == "running"
    await_count(volume, len(numbers(volume)) + 3)


@pytest.fixture
def view(root):
    """A cgroup v2 tree in which root's containers have a cgroup each."""
    view = View(root)
    yield view
    view.close()


@pytest.mark.parametrize("flags", [(), ("--leave-running",)], ids=["to its end", "running on"])
def test_a_paused_container_can_be_checkpointed(root, rootless_command, view, bundle, volume, flags):
    """containerd pauses a container before it asks for a checkpoint, and resumes it afterwards."""
    with InView(view, root, rootless_command) as rootless:
        rootless.create("c1", bundle)
        rootless.start("c1")
        await_count(volume, 3)
        first = rootless.pid("c1")
        assert rootless("pause", "c1").returncode == 0
        done = rootless("checkpoint", *flags, "--image-path", "saved", "c1")
        assert (done.returncode, done.stderr) == (0, "")
        if flags:
            assert rootless.status("c1") == "paused"
            assert rootless("resume", "c1").returncode == 0
            await_count(volume, len(numbers(volume)) + 3)
        else:
            await_end(first)
            assert rootless.list() == []
            before = len(numbers(volume))
            restore(rootless, bundle, "--detach", "c1")
            assert rootless.status("c1") == "running"
            await_count(volume, before + 3)
        (volume / "stop").touch()
        await_end(rootless.pid("c1"))


def test_a_dump_after_a_dump_of_the_memory(rootless, root, need, counting):
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


def test_what_is_refused(rootless, root, bundle, counting):
    rootless.create("c2", bundle)
    assert "container not running: it waits for its start" in rootless("checkpoint", "c2").stderr
    done = rootless("--criu", "/bin/false", "checkpoint", "c1")
    assert done.returncode == 1
    assert done.stderr == f"rootless: criu dump: it ended with 1; fix: see {root.tmp}/checkpoint/dump.log\n"
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


def test_a_terminal_cannot_be_taken_along(rootless, root, bundle):
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = True
    write_config(bundle, config)
    with socket.socket(socket.AF_UNIX) as console:
        console.bind(str(root.tmp / "console"))
        console.listen()
        rootless.create("c1", bundle, "--console-socket", root.tmp / "console")
        rootless.start("c1")
        done = rootless("checkpoint", "c1")
        assert done.returncode == 1
        assert "it has a terminal" in done.stderr
        assert rootless.status("c1") == "running"


def test_criu_reads_the_file_of_the_annotation(rootless, root, bundle, volume):
    """As runc and crun have it: org.criu.config."""
    (root.tmp / "criu.conf").touch()
    config = json.loads((bundle / "config.json").read_text())
    config["annotations"] = {"org.criu.config": str(root.tmp / "criu.conf")}
    write_config(bundle, config)
    rootless.create("c1", bundle)
    rootless.start("c1")
    await_count(volume, 3)
    done = rootless("checkpoint", "--image-path", "saved", "--work-path", "logs", "c1")
    assert done.returncode == 0, done
    assert f"Parsing config file {root.tmp}/criu.conf\n" in (root.tmp / "logs/dump.log").read_text()


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
        assert os.read(reader, 1) == b"\0", "it serves"
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
def test_a_page_server_that_is_nowhere(rootless, place, counting):
    done = rootless("checkpoint", "--page-server", place, "c1")
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: --page-server {place}: that is no address with a port; fix: write ADDRESS:PORT\n"
    )
