"""A hostile environment: full disks, missing permissions, removed directories, a reboot, signals, closed streams."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import make_volume
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import Reader, await_end, executors, until
from tests.lib.traced import QUIET, Stopped, interrupted
from tests.lib.waiting import each_waiter

__all__ = ["each_waiter"]

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def bundle(user):
    """A bundle whose program sleeps."""
    return make_bundle(user, base_config("sleep", "1000"))


@pytest.fixture(scope="module")
def strace(need):
    """The path of strace."""
    return need("strace")


@pytest.fixture
def disk(user, require_root):
    """Return a function that gives the user a small disk with this many inodes and free pages."""
    place = user.tmp / "disk"
    place.mkdir()

    def mount(*, pages: int = 0, inodes: int = 100) -> Path:
        options = f"size={8 * PAGE},nr_inodes={inodes},uid={user.uid},gid={user.gid},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
        (place / "filler").write_bytes(bytes((8 - pages) * PAGE))
        return place

    yield mount
    subprocess.run(["umount", "--recursive", place], check=False)


def is_one_clear_line(text: str) -> bool:
    """Whether an error is one clear line, and no traceback."""
    told = text.startswith("rootless: ") and text.count("\n") == 1
    return told and not any(word in text for word in ("Traceback", "internal error", "Errno"))


def _told(user, words) -> tuple[int, str]:
    """Run a command; return its status and standard error, which is a file because a container may keep it open."""
    path = user.tmp / "told"
    with path.open("w") as complaints:
        status = user.run(words, **QUIET, stderr=complaints).returncode
    return status, path.read_text()


def nothing_is_left(rootless):
    assert not rootless.root.exists() or list(rootless.root.iterdir()) == []
    until(lambda: not executors(rootless.user), "what was begun ends")


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [0, 1])
@pytest.mark.parametrize("verb", ["create", "run", "run --detach"])
def test_state_on_a_full_disk_is_an_error_and_leaves_nothing(rootless, bundle, disk, verb, pages):
    """state.json needs a page once there is a process, and another one while it is replaced."""
    place = disk(pages=pages)
    rootless.root = place
    status, complaint = _told(rootless.user, rootless.argv(*verb.split(), "--bundle", bundle, "c1"))
    assert status == 1
    assert complaint == (
        f"rootless: cannot keep state in {place}/c1: no space left on device; "
        "fix: free some space, or inodes, on that file system\n"
    )
    assert [path.name for path in place.iterdir()] == ["filler"]
    until(lambda: not executors(rootless.user), "what was begun ends")

    (place / "filler").unlink()
    rootless.create("c1", bundle)
    rootless.start("c1")
    assert rootless("delete", "--force", "c1").returncode == 0
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("resource", ["pages", "inodes"])
def test_a_pid_file_on_a_full_disk_fails_create_and_leaves_nothing(rootless, bundle, disk, resource):
    place = disk(pages=0) if resource == "pages" else disk(inodes=2)
    done = rootless.create("c1", bundle, "--no-new-keyring", "--pid-file", place / "pid", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: --pid-file: cannot write {place}/pid: no space left on device; "
        "fix: free some space, or inodes, on that file system\n"
    )
    assert [path.name for path in place.iterdir()] == ["filler"]
    nothing_is_left(rootless)
    (place / "filler").unlink()
    rootless.create("c1", bundle, "--pid-file", place / "pid")
    assert (place / "pid").read_text() == str(rootless.pid("c1"))


def test_a_log_on_a_full_disk_hides_neither_status_nor_error(rootless, user, disk):
    place = disk(pages=0)
    bundle = make_bundle(user, base_config("sh", "-c", "exit 7"))
    done = rootless("--debug", "--log", place / "log", "run", "--bundle", bundle, "c1")
    assert done.returncode == 7
    assert set(done.stderr.splitlines()) <= {f"rootless: warning: --log: write {place}/log: No space left on device"}
    nothing_is_left(rootless)
    done = rootless("--log", place / "log", "--log-format", "json", "start", "c1")
    assert done.returncode == 1
    error, warning = done.stderr.splitlines()
    assert error.startswith("rootless: container c1: container does not exist; ")
    assert warning == f"rootless: warning: --log: write {place}/log: No space left on device"


def test_partly_written_log_line_is_reported(rootless, disk):
    place = disk(pages=1)
    (place / "log").write_bytes(b"." * (PAGE - 10))
    os.chown(place / "log", rootless.user.uid, rootless.user.gid)
    done = rootless("--log", place / "log", "start", "c1")
    assert done.stderr.splitlines()[1:] == [f"rootless: warning: --log: write {place}/log: No space left on device"]
    assert (place / "log").stat().st_size == PAGE


def test_a_log_without_free_inodes(rootless, bundle, disk):
    place = disk(inodes=2)
    done = rootless("--log", place / "log", "run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: --log: open {place}/log: No space left on device; "
        "fix: free some space, or inodes, on that file system\n"
    )
    nothing_is_left(rootless)


@pytest.mark.parametrize("pages", [0, 1])
def test_full_disk_prevents_only_the_cache(rootless, user, disk, pages):
    place = disk(pages=pages)
    config = base_config("sh", "-c", "exit 7")
    rules = [{"names": [f"{name}"], "action": "SCMP_ACT_ERRNO"} for name in ("kexec_load", "reboot", "swapon")]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    done = rootless("run", "--bundle", make_bundle(user, config), "c1", env={"XDG_CACHE_HOME": str(place)})
    assert done.returncode == 7
    assert "internal error" not in done.stderr
    left = [path for path in place.rglob("*") if path.is_file() and path.name != "filler"]
    assert all(path.stat().st_size % 8 == 0 and path.stat().st_size for path in left), "a part of a filter is cached"


@pytest.mark.parametrize("verb", [["state", "c1"], ["list"], ["list", "--format", "json"], ["list", "--quiet"]])
def test_output_to_a_full_disk(rootless, bundle, verb):
    rootless.create("c1", bundle)
    with Path("/dev/full").open("wb") as full:
        done = rootless(*verb, stdout=full)
    assert (done.returncode, done.stderr) == (1, "rootless: write standard output: No space left on device\n")


@pytest.mark.parametrize("resource", ["pages", "inodes"])
def test_a_full_root_file_system(rootless, user, require_root, resource):
    """Verbs that need no space work; others fail with one clear line."""
    config = base_config("sh", "-c", "exit 7")
    config["process"]["cwd"] = "/made/for/this"
    config["mounts"].append({"destination": "/made/dir", "type": "tmpfs", "source": "tmpfs"})
    config["mounts"].append({"destination": "/made/file", "source": "/etc/hostname", "options": ["bind"]})
    bundle = make_bundle(user, config)
    rootfs = bundle / "rootfs"
    full = user.tmp / "full"
    rootfs.rename(full)
    rootfs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "none", rootfs], check=True)
    try:
        subprocess.run(["cp", "-a", f"{full}/.", rootfs], check=True)
        if resource == "pages":
            with (rootfs / "filler").open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(PAGE))
                    file.flush()
            assert os.statvfs(rootfs).f_bavail == 0
        else:
            used = sum(1 for _ in rootfs.rglob("*")) + 1
            subprocess.run(["mount", "-o", f"remount,nr_inodes={used}", rootfs], check=True)
        status, complaint = _told(user, rootless.argv("run", "--bundle", bundle, "c1"))
        if resource == "pages":
            assert (status, complaint) == (7, "")
        else:
            assert status == 1
            assert is_one_clear_line(complaint), complaint
            assert "No space left on device" in complaint
            assert complaint.endswith("fix: free some space, or inodes, on that file system\n")
        nothing_is_left(rootless)
    finally:
        subprocess.run(["umount", rootfs], check=True)


# --- an unwritable state directory -----------------------------------------------------------------------------------


def _read_only(place: Path, *, on: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", place], check=True)


def _mode(place: Path, *, on: bool) -> None:
    place.chmod(0o500 if on else 0o700)


def _modes_below(place: Path, *, on: bool) -> None:
    for each in place.iterdir():
        each.chmod(0o500 if on else 0o700)


@pytest.mark.parametrize(
    ("close", "cause"),
    [(_read_only, "read-only file system"), (_mode, "permission denied"), (_modes_below, "permission denied")],
    ids=["read-only", "0500", "0500 below"],
)
@pytest.mark.usefixtures("require_root")
def test_an_unwritable_state_directory(rootless, user, bundle, close, cause):
    """Verbs that write nothing work; others report the reason, and work when the directory is writable again."""
    rootless.root.mkdir()
    options = f"size=1m,uid={user.uid},gid={user.gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", rootless.root], check=True)
    try:
        for container in ("created", "killed", "running", "stopped"):
            rootless.create(container, bundle)
        for container in ("killed", "running", "stopped"):
            rootless.start(container)
        pids = {state["id"]: state["pid"] for state in rootless.list()}
        os.kill(pids["stopped"], signal.SIGKILL)
        await_end(pids["stopped"])
        close(rootless.root, on=True)

        assert {state["id"]: state["status"] for state in rootless.list()} == {
            "created": "created",
            "killed": "running",
            "running": "running",
            "stopped": "stopped",
        }
        rootless.start("created")
        assert rootless.status("created") == "running"
        assert rootless("kill", "killed", "KILL").returncode == 0
        await_end(pids["killed"])
        for words in (["delete", "stopped"], ["delete", "--force", "running"], ["delete", "--force", "killed"]):
            done = rootless(*words)
            assert done.returncode == 1
            assert is_one_clear_line(done.stderr), done.stderr
            assert done.stderr.startswith(f"rootless: cannot remove {rootless.root}/{words[-1]}")
            assert f": {cause}; fix: " in done.stderr
        await_end(pids["running"])
        if close is not _modes_below:
            for verb in ("create", "run"):
                done = rootless(verb, "--bundle", bundle, "new")
                assert done.returncode == 1
                assert is_one_clear_line(done.stderr), done.stderr
                assert done.stderr.startswith(f"rootless: cannot keep state in {rootless.root}: {cause}; fix: ")

        close(rootless.root, on=False)
        for container in pids:
            assert rootless("delete", "--force", container).returncode == 0
        assert list(rootless.root.iterdir()) == []
        until(lambda: not executors(user), "what was begun ends")
    finally:
        close(rootless.root, on=False)
        for container in rootless("list", "--quiet").stdout.split():
            rootless("delete", "--force", container)
        subprocess.run(["umount", rootless.root], check=True)


def test_a_state_directory_of_somebody_else(rootless, bundle, require_root):
    rootless.create("c1", bundle)
    os.chown(rootless.root, 0, 0)
    try:
        verbs = ["create -b x", "run -b x", "state", "start", "kill", "delete", "delete --force"]
        for verb in [*verbs, "list"]:
            words = shlex.split(verb.replace(" x", f" {bundle}"))
            done = rootless(*words, *([] if verb == "list" else ["c1"]))
            assert done.returncode == 1
            assert is_one_clear_line(done.stderr), done.stderr
            assert done.stderr.startswith(f"rootless: cannot keep state in {rootless.root}"), done.stderr
    finally:
        os.chown(rootless.root, rootless.user.uid, rootless.user.gid)
    assert rootless.status("c1") == "created"


# --- a vanishing state directory -------------------------------------------------------------------------------------


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.mark.parametrize("status", ["created", "running"])
@pytest.mark.parametrize("what", ["root", "directory", "state.json", "start.sock"])
def test_removed_state_directory(rootless, bundle, status, what):
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    if status == "running":
        rootless.start("c1")
    _remove({"root": rootless.root, "directory": rootless.root / "c1"}.get(what, rootless.root / "c1" / what))

    known = what == "start.sock"
    for words in (["state", "c1"], ["start", "c1"], ["delete", "c1"], ["kill", "c1", "0"], ["list"]):
        done = rootless(*words)
        assert done.returncode == (0 if words[0] == "list" or (known and words[0] in ("state", "kill")) else 1), words
        if done.returncode:
            assert is_one_clear_line(done.stderr), done.stderr
            expected = {"start": "cannot start an already running", "delete": "that is not stopped: running"}
            assert (expected[words[0]] if known else "container does not exist") in done.stderr
    assert rootless("delete", "--force", "c1").returncode == 0
    assert not rootless.root.exists() or list(rootless.root.iterdir()) == []
    if not known:  # the caller still knows the process from the pid file
        os.kill(pid, signal.SIGKILL)
    await_end(pid)
    rootless.create("c1", bundle)
    rootless.start("c1")


@pytest.mark.parametrize("moment", [("bind", 1), ("memfd_create", 2), ("renameat", 1)], ids=str)
@pytest.mark.parametrize("what", ["root", "directory"])
def test_state_directory_removed_during_create(rootless, bundle, strace, what, moment):
    words = rootless.argv("create", "--bundle", bundle, "c1")
    create = Stopped(rootless.user, strace, words, moment)
    try:
        _remove(rootless.root if what == "root" else rootless.root / "c1")
    finally:
        status, complaint = create.go_on()
    assert status == 1
    assert is_one_clear_line(complaint), complaint
    assert complaint.startswith(f"rootless: cannot keep state in {rootless.root}/c1: no such file or directory; fix: ")
    nothing_is_left(rootless)
    rootless.create("c1", bundle)


def _replace_by_file(rootless) -> None:
    _remove(rootless.root)
    rootless.root.write_text("")


@pytest.mark.parametrize(
    ("harm", "tells"),
    [
        (lambda rootless: _remove(rootless.root), False),
        (lambda rootless: _remove(rootless.root / "c1"), False),
        (lambda rootless: _remove(rootless.root / "c1/state.json"), False),
        (_replace_by_file, False),
        (lambda rootless: rootless.root.chmod(0o500), True),
        (lambda rootless: rootless.root.chmod(0o000), True),
        (lambda rootless: (rootless.root / "c1").chmod(0o500), True),
        (lambda rootless: (rootless.root / "c1/state.json").write_text("{"), True),
    ],
    ids=["no root", "no directory", "no state", "a file", "0500", "0000", "0500 below", "broken"],
)
def test_foreground_run_returns_the_status_despite_lost_state(rootless, user, each_waiter, harm, tells):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; read line; exit 7"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with rootless.popen("run", "--bundle", bundle, "c1", **pipes) as run:
        assert Reader(run.stdout).line() == "ready"
        harm(rootless)
        assert run.communicate("go\n", timeout=30)[1].count("rootless: warning: cannot ") == tells
        assert run.returncode == 7
    if rootless.root.is_dir():
        rootless.root.chmod(0o700)
        if tells:
            (rootless.root / "c1").chmod(0o700)
    else:
        rootless.root.unlink(missing_ok=True)
    if (rootless.root / "c1/state.json").exists() and (rootless.root / "c1/state.json").read_text() == "{":
        done = rootless("delete", "--force", "c1")  # `delete` cannot know the status that `run` has collected
        assert (done.returncode, done.stderr.endswith(f"then rm -r {rootless.root}/c1\n")) == (1, True)
        rootless.user.run(["rm", "-r", rootless.root / "c1"], check=True)
    assert rootless("delete", "--force", "c1").returncode == 0
    nothing_is_left(rootless)


# --- another boot ----------------------------------------------------------------------------------------------------


def test_after_a_reboot_every_container_has_stopped(rootless, bundle):
    """Processes with the pids and even the start times from the other boot are not touched."""
    for container in ("c1", "c2"):
        rootless.create(container, bundle)
    rootless.start("c2")
    pids = [state["pid"] for state in rootless.list()]
    for container in ("c1", "c2"):
        path = rootless.root / container / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"bootId": "00000000-0000-4000-8000-000000000000"}))
    try:
        assert [(state["status"], state["pid"]) for state in rootless.list()] == [("stopped", 0)] * 2
        for container in ("c1", "c2"):
            for sign in ("TERM", "KILL"):
                done = rootless("kill", container, sign)
                assert (done.returncode, done.stderr) == (
                    1,
                    f"rootless: container {container}: container not running\n",
                )
            assert "cannot start a container that has stopped" in rootless("start", container).stderr
        assert rootless("delete", "c1").returncode == 0
        assert rootless("delete", "--force", "c2").returncode == 0
        assert list(rootless.root.iterdir()) == []
        for container in ("c1", "c2"):
            rootless.create(container, bundle)
        assert all(Path(f"/proc/{pid}/root/bin/busybox").exists() for pid in pids), "they live"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            await_end(pid)


# --- signals, for which see tests/sweep/test_signals.py ----------------------------------------------------------

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _left(rootless) -> list[str]:
    return [state["status"] for state in rootless.list()]


def test_signals_that_the_caller_ignores_interrupt_nothing(rootless, bundle, strace):
    words = ["sh", "-c", "trap '' HUP INT TERM; exec \"$@\"", "sh", *rootless.argv("create", "-b", bundle, "c1")]
    for sign in SIGNALS:
        assert interrupted(rootless.user, strace, words, sign, ("memfd_create", 1)) == (0, "")
        assert rootless.status("c1") == "created"
        assert rootless("delete", "--force", "c1").returncode == 0


# --- callers without streams, and callers that end -------------------------------------------------------------------

CLOSED = [streams for count in (1, 2, 3) for streams in itertools.combinations(range(3), count)]


@pytest.mark.parametrize("streams", CLOSED, ids=str)
def test_streams_that_the_caller_closed(rootless, user, streams):
    """The runtime's files (state, bundle, sockets) must not get the numbers of the closed streams."""
    config = base_config("sh", "-c", "ls /proc/self/fd >/data/fds; echo lost; echo lost >&2; cat; exec sleep 1000")
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]  # is worth a warning
    bundle = make_bundle(user, config)
    closing = " ".join(f"{stream}{'>' if stream else '<'}&-" for stream in streams)

    def call(*words):
        given = {0: subprocess.DEVNULL, 1: "out", 2: "err"}
        with (user.tmp / "out").open("wb") as out, (user.tmp / "err").open("wb") as err:
            streams_of_sh = {"stdin": given[0], "stdout": out, "stderr": err}
            return user.run(["sh", "-c", f'exec "$@" {closing}', "sh", *rootless.argv(*words)], **streams_of_sh)

    log = ["--log", user.tmp / "log", "--debug"]
    assert call(*log, "create", "--bundle", bundle, "c1").returncode == 0
    links = {fd: os.readlink(f"/proc/{rootless.pid('c1')}/fd/{fd}") for fd in range(3)}
    assert all(links[stream] == "/dev/null" for stream in streams), links
    assert all(os.path.basename(links[stream]) == ("null", "out", "err")[stream] for stream in {0, 1, 2} - {*streams})
    for words in (["state", "c1"], ["list"]):
        assert call(*log, *words).returncode == 0
        assert bool((user.tmp / "out").read_text()) == (1 not in streams)
    assert call("state", "nobody").returncode == 1
    assert bool((user.tmp / "err").read_text()) == (2 not in streams)
    assert call(*log, "start", "c1").returncode == 0
    fds = bundle / "rootfs/data/fds"
    until(lambda: "3\n" in (fds.read_text() if fds.exists() else ""), "the program begins")
    assert fds.read_text().split() == ["0", "1", "2", "3"], "3 is what ls lists"
    state = json.loads((rootless.root / "c1/state.json").read_text())
    assert state["id"] == "c1"
    assert call(*log, "delete", "--force", "c1").returncode == 0
    nothing_is_left(rootless)

    write_config(bundle, base_config("sh", "-c", "ls /proc/self/fd >/data/fds; echo lost; echo lost >&2; exit 7"))
    assert call(*log, "run", "--bundle", bundle, "c1").returncode == 7
    assert fds.read_text().split() == ["0", "1", "2", "3"]
    nothing_is_left(rootless)


