"""The state directory, concurrent commands, and leftovers of killed commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lib.bare_host import BareHost
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import Reader, Rootless, await_end, executors, until

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


@pytest.fixture
def bundle(user):
    """A bundle whose program sleeps."""
    return make_bundle(user, base_config("sleep", "1000"))


# --- the directory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["relative", "./a/../b/", "absolute", "/".join(["d" * 60] * 4), "with blank\nand é"])
def test_any_directory_can_be_the_root(rootless, user, bundle, root):
    rootless.root = user.tmp / root if root == "absolute" else root
    if "/" in root:
        (user.tmp / "a").mkdir()
    rootless.create("c1", bundle, cwd=user.tmp)
    assert json.loads(rootless("list", "-f", "json", cwd=user.tmp).stdout)[0]["id"] == "c1"
    state = json.loads(rootless("state", "c1", cwd=user.tmp).stdout)
    directory = user.tmp / os.path.normpath(root)
    assert [path.name for path in directory.iterdir()] == ["c1"]
    assert (directory.stat().st_mode & 0o777, (directory / "c1").stat().st_mode & 0o777) == (0o700, 0o700)
    rootless.start("c1")
    assert rootless("kill", "c1", "KILL", cwd=user.tmp).returncode == 0
    await_end(state["pid"])
    assert rootless("delete", "c1", cwd=user.tmp).returncode == 0


@pytest.mark.parametrize("file", ["thesis", "config.json"])
@pytest.mark.parametrize("words", [["run"], ["create"], ["delete", "--force"]])
def test_existing_directory_is_not_emptied(rootless, user, bundle, words, file):
    documents = user.tmp / "Documents"
    documents.mkdir()
    (documents / file).write_text("years of work")
    own(user, documents)
    rootless.root = user.tmp
    bundled = [] if words[0] == "delete" else ["--bundle", bundle]
    done = rootless(*words, *bundled, "Documents")
    assert done.returncode == 1
    assert "it holds files that are not a container's" in done.stderr
    assert (documents / file).read_text() == "years of work"


def test_roots_have_separate_containers(rootless, user, bundle):
    rootless.create("c1", bundle)
    with Rootless(user, rootless.command) as other:
        other.root = user.tmp / "other"
        assert other.list() == []
        other.create("c1", bundle)
        assert other.pid("c1") != rootless.pid("c1")
        assert other("delete", "--force", "c1").returncode == 0
    assert rootless.status("c1") == "created"


def _default_root(user, rootless, bundle, where: Path, **env):
    """Check that without --root the state is in `where`."""
    pid_file = user.tmp / "pid"
    create = [rootless.command, "create", "-b", bundle, "--pid-file", pid_file, "of-a-test"]
    user.run(create, env=env, check=True, **QUIET, stderr=subprocess.DEVNULL)
    try:
        assert (where / "rootless/of-a-test").is_dir()
        assert (where / "rootless").stat().st_mode & 0o777 == 0o700
        state = user.run([rootless.command, "state", "of-a-test"], env=env, check=True)
        assert json.loads(state.stdout)["pid"] == int(pid_file.read_text())
    finally:
        user.run([rootless.command, "delete", "--force", "of-a-test"], env=env, check=True)
    assert not (where / "rootless/of-a-test").exists()


def test_the_runtime_directory_is_used_if_it_is_the_users_own(rootless, user, bundle):
    own = user.tmp / "runtime"
    own.mkdir()
    os.chown(own, user.uid, user.gid)
    _default_root(user, rootless, bundle, own, XDG_RUNTIME_DIR=str(own))


@pytest.mark.parametrize("given", ["", "relative", "/nonexistent/directory", "/etc", "/proc/self/environ"])
def test_invalid_runtime_directory_is_ignored(rootless, user, bundle, given):
    if not user.runtime_dir.is_dir():
        pytest.skip(f"needs {user.runtime_dir}")
    _default_root(user, rootless, bundle, user.runtime_dir, XDG_RUNTIME_DIR=given)


def test_the_state_is_found_without_the_runtime_directory_in_the_environment(rootless, user, bundle):
    if not user.runtime_dir.is_dir():
        pytest.skip(f"needs {user.runtime_dir}")
    words = [rootless.command, "create", "-b", bundle, "of-a-test"]
    given = {"XDG_RUNTIME_DIR": str(user.runtime_dir)}
    user.run(words, env=given, check=True, **QUIET, stderr=subprocess.DEVNULL)
    try:
        user.run([rootless.command, "state", "of-a-test"], env={"XDG_RUNTIME_DIR": ""}, check=True)
    finally:
        user.run([rootless.command, "delete", "--force", "of-a-test"], env={"XDG_RUNTIME_DIR": ""}, check=True)


@pytest.fixture
def without_run_user(user, require_root):
    """Return a function that runs a script as the user with only root's preparations in /run, /tmp and the home."""

    def run(prepare: str, script: str) -> subprocess.CompletedProcess:
        host = BareHost(user)
        return host.run(prepare, host.as_user(user, script))

    return run


