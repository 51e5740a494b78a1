"""Sequences of commands, disturbed at an exact system call, and a check of the host afterwards."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rootless.plan import ops
from tests.lib.bundles import own
from tests.lib.containers import PATIENCE, Reader

WHOLE = os.environ.get("ROOTLESS_TEST_SWEEP", "") == "full"
"""Whether to disturb every system call of every process instead of a selection."""

_OWN = f"sweep-{os.urandom(4).hex()}-"
"""How the ids of this process begin. Workers share the cgroups, and have process ids of their own namespaces."""
FIRST_STAGE, CONTAINER, SPAWNED, PROGRAM = "icsm"
"""Roles of processes in tracer.c; the first, second, … command is "0", "1", …."""
OPERATION = "operation"
"""The pseudo-role of the tracer's lines about a Plan."""
ENDED_WELL = 7
"""The exit status of the second container's program."""
OWN_MEMORY = {"mmap", "munmap", "mprotect", "mremap", "brk", "madvise"}
"""Calls without effect outside the process."""
WITHOUT_EFFECT = {
    *("access", "capget", "clock_gettime", "faccessat2", "fcntl", "fstat", "fstatfs", "getcwd", "getdents64"),
    *("getegid", "geteuid", "getpid", "getrandom", "gettid", "ioctl", "lseek", "lstat", "newfstatat", "poll"),
    *("pread64", "read", "readlink", "readlinkat", "rt_sigaction", "rt_sigprocmask", "stat", "statx", "uname"),
}
"""Calls that change nothing: a kill before one of them equals a kill before the next call that changes something."""
HARMLESS = {
    "accept4": "the executor ends, and a container that was created has stopped",
    "close": "what stays open is closed by close_range, or by execve",
    "exit_group": "musl goes on until it ends",
    "fcntl": "musl sets once more what O_CLOEXEC has set",
    "fstat": "looks for a better explanation than the call that follows will have, or for HOME",
    "fstatfs": "looks for a pipe whose owner may be changed",
    "getuid": "cannot fail",
    "open": "of /etc/passwd for HOME",
    "readlinkat": "looks for a link; what is none is made, and is no link then",
    "rt_sigaction": "cannot fail",
    "rt_sigprocmask": "cannot fail",
    "stat": "of one candidate for the program; there are others",
    "umask": "cannot fail",
}
"""Calls of the executor that may fail silently, with the reasons."""
ONCE_MORE = {
    "openat2": "what cannot be opened is opened by the way that makes what is missing",
    "keyctl": "the second one lets exec find the keyring",
}
"""The same, for calls that operations make too."""


EXPLAINED = ("--bundle", "--network", "--publish", "--userns")
"""Flags of `run` and `create` that take a value and change the Plan."""
ASKED = {
    "create": ["listen"],
    "--overlay=DIR": ["open_upper"],
    "exec": ["check_running"],
    "--console-socket": ["connect_console"],
    "--timeout": ["note_request", "show_directory", "note_monitor"],
    "--pid-file": ["write_pid_file"],
    "--pidfd-socket": ["connect_pidfd", "send_pidfd"],
}
"""Operations of the launcher that `explain` does not plan, by the word that requests them."""
KEYRINGS_IN_USE = "keyctl: Disk quota exceeded"
"""Text of an expected warning: the kernel has not removed the keyrings of many containers yet."""
TO_BE_DELETED = "; fix: rootless delete --force "
"""Text of an expected warning about a process that has ended but cannot be removed."""
NOT_COME = "the moment did not come"


class Moment(NamedTuple):
    """The `count`th time that `role` is about to make the system call `name`."""

    role: str
    name: str
    count: int

    def __str__(self) -> str:
        return f"{self.role}:{self.name}:{self.count}"


class Case(NamedTuple):
    """A disturbance at a moment.

    The process with the role `victim` is killed. Without a victim, the process at the moment gets `signal`; without a
    signal, its call fails with `error`.
    """

    moment: Moment
    victim: str = ""
    error: int = errno.EIO
    signal: int = 0

    @property
    def action(self) -> str:
        """The input of tracer.c."""
        return self.victim or (f"+{self.signal}" if self.signal else f"={self.error}")

    def __str__(self) -> str:
        what = signal.Signals(self.signal).name if self.signal else errno.errorcode[self.error]
        return f"{self.victim} killed at {self.moment}" if self.victim else f"{what} at {self.moment}"


class Outcome(NamedTuple):
    """The result of a disturbed sequence of commands.

    Attributes:
        case: the disturbance.
        came: whether the moment came.
        statuses: the exit statuses of the commands that ran; a negative number is a signal.
        complaint: the standard error of all commands.
        log: the records of --log.
    """

    case: Case
    came: bool
    statuses: list[int]
    complaint: str
    log: list[dict]

    @property
    def last(self) -> int:
        """The status of the disturbed command, or of the last one."""
        return self.statuses[-1]