def test_closed_output_ends_the_command_like_sigpipe(rootless, bundle):
    """The command ends like a program that SIGPIPE kills; verbs without output succeed."""
    reader, writer = os.pipe()
    os.close(reader)
    unread = {"stdout": writer, "stderr": writer}
    try:
        for words, status in (
            (["create", "--bundle", bundle, "c1"], 0),
            (["create", "--bundle", bundle, "c1"], 1),
            (["state", "c1"], 128 + signal.SIGPIPE),
            (["list"], 128 + signal.SIGPIPE),
            (["start", "c1"], 0),
            (["start", "c1"], 1),
            (["state", "nobody"], 1),
            (["delete", "--force", "c1"], 0),
        ):
            assert rootless(*words, **unread).returncode == status, words
            if status > 1:
                assert rootless(*words, stdout=writer).stderr == ""
    finally:
        os.close(writer)
    nothing_is_left(rootless)


def test_a_terminal_that_has_hung_up(rootless, user, bundle):
    master, terminal = pty.openpty()
    os.fchown(terminal, user.uid, -1)
    os.close(master)
    gone = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    try:
        for words, status in (
            (["create", "--bundle", bundle, "c1"], 0),
            (["state", "c1"], 1),
            (["list"], 1),
            (["start", "c1"], 0),
            (["delete", "c1"], 1),
            (["delete", "--force", "c1"], 0),
        ):
            assert rootless(*words, **gone).returncode == status, words
        write_config(bundle, base_config("sh", "-c", "exit 7"))
        assert rootless("run", "--bundle", bundle, "c1", **gone).returncode == 7
        config = base_config("sh", "-c", "exit 7")
        config["process"]["terminal"] = True
        write_config(bundle, config)
        assert rootless("run", "--bundle", bundle, "c1", **gone).returncode == 7
        assert rootless("state", "c1", stdout=terminal).stderr == (
            "rootless: container c1: container does not exist; "
            "fix: run rootless list to see yours, or name another directory with --root\n"
        )
    finally:
        os.close(terminal)
    nothing_is_left(rootless)