def test_without_a_runtime_directory_there_is_one_in_tmp(rootless, user, bundle, without_run_user):
    write_config(bundle, base_config("echo", "hello"))
    command = rootless.command
    script = f"{command} run --keep -b {bundle} c1; {command} list -q; stat -c '%a %u' /tmp/rootless-*"
    done = without_run_user("", script)
    assert (done.stdout, done.stderr) == (f"hello\nc1\n700 {user.uid}\n", "")


@pytest.mark.parametrize("made", ["directory", "link", "file"])
def test_state_is_below_the_home_if_another_user_has_the_directory_in_tmp(
    rootless, user, bundle, without_run_user, made
):
    path = f"/tmp/rootless-{user.uid}"
    prepare = {
        "directory": f"mkdir {path}; chmod 777 {path}",
        "link": f"chown {user.uid} /tmp/mine; ln -s mine {path}; chown -h 12345 {path}",
        "file": f"touch {path}",
    }[made]
    write_config(bundle, base_config("echo", "hello"))
    command = rootless.command
    script = (
        f"{command} run --keep -b {bundle} c1; {command} list -q; {command} delete c1; {command} list -q\n"
        "stat -c '%n %a %u' ~/.local/state/rootless/*; hostname; cat /proc/sys/kernel/random/boot_id"
    )
    done = without_run_user(f"mkdir -m 700 /tmp/mine; {prepare}", script)
    *told, where, node, boot = done.stdout.splitlines()
    assert (told, done.stderr) == (["hello", "c1"], "")
    assert where == f"{user.home}/.local/state/rootless/{node}.{boot} 700 {user.uid}"


def test_nodes_that_share_a_home_have_separate_directories(rootless, user, bundle):
    write_config(bundle, base_config("true"))
    command = rootless.command
    host = BareHost(user)
    on_one = host.as_user(user, f"{command} run --keep -b {bundle} one; {command} list -q")
    on_other = f"{command} list -q; {command} run --keep -b {bundle} other; {command} list -q"
    on_other = f"unshare --uts sh -c {shlex.quote(f'hostname other; {host.as_user(user, on_other)}')}"
    done = host.run(f"mkdir /tmp/rootless-{user.uid}", on_one, on_other)
    assert (done.stdout, done.stderr) == ("one\nother\n", "")


def test_without_a_home_the_directory_of_somebody_else_is_refused(rootless, user, bundle, without_run_user):
    path = f"/tmp/rootless-{user.uid}"
    verbs = (f"run -b {bundle}", f"create -b {bundle}", "state", "start", "kill", "delete", "delete --force")
    script = "; ".join(f"{rootless.command} {verb} c1; echo $?" for verb in verbs)
    done = without_run_user(f"mkdir {path}; chmod 777 {path}; chown 0 {user.home}; chmod 755 {user.home}", script)
    assert done.stdout.split() == ["1"] * len(verbs)
    assert done.stderr == len(verbs) * (
        f"rootless: cannot keep state in {path}: it belongs to another user; "
        "fix: give a directory of your own with --root, or set XDG_RUNTIME_DIR, or run as its owner: "
        "sudo -u '#0' rootless …\n"
    )


@pytest.mark.parametrize(
    ("root", "cause"),
    [
        ("/proc/nope", "no such file or directory"),
        ("/etc/nope", "permission denied"),
        ("/etc", "it belongs to another user"),
        ("file", "file exists"),
        ("file/below", "not a directory"),
        ("closed", "permission denied"),
    ],
)
def test_unusable_state_directory_is_reported(rootless, user, bundle, root, cause):
    (user.tmp / "file").touch()
    closed = user.tmp / "closed"
    closed.mkdir(mode=0o500)
    os.chown(closed, user.uid, user.gid)
    for verb in (["create", "-b", bundle], ["run", "-b", bundle]):
        done = user.run([rootless.command, "--root", root, *verb, "c1"])
        assert done.returncode == 1
        assert done.stderr.startswith(f"rootless: cannot keep state in {os.path.abspath(user.tmp / root)}")
        assert f": {cause}; fix: give a directory" in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("inodes", range(2, 6))