class World:
    """Directories of a user for one sequence of commands: all files that it may leave are below `path`.

    Attributes:
        container: the id in the commands, which write `ID`.
        home: the home directory, with the cache of compiled filters; worlds share one unless a world needs its own.
        env: variables that are added to the user's environment; `notify` adds a service manager's socket. The wait of
            a foreground `run` is handed over at once if it is `attended`, and otherwise never: not in some cases.
    """

    _numbers = itertools.count()

    def __init__(self, user, home: Path | None = None, *, notify: bool = False, attended: bool = False) -> None:
        self.user = user
        number = next(self._numbers)
        self.container = f"{_OWN}{number}"
        self.path = user.tmp / f"world-{number}"
        self.home = home or self.path / "home"
        for directory in ("run", "tmp", "home"):
            (self.path / directory).mkdir(parents=True)
        (self.path / "run").chmod(0o700)
        self._cache = self.path / "run/rootless/@seccomp"
        self._shared_cache = home / "@seccomp" if home else None
        if self._shared_cache and self._shared_cache.exists():
            shutil.copytree(self._shared_cache, self._cache)
            for directory in (self._cache, self._cache.parent):
                directory.chmod(0o700)
        self._console = socket.socket(socket.AF_UNIX)
        self._console.bind(str(self.path / "console"))
        self._console.listen()
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(self.path / "notify"))
        self.complaints = self.path / "complaints"
        self.complaints.touch()
        own(user, self.path)
        self.env = {
            "HOME": str(self.home),
            "TMPDIR": str(self.path / "tmp"),
            "XDG_RUNTIME_DIR": str(self.path / "run"),
            "ROOTLESS_ATTEND_AFTER": "0" if attended else "1000000",
        }
        if notify:
            self.env["NOTIFY_SOCKET"] = str(self.path / "notify")

    def words(self, command) -> list[str]:
        """Return a command with the placeholders replaced."""
        files = {"PID-FILE": "tmp/pid", "CONSOLE": "console", "LOG": "log"}
        names = {word: self.path / name for word, name in files.items()} | {"ID": self.container}
        names["--overlay=DIR"] = f"--overlay={self.path}/overlay"
        return [str(names.get(word, word)) for word in command]

    def run(self, *command) -> subprocess.CompletedProcess:
        """Run a command to its end."""
        return self.user.run(self.words(command), env=self.env, timeout=PATIENCE)

    def files(self) -> set[str]:
        """Return all leftover files: new ones, except caches and files that the caller requested."""
        found = {str(path.relative_to(self.path)) for path in self.path.rglob("*")}
        cache = "run/rootless/@seccomp"
        programs = {name for name in found if name.startswith(f"{cache}/") and name.endswith(".bpf")}
        found -= {name for name in found if name.startswith("overlay")}  # what the container changed stays
        asked = {"run", "tmp", "home", "console", "notify", "complaints", "log", "tmp/pid"}
        plans = {name for name in found if re.fullmatch("run/rootless/@plans(/seen|/[0-9a-f]{16})?", name)}
        roots = {"run/rootless", "run/rootless/@networks", cache} | plans
        return found - asked - roots - programs

    def close(self) -> None:
        """Remove all directories."""
        self._console.close()
        self._manager.close()
        if self._shared_cache and self._cache.exists() and not self._shared_cache.exists():
            shutil.copytree(self._cache, self._shared_cache)
        shutil.rmtree(self.path, ignore_errors=True)


def shared_home(user) -> Path:
    """Return the home directory that worlds share."""
    home = user.tmp / "shared-home"
    home.mkdir(exist_ok=True)
    own(user, home)
    return home


