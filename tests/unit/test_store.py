"""Containers on disk: claims of ids, leftovers of killed commands, and the status of real processes."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rootless import jsontext
from rootless.cli import output
from rootless.container.operations import teardown, undo
from rootless.container.state import store
from rootless.container.state.directory import ContainerDir
from rootless.container.state.lifecycle import CREATED, CREATING, RUNNING, STOPPED, status
from rootless.container.state.root import StateRoot, state_root
from rootless.container.state.state import State
from rootless.errors import RootlessError
from rootless.procfs import Process, boot_id
from tests.lib.states import VALUES, edited, full_state, places

pytestmark = pytest.mark.usefixtures("closed")

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def data(pid=1, now=CREATED, **changes):
    """Return the content of state.json for an existing process."""
    process = Process.read(pid)
    return {
        "ociVersion": "1.2.0",
        "id": "c1",
        "pid": pid,
        "status": now,
        "startTime": process.start_time if process else 1,
        "bootId": boot_id(),
        "afterStart": {"first": 0, "operations": []},
        "user": [0, 0],
        "keyring": True,
        "bundle": "/bundle",
        "rootfs": "/bundle/rootfs",
        "created": "2030-01-01T00:00:00.000000000Z",
        "annotations": {},
        "owner": "user",
    } | changes


def state(pid=1, now=CREATED, **changes):
    return State.from_data(data(pid, now, **changes))


def write_data(entry, found):
    Path(f"{entry.path}/state.json").write_text(json.dumps(found))


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "state")


def code_of(function, *arguments, **options):
    with pytest.raises(RootlessError) as caught:
        function(*arguments, **options)
    return caught.value.code


def claim(root, container_id):
    return store.claim(StateRoot(root), container_id, undo.clear)


def find(root, container_id, **options):
    return store.find(StateRoot(root), container_id, **options)


# --- Ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "n1.root.5.4294967291.0", "A_b-c+d.e", "...", "-x", "1", "x" * 255])
def test_valid_ids(root, name):
    store.check_id(name)
    with claim(root, name):
        assert store.ids(StateRoot(root)) == [name]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a b", "ü", "a\n", "a\0b", "x" * 256, "a:b", "*"])
def test_invalid_ids_are_refused(root, name):
    for function in (claim, find):
        assert code_of(function, root, name) == "RL-ID"
    assert not os.path.exists(root)


def test_ids_are_sorted_and_nothing_else_is_one(root):
    assert store.ids(StateRoot(root)) == []
    for name in ("b", "a", "B", "not one"):
        os.makedirs(f"{root}/{name}")
    assert store.ids(StateRoot(root)) == ["B", "a", "b"]


# --- Claims -----------------------------------------------------------------------------------------------------------


def test_an_id_is_free_again_once_removed(root):
    with claim(root, "c1") as entry:
        entry.write(state())
        undo.remove(entry)
    assert store.ids(StateRoot(root)) == []
    with claim(root, "c1"):
        assert store.ids(StateRoot(root)) == ["c1"]


def test_directories_are_private(root):
    with claim(root, "c1") as entry:
        entry.write(state())
        assert [os.stat(path).st_mode & 0o777 for path in (root, entry.path)] == [0o700, 0o700]
        assert os.stat(f"{entry.path}/state.json").st_mode & 0o777 == 0o600


def test_claimed_id_is_taken_before_its_state_exists(root):
    with claim(root, "c1"):
        assert code_of(claim, root, "c1") == "RL-EXISTS"


def test_a_container_is_taken_after_its_command_has_ended(root):
    with claim(root, "c1") as entry:
        entry.write(state())
    with pytest.raises(RootlessError, match="container with given ID already exists"):
        claim(root, "c1")


@pytest.mark.parametrize("left", [[], ["start.sock"], ["state.json.new", "start.sock"]])
def test_next_use_clears_up_after_a_killed_create(root, left):
    os.makedirs(f"{root}/c1")
    for name in left:
        Path(f"{root}/c1/{name}").write_text("half")
    with claim(root, "c1") as entry:
        assert os.listdir(entry.path) == []
        assert os.fstat(entry.fd).st_nlink > 0


def test_a_command_that_is_killed_lets_go_of_its_claim(root):
    """The lock belongs to the process: however it ends, the id is free."""
    script = (
        "import sys; from rootless.container.state import root, store\n"
        "held = store.claim(root.StateRoot(sys.argv[1]), sys.argv[2], lambda _: None)\n"
        "print(1, flush=True); input()"
    )
    words = [sys.executable, "-c", script, root, "c1"]
    with subprocess.Popen(words, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"1\n"
        assert code_of(claim, root, "c1") == "RL-EXISTS"
        holder.kill()
    with claim(root, "c1"):
        pass


@pytest.mark.parametrize("leftover", [False, True])
def test_of_many_claims_at_once_exactly_one_wins(root, leftover):
    rounds, claimants = 20, 8
    os.makedirs(root)
    with ThreadPoolExecutor(claimants) as pool:
        for number in range(rounds):
            name = f"c{number}"
            if leftover:
                os.mkdir(f"{root}/{name}")
            barrier = threading.Barrier(claimants)

            def attempt(name=name, barrier=barrier):
                barrier.wait()
                try:
                    return claim(root, name)
                except RootlessError as error:
                    return error.code

            results = [future.result() for future in [pool.submit(attempt) for _ in range(claimants)]]
            (won,) = (result for result in results if isinstance(result, ContainerDir))
            assert results.count("RL-EXISTS") == claimants - 1
            assert os.fstat(won.fd).st_ino == os.stat(won.path).st_ino
            won.close()


def waits_for_a_lock(path):
    """Wait until a process waits for the lock of a directory, proc_locks(5)."""
    inode = f":{os.stat(path).st_ino} "
    deadline = time.monotonic() + 20
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline
        os.sched_yield()


def test_changes_of_a_container_wait_for_each_other(root):
    entry = claim(root, "c1")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(find, root, "c1")
        waits_for_a_lock(entry.path)
        entry.write(state())
        entry.close()
        with other.result(timeout=20) as found:
            assert found.read().id == "c1"


def test_waiting_for_a_removed_container_finds_none(root):
    entry = claim(root, "c1")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(find, root, "c1")
        waits_for_a_lock(entry.path)
        undo.remove(entry)
        entry.close()
        with pytest.raises(RootlessError, match="container does not exist"):
            other.result(timeout=20)


def test_container_renamed_during_a_wait_is_not_mistaken(root):
    entry = claim(root, "c1")
    entry.write(state())
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(find, root, "c1")
        waits_for_a_lock(entry.path)
        os.rename(f"{root}/c1", f"{root}/c2")
        entry.close()
        with pytest.raises(RootlessError, match="container does not exist"):
            other.result(timeout=20)
    with find(root, "c2") as renamed:
        assert code_of(renamed.read) == "RL-STATE", "the state says that it is c1"


def test_reading_does_not_wait_for_locks(root):
    with claim(root, "c1") as entry:
        entry.write(state())
        with find(root, "c1", lock=False) as other:
            assert other.read().id == "c1"


def test_an_unknown_container(root):
    for options in ({}, {"lock": False}):
        assert code_of(find, root, "c1", **options) == "RL-NOT-FOUND"
    os.makedirs(root)
    Path(f"{root}/c1").write_text("a file")
    assert code_of(find, root, "c1") == "RL-NOT-FOUND"


# --- state.json -------------------------------------------------------------------------------------------------------


def test_state_survives_writing_and_reading(root):
    with claim(root, "c1") as entry:
        assert entry.read() is None
        for number in range(3):
            wanted = state(annotations={"ü": "\n\U0001f600", "n": str(number)}, bundle="/a\udcffb")
            entry.write(wanted)
            assert entry.read().as_data() == wanted.as_data()


def test_a_reader_sees_all_of_a_state_or_the_one_before(root):
    with claim(root, "c1") as entry, ThreadPoolExecutor(1) as pool:
        entry.write(state(annotations={"x": "0" * 5000}))
        stop = threading.Event()

        def write():
            for number in range(10**6):
                if stop.is_set():
                    return
                entry.write(state(annotations={"x": str(number % 10) * 5000}))

        writer = pool.submit(write)
        try:
            for _ in range(300):
                with find(root, "c1", lock=False) as other:
                    text = other.read().annotations["x"]
                    assert text == text[0] * 5000
        finally:
            stop.set()
        writer.result(timeout=20)


def test_a_full_disk_leaves_the_state_as_it_was(root):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with claim(root, "c1") as entry:
        before = state()
        entry.write(before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            assert code_of(entry.write, state(annotations={"x": "y" * 500})) == "RL-STATE"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert entry.read().as_data() == before.as_data()
        undo.remove(entry)
    assert os.listdir(root) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"pid": "5"}'])
def test_broken_state_is_reported_with_a_fix(root, text):
    with claim(root, "c1") as entry:
        Path(f"{entry.path}/state.json").write_text(text)
    with find(root, "c1") as entry, pytest.raises(RootlessError) as caught:
        entry.read()
    assert "state.json" in str(caught.value)


def test_a_state_of_any_shape_is_used_or_refused(root):
    """A state that read() returns can be shown and looked up."""
    whole = full_state(data()) | {"format": 1}
    refused = 0
    with claim(root, "c1") as entry:
        entry.write(State.from_data(whole))
        assert json.loads(Path(f"{entry.path}/state.json").read_text()) == whole
        assert entry.read().as_data() == whole
        for path in places(whole):
            for value in VALUES:
                write_data(entry, edited(whole, path, value))
                try:
                    found = entry.read()
                except RootlessError:
                    assert code_of(entry.read) == "RL-STATE"
                    refused += 1
                    continue
                for now in (status(entry, found), RUNNING):
                    told = found.report(now)
                    assert jsontext.render(told).encode()
                    assert output.table([told]).encode("utf-8", "surrogateescape")
        undo.remove(entry)
    assert refused > 500


def test_an_edited_poststop_hook_runs_or_the_state_is_refused_before_the_end(root):
    """`delete` removes everything before the hooks run: a later error would come too late."""
    whole = full_state(data()) | {"bundle": "/", "annotations": {}}
    refused = 0
    for path in (each for each in places(whole) if each[0] == "afterDelete"):
        for value in VALUES:
            with claim(root, "c1") as entry:
                write_data(entry, edited(whole, path, value))
                try:
                    found = entry.read()
                except RootlessError:
                    refused += 1
                    undo.remove(entry)
                else:
                    teardown.destroy(entry, found)
    assert refused > 150


def test_state_of_a_newer_release_is_reported(root):
    with claim(root, "c1") as entry:
        write_data(entry, data(format=1000))
        with pytest.raises(RootlessError, match="a newer release has written it; fix: use that release, or"):
            entry.read()
        write_data(entry, data(format=1))
        assert entry.read()


@pytest.mark.parametrize("depth", [1, 8])
def test_start_socket_is_reachable_at_any_depth(root, depth):
    """A sockaddr_un has 107 bytes for a path."""
    root += f"/{'d' * 60}" * depth
    with claim(root, "c1") as entry:
        assert not entry.has_socket()
        listener = entry.listen()
        assert entry.has_socket()
        client = socket.socket(socket.AF_UNIX)
        client.connect(entry.socket_path())
        assert select.select([listener], [], [], 20)[0]
        client.close()
        os.close(listener)
        entry.drop_socket()
        entry.drop_socket()
        assert not entry.has_socket()


# --- Directories ------------------------------------------------------------------------------------------------------


def test_requested_root_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert state_root("here/../there").path == f"{tmp_path}/there"


def test_the_runtime_directory_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert state_root("").path == f"{tmp_path}/rootless"


@pytest.mark.parametrize("kind", ["relative", "missing", "file"])
def test_missing_runtime_directory_is_not_used(monkeypatch, tmp_path, kind):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "." if kind == "relative" else str(tmp_path / kind))
    assert not state_root("").path.startswith((".", str(tmp_path)))


def test_a_runtime_directory_of_somebody_else_is_not_used(monkeypatch, tmp_path):
    somebody = tmp_path if os.geteuid() == 0 else Path("/usr")
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(somebody))
    assert not state_root("").path.startswith(str(somebody))


def test_state_is_not_kept_in_a_directory_of_somebody_else(user, require_root):
    """Every user can create /tmp/rootless-UID, or a symlink there."""
    theirs, link = user.tmp / "theirs", user.tmp / "link"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    own = user.tmp / "own"
    own.mkdir()
    os.chown(own, user.uid, user.gid)
    link.symlink_to(own)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    script = (
        "import os, sys\n"
        "os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))\n"
        "from rootless.container.state import root, store\n"
        "store.claim(root.StateRoot(sys.argv[1]), 'c1', lambda _: None)\n"
    )

    def claimed(directory):
        words = [sys.executable, "-B", "-c", script, directory, str(user.uid), str(user.gid)]
        return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert claimed(own).returncode == 0
    for directory in (theirs, link):
        assert "it belongs to another user" in claimed(directory).stderr
        assert os.listdir(theirs) == []


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_impossible_directory_is_reported(tmp_path, name):
    (tmp_path / "file").write_text("")
    assert code_of(claim, str(tmp_path / name), "c1") == "RL-STATE"


def test_id_whose_path_is_another_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        assert code_of(claim, str(tmp_path), name) == "RL-STATE"


# --- The status of processes ------------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path):
    """Return a function that starts a process with a given name in /proc, and returns its Popen."""
    started = []

    def start(name):
        program = tmp_path / name
        shutil.copy(shutil.which("sleep"), program)
        started.append(subprocess.Popen([program, "600"]))
        # Popen waits for execve, after which /proc has the program's name
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


@pytest.fixture
def entry(root):
    with claim(root, "c1") as claimed:
        yield claimed


@pytest.mark.parametrize(
    ("name", "written", "waits", "now"),
    [
        ("rootless:init", CREATING, False, CREATING),
        ("rootless:init", CREATING, True, CREATING),
        ("rootless:init", CREATED, True, CREATED),
        ("rootless:init", CREATED, False, RUNNING),
        ("program", CREATED, True, RUNNING),
        ("program", CREATED, False, RUNNING),
    ],
)
def test_status_of_an_existing_process(process, entry, name, written, waits, now):  # noqa: PLR0917 - a table
    if waits:
        os.close(entry.listen())
    assert status(entry, state(process(name).pid, written)) == now


@pytest.mark.parametrize("name", ["a) R 1 1 (b", "x) Z 1", "a b", ")"])
def test_process_name_does_not_confuse_the_reader(process, entry, name):
    child = process(name)
    found = Process.read(child.pid)
    assert (found.name, found.parent, found.alive, found.pid) == (name[:15], os.getpid(), True, child.pid)
    assert status(entry, state(child.pid)) == RUNNING


def test_a_zombie_is_stopped(process, entry):
    child = process("program")
    before = state(child.pid)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status(entry, before) == STOPPED
    assert not Process.read(child.pid).alive
    child.wait()
    assert Process.read(child.pid) is None
    assert status(entry, before) == STOPPED
    assert before.open_process() == -1


@pytest.mark.parametrize("change", [{"startTime": 1}, {"bootId": "another"}])
def test_reused_pid_is_not_the_container(process, entry, change):
    """The kernel reuses pids: `kill` must not reach another process."""
    found = state(process("rootless:init").pid, **change)
    assert status(entry, found) == STOPPED
    assert found.open_process() == -1


def test_the_process_is_held_by_a_descriptor(process):
    child = process("program")
    fd = state(child.pid).open_process()
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    os.close(fd)


def test_shown_state():
    found = state(os.getpid(), annotations={"a": "b"})
    names = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert list(found.report(RUNNING)) == names
    assert (found.report(RUNNING)["pid"], found.report(RUNNING)["status"]) == (os.getpid(), "running")
    assert (found.report(STOPPED)["pid"], found.report(STOPPED)["status"]) == (0, "stopped")
    assert "annotations" not in state().report(CREATED)


def test_a_network_whose_helper_has_ended_is_shown_as_none():
    as_it_was = {"mode": "pasta", "reason": "asked for", "addresses": ["192.0.2.1"]}
    found = state(network=as_it_was)
    assert found.report(RUNNING, is_served=True)["network"] == as_it_was
    assert found.report(STOPPED, is_served=False)["network"] == as_it_was
    assert found.report(RUNNING, is_served=False)["network"] == {"mode": "none", "reason": "pasta has ended"}


@pytest.mark.parametrize("network", [[], "pasta", {}, {"mode": 1, "reason": ""}])
def test_a_state_with_a_broken_network_is_broken(root, network):
    with claim(root, "c1") as entry:
        write_data(entry, data(network=network))
        assert code_of(entry.read) == "RL-STATE"


def test_mode_of_shared_files_ignores_the_umask(root):
    before = os.umask(0o077)
    try:
        with claim(root, "c1") as entry:
            entry.put("hosts", b"", 0o644)
            entry.put("config.json", b"")
            modes = [os.stat(f"{entry.path}/{name}").st_mode & 0o777 for name in ("hosts", "config.json")]
    finally:
        os.umask(before)
    assert modes == [0o644, 0o600]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("resolv.conf", lambda entry: entry.put("resolv.conf", b"text")),
        ("undo", lambda entry: entry.append("undo", b"text")),
        ("state.json.new", lambda entry: entry.write(state())),
    ],
)
@pytest.mark.parametrize("exists", [True, False], ids=["a file", "nothing"])
def test_nothing_is_written_through_a_symlink(root, tmp_path, name, change, exists):
    target = tmp_path / "target"
    if exists:
        target.write_text("precious")
    with claim(root, "c1") as entry:
        os.symlink(target, f"{entry.path}/{name}")
        with pytest.raises(RootlessError, match="too many levels of symbolic links") as caught:
            change(entry)
    assert caught.value.code == "RL-STATE"
    assert target.exists() == exists
    assert not exists or target.read_text() == "precious"


def test_lock_ends_with_its_descriptor(root):
    with claim(root, "c1") as entry:
        path = entry.path
        assert fcntl.fcntl(entry.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


# --- The configuration that is kept ----------------------------------------------------------------------------------


def test_the_configuration_is_kept_as_it_was(root):
    with claim(root, "c1") as entry:
        entry.write_config(b'{"process": {"args": ["a"]}}' + b" " * 100_000)
        assert entry.read_config() == {"process": {"args": ["a"]}}
        entry.write_config(b"{}")
        assert entry.read_config() == {}
        undo.clear(entry)
        assert code_of(entry.read_config) == "RL-STATE"
        undo.remove(entry)


def test_a_configuration_of_an_unfinished_container_is_cleared_away(root):
    with claim(root, "c1") as entry:
        entry.write_config(b"{}")
    with claim(root, "c1") as entry:
        assert code_of(entry.read_config) == "RL-STATE"
