"""Cached Plans: what `run`, `create` or `exec` planned, written down for helpers/front, which does it again.

    PLANS/@plans/HASH    of a command line, a directory and config.json, without the identifiers in them, or of what a
                         person types as it stands; PLANS is the state directory of the user without --root
    ROOT/ID/exec.HASH    of the words of `exec` before its command, which is a hole, and the container's first process

The front door requests an entry, by the option -Xcache=HASH of the interpreter, when a command comes a second time.
An entry is valid for one request in one place, in this boot, and only while everything that planning has read
is unchanged: variables, files, ids, limits (paths.noted). The front door compares all of it before it changes anything,
and starts Python at any doubt. So whatever cannot be compared, or carried out with cached_ops.py, makes no entry.

Write access to an entry is as much as to the executor's Plan. Those of `run` lie where compiled filters do
(launch/seccomp_compile.py), for the same reasons; those of `exec` beside the container's state.json and config.json.
"""

from __future__ import annotations

import fcntl
import posix
import sys
from _struct import Struct

from rootless import files, jsontext, log, paths, procfs
from rootless.bundle.identifiers import hides_digits, identifiers, leaves_nothing, named_in, parts
from rootless.container.operations.status_record import OWN, allowed_verbs, record_strings
from rootless.container.operations.undo import line_of, notes
from rootless.container.state.directory import (
    CONFIG,
    EXIT,
    HOSTS,
    NOT_AGED,
    PLAN_OF_EXEC,
    REQUEST,
    RESOLVER,
    STATE,
    UNDO,
)
from rootless.container.state.lifecycle import CREATED, CREATING
from rootless.container.state.root import state_root
from rootless.container.state.state import State
from rootless.errors import RootlessError
from rootless.host import facts, running
from rootless.launch import spawn
from rootless.launch.protocol import READY, TURN
from rootless.lazy import lazy
from rootless.plan import cached_ops, ops
from rootless.plan.encode import encode
from rootless.plan.ops import Op
from rootless.plan.plan import HANDS_OVER
from rootless.plan.process.identity import program_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.state.directory import ContainerDir
    from rootless.launch.seccomp_compile import library as seccomp_library
    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.ops import Kind

    Step = Callable[[Op, ContainerRun, "_Secrets"], Iterator[Op]]
    """Returns the operations of the front door for one of the launcher."""
else:
    seccomp_library = lazy("rootless.launch.seccomp_compile", "library")

_CACHE = "@plans"
_SEEN = "seen"
"""A table of keys, which the front door writes."""
_MOST = 64
"""Entries."""
_MOST_OF_EXEC = 8
"""Entries in a container's directory."""
_UNKNOWN = (
    ops.HOOK,
    ops.MONITOR,
    ops.LISTENER,
    ops.NOTIFY_SOCKET,
    ops.PASS_NOTIFY,
    ops.PASS_NAMESPACES,
    ops.NETLINK,
    ops.SEND_TREE,
    ops.RECEIVE_TREE,
)
"""The operations of the executor that need more of the launcher than it can give."""
_RECENT = 2_000_000_000
"""Nanoseconds: a file that was changed so shortly before may change once more and have the same time stamps."""
_ALL = (1 << 64) - 1
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.:@/")
"""Characters that JSON does not escape, and cgroups have."""
_SECRET = 16
"""Hexadecimal digits at the end of a keyring's name (container/request.py)."""


class _UncachedError(Exception):
    """The Plan cannot be used again: why."""


def keep(
    run: ContainerRun, key: str, reads: Sequence[tuple[object, ...]], said: Sequence[str], *, leaves: bool
) -> None:
    """Write the entry of a Plan that has been run up to the start of its program, if it can be used again.

    Args:
        run: the Plan, run.
        key: the name of the entry, a hash of the request.
        reads: what planning has read (paths.taken_reads).
        said: the warnings of this command before the start.
        leaves: whether the container goes on when the command ends.
    """
    try:
        _refuse(run, said)
        _write(key, _entry(run, reads, said, leaves=leaves))
    except (_UncachedError, RootlessError, OSError):
        return  # the next time is as long as this one


