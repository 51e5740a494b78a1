"""`run --join`: containers of one node that share a user namespace and an ipc namespace, as ranks of MPI need."""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import shutil
import signal
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from rootless.procfs import Process
from tests.cluster.slurm import Submitter
from tests.lib.accounts import CHECKOUT
from tests.lib.boxes import Box
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import PATIENCE, Reader, Rootless, until
from tests.lib.intruders import add_program
from tests.lib.squashfs import image_config, make_image_bundle
from tests.lib.waiting import each_waiter

__all__ = ["each_waiter"]

ROUNDS = 200
"""Of 16 ranks of which some are killed."""
RANKS = 16
SHOW = "readlink /proc/self/ns/user; readlink /proc/self/ns/ipc"
STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURMD_NODENAME": "n1"}


@pytest.fixture
def box(user, rootless_command, need):
    """A bundle with the program cma."""
    box = Box(user, [rootless_command])
    config = base_config("sh")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    write_config(box.path, config)
    add_program(box, need, "cma")
    return box


class Ranks:
    """Containers of the box that run until the end of their input.

    Attributes:
        groups: the directory in which groups are recorded.
    """

    def __init__(self, rootless, box):
        self.rootless = rootless
        self.box = box
        self.groups = rootless.root / "@groups"
        self._stack = ExitStack()

    def run(self, name, *command, join="--join=key", flags=(), **options):
        """Run a rank to its end."""
        return self.rootless("run", "--name", name, join, *flags, self.box.path, "--", *command, **options)

    def start(self, name, *command, join="--join=key", flags=(), **options):
        """Start a rank; return its process and the reader of its output."""
        words = ["run", "--interactive", "--name", name, join, *flags, self.box.path, "--", *command]
        process = self._stack.enter_context(
            self.rootless.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        )
        return process, Reader(process.stdout)

    def namespaces(self, name):
        """Return the user and the ipc namespace of a rank that runs."""
        pid = self.rootless.pid(name)
        return os.readlink(f"/proc/{pid}/ns/user"), os.readlink(f"/proc/{pid}/ns/ipc")

    def left(self):
        """Return the keys of the groups that are recorded."""
        return sorted(path.name for path in self.groups.iterdir()) if self.groups.exists() else []

    def close(self):
        self.rootless.__exit__()
        self._stack.close()


@pytest.fixture
def ranks(rootless, box):
    """Ranks; no group is left of them."""
    ranks = Ranks(rootless, box)
    yield ranks
    ranks.close()
    assert not ranks.left()


def finish(process):
    """End a rank by the end of its input; return its exit status."""
    process.stdin.close()
    return process.wait(timeout=PATIENCE)


def test_a_rank_reads_the_memory_of_another(ranks):
    process, reader = ranks.start("one", "cma")
    pid, address = reader.line().split()
    done = ranks.run("two", "cma", pid, address)
    assert (done.stdout, done.stderr) == ("the memory of another rank\n", "")
    alone = ranks.run("three", "cma", pid, address, join="--join=other")
    assert alone.stderr == "process_vm_readv: Operation not permitted\n"
    assert finish(process) == 0


@pytest.mark.parametrize(
    "flags", [(), ("--userns=keep-id",), ("--userns=single", "--fake-chown=false"), ("--user=33",)], ids=str
)
def test_ranks_share_namespaces_and_memory_but_not_mounts(ranks, flags):
    shared = f"/dev/shm/{ranks.rootless.user.tmp.name}"
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; echo x > {shared}; cat", flags=flags)
    first = reader.line(), reader.line()
    script = f"{SHOW}; cat {shared}; rm {shared}; readlink /proc/self/ns/mnt"
    done = ranks.run("two", "sh", "-c", script, flags=flags)
    assert done.stderr == ""
    pid = ranks.rootless.pid("one")
    *shown, mounts = done.stdout.splitlines()
    assert shown == [*first, "x"]
    assert mounts != os.readlink(f"/proc/{pid}/ns/mnt")
    assert os.readlink("/proc/self/ns/user") not in first
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert finish(process) == 0