class Sweep:
    """Run a sequence of commands of one user again and again, each time disturbed at one moment.

    Attributes:
        rootless: the command.
        commands: the sequence; each command is a list of words for World.words.
        second: a command that shows that the id can be used again; it exits with ENDED_WELL.
        cgroups: the directory of all cgroups.
        workers: the number of concurrent cases.
        usual: the lines that undisturbed commands write to standard error.
        operations: the names of the operations in the executed Plans.
    """

    def __init__(
        self,
        user,
        tracer: Path,
        rootless,
        commands,
        *,
        second,
        own_home=False,
        notify=False,
        attended=False,
        patience=PATIENCE,
    ) -> None:
        self.user = user
        self.tracer = tracer
        self.rootless = rootless
        self.commands = [[rootless, *command] for command in commands]
        self.second = [rootless, *second]
        self.patience = patience
        self.cgroups = Path("/sys/fs/cgroup")
        self.workers = len(os.sched_getaffinity(0))
        self._notify = notify
        self._attended = attended
        self.usual: set[str] = set()
        self._home = None
        if not own_home:
            self._home = shared_home(user)
        self.operations: set[str] = set()
        self.calls = self._trace()

    def _trace(self) -> list[tuple[str, str]]:
        """Return the system calls (role, name) of the undisturbed sequence."""
        for _ in range(2):  # the first run fills the cache
            world = World(self.user, self._home, notify=self._notify, attended=self._attended)
            with self._begin(world, "-", "-") as running:
                *told, statuses = self._until_done(running)
                calls = [(role, name) for role, name in told if role != OPERATION]
                self.operations |= {name for role, name in told if role == OPERATION}
                self._delete(world)
                left = self._end(running)
            complaint = world.complaints.read_text()
            world.close()
            assert not left, left
            assert statuses in ([0] * len(self.commands), [ENDED_WELL]), complaint
            self.usual |= set(complaint.splitlines())
            if world.home != self._home:
                break
        return calls

    def moments(self, roles: str, *, since: str = "", without=frozenset()) -> list[Moment]:
        """Return the system calls of `roles` in order, from the first one named `since` on, without some names.

        Of successive calls with one name, only the first and the last count, unless WHOLE is set.
        """
        counts: Counter[tuple[str, str]] = Counter()
        rows: list[list[Moment]] = []
        begun = not since
        for role, name in self.calls:
            counts[role, name] += 1
            if role not in roles:
                continue
            if since and role.isdigit() and name == "execve" and counts[role, name] == 2:
                begun, rows = False, []  # the front door executes Python, which is swept
            begun = begun or name == since
            if not begun or name in without or name in OWN_MEMORY:
                continue
            moment = Moment(role, name, counts[role, name])
            if rows and rows[-1][0][:2] == moment[:2]:
                rows[-1].append(moment)
            else:
                rows.append([moment])
        assert begun, f"{since} is called"
        return [moment for row in rows for moment in (row if WHOLE else [row[0], row[-1]][: len(row)])]

    def kinds(self, roles: str, **options) -> list[Moment]:
        """Return the first and the last system call of each name, or all if WHOLE is set."""
        moments = self.moments(roles, **options)
        firsts = {moment[:2]: moment for moment in reversed(moments)}
        lasts = {moment[:2]: moment for moment in moments}
        ends = {*firsts.values(), *lasts.values()}
        return [moment for moment in moments if WHOLE or moment in ends]

    def run(self, case: Case, check) -> list[str]:
        """Run the sequence with one disturbance; return the problems, including those of `check(outcome, world)`."""
        world = World(self.user, self._home, notify=self._notify, attended=self._attended)
        mounts = _mounts()
        moment = case.moment
        with self._begin(world, f"{moment.role}:{number_of(moment.name)}:{moment.count}", case.action) as running:
            *said, statuses = self._until_done(running)
            lines = [line for line in world.complaints.read_text().splitlines() if not self._is_usual(line)]
            log = world.path / "log"
            records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            outcome = Outcome(case, ("at",) in said, statuses, "\n".join(lines), records)
            wrong = [*check(outcome), *_unclear(lines)]
            if outcome.last in (0, -signal.SIGKILL) or len(statuses) > 1 or TO_BE_DELETED in outcome.complaint:
                wrong += self._delete(world)
            # otherwise a command that fails to create a container, or runs until its end, must clean up itself
            wrong += self._end(running)
        wrong += [f"left on disk: {name}" for name in sorted(world.files())]
        done = world.run(*self.second)
        lines = [line for line in done.stderr.splitlines() if not self._is_usual(line)]
        if (done.returncode, lines) != (ENDED_WELL, []):
            wrong.append(f"the second container ended with {done.returncode}: {done.stderr}")
        wrong += [f"left on disk by the second container: {name}" for name in sorted(world.files())]
        wrong += [f"left a mount: {line}" for line in _mounts() - mounts]
        world.close()
        return [f"{case}: {line} [{outcome.statuses} {outcome.complaint}]" for line in wrong]

    def plan(self) -> list[dict]:
        """Return the operations of the first command's Plan, from `explain` with the same flags."""
        words = self.commands[0]
        flags = [word for at, flag in enumerate(words) if flag in EXPLAINED for word in words[at : at + 2]]
        flags += words[-1:] if "--bundle" not in words else []
        env = {"HOME": str(self._home)} if self._home else {}
        done = self.user.run([self.rootless, "explain", "--json", *flags], check=True, env=env)
        return json.loads(done.stdout)["operations"]

    def launcher_operations(self) -> set[str]:
        """Return the names of the launcher's operations in the Plans of all commands."""
        launchers = {kind.name for kind in ops.KINDS if kind.by == ops.LAUNCHER}
        planned = {operation["op"] for operation in self.plan()} & launchers
        said = {word for command in self.commands for word in command}
        asked = {name for word, names in ASKED.items() if word in said for name in names}
        return planned | asked | ({"forward_reports"} if self._notify else set())

    def run_all(self, cases, check, *, least: int, missed: int = 0) -> list[str]:
        """Run all cases, one per worker at a time; return a list of problems.

        One in `missed` moments may not come: the number of reads varies between runs; it is 20, or 4 while the wait is
        handed over. There must be at least `least` cases, which shows that the commands make the calls that are to be
        disturbed.
        """
        assert len(cases) >= least, f"the commands made too few system calls: {len(cases)}"
        with ThreadPoolExecutor(self.workers) as pool:
            wrong = [line for lines in pool.map(lambda case: self.run(case, check), cases) for line in lines]
        wrong += [f"left a cgroup: {path}" for path in cgroups(_OWN, self.cgroups)]
        came = [line for line in wrong if NOT_COME not in line]
        missed = missed or (4 if self._attended else 20)
        return wrong if len(wrong) - len(came) > max(1, len(cases) // missed) else came

    def _is_usual(self, line: str) -> bool:
        return line in self.usual or KEYRINGS_IN_USE in line

    def _begin(self, world: World, moment: str, action: str) -> subprocess.Popen:
        sequence = [word for command in self.commands for word in [*world.words(command), ";"]]
        with world.complaints.open("a") as complaints:
            return self.user.popen(
                [self.tracer, str(self.patience), moment, action, *sequence],
                env=world.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )

    def _until_done(self, running: subprocess.Popen) -> list:
        """Return the events that tracer.c prints, and then the list of statuses."""
        told = Reader(running.stdout).until(b"done\n").decode().split("\n")
        events: list = [("at",) for line in told if line == "at"]
        events += [(line.split()[1], name_of(int(line.split()[2]))) for line in told if line.startswith("call ")]
        codes = [int(line.split()[1]) for line in told if line.startswith("operation ")]
        events += [(OPERATION, kind.name) for code in codes for kind in ops.KINDS if kind.code == code]
        statuses = [os.waitstatus_to_exitcode(int(line.split()[1])) for line in told if line.startswith("end ")]
        return [*events, statuses]

    def _delete(self, world: World) -> list[str]:
        done = world.run(self.rootless, "delete", "--force", "ID")
        told = (done.returncode, done.stdout, done.stderr)
        return [] if told == (0, "", "") else [f"delete --force: {told}"]

    def _end(self, running: subprocess.Popen) -> list[str]:
        """Wait for the end of all processes; return those that do not end."""
        running.stdin.close()
        lines = [line for line in running.stdout.read().splitlines() if not line.startswith("call ")]
        left = [f"left a process: {line}" for line in lines]
        status = running.wait(timeout=2 * PATIENCE)
        return left if status in (0, 1) else [*left, f"the tracer ended with {status}"]


def cgroups(word: str, top: Path) -> list[Path]:
    """Return the cgroups whose names contain `word`."""
    return [path for path in top.rglob(f"*{word}*") if path.is_dir()]


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def _unclear(lines: list[str]) -> list[str]:
    """Return the problems of a command's errors and log: the command may print nothing, or one line, or one object."""
    text = "\n".join(lines)
    if text.startswith('{"level": "error", '):
        text = f"rootless: {json.loads(text)['msg']}"
    if not lines or (len(lines) == 1 and text.startswith("rootless: ") and "internal error" not in text):
        return []
    return ["that is no clear line"]


_libseccomp = None


def _names():
    global _libseccomp  # noqa: PLW0603 - loaded once, by those who need it
    if _libseccomp is None:
        _libseccomp = ctypes.CDLL("libseccomp.so.2")
        _libseccomp.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    return _libseccomp


def name_of(number: int) -> str:
    """Return the name of a system call, by its number on this machine."""
    native = _names().seccomp_arch_native()
    return _names().seccomp_syscall_resolve_num_arch(native, number).decode()


def number_of(name: str) -> int:
    """Return the number of a system call on this machine."""
    return _names().seccomp_syscall_resolve_name(name.encode())


SUPPORTED = ("x86_64", "aarch64")
"""Machines that tracer.c supports."""


def is_supported() -> bool:
    """Whether tracer.c supports this machine."""
    return platform.machine() in SUPPORTED