def _entry(run: ContainerRun, reads: Sequence[tuple[object, ...]], said: Sequence[str], *, leaves: bool) -> bytes:
    operations = [_call(sys.argv[1:], _text(posix.getcwdb()))]
    found = [
        str(digits) for kind, digits, *_ in reads if kind == paths.RANDOM and str(digits) in run.entry.container_id
    ]
    read = _config_read(run, reads)
    if read:
        config, found = _config(run, operations[0], read[2], said)
        operations += [config, Op(cached_ops.CONFIG_FILE, str(read[1]))]
    else:
        operations.append(Op(cached_ops.CONFIG, found, [], [], []))
    path = log.path()
    operations += [Op(cached_ops.APPENDED, path)] if path else []
    operations += _dependencies(run, [each for each in reads if each is not read and each[0] != paths.RANDOM])
    operations += _launch(run, said, _STEPS, is_compared=bool(read), has_random_id=not read and bool(found))
    operations += [_leave(path)] if leaves else []
    entry = _encoded(operations)
    if not leaves_nothing(entry, found):
        raise _UncachedError("a piece of an identifier is in it")
    return entry


def keep_exec(run: ContainerRun, key: str, reads: Sequence[tuple[object, ...]], said: Sequence[str]) -> None:
    """Do as keep(), for the Plan of an `exec`."""
    words = sys.argv[1:]
    command = next(op for _, op in run.sent if op.kind is ops.EXEC).strings[0]
    try:
        _refuse_exec(run, said)
        call = _call(words[: len(words) - len(command)], f"{run.state.pid} {run.state.start_time}")
        config = Op(cached_ops.CONFIG, [], [], [], [])
        entry = _encoded([call, config, *_dependencies(run, reads), *_enter(run), *_launch(run, said, _EXEC_STEPS)])
        _write_exec(f"{PLAN_OF_EXEC}{key}", entry, run.entry)
    except (_UncachedError, RootlessError, OSError):
        return


def _encoded(operations: Sequence[Op]) -> bytes:
    entry = encode(operations, cached_ops.MAGIC)
    if len(entry) > cached_ops.LARGEST:
        raise _UncachedError("it is too large")
    return entry