def test_ranks_of_an_image_keep_their_changes_to_themselves(ranks, user, need):
    need("squashfuse_ll")
    ranks.box.path = make_image_bundle(user, image_config("sh"))
    process, reader = ranks.start("one", "sh", "-c", f"touch /tmp/mine; {SHOW}; cat")
    expected = [reader.line(), reader.line()]
    done = ranks.run("two", "sh", "-c", f"{SHOW}; ls /tmp")
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
    assert finish(process) == 0


@pytest.mark.parametrize("end", ["finished", "killed", "launcher killed"])
def test_the_group_outlives_its_first_member(ranks, end):
    first, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    expected = reader.line(), reader.line()
    second, other = ranks.start("two", "sh", "-c", f"{SHOW}; cat")
    assert (other.line(), other.line()) == expected
    if end == "finished":
        assert finish(first) == 0
    elif end == "killed":
        os.kill(ranks.rootless.pid("one"), signal.SIGKILL)
        assert first.wait(timeout=PATIENCE) == 128 + 9
    else:
        second.kill()  # the container goes on; the others are its only way in after the first one's end
        second.wait()
        assert finish(first) == 0
    third, last = ranks.start("three", "sh", "-c", f"{SHOW}; cat")
    assert (last.line(), last.line()) == expected
    assert finish(third) == 0
    if end != "launcher killed":
        assert finish(second) == 0
        assert not ranks.left()
    else:
        ranks.rootless("delete", "--force", "two", check=True)


def test_a_member_with_an_init_lets_others_in_and_ends_with_its_launcher(ranks):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; echo $$; cat", flags=("--init",))
    expected = reader.line(), reader.line()
    program = os.pidfd_open(int(reader.line()))
    second, other = ranks.start("two", "sh", "-c", f"{SHOW}; cat", flags=("--init",))
    assert (other.line(), other.line()) == expected
    process.kill()
    assert select.select([program], [], [], PATIENCE)[0], "the program ends"
    os.close(program)
    assert finish(second) == 0
    ranks.rootless("delete", "--force", "one", check=True)


def test_a_detached_member_lets_others_in(ranks):
    done = ranks.run("one", "sh", "-c", f"{SHOW}; exec sleep 1000", flags=("--detach",), check=True)
    assert done.stdout == "one\n"
    process, reader = ranks.start("two", "sh", "-c", f"{SHOW}; cat")
    assert (reader.line(), reader.line()) == ranks.namespaces("one")
    assert finish(process) == 0
    ranks.rootless("delete", "--force", "one", check=True)


@pytest.fixture
def hidden(ranks, box):
    """A member that nobody can look into, whose launcher is dead; return the lease by which it goes on.

    The executor is not dumpable, and waits in execve(2) for a program on which another process has a lease.
    """
    program = box.rootfs / "data/sleep"
    shutil.copy(box.rootfs / "bin/busybox", program)
    lease = os.open(program, os.O_RDONLY)  # a writable program cannot be executed
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    process, _ = ranks.start("one", "/data/sleep", "1000")
    until(lambda: fcntl.fcntl(lease, fcntl.F_GETLEASE) != fcntl.F_WRLCK, "the program is to be executed")
    process.kill()  # the container goes on
    process.wait()
    yield lease
    os.close(lease)
    signal.signal(signal.SIGIO, before)
    ranks.rootless("delete", "--force", "one", check=True)