def test_a_full_disk_fails_create_and_leaves_nothing(rootless, user, bundle, require_root, inodes):
    disk = user.tmp / "disk"
    disk.mkdir()
    options = f"size=1m,nr_inodes={inodes},uid={user.uid},gid={user.gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    try:
        rootless.root = disk
        done = rootless.create("c1", bundle, check=False)
        assert (done.returncode, done.stderr.count("\n")) in ((0, 0), (1, 1))
        if done.returncode:
            assert done.stderr.startswith(f"rootless: cannot keep state in {disk}")
            assert "no space left on device; fix: " in done.stderr
            assert list(disk.iterdir()) == []
        assert rootless("delete", "--force", "c1").returncode == 0
        until(lambda: not executors(user), "what was begun ends")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"pid": "1"}', '{"pid": 1}'])
def test_a_broken_state_is_an_error_and_does_not_hide_the_processes(rootless, bundle, text):
    rootless.create("good", bundle)
    rootless.create("bad", bundle)
    pid = rootless.pid("bad")
    whole = (rootless.root / "bad/state.json").read_text()
    (rootless.root / "bad/state.json").write_text(text)
    for verb in ("state", "kill", "start", "delete"):
        done = rootless(verb, "bad")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "internal error" not in done.stderr
    assert [state["id"] for state in rootless.list()] == ["good"]
    done = rootless("delete", "--force", "bad")
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: cannot end container bad: {rootless.root}/bad/state.json is damaged and does not identify "
        f"the container's processes; fix: find and end them (ps -ef), then rm -r {rootless.root}/bad\n"
    )
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    if text != '{"pid": 1}':
        rootless.user.run(["rm", "-r", rootless.root / "bad"], check=True)
        rootless.create("bad", bundle)
        return
    (rootless.root / "bad/state.json").write_text(whole)
    assert rootless("delete", "--force", "bad").returncode == 0


# --- concurrency -----------------------------------------------------------------------------------------------------


def _at_once(rootless, *commands):
    """Run several commands at once; return their statuses and standard errors."""
    running = []
    for words in commands:
        with tempfile.NamedTemporaryFile("w", delete=False, dir=rootless.user.tmp) as file:
            running.append((rootless.popen(*words, **QUIET, stderr=file), Path(file.name)))
    return [(process.wait(timeout=60), complaints.read_text()) for process, complaints in running]


def test_of_two_creates_of_one_id_exactly_one_wins(rootless, bundle):
    for number in range(20):
        name = f"c{number}"
        results = _at_once(rootless, *[("create", "--bundle", bundle, name)] * 2)
        assert sorted(status for status, _ in results) == [0, 1]
        (complaint,) = [text for status, text in results if status]
        assert complaint.startswith(f"rootless: container {name}: container with given ID already exists")
        assert rootless.status(name) == "created"
        rootless("delete", "--force", name)
    until(lambda: not executors(rootless.user), "the losers' processes end")


def test_of_two_starts_exactly_one_wins(rootless, bundle):
    for number in range(5):
        name = f"c{number}"
        rootless.create(name, bundle)
        results = _at_once(rootless, *[("start", name)] * 3)
        assert sorted(status for status, _ in results) == [0, 1, 1]
        assert [text for status, text in results if status] == [
            f"rootless: container {name}: cannot start an already running container\n"
        ] * 2
        assert rootless.status(name) == "running"


def test_of_two_deletes_exactly_one_wins(rootless, user):
    bundle = make_bundle(user, base_config("true"))
    for number in range(5):
        name = f"c{number}"
        assert rootless("run", "--keep", "--bundle", bundle, name).returncode == 0
        results = _at_once(rootless, *[("delete", name)] * 3, *[("delete", "--force", name)] * 2)
        assert sorted(status for status, _ in results[3:]) == [0, 0]
        assert sorted(status for status, _ in results[:3]) in ([0, 1, 1], [1, 1, 1])
        assert all("container does not exist" in text for status, text in results if status)
        assert not (rootless.root / name).exists()


def test_concurrent_creates_and_deletes_never_leave_half_a_container(rootless, bundle):
    commands = [("create", "--bundle", bundle, "c1"), ("delete", "--force", "c1"), ("state", "c1"), ("list",)] * 4
    for status, complaint in _at_once(rootless, *commands):
        assert (status, complaint.count("\n")) in ((0, 0), (1, 1)), complaint
        assert "internal error" not in complaint
    assert rootless("delete", "--force", "c1").returncode == 0
    assert list(rootless.root.iterdir()) == []
    until(lambda: not executors(rootless.user), "what was deleted ends")