def test_create_survives_its_caller(rootless, user, bundle):
    words = shlex.join(rootless.argv("create", "--bundle", str(bundle), "c1"))
    done = user.run(["sh", "-c", f"{words} & kill -KILL $$"], **QUIET, stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    until(lambda: _left(rootless) == ["created"], "the container is made")
    rootless.start("c1")
    assert rootless.status("c1") == "running"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_program_survives_its_caller(rootless, user, verb):
    """As under nohup: `rootless` waits for the program and cleans up."""
    volume = make_volume(user)
    os.mkfifo(volume / "end")
    own(user, volume)
    program = ["sh", "-c", "read line </data/end; exit 7"]
    config = base_config(*(program if verb == "run" else ["sleep", "1000"]))
    config["mounts"].append({"destination": "/data", "source": str(volume), "options": ["bind"]})
    bundle = make_bundle(user, config)
    argv = rootless.argv("run", "--bundle", bundle, "c1")
    if verb == "exec":
        rootless("run", "--detach", "--bundle", bundle, "c1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        argv = rootless.argv("exec", "c1", *program)
    status = user.tmp / "status"
    script = f"({shlex.join(map(str, argv))}; echo $? >{status}) & kill -KILL $$"
    done = user.run(["sh", "-c", script], **QUIET, stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    with (volume / "end").open("w") as fifo:  # opening it waits until the program reads
        assert _left(rootless) == ["running"]
        fifo.write("\n")
    until(lambda: status.exists() and status.read_text() == "7\n", "it ends, and its status is reported")
    assert _left(rootless) == ([] if verb == "run" else ["running"])


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("require_root")  # the user must have no other processes
@pytest.mark.parametrize("verb", ["create", "run"])
def test_too_few_processes(rootless, user, bundle, need, verb):
    """Each limit lets the command get one step further."""
    write_config(bundle, base_config("true"))
    complaints = []
    for limit in (*range(1, 12), 1000):
        words = [need("prlimit"), f"--nproc={limit}", *rootless.argv(verb, "--bundle", bundle, "c1")]
        status, complaint = _told(user, words)
        if status == 0:
            break
        complaints.append(complaint)
        assert status == 1
        assert is_one_clear_line(complaints[-1]), complaints
        assert "esource temporarily unavailable" in complaints[-1]
        assert "; fix: raise the limit of processes: ulimit -u" in complaints[-1]
        nothing_is_left(rootless)
    assert status == 0
    assert complaints[0].startswith("rootless: cannot start the executor: posix_spawn: ")


@pytest.mark.parametrize("verb", ["create", "run", "list"])
def test_too_few_descriptors(rootless, user, bundle, need, verb):
    """Each limit lets the command get one step further."""
    write_config(bundle, base_config("true"))
    rest = [] if verb == "list" else ["--bundle", bundle, "c1"]
    complaints = []
    for limit in range(4, 40):
        words = [need("prlimit"), f"--nofile={limit}", *rootless.argv(verb, *rest)]
        status, complaint = _told(user, words)
        if status == 0:
            break
        complaints.append(complaint)
        assert status == 1
        *warnings, error = complaints[-1].splitlines(keepends=True)
        assert all(line.startswith(f"rootless: warning: cannot remove {rootless.root}/c1: ") for line in warnings)
        assert is_one_clear_line(error), error
        assert "oo many open files" in error
        assert error.endswith("; fix: raise the limit of open files: ulimit -n\n")
        assert rootless("delete", "--force", "c1").returncode == 0
        nothing_is_left(rootless)
    assert status == 0
    assert complaints or verb == "list"


def _runs(*words: str) -> bool:
    """Whether a process with this command line exists."""
    wanted = "".join(f"{word}\0" for word in words).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False


WAITS = [("pidfd_open", "EMFILE", False), ("poll", "ENOMEM", False), ("poll", "EIO", True)]
"""Failures of waiting: the call, its errno, and whether the container has a terminal."""


@pytest.mark.parametrize(("call", "error", "terminal"), WAITS, ids=str)
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_process_that_cannot_be_waited_for_is_killed(rootless, user, strace, verb, call, error, terminal):  # noqa: PLR0917 - a table
    """Otherwise the caller would think that it has ended, and no process would end it."""
    program = ["sleep", "31415.9"]
    config = base_config(*program)
    config["process"]["terminal"] = terminal
    words = ["--bundle", make_bundle(user, config), "c1"]
    if verb == "exec":
        config["process"] |= {"args": ["sleep", "1000"], "terminal": False}
        write_config(words[1], config)
        rootless("run", "--detach", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        words = [*["--tty"] * terminal, "c1", *program]
    # exec has opened the container's process and checked that it runs
    when = 2 if verb == "exec" else 1
    inject = [strace, "-o", "/dev/null", "-e", f"inject={call}:error={error}:when={when}"]
    status, complaint = _told(user, [*inject, *rootless.argv(verb, *words)])
    assert status == (255 if verb == "exec" else 1)
    assert is_one_clear_line(complaint), complaint
    assert not _runs(*program)
    if verb == "exec":
        assert rootless.status("c1") == "running"
    else:
        nothing_is_left(rootless)


def test_list_with_too_few_descriptors_hides_no_container(rootless, bundle, need):
    rootless.create("c1", bundle)
    outcomes = set()
    for limit in range(4, 12):
        done = rootless.user.run([need("prlimit"), f"--nofile={limit}", *rootless.argv("list", "--quiet")])
        assert done.stdout == "c1\n" or is_one_clear_line(done.stderr), f"{limit}: {done}"
        outcomes.add((done.returncode, bool(done.stdout)))
    assert {(0, True), (0, False)} <= outcomes, "with some limits the state cannot be read, with others it can"


@pytest.mark.parametrize("kind", ["user", "mnt", "net", "pid", "uts", "ipc"])
def test_too_few_namespaces(rootless, user, need, kind):
    """The limits belong to a user namespace, whose creator may lower them."""
    bundle = make_bundle(user, base_config("true"))
    if kind == "user":
        config = base_config("true")
        config["linux"]["namespaces"].append({"type": "user"})
        one = [{"containerID": 0, "hostID": 0, "size": 1}]
        config["linux"] |= {"uidMappings": one, "gidMappings": one}
        write_config(bundle, config)
    limit = f"/proc/sys/user/max_{kind}_namespaces"
    script = f'echo 0 >{limit}; exec "$@"'
    words = [need("unshare"), "--user", "--map-root-user", "sh", "-c", script, "sh"]
    done = user.run([*words, *rootless.argv("run", "--bundle", bundle, "c1")])
    assert done.returncode == 1
    assert is_one_clear_line(done.stderr), done.stderr
    assert "unshare: No space left on device" in done.stderr
    assert f"user.max_{kind}_namespaces" in done.stderr.partition("; fix: ")[2]
    nothing_is_left(rootless)