def test_a_member_that_shows_its_namespaces_later_is_waited_for(ranks, hidden):
    process, reader = ranks.start("two", "sh", "-c", f"{SHOW}; cat")
    until(lambda: is_locked(ranks.groups / "key"), "the second one looks for the first")
    fcntl.fcntl(hidden, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    assert (reader.line(), reader.line()) == ranks.namespaces("one")
    assert finish(process) == 0


def is_locked(directory) -> bool:
    """Whether another process has locked a directory."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_members_that_do_not_show_their_namespaces_are_an_error(ranks, hidden):
    done = ranks.run("two", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rootless: --join key: no container of this group shows its namespaces: one; "
        "fix: delete them, or choose another key\n"
    )


def test_another_process_of_a_member_is_in_the_group(ranks):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    expected = [reader.line(), reader.line()]
    done = ranks.rootless("exec", "one", "sh", "-c", SHOW)
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
    assert finish(process) == 0


def test_the_key_is_that_of_the_slurm_step_and_node(ranks):
    process, reader = ranks.start("one", "sh", "-c", "echo up; cat", join="--join", env=STEP)
    reader.line()
    assert ranks.left() == ["12.3.n1"]
    assert finish(process) == 0


@pytest.mark.parametrize(
    ("join", "flags", "message"),
    [
        ("--join", (), "--join: this is no step of a Slurm job"),
        ("--join=a/b", (), "--join a/b: it cannot be the name of a directory"),
        ("--join=..", (), "--join ..: it cannot be the name of a directory"),
        ("--join=key", ("--shm-size=1m",), "--shm-size 1m: with --join /dev/shm is the host's"),
    ],
)
def test_misuse_is_an_error(ranks, join, flags, message):
    done = ranks.run("one", "true", join=join, flags=flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rootless: {message}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not ranks.rootless.list()


def test_other_ids_are_refused(ranks):
    process, reader = ranks.start("one", "sh", "-c", "echo up; cat")
    reader.line()
    done = ranks.run("two", "true", flags=("--userns=single",))
    assert done.returncode == 1
    assert "the containers of this group have other IDs or namespaces: one" in done.stderr
    assert [each["id"] for each in ranks.rootless.list()] == ["one"]
    assert finish(process) == 0


def test_explain_shows_how_a_container_joins_and_changes_nothing(ranks):
    done = ranks.rootless("explain", "--join=key", ranks.box.path, check=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    wanted = (
        "* open namespaces of group key, or create them for its first member: user ipc",
        "join the user namespace of group key",
        "join the ipc namespace of group key",
        "* note the process as a member of group key",
    )
    assert all(any(line.endswith(each) for line in lines) for each in wanted), done.stdout
    assert not any("create a user namespace" in line for line in lines)
    assert not ranks.groups.exists()
    assert ranks.run("one", "true").returncode == 0


# --- The process manager ----------------------------------------------------------------------------------------------


def test_the_descriptor_of_pmi_stays_open_and_no_other_one(ranks):
    """A rank writes to its process manager, and sees nothing of the other descriptors that its launcher inherits."""
    ends = [os.pipe() for _ in range(3)]
    numbers = [writing for _, writing in ends]
    script = f"echo init >&{numbers[1]}; ls /proc/self/fd; echo $PMI_RANK $PMIX_MCA_psec"
    env = {"PMI_FD": str(numbers[1]), "PMI_RANK": "3", "PMIX_SECURITY_MODE": "native", "SLURM_CONF": "/x"}
    done = ranks.run("one", "sh", "-c", script, join="--join=key", env=env, pass_fds=numbers)
    for number in numbers:
        os.close(number)
    received = [os.read(reading, 100) for reading, _ in ends]
    for reading, _ in ends:
        os.close(reading)
    assert received == [b"", b"init\n", b""], done.stderr
    *found, last = done.stdout.splitlines()
    assert last == "3 native"
    assert set(map(int, found)) & set(numbers) == {numbers[1]}


@pytest.fixture
def submitter(user, cluster, rootless_command):
    """The ordinary user on a node of a cluster; nothing is left of the user's jobs."""
    cluster.use("oci.conf")
    submitter = Submitter(user, cluster)
    submitter.env |= {"OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_smsc": "cma"}  # the nodes are one machine
    yield submitter
    submitter.await_nothing()


@pytest.fixture
def ring(submitter, need):
    """Return a function that compiles ring.c by a compiler, and returns a bundle with the host's libraries and it."""

    def compiled(compiler):
        config = base_config("true")
        config["mounts"] += [
            {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
            for path in ("/usr", "/etc")
        ]
        bundle = make_bundle(submitter, config)
        rootfs = bundle / "rootfs"
        shutil.rmtree(rootfs / "bin")
        for name in ("bin", "lib", "lib64", "sbin"):
            (rootfs / name).symlink_to(f"usr/{name}")
        (rootfs / "usr").mkdir()
        source = CHECKOUT / "tests/lib/ring.c"
        subprocess.run([need(compiler), "-O2", "-o", rootfs / "data/ring", source], check=True)
        own(submitter, bundle)
        return bundle

    return compiled


class Report:
    """What a rank of ring.c prints: `rank`, `size`, `wrong` bytes, `speed` in MB/s, `reading`."""

    def __init__(self, line):
        rank, size, _, wrong, speed, self.reading = line.split(" ", 5)
        self.rank, self.size, self.wrong, self.speed = map(int, (rank, size, wrong, speed))


def reports(done):
    """Return the reports of all ranks, the first one's first."""
    assert done.returncode == 0, done.stderr
    found = sorted(map(Report, done.stdout.splitlines()), key=lambda each: each.rank)
    assert [each.rank for each in found] == [*range(found[0].size)]
    assert not any(each.wrong for each in found)
    return found


MANAGERS = [("pmix", "mpicc.openmpi"), ("pmi2", "mpicc.mpich")]


@pytest.mark.parametrize(("manager", "compiler"), MANAGERS)
def test_ranks_of_one_node_read_each_other_s_memory(submitter, ring, manager, compiler):
    bundle = ring(compiler)
    words = ["srun", f"--mpi={manager}", "--nodes=1", "--ntasks=4", f"--container={bundle}", "/data/ring"]
    found = reports(submitter.run(words))
    assert [each.reading for each in found] == ["Success"] * 4
    assert not list((bundle / "rootfs/run").glob("*/*")), "mounts leave no name of a job in the root"


def test_messages_between_ranks_of_a_node_are_as_fast_as_on_the_host(submitter, ring):
    """The best of several runs side by side: the machine has other work."""
    bundle = ring("mpicc.openmpi")
    words = ["srun", "--mpi=pmix", "--nodes=1", "--ntasks=4"]
    # a session of its own, as each container has: the scheduler shares the processors out among sessions
    commands = {
        "host": [*words, "setsid", "--wait", bundle / "rootfs/data/ring"],
        "containers": [*words, f"--container={bundle}", "/data/ring"],
    }
    best = dict.fromkeys(commands, 0)
    for _ in range(6):
        for name, command in commands.items():
            found = reports(submitter.run(command))
            best[name] = max(best[name], sum(each.speed for each in found) // len(found))
        if best["containers"] >= 0.9 * best["host"]:
            return
    pytest.fail(f"MB/s: {best}")


@pytest.mark.parametrize(("manager", "compiler"), MANAGERS)
def test_ranks_of_two_nodes(submitter, ring, manager, compiler):
    words = ["srun", f"--mpi={manager}", "--nodes=2", "--ntasks=4", f"--container={ring(compiler)}", "/data/ring"]
    found = reports(submitter.run(words))
    # the first node has the ranks 0 to 2
    assert [each.reading for each in found][:2] == ["Success"] * 2
    assert found[3].reading == "Operation not permitted", "the nodes are one machine, and the groups are not one"


@pytest.mark.parametrize(("manager", "compiler"), MANAGERS)
def test_ranks_of_an_image(submitter, cluster, ring, manager, compiler):
    cluster.use("oci-image.conf")
    image = submitter.tmp / "ring.sqsh"
    submitter.run(["rootless", "save", "--output", image, ring(compiler)], check=True)
    mounts = {"ROOTLESS_MOUNTS": "/usr:/usr:ro,/etc:/etc:ro"}
    words = ["srun", f"--mpi={manager}", "--nodes=2", "--ntasks=4", f"--container={image}", "/data/ring"]
    found = reports(submitter.run(words, env=mounts))
    assert [each.reading for each in found][:2] == ["Success"] * 2


def test_ranks_of_a_step_on_the_host_run_containers(submitter, ring):
    words = ["srun", "--mpi=pmix", "--ntasks=2", "rootless", "run", ring("mpicc.openmpi"), "/data/ring"]
    assert [each.reading for each in reports(submitter.run(words))] == ["Success"] * 2


@pytest.mark.parametrize(
    ("starter", "compiler"),
    [(("mpirun.openmpi", "--oversubscribe"), "mpicc.openmpi"), (("mpiexec.mpich",), "mpicc.mpich")],
    ids=["OpenMPI", "MPICH"],
)
def test_ranks_without_slurm(submitter, ring, starter, compiler):
    words = [*starter, "-n", "2", "rootless", "run", ring(compiler), "/data/ring"]
    assert [each.reading for each in reports(submitter.run(words))] == ["Success"] * 2


# --- Attacks and races ------------------------------------------------------------------------------------------------


def user_namespaces(user):
    """Return the user namespaces in which the user has processes, besides this one's."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == user.uid:
                found.add(os.readlink(entry / "ns/user"))
        except OSError:
            continue
    return found - {os.readlink("/proc/self/ns/user")}


@pytest.mark.parametrize("first", range(0, ROUNDS, 20))
def test_ranks_that_start_at_once_and_are_killed(ranks, first):
    """Those that are there at the end are in one group, and one user namespace has been enough for all."""
    for number in range(first, first + 20):
        kill_some(ranks, random.Random(number))


def kill_some(ranks, chance):
    """Start ranks, kill half of them meanwhile and some afterwards, and look at the others; nothing is left of all."""
    others = user_namespaces(ranks.rootless.user)
    started = [ranks.start(f"rank{number}", "sh", "-c", f"{SHOW}; exec cat") for number in range(RANKS)]
    victims = chance.sample(range(RANKS), RANKS // 2)
    timers = [threading.Timer(chance.uniform(0, 0.6), started[number][0].kill) for number in victims]
    for timer in timers:
        timer.start()
    alive = [number for number in range(RANKS) if number not in victims]
    seen = {(started[number][1].line(), started[number][1].line()) for number in alive}
    for timer in timers:
        timer.join()
    assert len(seen) == 1
    # the executor of a launcher that was killed ends in a moment
    until(lambda: len(user_namespaces(ranks.rootless.user) - others) == 1, "one user namespace for all")
    record = json.loads((ranks.groups / "key/state.json").read_text())
    assert record["members"].keys() >= {f"rank{number}" for number in alive}
    for number in chance.sample(alive, 3):
        os.kill(record["members"][f"rank{number}"]["process"][0], signal.SIGKILL)
    for number in alive:
        finish(started[number][0])
    for number in victims:
        started[number][0].wait()
        for stream in (started[number][0].stdin, started[number][0].stdout):
            stream.close()
    ranks.rootless("delete", "--force", "--regex", "^rank", check=True)
    ranks.rootless("clean", check=True)
    assert [path.name for path in ranks.rootless.root.iterdir() if path.name[0] not in "@."] == []
    assert not ranks.left()
    until(lambda: not user_namespaces(ranks.rootless.user) - others, "the end of the user namespace")


def test_nobody_enters_the_group_of_another_user(ranks, single_user, rootless_command):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    expected = reader.line()
    bundle = make_bundle(single_user, json.loads((ranks.box.path / "config.json").read_text()), name="other")
    with Rootless(single_user, rootless_command) as other:
        done = other("run", "--name=two", "--join=key", bundle, "--", "sh", "-c", SHOW)
        assert done.returncode == 0, done.stderr
        assert expected not in done.stdout
        words = [rootless_command, "--root", ranks.rootless.root, "run", "--name=two", "--join=key", bundle]
        assert single_user.run(words).returncode == 1
    assert ranks.namespaces("one")[0] == expected
    assert finish(process) == 0


HERE = [os.getpid(), Process.read(os.getpid()).start_time]
"""A process that is in no group."""


def forge(ranks, text="", **changes):
    """Change the record of the only member, as another process of the user could."""
    path = ranks.groups / "key/state.json"
    record = json.loads(path.read_text())
    record["members"]["one"] |= changes
    path.write_text(text or json.dumps(record))


def test_a_stale_process_in_the_record_is_passed_over(ranks):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    expected = [reader.line(), reader.line()]
    forge(ranks, process=[HERE[0], 0])
    assert ranks.run("two", "sh", "-c", SHOW).stdout.splitlines() == expected
    assert finish(process) == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"process": HERE, "launcher": HERE, "fds": {"user": 0, "ipc": 1}}, "no container of this group shows its"),
        ({"text": '{"bootId": 1'}, ""),
        ({"process": [1]}, ""),
        ({"fds": 3}, ""),
    ],
    ids=["another process", "no JSON", "no identity", "no descriptors"],
)
def test_a_forged_record_leads_into_no_namespace_of_the_host(ranks, changes, error):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    reader.line()
    forge(ranks, **changes)
    done = ranks.run("two", "sh", "-c", SHOW)
    assert (done.returncode, error in done.stderr, bool(done.stderr)) == (int(bool(error)), True, bool(error))
    assert os.readlink("/proc/self/ns/user") not in done.stdout
    assert finish(process) == 0


def test_symlinks_instead_of_a_group_are_refused(ranks, user):
    ranks.rootless.make_root()
    ranks.rootless.root.chmod(0o700)
    elsewhere = user.tmp / "elsewhere"
    elsewhere.mkdir()
    for path in (ranks.groups / "key", ranks.groups):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(elsewhere)
        own(user, ranks.rootless.root)
        done = ranks.run("one", "true")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("rootless: --join key: not a directory"), done.stderr
        assert not list(elsewhere.iterdir())
        path.unlink()
        if path != ranks.groups:
            ranks.groups.rmdir()


def test_a_rank_that_is_killed_as_it_writes_the_record_leaves_it_to_others(ranks, need):
    process, reader = ranks.start("one", "sh", "-c", f"{SHOW}; cat")
    expected = [reader.line(), reader.line()]
    trace = ranks.rootless.user.tmp / "trace"

    def traced(name, *flags):
        words = ranks.rootless.argv("run", f"--name={name}", "--join=key", ranks.box.path, "--", "true")
        return ranks.rootless.user.run([need("strace"), "-o", trace, *flags, *words])

    names = ("linkat", "unlinkat", "renameat")
    traced("two", "-e", f"trace={','.join(names)}")
    calls = [line.partition("(")[0] for line in trace.read_text().splitlines()]
    assert calls.count("linkat") >= 3, calls
    for name in names:
        for when in range(1, calls.count(name) + 1):
            assert traced(f"two-{name}-{when}", "-e", f"inject={name}:signal=SIGKILL:when={when}").returncode == -9
            assert ranks.run("three", "sh", "-c", SHOW).stdout.splitlines() == expected, (name, when)
    assert finish(process) == 0
    ranks.rootless("delete", "--force", "--regex", "^two-", check=True)
    ranks.rootless("clean", check=True)


@pytest.mark.usefixtures("each_waiter")
def test_a_member_that_has_entered_another_namespace_misleads_nobody(ranks):
    script = "readlink /proc/self/ns/user; exec busybox unshare -U sh -c 'readlink /proc/self/ns/user; cat'"
    process, reader = ranks.start("one", "sh", "-c", script)
    own_namespace, entered = reader.line(), reader.line()
    assert own_namespace != entered
    assert ranks.run("two", "readlink", "/proc/self/ns/user").stdout.strip() == own_namespace, "by the launcher"
    process.kill()
    process.wait()
    assert ranks.run("three", "readlink", "/proc/self/ns/user").stdout.strip() != entered
    ranks.rootless("delete", "--force", "one", check=True)
