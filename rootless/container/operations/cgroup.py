"""The cgroup of a container: made before its first process, or around it by systemd; frozen, joined by `exec`."""

from __future__ import annotations

from rootless import log
from rootless.cgroup.group import OWN, UNVERIFIED, Group, is_frozen, make_anew
from rootless.container.operations.undo import note, notes
from rootless.container.state import store
from rootless.errors import EXHAUSTED, RootlessError
from rootless.lazy import lazy
from rootless.paths import exists, normal, parent
from rootless.plan import ops
from rootless.plan.cgroup.manager import PLACE, Unenforced, is_unlimited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cgroup.make import make as make_limited
    from rootless.cgroup.make import missing_in, unmade, write
    from rootless.cgroup.systemd import start_scope as start_systemd_scope
    from rootless.container.operations.cgroup_cleanup import ends_processes
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.launch.attach_device_rules import attach
    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.ops import Op
else:
    make_limited = lazy("rootless.cgroup.make", "make")
    missing_in = lazy("rootless.cgroup.make", "missing_in")
    unmade = lazy("rootless.cgroup.make", "unmade")
    write = lazy("rootless.cgroup.make", "write")
    start_systemd_scope = lazy("rootless.cgroup.systemd", "start_scope")
    ends_processes = lazy("rootless.container.operations.cgroup_cleanup", "ends_processes")
    attach = lazy("rootless.launch.attach_device_rules", "attach")

_DIGITS = frozenset("0123456789abcdef-")
_SHORTEST = 12
"""Of an identifier, as in bundle/identifiers.py, which would be one more import of `create`."""


def make(run: ContainerRun, op: Op) -> None:
    """Make the directory and write its limits; the executor's second stage is cloned into it.

    Raises:
        RootlessError: it cannot be made, or a required limit cannot be enforced.
    """
    wanted: Cgroup = op.value("cgroup")
    _refuse_anothers(wanted, run.entry)
    run.cgroup = _make(wanted, run.entry)
    run.descriptors.cgroup = run.cgroup.fd


def start_scope(run: ContainerRun, op: Op) -> None:
    """Have systemd make a scope around the container's first process, and write its limits.

    Raises:
        RootlessError: as make().
    """
    wanted: Cgroup = op.value("cgroup")
    _refuse_anothers(wanted, run.entry)
    _note(run.entry, wanted, "", [], UNVERIFIED)
    path, settings = start_systemd_scope(wanted, run.pid), wanted.settings
    _note(run.entry, wanted, path, [], OWN)
    run.cgroup = Group(path)
    _refuse_frozen(run.cgroup)
    unenforced = Unenforced()
    write(run.cgroup, settings, missing_in(run.cgroup, settings, ours=True), unenforced)
    _warn_or_refuse(unenforced, required=wanted.required)
    if run.is_recorded:
        record(run, run.state)


def record(run: ContainerRun, state: State) -> None:
    """Enter the cgroup into the container's state."""
    assert run.cgroup
    state.cgroup = run.cgroup.path
    scope = run.plan.first(ops.START_SCOPE)
    if scope:
        wanted: Cgroup = scope.value("cgroup")
        state.unit, state.user_manager = wanted.unit, wanted.user_manager


def freeze(run: ContainerRun, _op: Op) -> None:
    """Pause a container whose config.json freezes its cgroup.

    Raises:
        RootlessError: `RL-CGROUP`: its processes keep running.
    """
    assert run.cgroup
    run.cgroup.freeze()


def blame_memory(run: ContainerRun, error: RootlessError) -> None:
    """Name the memory limit in the error for a killed executor, if the limit is the cause."""
    wanted = next((op.value("cgroup") for op in run.plan.ops if op.kind in (ops.MAKE_CGROUP, ops.START_SCOPE)), None)
    limit = wanted and next((each for each in wanted.settings if each.file == "memory.max"), None)
    if not limit or not run.cgroup or is_unlimited(limit):
        return
    events = run.cgroup.fields("memory.events")
    # systemd may have removed it with the last process
    if events.get("oom_kill") or not events:
        error.where, error.fix = limit.where, "allow more memory, or read in the kernel's log (dmesg) who killed it"
    if events.get("oom_kill"):
        error.cause = f"memory ran out before the container's program began: the limit is {limit.value} bytes"


def attach_device_rules(run: ContainerRun, op: Op) -> None:
    """Attach the device rules, once the devices of config.json exist.

    Raises:
        RootlessError: `RL-DEVICE-RULES`: the kernel refuses them.
    """
    assert run.cgroup
    attach(op.value("program"), run.cgroup.fd, op.where)


def _make(wanted: Cgroup, entry: ContainerDir) -> Group:
    def announce(path: str, parents: list[str], certainty: str) -> None:
        _note(entry, wanted, path, parents, certainty)

    if not (wanted.settings or wanted.path or wanted.spare):
        try:
            return Group(make_anew(wanted.base, wanted.name, announce))
        except OSError as error:
            raise unmade(error) from None
    group, unenforced = make_limited(wanted, announce)
    try:
        if wanted.path:
            _refuse_frozen(group)
        _warn_or_refuse(unenforced, required=wanted.required)
    except BaseException:
        group.close()
        raise
    return group


