"""Cached Plans of what people type: `run IMAGE` and `run BUNDLE` with everyday flags, without a served network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
from rootless.image.platform import host_platform
from rootless.image.store.store import open_store
from tests.lib.bundles import APPLETS, base_config, make_bundle, own
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.containers import Reader, Rootless, until
from tests.lib.layers import LINK, entry, layout, packed
from tests.lib.native import (
    CHANGING,
    MOST_MEMORY,
    NO_DEPENDENCIES,
    SETTLED,
    Runs,
    calls_of,
    entries_of,
    looked_at_while_planning,
    paths_of,
    plans,
    proportional_memory,
    warm,
    without_numbers,
)
from tests.lib.squashfs import make_image_bundle, servers
from tests.lib.terminals import Typewriter

__all__ = ["cgroup2", "plans"]  # the fixtures

OFF = {"ROOTLESS_FRONT": "0"}
IMAGE, MOVED = "example.org/box", "example.org/moved"
RUNS = 100


@pytest.fixture
def runs(rootless, need, plans, prepared):
    """The command, whose cache is empty, and files that are not new."""
    return Runs(rootless, need)


def build(user, need, word) -> tuple[Path, str]:
    """Return the file of an image whose program says a word, and its digest."""
    layer = packed(
        entry("bin/busybox", data=Path(need("busybox")).read_bytes(), mode=0o755),
        *(entry(f"bin/{name}", LINK, "busybox") for name in APPLETS),
        entry("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"),
        entry("etc/group", data=b"web:x:34:\n"),
        entry("tmp/file", data=b"content\n"),
    )
    config = {"Cmd": ["sh", "-c", f"echo {word}; id -u; pwd"], "User": "web", "WorkingDir": "/tmp"}
    paths, settings, digest = layout(user.tmp / f"oci-{word}", layer, config=config)
    path = user.tmp / f"{word}.sqsh"
    build_image(
        [LayerFile(each) for each in paths], config=settings, manifest_digest=digest, reference=word, output=str(path)
    )
    own(user, path)
    return path, digest


class Images:
    """A store of images, and files of such."""

    def __init__(self, user, need) -> None:
        built = {word: build(user, need, word) for word in ("one", "two", "own")}
        self.files = {word: file for word, (file, _) in built.items()}
        self.files["exchanged"] = user.tmp / "exchanged.sqsh"
        shutil.copyfile(self.files["one"], self.files["exchanged"])
        self._digests = {word: digest for word, (_, digest) in built.items()}
        self.path = user.tmp / "store"
        self.env = {"ROOTLESS_IMAGES": str(self.path)}
        with open_store(str(self.path), create=True) as store:
            for word in ("one", "two"):
                shutil.copyfile(self.files[word], store.image_path(self._digests[word]))
            for name in (IMAGE, MOVED):
                store.note(f"{name}:latest", f"{name}:latest", str(host_platform()), self._digests["one"])
        own(user, self.path)

    def move(self, name) -> None:
        """Let a name refer to the other image, as a later pull does."""
        (file,) = (self.path / "references").glob(f"{name.replace('/', '+')}:*")
        made = file.with_name("new")
        made.write_text(file.read_text().replace(self._digests["one"], self._digests["two"]))
        made.rename(file)


@pytest.fixture(scope="module")
def images(module_user, need):
    """A store with images of two names, and files of others."""
    return Images(module_user, need)


def assert_no_server():
    """Wait until none is left, also to be reaped."""
    until(lambda: servers() == set(), "the server of the image has ended")


def settle(*files):
    """Wait until files may be dependencies of a cached Plan."""
    until(lambda: time.time() - max(file.stat().st_ctime for file in files) > SETTLED, "they do not change now")


@pytest.mark.parametrize(
    "flags",
    [
        "--network none",
        "--network host",
        "--network none --userns single -u 0",
        "--network none --userns keep-id -e HOME=/tmp",
        "--network none --init --device /dev/fuse",
        "--network none -m 64m --security-opt seccomp=unconfined --cap-add all",
        "--network host --add-host a:1.2.3.4 --dns 1.2.3.4 --read-only -u 12",
    ],
)
def test_image_runs_as_with_python(rootless, runs, images, flags):
    words = ["run", *flags.split(), IMAGE]
    done = warm(runs, *words, env=images.env)
    assert (done.returncode, done.stdout.split()[::2]) == (0, ["one", "/tmp"]), done
    python = rootless(*words, env=OFF | images.env)
    assert (python.returncode, python.stdout, python.stderr) == (0, done.stdout, done.stderr)
    assert list(rootless.root.iterdir()) == []
    assert_no_server()


def test_user_with_a_single_id_runs_an_image(single_user, rootless_command, need, images):
    with Rootless(single_user, rootless_command) as rootless:
        runs = Runs(rootless, need)
        words = ["run", "--network", "none", str(images.files["one"]), "cat", "/proc/self/uid_map", "file"]
        assert warm(runs, *words).stdout.endswith("content\n")


def test_image_has_a_cgroup_of_its_own(cgroup2, user, rootless_command, runs, images):
    with InView(cgroup2, user, rootless_command) as rootless:
        words = Rootless.argv(rootless, "run", "--network", "none", IMAGE, "true")
        argv = [*cgroup2.prefix(), "strace", "-o", str(runs.trace), "-e", "trace=execve,mkdir", *words]
        for _ in range(3):
            user.run(argv, env=images.env, check=True, **cgroup2.options)
            assert cgroup2.cgroups() == []
        assert runs.is_native()
        assert re.search(f'"[^"]*{cgroup2.path}/rootless-box-[0-9a-f]{{12}}[.][0-9a-f]{{8}}"', runs.trace.read_text())
        assert list(rootless.root.iterdir()) == []


SHOW = (
    "env | sort; pwd; cat file; id -u; touch /x; touch /data/x && hostname; ulimit -n; cat; grep Cap /proc/self/status"
)


class Prepared:
    """A bundle with a user named `web`, and flags with their files, of which each changes what SHOW prints."""

    def __init__(self, user, directory) -> None:
        directory.mkdir()
        self.user, self.directory = user, directory
        self.bundle = make_bundle(user, base_config("sh", "-c", SHOW), name=f"{directory.name}/bundle")
        self.passwd = self.bundle / "rootfs/etc/passwd"
        self.passwd.write_text("root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
        self.variables, self.shared = directory / "env", directory / "shared"
        self.variables.write_text("FROM_FILE=1\nPASSED\n")
        self.shared.mkdir()
        (self.shared / "file").write_text("shared\n")
        own(user, directory)
        words = ["--network", "none", "-e", "GIVEN=2", "-e", "NOT_SET", "--env-file", str(self.variables)]
        words += ["-w", "/shared", "-v", f"{self.shared}:/shared:ro", "-u", "web", "-m", "64m", "--read-only"]
        words += ["--tmpfs", "/data:size=64k", "--overlay", "--hostname", "name", "--ulimit", "nofile=77:88"]
        self.flags = [*words, "--cap-drop", "chown"]


def _edit_variables(prepared):
    prepared.variables.write_text("FROM_FILE=2\nPASSED\n")


def _edit_passwd(prepared):
    prepared.passwd.write_text("web:x:44:34::/:/bin/sh\n")


def _link_passwd(prepared):
    prepared.passwd.rename(prepared.passwd.with_name("other"))
    prepared.passwd.symlink_to("/etc/other")


def _link_bundle(prepared):
    prepared.bundle.rename(prepared.directory / "other")
    prepared.bundle.symlink_to("other")


def _edit_config(prepared):
    file = prepared.bundle / "config.json"
    file.write_text(file.read_text().replace("ulimit -n", "ulimit -Hn"))


def _remove_source(prepared):
    shutil.rmtree(prepared.shared)


CHANGES = (_edit_variables, _edit_passwd, _link_passwd, _link_bundle, _edit_config, _remove_source)


@pytest.fixture(scope="module")
def prepared(module_user, images):
    """Return what is prepared for each of CHANGES, and for tests that change nothing (None); it is not new."""
    made = {change: Prepared(module_user, module_user.tmp / f"dir{n}") for n, change in enumerate((*CHANGES, None))}
    root = make_image_bundle(module_user)
    settle(images.path / "references", root, *(each.shared for each in made.values()))
    return made


@pytest.fixture
def bundle(prepared):
    """What is prepared for tests that change nothing."""
    return prepared[None]


@pytest.mark.parametrize("command", [(), ("sh", "-c", f"{SHOW}; exit 5")], ids=["own program", "command"])
def test_bundle_runs_with_flags_as_with_python(rootless, runs, bundle, command):
    words = ["run", *bundle.flags, str(bundle.bundle), *command]
    env = {"PASSED": "3"}
    done = warm(runs, *words, env=env, input="words")
    python = rootless(*words, env=env | OFF, input="words")
    assert (done.returncode, done.stdout, done.stderr) == (python.returncode, python.stdout, python.stderr)
    assert done.stdout.startswith("FROM_FILE=1\nGIVEN=2\n")
    assert "\nPASSED=3\n" in done.stdout
    assert ("words" in done.stdout) is not command
    assert list(rootless.root.iterdir()) == []


def test_image_that_is_the_root_of_a_bundle_runs(module_user, runs, prepared):
    made = module_user.tmp / "image-bundle"
    for words in (
        ["run", "--network", "none", str(made), "echo", "said"],
        ["run", "-b", str(made), "c1", "echo", "said"],
    ):
        assert warm(runs, *words).stdout == "said\n"


@pytest.mark.parametrize("flags", [(), ("-i",)])
def test_standard_input_is_that_of_python(runs, images, flags):
    words = ["run", "--network", "none", *flags, IMAGE, "cat"]
    assert warm(runs, *words, env=images.env, input="words").stdout == ("words" if flags else "")


@pytest.mark.parametrize(("flags", "said"), [("-it", b"<words>\r\n"), ("-t", b"<>\r")])
def test_terminal_is_the_containers(user, runs, images, flags, said):
    words = ["run", "--network", "none", flags, IMAGE, "sh", "-c", 'test ! -t 0 || { read x; echo "<$x>"; }; exit 3']
    for _ in range(3):
        with Typewriter(user, runs.argv(*words), env=images.env) as terminal:
            terminal.type(b"words\r")
            terminal.until(said)
            terminal.ends(3)
    assert runs.is_native()


class Waiting:
    """A container that waits for the end of its input."""

    def __init__(self, rootless, *words, env) -> None:
        self.run = rootless.popen("run", "-i", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self.output = Reader(self.run.stdout)
        assert self.output.line() == "up"

    def end(self) -> int:
        """Return the exit status."""
        self.run.stdin.close()
        status = self.run.wait(30)
        self.run.stdout.close()
        return status


def _has_open(pid, name) -> bool:
    return any(os.path.realpath(fd).endswith(name) for fd in Path(f"/proc/{pid}/fd").iterdir())


UP = ("sh", "-c", "echo up; cat; exit 4")


def files_of(directory) -> dict[str, object]:
    """Return the files of a container without what differs for each process."""
    files = {path.name: (oct(path.stat().st_mode), path.read_bytes()) for path in directory.iterdir()}
    files["undo"] = re.sub(rb'"server":\[\d+,\d+\]', b"server", files.get("undo", ("", b""))[1])
    return without_numbers(files)


@pytest.mark.parametrize("what", ["image", "image on the host's network", "bundle"])
def test_files_of_a_running_container_are_those_of_python(rootless, runs, images, bundle, what):
    words = ["--name", "c1", "--network", "host" if "host" in what else "none"]
    words += ["-e", "A=1", str(bundle.bundle)] if what == "bundle" else ["--add-host", "a:1.2.3.4", IMAGE]
    found = []
    for env in ({}, {}, {}, OFF):
        container = Waiting(rootless, *words, *UP, env=images.env | env)
        found.append(files_of(rootless.root / "c1"))
        with rootless.popen("wait", "c1", stdout=subprocess.PIPE) as waits:
            until(lambda: _has_open(waits.pid, "c1/exit"), "it waits")
            assert container.end() == 4
            assert waits.communicate(timeout=30)[0] == "4\n"
    assert {"config.json", "exit", "request.json", "state.json", "status"} <= found[0].keys()
    assert ("hosts" in found[0]) is (what != "bundle")
    assert found[0] == found[1] == found[2] == found[3]
    assert runs("run", "-i", *words, *UP, env=images.env, input="")[1]


def test_containers_of_one_image_have_different_names(rootless, runs, images):
    words = ["--network", "none", IMAGE, *UP]
    warm(runs, "run", "-i", *words, env=images.env, input="")
    assert_no_server()
    containers = [Waiting(rootless, *words, env=images.env) for _ in range(3)]
    names = rootless("list", "-q").stdout.split()
    assert len(set(names)) == 3
    assert all(re.fullmatch("box-[0-9a-f]{12}", name) for name in names)
    for name in names:
        assert rootless("exec", name, "cat", "/tmp/file").stdout == "content\n"
        assert rootless.state(name)["bundle"] == f"{rootless.root}/{name}"
    assert len(servers()) == 3
    assert [container.end() for container in containers] == [4] * 3
    assert_no_server()
    assert list(rootless.root.iterdir()) == []


def test_another_command_deletes_a_container_and_its_server(rootless, runs, images):
    words = ["--network", "none", IMAGE, *UP]
    warm(runs, "run", "-i", *words, env=images.env, input="")
    container = Waiting(rootless, *words, env=images.env)
    (name,) = rootless("list", "-q").stdout.split()
    assert rootless("delete", "--force", name).returncode == 0
    assert container.end() == 128 + signal.SIGKILL
    assert_no_server()
    assert list(rootless.root.iterdir()) == []


def test_waiting_is_small(rootless, runs, images, require_root):
    words = ["--network", "none", IMAGE, *UP]
    warm(runs, "run", "-i", *words, env=images.env, input="")
    container = Waiting(rootless, *words, env=images.env)
    size = proportional_memory(container.run.pid)
    assert container.end() == 4
    assert 0 < size < MOST_MEMORY


def test_many_runs_leave_nothing(user, rootless, runs, images, plans):
    words = ["run", "--network", "none", IMAGE, "true"]
    warm(runs, *words, env=images.env)
    loop = f'for i in $(seq {RUNS}); do "$@" || exit 1; done'
    user.run(["sh", "-c", loop, "loop", *rootless.argv(*words)], check=True, env=images.env)
    assert list(rootless.root.iterdir()) == []
    assert_no_server()
    assert len(entries_of(plans)) == 1
    assert runs(*words, env=images.env)[1]


# --- Everything that planning has read is compared --------------------------------------------------------------------


def test_another_image_under_the_name_counts(rootless, runs, images):
    words = ["run", "--network", "none", "--pull", "never", MOVED]
    assert warm(runs, *words, env=images.env).stdout.startswith("one\n")
    images.move(MOVED)
    done, native = runs(*words, env=images.env)
    assert (done.stdout.split()[0], native) == ("two", False)
    done, native = runs(*words, env=images.env | {"ROOTLESS_IMAGES": "/nowhere"})
    assert (done.returncode, native) == (1, False)


def test_name_of_an_image_is_read_to_be_compared(runs, images):
    words = ["run", "--network", "none", IMAGE, "true"]
    warm(runs, *words, env=images.env)
    assert runs(*words, strace=["-e", "trace=execve,open"], env=images.env)[1]
    opened = re.findall(r'^open\("(.*?)"', runs.trace.read_text(), re.MULTILINE)
    (name,) = (images.path / "references").glob("example.org+box:*")
    assert str(name) in opened, "on NFS, that is when another node's pull is seen"


def test_file_that_is_another_image_counts(runs, images):
    first, second = images.files["own"], images.files["two"]
    words = ["run", "--network", "none", str(first)]
    assert warm(runs, *words).stdout.startswith("own\n")
    first.write_bytes(second.read_bytes())
    done, native = runs(*words)
    assert (done.stdout.split()[0], native) == ("two", False)


def test_file_that_is_exchanged_after_the_claim_is_not_served(user, rootless, runs, images):
    file, other = images.files["exchanged"], user.tmp / "other.sqsh"
    shutil.copyfile(images.files["two"], other)
    words = ["run", "--network", "none", str(file)]
    warm(runs, *words)
    slow = ["-e", "inject=mkdirat:delay_exit=500000"]
    with user.popen(runs.argv(*words, strace=slow), stdout=subprocess.PIPE) as running:
        until(lambda: list(rootless.root.iterdir()), "the claim")
        other.rename(file)
        assert running.communicate(timeout=30)[0].startswith("two\n")
    assert not runs.is_native()
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("change", [*CHANGES, None])
def test_what_flags_are_about_counts(rootless, runs, prepared, change):
    words = ["run", *prepared[change].flags, str(prepared[change].bundle)]
    warm(runs, *words, env={"PASSED": "3"})
    if change:
        change(prepared[change])
    env = {"PASSED": "3" if change else "4"}
    done, native = runs(*words, env=env)
    python = rootless(*words, env=env | OFF)
    assert not native
    assert (done.returncode, done.stdout, done.stderr) == (python.returncode, python.stdout, python.stderr)


def test_pipe_is_left_to_python(user, rootless, runs, images):
    bundle = make_bundle(user, base_config("echo", "ran"), name="piped")
    config = (bundle / "config.json").rename(bundle / "text")
    pipe = bundle / "config.json"
    os.mkfifo(pipe)
    own(user, bundle)
    for _ in range(4):
        with user.popen(["sh", "-c", 'cat "$1" >"$2"', "sh", config, pipe]) as writer:
            assert rootless("run", "--network", "none", bundle).stdout == "ran\n"
        assert writer.returncode == 0
    opens = ["-e", "trace=open,openat"]
    words = ["run", "--network", "none", IMAGE, "echo", "-f", pipe]
    assert runs(*words, strace=opens, env=images.env)[0].stdout == f"-f {pipe}\n"
    assert not re.search(f"^open.*{pipe}", runs.trace.read_text(), re.MULTILINE)


def test_no_entry_for_what_cannot_be_compared(user, runs, images, plans, bundle):
    (user.tmp / "environ").symlink_to("/proc/self/environ")
    for words in (
        [IMAGE, "--network=none", "--pull", "always"],
        ["--network=none", "--keep", "--name", "c1", IMAGE, "true"],
        ["--network=none", "--timeout", "100", IMAGE, "true"],
        ["--network=none", f"--overlay={user.tmp}/changes", IMAGE, "true"],
        ["--network=none", "-e", "PASS*", str(bundle.bundle)],
        ["--network=none", "--env-file", "/dev/stdin", str(bundle.bundle)],
        ["--network=none", "--env-file", "/proc/self/environ", str(bundle.bundle)],
        ["--network=none", "--env-file", str(user.tmp / "environ"), str(bundle.bundle)],
        ["--network=none", "--ulimit", "host", IMAGE, "true"],
        ["--network=pasta", IMAGE, "true"],
    ):
        for _ in range(2):
            runs("run", *words, env=images.env)
        assert entries_of(plans) == set(), words


@pytest.mark.parametrize("what", ["image in the store", "file", "bundle"])
def test_every_file_that_planning_looks_at_is_a_dependency(rootless, runs, images, plans, bundle, what):  # noqa: PLR0917 - fixtures
    rootless.make_root()
    words = ["--network", "host", "-u", "web", IMAGE]
    if what == "file":
        words = ["--network", "none", "-v", "/tmp:/mnt", "-u", "web", str(images.files["one"])]
    elif what == "bundle":
        words = [*bundle.flags, str(bundle.bundle)]
    for _ in range(2):
        trace = ["-y", "-e", "trace=%file,statfs,connect"]
        assert runs("run", "--name", "c1", *words, strace=trace, env=images.env)[0].returncode == 0
    (entry,) = entries_of(plans)
    looked = looked_at_while_planning(runs.trace)
    assert looked - paths_of(entry) == (NO_DEPENDENCIES.keys() | {str(rootless.root)}) & looked


# --- Failures, signals and kills --------------------------------------------------------------------------------------


def test_killed_server_is_an_error_of_the_program(rootless, runs, images):
    words = ["--network", "none", IMAGE, "sh", "-c", "echo up; read x; /bin/cat /tmp/file"]
    warm(runs, "run", "-i", *words, env=images.env, input="")
    before = servers()
    container = Waiting(rootless, *words, env=images.env)
    (server,) = servers() - before
    os.kill(server, signal.SIGKILL)
    assert container.end() not in (0, 4)
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("call", ["mkdirat", "socketpair", "renameat"])
def test_signal_before_the_start_ends_the_command(rootless, runs, images, number, call):
    words = ["run", "--network", "none", IMAGE, "echo", "started"]
    warm(runs, *words, env=images.env)
    for when in (1, 2) if call == "socketpair" else (1,):
        inject = ["-e", f"inject={call}:signal={number.name}:when={when}"]
        done, native = runs(*words, strace=inject, env=images.env)
        assert (done.returncode, done.stdout, native) == (128 + number, "", True)
        assert list(rootless.root.iterdir()) == []
        assert_no_server()


def test_killed_at_any_call_nothing_stays_that_the_next_run_does_not_remove(user, rootless, runs, images):
    words = ["run", "--name", "c1", "--network", "none", "--add-host", "a:1.2.3.4", IMAGE, "echo", "ran"]
    warm(runs, *words, env=images.env)
    runs(*words, strace=["-e", "trace=all"], env=images.env)
    counts = calls_of(runs.trace)
    assert set(CHANGING) - counts.keys() <= {"clone", "clone3", "mkdir", "rmdir", "getdents64"}
    for name, count in counts.items():
        for when in range(1, count + 1):
            runs(*words, strace=["-e", f"inject={name}:signal=SIGKILL:when={when}"], env=images.env)
            done = rootless("delete", "--force", "c1")
            assert done.returncode == 0 or "does not exist" in done.stderr, (name, when, done)
            assert list(rootless.root.iterdir()) == [], (name, when)
            assert_no_server()
    for call in ("sendfile", "pipe2"):
        runs(*words, strace=["-e", f"inject={call}:signal=SIGKILL:when=1"], env=images.env)
        assert [path.name for path in rootless.root.iterdir()] == ["c1"]
        assert runs(*words, env=images.env)[0].stdout == "ran\n"


@pytest.mark.parametrize("call", ["recvmsg", "socketpair", "memfd_create", "pipe2", "poll", "openat", "dup2", "flock"])
def test_each_failed_call_has_the_same_outcome(rootless, runs, images, plans, call):
    words = ["run", "--network", "none", IMAGE, "sh", "-c", "echo fine; cat; exit 7"]
    warm(runs, *words, env=images.env)
    runs(*words, strace=["-e", "trace=all"], env=images.env)
    count = [line.partition("(")[0] for line in runs.trace.read_text().splitlines()].count(call)
    (entry,) = entries_of(plans)
    content = entry.read_bytes()
    assert count
    for when in range(1, count + 1):
        done, _ = runs(*words, strace=["-e", f"inject={call}:error=ENOMEM:when={when}"], env=images.env, input="words")
        lines = [line for line in done.stderr.splitlines() if "strace" not in line]
        assert (done.returncode, done.stdout, lines) == (7, "fine\n", []), (when, done)
        assert list(rootless.root.iterdir()) == [], when
        assert_no_server()
        entry.write_bytes(content)  # a failure removes it
        os.chown(entry, rootless.user.uid, rootless.user.gid)