def test_fifty_containers_at_once(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"))
    names = [f"c{number:02}" for number in range(50)]
    assert _at_once(rootless, *[("create", "--bundle", bundle, name) for name in names]) == [(0, "")] * 50
    states = rootless.list()
    assert [(state["id"], state["status"]) for state in states] == [(name, "created") for name in names]
    pids = [state["pid"] for state in states]
    assert len(set(pids)) == 50

    assert _at_once(rootless, *[("start", name) for name in names]) == [(0, "")] * 50
    assert [(state["pid"], state["status"]) for state in rootless.list()] == [(pid, "running") for pid in pids]

    assert rootless("kill", "--regex", "c.*", "KILL").returncode == 0
    for pid in pids:
        await_end(pid)
    assert _at_once(rootless, *[("delete", name) for name in names]) == [(0, "")] * 50
    assert rootless.list() == []
    assert list(rootless.root.iterdir()) == []


# --- kills at any moment ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strace(need):
    """The path of strace."""
    return need("strace")


@pytest.fixture
def killed(rootless, user, strace):
    """Return a function that runs a command that receives a signal at the nth call of a system call."""

    def run(sign: str, moment: tuple[str, int], *words) -> tuple[int, str]:
        call, count = moment
        calls = ",".join(f"?{name}" for name in call.split("|"))
        inject = f"inject={calls}:signal={sign}:when={count}"
        words = [strace, "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject, *rootless.argv(*words)]
        with (user.tmp / "killed.err").open("w+") as complaints:
            status = user.run(words, **QUIET, stderr=complaints).returncode
            complaints.seek(0)
            return status, complaints.read()

    return run


SPAWN = "clone|clone3|vfork"
MOMENTS = (
    ("flock", 1),
    ("bind", 1),
    ("listen", 1),
    ("memfd_create", 1),
    ("memfd_create", 2),
    (SPAWN, 1),
    (SPAWN, 2),
    (SPAWN, 3),
    ("wait4", 1),
    ("wait4", 2),
    ("wait4", 3),
    ("renameat", 1),
    ("renameat", 2),
    ("linkat", 1),
    ("exit_group", 1),
)
"""System calls of `create` from the claim of the id to the end."""


def _nothing_is_left(rootless, mounts):
    done = rootless("delete", "--force", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(rootless.root.iterdir()) == []
    until(lambda: not executors(rootless.user), "every process that was begun ends")
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_killed_create_can_be_deleted_and_created_again(rootless, bundle, killed, moment):
    mounts = Path("/proc/self/mountinfo").read_text()
    flags = ["--bundle", bundle, "--pid-file", rootless.user.tmp / "pid"]
    assert killed("KILL", moment, "create", *flags, "c1")[0] == -signal.SIGKILL, "the moment came"
    for words in (["list"], ["state", "c1"]):
        done = rootless(*words)
        assert (done.returncode, done.stderr.count("\n")) in ((0, 0), (1, 1))
        assert "internal error" not in done.stderr
    _nothing_is_left(rootless, mounts)
    rootless.create("c1", bundle)
    rootless.start("c1")
    assert rootless.status("c1") == "running"
    _nothing_is_left(rootless, mounts)


@pytest.mark.parametrize("moment", MOMENTS[:3], ids=str)
def test_an_id_whose_create_was_killed_early_is_free(rootless, bundle, killed, moment):
    assert killed("KILL", moment, "create", "--bundle", bundle, "c1")[0] == -signal.SIGKILL
    rootless.create("c1", bundle)
    assert rootless.status("c1") == "created"


@pytest.mark.parametrize("moment", MOMENTS[1:-1], ids=str)
def test_an_interrupted_create_leaves_nothing(rootless, bundle, killed, moment):
    flags = ["--bundle", bundle, "--pid-file", rootless.user.tmp / "pid"]
    assert killed("INT", moment, "create", *flags, "c1") == (130, "")
    assert list(rootless.root.iterdir()) == []
    until(lambda: not executors(rootless.user), "every process that was begun ends")


@pytest.mark.parametrize("moment", [(SPAWN, 2), ("renameat", 2), ("pidfd_open", 1)], ids=str)
def test_a_killed_run_can_be_deleted_and_run_again(rootless, bundle, killed, moment):
    mounts = Path("/proc/self/mountinfo").read_text()
    assert killed("KILL", moment, "run", "--bundle", bundle, "c1")[0] == -signal.SIGKILL
    _nothing_is_left(rootless, mounts)
    write_config(bundle, base_config("sh", "-c", "exit 7"))
    assert rootless("run", "--bundle", bundle, "c1").returncode == 7
    _nothing_is_left(rootless, mounts)


def test_killed_start_has_started_or_not(rootless, bundle, killed):
    rootless.create("c1", bundle)
    assert killed("KILL", ("connect", 1), "start", "c1")[0] == -signal.SIGKILL
    assert rootless.status("c1") == "created"
    assert killed("KILL", ("unlinkat|unlink", 1), "start", "c1")[0] == -signal.SIGKILL
    assert rootless.status("c1") == "running"
    done = rootless("start", "c1")
    assert done.returncode == 1
    assert "cannot start an already running container" in done.stderr


@pytest.mark.parametrize("call", ["pidfd_open", "pidfd_send_signal", "poll|ppoll", "unlinkat", "rmdir|unlinkat"])
def test_a_killed_delete_can_be_repeated(rootless, bundle, killed, call):
    mounts = Path("/proc/self/mountinfo").read_text()
    rootless.create("c1", bundle)
    rootless.start("c1")
    assert killed("KILL", (call, 1), "delete", "--force", "c1")[0] == -signal.SIGKILL
    _nothing_is_left(rootless, mounts)


class _Stopped:
    """A command that is stopped at a system call."""

    def __init__(self, rootless, strace, call, count, *words) -> None:
        reader, writer = os.pipe()
        os.fchown(writer, rootless.user.uid, -1)  # strace opens the log again
        inject = f"inject={call}:signal=STOP:when={count}"
        # strace appends to the log, and reports there that its child was stopped
        log = ["-o", f"/proc/self/fd/{writer}", "-e", f"trace={call}", "-e", inject]
        self.process = rootless.user.popen(
            [strace, *log, *rootless.argv(*words)], **QUIET, stderr=subprocess.DEVNULL, pass_fds=[writer]
        )
        os.close(writer)
        self._reader = reader
        Reader(reader).until(b"--- stopped by SIGSTOP ---")
        (self.pid,) = map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())

    def go_on(self) -> int:
        """Let the command continue to its end; return its status."""
        os.kill(self.pid, signal.SIGCONT)
        status = self.process.wait(timeout=30)
        os.close(self._reader)
        return status


UNDER_WAY = {("bind", 1): None, ("memfd_create", 2): None, ("renameat", 1): "creating", ("renameat", 2): "created"}
"""System calls of `create`, and the status of the container after each."""


@pytest.mark.parametrize("moment", UNDER_WAY, ids=str)
def test_verbs_wait_for_a_create_in_progress(rootless, bundle, strace, moment):
    create = _Stopped(rootless, strace, *moment, "create", "--bundle", bundle, "c1")
    try:
        status = UNDER_WAY[moment]
        assert [(state["id"], state["status"]) for state in rootless.list()] == [("c1", status)] * bool(status)
        done = rootless("state", "c1")
        assert done.returncode == (0 if status else 1)
        assert bool(status) or "container does not exist" in done.stderr
        second = rootless.create("c1", bundle, check=False)
        assert second.returncode == 1
        assert "container with given ID already exists" in second.stderr

        # start and delete wait for create to end
        waiting = [rootless.popen(verb, "c1", **QUIET, stderr=subprocess.PIPE) for verb in ("delete", "start")]
        for process in waiting:
            until(lambda process=process: _waits_for_lock(process.pid), "the other verb waits")
    finally:
        ended = create.go_on()
    assert ended == 0
    delete, start = (process.communicate(timeout=30)[1] for process in waiting)
    assert "cannot delete container c1 that is not stopped: " in delete
    assert start == ""
    assert rootless.status("c1") == "running"


def _waits_for_lock(pid):
    return any(" -> " in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.parametrize("moment", UNDER_WAY, ids=str)
def test_delete_force_ends_a_create_in_progress(rootless, bundle, strace, moment):
    mounts = Path("/proc/self/mountinfo").read_text()
    create = _Stopped(rootless, strace, *moment, "create", "--bundle", bundle, "c1")
    try:
        delete = rootless.popen("delete", "--force", "c1", **QUIET, stderr=subprocess.PIPE)
        until(lambda: _waits_for_lock(delete.pid), "delete waits for create to let go")
    finally:
        create.go_on()
    assert delete.communicate(timeout=30)[1] == ""
    assert delete.returncode == 0
    _nothing_is_left(rootless, mounts)