def _note(entry: ContainerDir, wanted: Cgroup, path: str, parents: list[str], certainty: str) -> None:
    data = {"path": path, "parents": parents, "certainty": certainty}
    note(entry, "cgroup", data | {"unit": wanted.unit, "userManager": wanted.user_manager})


def _refuse_anothers(wanted: Cgroup, entry: ContainerDir) -> None:
    """Refuse the cgroup of another container, stopped but not deleted: its delete would end this one too.

    Raises:
        RootlessError: `RL-CGROUP`: names that container.
    """
    if _is_named_after(wanted, entry.container_id):
        return
    for container_id in store.ids(entry.root):
        if container_id == entry.container_id:
            continue
        try:
            with store.find(entry.root, container_id, lock=False) as other:
                taken = _has(other, wanted)
                verb = "delete" if other.has("state.json") else "delete --force"
        except RootlessError:
            continue  # it was removed meanwhile
        if taken:
            raise RootlessError(
                f"cannot use the cgroup {wanted.path or wanted.unit}",
                cause=f"it is that of container {container_id}",
                where="linux.cgroupsPath",
                fix=f"rootless {verb} {container_id}, or name another",
                code="RL-CGROUP",
            )


def _is_named_after(wanted: Cgroup, container_id: str) -> bool:
    """Whether the name of a cgroup is its container's own: engines write the identifier into it, which no other has."""
    name = (wanted.path or wanted.unit).rpartition("/")[2]
    is_identifier = len(container_id) >= _SHORTEST and _DIGITS.issuperset(container_id)
    return not name or (is_identifier and container_id in name)


def _has(other: ContainerDir, wanted: Cgroup) -> bool:
    """Whether a cgroup is that of another container, by its state or by the note of a killed command."""
    try:
        state = other.read()
    except RootlessError:
        state = None  # it is damaged
    if state and not state.is_of_this_boot():
        return False
    if state and _is_same(wanted, state.cgroup, state.unit):
        return True
    noted = notes(other).get("cgroup", {})
    return ends_processes(noted) and _is_same(wanted, noted.get("path"), noted.get("unit"))


def _is_same(wanted: Cgroup, path: object, unit: object) -> bool:
    return bool((wanted.path and path == wanted.path) or (wanted.unit and unit == wanted.unit))


def _refuse_frozen(group: Group) -> None:
    """Refuse a frozen cgroup: no process would run in it, the executor included.

    Raises:
        RootlessError: `RL-CGROUP`: names the frozen cgroup.
    """
    if group.fields("cgroup.events").get("frozen") != 1:
        return
    frozen = group.path
    while not is_frozen(frozen) and len(frozen) > 1:
        frozen = parent(frozen)
    raise RootlessError(
        f"cannot use the cgroup {group.path}",
        cause="it is frozen" if frozen == group.path else f"{frozen} above it is frozen",
        where="linux.cgroupsPath",
        fix=f"resume the container that it is of (rootless resume), or echo 0 >{frozen}/cgroup.freeze",
        code="RL-CGROUP",
    )


def _warn_or_refuse(unenforced: Unenforced, *, required: bool) -> None:
    """Report the limits that are not enforced.

    Raises:
        RootlessError: `RL-LIMITS`: the caller requires them.
    """
    if not unenforced:
        return
    if required:
        raise unenforced.error()
    text, fix = unenforced.line()
    log.warning(text, where=PLACE, fix=fix)


def join(state: State, below: str = "") -> Group | None:
    """Open the cgroup of a running container for a further process of it, which is cloned into it.

    If the container has enabled controllers for cgroups below its own, only those can have processes: then it is the
    cgroup of the first process.

    Args:
        state: what state.json holds.
        below: the path of a cgroup below it, in the container's cgroup namespace, or empty.

    Returns:
        The cgroup, which the caller closes, or None if the container has no cgroup.

    Raises:
        RootlessError: `RL-CGROUP`: it does not exist.
    """
    if not state.cgroup:
        if not below:
            return None
        raise RootlessError(
            f"--cgroup {below}",
            cause="the container has no cgroup of its own",
            fix="leave --cgroup out",
            code="RL-CGROUP",
        )
    if ".." in below.split("/"):
        raise RootlessError(
            f"--cgroup {below}",
            cause="it may lead out of the container's cgroup",
            fix="name one below it, without ..",
            code="RL-CGROUP",
        )
    path = state.cgroup + normal("/" + below).rstrip("/")
    if not below and not exists(path):
        from rootless.host.delegation import directory_of

        path = directory_of(state.pid) or path  # another program has moved its processes, and removed it
    try:
        group = Group(path)
        if below or not group.read("cgroup.subtree_control").strip():
            return group
        group.close()
        from rootless.host.delegation import directory_of

        return Group(directory_of(state.pid))
    except OSError as error:
        raise RootlessError(
            f"cannot use the cgroup {path}",
            cause=(error.strerror or "").lower(),
            fix="name one that the container has made (exec --cgroup)"
            if below
            else EXHAUSTED.get(error.errno or 0, ""),
            code="RL-CGROUP",
        ) from None