def _bytes(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _call(words: Sequence[str], place: str) -> Op:
    program = getattr(sys.modules["__main__"], "__file__", "") or ""
    return Op(cached_ops.CALL, words, place, program, procfs.boot_id())


def _config_read(run: ContainerRun, reads: Sequence[tuple[object, ...]]) -> tuple[object, ...] | None:
    """Return the note of the read of config.json, if an engine calls and the container has a copy of the same text."""
    record = run.plan.first(ops.RECORD)
    assert record
    text = _bytes(record.value("config"))
    notes = [read for read in reads if read[0] == files.CONTENT and read[2] == text]
    return notes[0] if notes and not run.plan.first(ops.NOTE_REQUEST) else None


def _config(run: ContainerRun, call: Op, raw: object, said: Sequence[str]) -> tuple[Op, list[str]]:
    """Return the operation that compares config.json, and the identifiers in it and in the command line."""
    config: Any = jsontext.parse(_bytes(raw), CONFIG)
    text = _text(_bytes(raw))
    fixed = f"{run.state.owner} {run.state.boot_id}"
    found = identifiers([*call.strings[0], str(call.strings[1]), *named_in(config)], fixed)
    if found is None or "\0" in text or hides_digits(text):
        raise _UncachedError("its identifiers")
    is_engines = run.plan.first(ops.LISTEN)
    pieces = parts(text, config, [*said, *log.waiting("")]) if is_engines else ([text], [], [])
    return Op(cached_ops.CONFIG, found, *pieces), found


# --- The dependencies -------------------------------------------------------------------------------------------------


def _dependencies(run: ContainerRun, reads: Sequence[tuple[object, ...]]) -> Iterator[Op]:
    ids = (*posix.getresuid(), *posix.getresgid(), *posix.getgroups())
    yield Op(cached_ops.IDS, Struct(f"={len(ids)}I").pack(*ids))
    archive, identity = _archive()
    found = posix.stat(archive)
    if (found.st_dev, found.st_ino, found.st_mtime_ns) != identity:
        raise _UncachedError("the program has been upgraded meanwhile")
    programs = [archive, str(getattr(sys.modules["__main__"], "__file__", "")), spawn.program_path("init")]
    if run.plan.first(ops.COMPILE_FILTER, ops.COMPILE_PRETENCE):
        programs.append(seccomp_library())
    noted = [
        (paths.VARIABLE, "ROOTLESS_NO_ARCHIVE", None),
        *reads,
        *((files.IDENTITY, path, posix.stat(path)) for path in programs),
    ]
    yield from map(_dependency, {_identified(read): read for read in noted}.values())


def _archive() -> tuple[str, tuple[int, int, int]]:
    """Return the path and the identity of the file that this program was loaded from."""
    for finder in sys.meta_path:
        if isinstance(path := getattr(finder, "archive", None), str):
            return path, getattr(finder, "identity", (0, 0, 0))
    raise _UncachedError("the program is not installed")


def _identified(read: tuple[object, ...]) -> tuple[object, ...]:
    """Return what reads of the same have in common; of two that differ, both are kept and no comparison succeeds."""
    return tuple(each if isinstance(each, (str, bytes, int, type(None))) else repr(each) for each in read)


def _dependency(read: tuple[object, ...]) -> Op:
    kind, *operands = read
    make = _DEPENDENCIES.get(str(kind))
    if not make:
        raise _UncachedError(f"{operands} was read")
    return make(*operands)


def _variable(name: str, value: bytes | None) -> Op:
    return Op(cached_ops.VARIABLE, value is not None, name, value or b"")


def _content(path: str, content: bytes | None) -> Op:
    return Op(cached_ops.CONTENT, content is not None, path, content or b"")


def _identity(path: str, status: posix.stat_result | None) -> Op:
    if status is None:
        return Op(cached_ops.IDENTITY, cached_ops.ABSENT, 0, 0, 0, 0, 0, path)
    if max(status.st_mtime_ns, status.st_ctime_ns) > _now() - _RECENT:
        raise _UncachedError(f"{path} has just been changed")
    times = (status.st_mtime_ns, status.st_ctime_ns)
    owner = status.st_uid << 32 | status.st_mode
    return Op(cached_ops.IDENTITY, status.st_dev, status.st_ino, status.st_size, *times, owner, path)


def _now() -> int:
    from time import time_ns

    return time_ns()


def _status(kind: Kind, path: str, status: posix.stat_result | None) -> Op:
    if status is None:
        return Op(kind, cached_ops.ABSENT, 0, 0, path)
    return Op(kind, status.st_mode, status.st_uid, status.st_rdev, path)


def _limits(limits: dict[int, int]) -> Op:
    hard = [limits[number] & _ALL for number in range(len(limits))]
    return Op(cached_ops.LIMITS, Struct(f"={len(hard)}Q").pack(*hard))


def _other_namespaces(pid: int, differs: dict[str, bool]) -> Op:
    bits = sum(1 << place for place, other in enumerate(differs.values()) if other)
    return Op(cached_ops.NAMESPACES, pid, bits, list(differs))


_DEPENDENCIES: dict[str, Callable[..., Op]] = {
    paths.VARIABLE: _variable,
    paths.STATUS: lambda path, status: _status(cached_ops.STATUS, path, status),
    paths.SYMLINK: lambda path, status: _status(cached_ops.SYMLINK, path, status),
    paths.ACCESS: lambda path, mode, allowed: Op(cached_ops.ACCESS, mode, allowed, path),
    paths.MOUNT_FLAGS: lambda path, flags: Op(
        cached_ops.MOUNT_FLAGS, cached_ops.ABSENT if flags is None else flags, path
    ),
    files.CONTENT: _content,
    files.IDENTITY: _identity,
    files.LISTED: lambda path, listed: Op(cached_ops.LISTED, listed, path),
    procfs.CAPABILITIES: lambda *sets: Op(cached_ops.CAPABILITIES, *sets),
    procfs.LIMITS: _limits,
    running.NAMESPACES: _other_namespaces,
    facts.NICE: lambda value: Op(cached_ops.NICE, value),
    facts.KERNEL: lambda *names: Op(cached_ops.KERNEL, *names),
}


# --- The operations ---------------------------------------------------------------------------------------------------


def _launch(run: ContainerRun, said: Sequence[str], steps: dict[Kind, Step], **known: bool) -> Iterator[Op]:
    """Return the operations of the front door, in the order in which Python has carried out those of the launcher.

    `known` are attributes of _Secrets.
    """
    for operation, error, detail in (*run.skips, *(run.image.run.skips if run.image else ())):
        yield Op(cached_ops.SKIPPED, operation, error, detail)
    secrets = _Secrets(run, **known)
    operations = run.plan.ops
    for index, op in enumerate(operations):
        kind = op.kind
        if kind is ops.WAIT_START:
            break
        if kind in steps:
            yield from steps[kind](op, run, secrets)
        elif kind in HANDS_OVER or (kind.by == ops.EXECUTOR and operations[index + 1].kind.by == ops.LAUNCHER):
            yield Op(cached_ops.AWAIT, READY if kind is ops.READY else TURN, kind is ops.FORK)
    if run.descriptors.console >= 0:
        yield Op(cached_ops.RELAY)
    if said:
        yield Op(cached_ops.SAY, "".join(f"{line}\n" for line in said).encode("utf-8", "backslashreplace"))
    if not run.plan.first(ops.LISTEN):
        yield Op(cached_ops.START, bool(run.plan.first(ops.SECCOMP)))


def _leave(path: str) -> Op:
    """Return the operation that ends the front door while the container goes on, and what it adds to the log before."""
    if log.has_warnings():  # which people at a terminal read too
        raise _UncachedError("there were warnings")
    mark = posix.urandom(16).hex()
    lines = [_with_holes(line.encode(), [(mark, cached_ops.HOLE_TIME)]) for line in log.waiting(mark)]
    return Op(cached_ops.LEAVE, path, b"".join(lines))


def _refuse(run: ContainerRun, said: Sequence[str]) -> None:
    """Check that the front door can run a Plan to the end of its container.

    Raises:
        _UncachedError: it cannot.
    """
    _refuse_unknown(run, said, (*_STEPS, ops.DELETE))
    if not run.plan.first(ops.FORK) or run.plan.first(ops.JOIN_PROCESS) or run.state.after_delete:
        raise _UncachedError("it is not an ordinary container")


def _refuse_exec(run: ContainerRun, said: Sequence[str]) -> None:
    _refuse_unknown(run, said, tuple(_EXEC_STEPS))
    if sum(op.kind in (ops.COMMAND, ops.EXEC) for _, op in run.sent) != len((ops.COMMAND, ops.EXEC)):
        raise _UncachedError("its command")


def _refuse_unknown(run: ContainerRun, said: Sequence[str], known: Sequence[Kind]) -> None:
    unknown = [
        op.kind.name
        for op in run.plan.ops
        if op.kind in _UNKNOWN or (op.kind.by == ops.LAUNCHER and op.kind not in (*known, ops.WAIT_START))
    ]
    given = run.descriptors
    if unknown or given.keep or max(given.agent, given.directory) >= 0:
        raise _UncachedError(f"it needs {unknown} or descriptors")
    if log.said() != said:
        raise _UncachedError("there were warnings after the start")


class _Secrets:
    """What differs in each run of one Plan, and its places in templates.

    Attributes:
        is_compared: CONFIG has the text of config.json.
        has_random_id: the container's id ends with random digits.
    """

    def __init__(self, run: ContainerRun, *, is_compared: bool = False, has_random_id: bool = False) -> None:
        self._run = run
        self.is_compared = is_compared
        self.has_random_id = has_random_id
        keyring = run.plan.first(ops.KEYRING)
        name = str(keyring.value("name")) if keyring else ""
        secret = name.rpartition(".")[2]
        digits = frozenset("0123456789abcdef")
        self.keyring = secret if name.count(".") > 1 and len(secret) == _SECRET and digits.issuperset(secret) else ""
        self.cgroup = ""

    def place_in(self, plan: bytes) -> int:
        """Return the offset of the keyring's secret in an encoded Plan; -1 without one."""
        if not self.keyring:
            return -1
        secret = self.keyring.encode()
        if plan.count(secret) != 1:
            raise _UncachedError("the keyring's name")
        return plan.index(secret)

    def template(self, text: bytes) -> bytes:
        """Return a text with the cgroup's secret as a hole."""
        return _with_holes(text, [(self.cgroup, cached_ops.HOLE_CGROUP)] if self.cgroup and text else [])

    @staticmethod
    def mark() -> str:
        """Return a number that is nowhere else."""
        return str(int.from_bytes(posix.urandom(7), "little") + (1 << 60))

    def state(self, status: str) -> tuple[State, list[tuple[str, bytes]]]:
        """Return the state with marks at the places of holes, and these."""
        state = State.from_data(self._run.state.as_data())
        holes = []

        def marked(hole: bytes) -> int:
            holes.append((self.mark(), hole))
            return int(holes[-1][0])

        state.status = status
        state.pid, state.start_time = marked(cached_ops.HOLE_PID), marked(cached_ops.HOLE_START_TIME)
        state.created = str(marked(cached_ops.HOLE_TIME))
        first = cached_ops.HOLE_NAMESPACE[1]
        state.made = {kind: marked(bytes((0, first + index))) for index, kind in enumerate(state.made)}
        if self.keyring:
            state.keyring_name = state.keyring_name.replace(self.keyring, str(marked(cached_ops.HOLE_KEYRING)))
        if self.cgroup:
            state.cgroup = state.cgroup.replace(self.cgroup, str(marked(cached_ops.HOLE_CGROUP)))
        return state, holes


def _with_holes(text: bytes, holes: Sequence[tuple[str, bytes]], *, every: bool = True) -> bytes:
    """Replace marks by holes: each is in the text once, or with `every` false, at most once."""
    if b"\0" in text[:-1]:
        raise _UncachedError("NUL in a template")
    for mark, hole in holes:
        count = text.count(mark.encode())
        if count > 1 or (every and not count):
            raise _UncachedError("a mark in a template")
        text = text.replace(mark.encode(), hole)
    return text


def _make_cgroup(op: Op, run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    """Return the operations that make a cgroup as the run has made it: a new directory, with nothing to be enabled."""
    wanted: Cgroup = op.value("cgroup")
    assert run.cgroup
    path = run.cgroup.path
    lines = [line for line in run.entry.content(UNDO).splitlines(keepends=True) if line.startswith(b'["cgroup"')]
    noted: Any = jsontext.parse(lines[-1], UNDO)
    if len(lines) != (2 if wanted.path else 1) or noted[2]["parents"] or noted[2]["certainty"] != OWN:
        raise _UncachedError("the cgroup was there before, or in one that was not")
    if wanted.path and not _PLAIN.issuperset(path):
        raise _UncachedError("the front door looks for the cgroup's path in JSON")
    if not wanted.path:
        secrets.cgroup = path.rpartition(".")[2]
    yield from _enabled(wanted, paths.parent(path))
    made = lines[1] if wanted.path else b""
    yield Op(cached_ops.MAKE_CGROUP, bool(wanted.path), *map(secrets.template, (_bytes(path), lines[0], made)))
    for setting in wanted.settings:
        if setting.otherwise:
            raise _UncachedError(f"{setting.file} has an alternative")
        yield Op(cached_ops.SET, setting.file, setting.value)


def _enabled(wanted: Cgroup, bottom: str) -> Iterator[Op]:
    """Return the operations that check that no controller has to be enabled (cgroup/make.py: enable)."""
    controllers = wanted.controllers | wanted.spare
    if not controllers:
        return
    from rootless.cgroup.make import COUNTED

    controllers |= COUNTED if wanted.controllers else set()
    place = wanted.top
    for name in ("", *filter(None, bottom.removeprefix(place).strip("/").split("/"))):
        place = f"{place}/{name}".rstrip("/")
        has, enabled = (
            files.read_noted(f"{place}/{file}") for file in ("cgroup.controllers", "cgroup.subtree_control")
        )
        available = set(has.decode().split())
        if not wanted.controllers <= available or not controllers & available <= set(enabled.decode().split()):
            raise _UncachedError(f"controllers of {place}")
        yield _content(f"{place}/cgroup.controllers", has)
        yield _content(f"{place}/cgroup.subtree_control", enabled)


def _claim(_op: Op, run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    yield Op(cached_ops.CLAIM, run.root.forbidden, secrets.has_random_id, run.root.path, run.entry.container_id)


def _connect(run: ContainerRun) -> Iterator[Op]:
    if run.descriptors.console >= 0:
        yield Op(cached_ops.CONSOLE)


def _spawn(_op: Op, run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    yield from _connect(run)
    plan = encode([each for _, each in run.sent])
    reserved = len(run.image.run.descriptors.placed) if run.image else 0
    yield Op(cached_ops.SPAWN, secrets.place_in(plan), 0, 0, reserved, spawn.program_path("init"), plan, [])


def _enter(run: ContainerRun) -> Iterator[Op]:
    """Return the operations that open the cgroup for a further process (container/operations/cgroup.py: join)."""
    path = run.state.cgroup
    if path:
        enabled = files.read_noted(f"{path}/cgroup.subtree_control")
        if enabled.strip() or run.descriptors.cgroup < 0:
            raise _UncachedError("it is not in the container's own cgroup")
        yield _content(f"{path}/cgroup.subtree_control", enabled)
    yield Op(cached_ops.ENTER, path)


def _spawn_exec(_op: Op, run: ContainerRun, _secrets: _Secrets) -> Iterator[Op]:
    holes = {ops.COMMAND: Op(ops.COMMAND, [], "")}
    places = {op.kind: place for place, (_, op) in enumerate(run.sent) if op.kind in (ops.COMMAND, ops.EXEC)}
    environment: Any = run.sent[places[ops.EXEC]][1].strings[1]
    holes[ops.EXEC] = Op(ops.EXEC, [], environment)
    plan = encode([holes.get(op.kind, op) for _, op in run.sent])
    directories = program_directories({entry.partition("=")[0]: entry for entry in environment})
    numbers = (-1, places[ops.COMMAND], places[ops.EXEC], 0)
    yield from _connect(run)
    yield Op(cached_ops.SPAWN, *numbers, spawn.program_path("init"), plan, directories)


def _note_request(op: Op, _run: ContainerRun, _secrets: _Secrets) -> Iterator[Op]:
    yield Op(cached_ops.PUT, 0o600, cached_ops.PUT_LOCKED, EXIT, b"")
    yield Op(cached_ops.PUT, 0o600, cached_ops.PUT_PLAIN, REQUEST, _bytes(jsontext.render(op.value("request"), None)))


def _write_names(op: Op, _run: ContainerRun, _secrets: _Secrets) -> Iterator[Op]:
    for name, text in ((RESOLVER, op.value("resolv_conf")), (HOSTS, op.value("hosts"))):
        yield Op(cached_ops.PUT, 0o644, cached_ops.PUT_PLAIN, name, _bytes(text))


def _begin_image(op: Op, run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    image = run.image
    assert image
    path = op.value("image").path
    identity = _identity(path, image.identity)
    begun, _ = [line for line in run.entry.content(UNDO).splitlines(keepends=True) if line.startswith(b'["image"')]
    holes = [(secrets.mark(), cached_ops.HOLE_SERVER), (secrets.mark(), cached_ops.HOLE_SERVER_START_TIME)]
    noted = line_of("image", {"server": [int(mark) for mark, _ in holes]})
    plan = encode([each for _, each in image.run.sent])
    yield Op(cached_ops.BEGIN_IMAGE, *identity.numbers, path, begun, _with_holes(noted, holes), plan)


def _record(op: Op, _run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    if secrets.is_compared:
        yield Op(cached_ops.PUT, 0o600, cached_ops.PUT_CONFIG, CONFIG, b"")
    else:
        yield Op(cached_ops.PUT, 0o600, cached_ops.PUT_PLAIN, CONFIG, _bytes(op.value("config")))
    state, holes = secrets.state(CREATING)
    yield Op(cached_ops.RECORD, 0, _with_holes(state.render(), holes))


def _write_pid(path: str) -> Op:
    directory = paths.parent(path) or "."
    # write_pid() in helpers/front/run.c has no other way
    posix.close(posix.open(directory, posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC))
    return Op(cached_ops.WRITE_PID, directory, path)


def _record_created(_op: Op, run: ContainerRun, secrets: _Secrets) -> Iterator[Op]:
    state, holes = secrets.state(CREATED)
    undo = notes(run.entry)
    for text in record_strings(state, ()):
        yield Op(cached_ops.PART, _with_holes(text, holes, every=False))
    allowed = allowed_verbs(run.state, run.plan, undo)
    yield Op(cached_ops.RECORD, allowed, _with_holes(state.render(), holes))


def _await_id_maps(_op: Op, _run: ContainerRun, _secrets: _Secrets) -> Iterator[Op]:
    yield Op(cached_ops.AWAIT_MAPS)


def _begin_id_maps(op: Op, _run: ContainerRun, _secrets: _Secrets) -> Iterator[Op]:
    maps: IdMaps = op.value("maps")
    if maps.deny_setgroups:
        yield Op(cached_ops.MAP, "setgroups", "deny")
    for program, lines, name in ((maps.uid_program, maps.uids, "uid_map"), (maps.gid_program, maps.gids, "gid_map")):
        if program:
            yield Op(cached_ops.BEGIN_MAP, program, [str(number) for line in lines for number in line])
        else:
            yield Op(cached_ops.MAP, name, "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines))


_STEPS: dict[Kind, Step] = {
    ops.CLAIM: _claim,
    ops.NOTE_REQUEST: _note_request,
    ops.NO_INPUT: lambda *_: iter((Op(cached_ops.NO_INPUT),)),
    ops.WRITE_NAMES: _write_names,
    ops.COMPILE_FILTER: lambda *_: iter(()),
    ops.COMPILE_PRETENCE: lambda *_: iter(()),
    ops.LISTEN: lambda *_: iter((Op(cached_ops.LISTEN),)),
    ops.MAKE_CGROUP: _make_cgroup,
    ops.SPAWN: _spawn,
    ops.BEGIN_ID_MAPS: _begin_id_maps,
    ops.AWAIT_ID_MAPS: _await_id_maps,
    ops.RECORD: _record,
    ops.BEGIN_IMAGE: _begin_image,
    ops.AWAIT_IMAGE: lambda *_: iter((Op(cached_ops.AWAIT_IMAGE),)),
    ops.BEGIN_NETWORK: lambda *_: iter(()),  # one that is served has AWAIT_NETWORK too
    ops.RECORD_CREATED: _record_created,
    ops.WRITE_PID_FILE: lambda op, *_: iter((_write_pid(op.value("path")),)),
}
"""The operations of the launcher that the front door can carry out, before the start."""
_EXEC_STEPS: dict[Kind, Step] = {
    ops.COMPILE_FILTER: lambda *_: iter(()),
    ops.COMPILE_PRETENCE: lambda *_: iter(()),
    ops.SPAWN: _spawn_exec,
    ops.CHECK_RUNNING: lambda *_: iter((Op(cached_ops.CHECK),)),
}
"""The same for `exec`."""


# --- The file ---------------------------------------------------------------------------------------------------------


def _write(name: str, entry: bytes) -> None:
    cache = f"{state_root('').path}/{_CACHE}"
    files.make_private(cache)
    above = files.open_own(paths.parent(cache))
    directory = -1
    try:
        directory = files.open_own(_CACHE, above)
        files.put(name, entry, 0o600, dir_fd=directory)
        _forget_oldest(directory, _MOST)
    finally:
        for fd in (above, directory):
            if fd >= 0:
                posix.close(fd)


def _write_exec(name: str, entry: bytes, container: ContainerDir) -> None:
    """Write into the directory of a container, unless a command works on it, such as `delete`."""
    fcntl.flock(container.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        if container.has(STATE):
            files.put(name, entry, NOT_AGED | 0o600, dir_fd=container.fd)
            _forget_oldest(container.fd, _MOST_OF_EXEC, PLAN_OF_EXEC)
    finally:
        fcntl.flock(container.fd, fcntl.LOCK_UN)


def _forget_oldest(directory: int, most: int, beginning: str = "") -> None:
    """Halve a cache that has more than `most` entries; those that were written first go."""
    with posix.scandir(directory) as listing:
        entries = [
            (each.stat(follow_symlinks=False).st_mtime_ns, each.name)
            for each in listing
            if each.name != _SEEN and each.name.startswith(beginning)
        ]
    if len(entries) > most:
        for _, name in sorted(entries)[: most // 2]:
            files.unlink(name, directory)
