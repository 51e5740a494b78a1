"""A container and its cgroup: created before its first process, and noted for the clean-up."""

from __future__ import annotations

from rootless import log
from rootless.cgroup.group import OWN, UNVERIFIED, Group, is_frozen, make_anew
from rootless.container.state import store
from rootless.errors import EXHAUSTED, RootlessError
from rootless.paths import exists, normal, parent
from rootless.plan.cgroup.manager import CGROUPFS, DEVICES_PLACE, PLACE, SYSTEMD, is_unlimited
from rootless.procfs import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.plan.cgroup.manager import Cgroup, Unenforced


class Confinement:
    """The cgroup of a container that is being made.

    Attributes:
        fd: a descriptor of its directory, into which the first process is cloned, or -1: it has to enter it.
    """

    def __init__(self, wanted: Cgroup, entry: ContainerDir, state: State) -> None:
        """Make it, unless it needs a process to be made of, and write into the container's state where it is.

        Raises:
            RootlessError: it cannot be made, or a limit cannot be enforced and has to be.
        """
        self.fd = -1
        self._wanted = wanted
        self._entry = entry
        self._group: Group | None = None
        self._ruled = False
        if wanted.path or wanted.unit:
            _refuse_anothers(wanted, entry)
        if wanted.manager == CGROUPFS:
            self._group = self._make()
            self.fd = self._group.fd
            state.cgroup = self._group.path

    def enter(self, pid: int, state: State) -> None:
        """Have systemd make it of the container's first process, where systemd is to; see __init__."""
        if self._wanted.manager == SYSTEMD:
            self._group = self._make_scope(pid)
            state.cgroup, state.unit = self._group.path, self._wanted.unit
            state.user_manager = self._wanted.user_manager

    def rule_devices(self) -> None:
        """Let the rules for devices hold, once what config.json lists is made and before hooks may allow more."""
        if self._wanted.device_rules and self._group and not self._ruled:
            from rootless.launch import attach_device_rules

            attach_device_rules.attach(self._wanted.device_rules, self._group.fd, DEVICES_PLACE)
            self._ruled = True

    def blame(self, error: RootlessError) -> None:
        """Let the error for a container that was killed while it was made name the limit of memory, if that is why."""
        limit = next((each for each in self._wanted.settings if each.file == "memory.max"), None)
        if not limit or not self._group or is_unlimited(limit):
            return
        events = self._group.fields("memory.events")
        # systemd has removed it, perhaps, when the last process has gone
        if events.get("oom_kill") or not events:
            error.where, error.fix = limit.where, "allow more memory, or look in the kernel's log (dmesg) who killed it"
        if events.get("oom_kill"):
            error.cause = f"memory ran out before the container's program began: the limit is {limit.value} bytes"

    def close(self) -> None:
        """Let go of it."""
        if self._group:
            self._group.close()
            self.fd = -1

    def _make(self) -> Group:
        wanted = self._wanted
        if not (wanted.settings or wanted.path or wanted.spare):
            try:
                return Group(make_anew(wanted.base, wanted.name, self._note))
            except OSError as error:
                from rootless.cgroup.make import unmade

                raise unmade(error) from None
        from rootless.cgroup.make import make

        group, unenforced = make(wanted, self._note)
        try:
            if wanted.path:
                _refuse_frozen(group)
            _tell(unenforced, required=wanted.required)
        except BaseException:
            group.close()
            raise
        return group

    def _make_scope(self, pid: int) -> Group:
        from rootless.cgroup import systemd
        from rootless.cgroup.make import missing_in, write
        from rootless.plan.cgroup.manager import Unenforced

        self._note("", [], UNVERIFIED)
        path, settings = systemd.start_scope(self._wanted, pid), self._wanted.settings
        self._note(path, [], OWN)
        group = Group(path)
        _refuse_frozen(group)
        unenforced = Unenforced()
        write(group, settings, missing_in(group, settings, ours=True), unenforced)
        _tell(unenforced, required=self._wanted.required)
        return group

    def _note(self, path: str, parents: list[str], certainty: str) -> None:
        wanted = self._wanted
        lines = (boot_id(), wanted.manager, certainty, wanted.unit, wanted.user_manager, path, *parents)
        self._entry.note_cgroup("\n".join(lines))


def _refuse_anothers(wanted: Cgroup, entry: ContainerDir) -> None:
    """Refuse the cgroup of a container that has stopped and is not deleted: ending that container would end this one.

    Raises:
        RootlessError: `RL-CGROUP`, with whose it is.
    """
    for container_id in store.ids(entry.root):
        if container_id == entry.container_id:
            continue
        try:
            with store.find(entry.root, container_id, lock=False) as other:
                state = other.read()
        except RootlessError:
            continue  # it went away meanwhile, or nobody can tell what it has
        if not (state and state.is_of_this_boot()):
            continue
        if (wanted.path and state.cgroup == wanted.path) or (wanted.unit and state.unit == wanted.unit):
            raise RootlessError(
                f"cannot use the cgroup {wanted.path or wanted.unit}",
                cause=f"it is that of container {container_id}",
                where="linux.cgroupsPath",
                fix=f"rootless delete {container_id}, or name another",
                code="RL-CGROUP",
            )


def _refuse_frozen(group: Group) -> None:
    """Refuse a cgroup in which no process would run, not even the one that makes the container.

    Raises:
        RootlessError: `RL-CGROUP`, with which one is frozen.
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


def _tell(unenforced: Unenforced, *, required: bool) -> None:
    """Warn of the limits that are not enforced."""
    if not unenforced:
        return
    if required:
        raise unenforced.error()
    text, fix = unenforced.line()
    log.warning(text, where=PLACE, fix=fix)


def freeze_container(entry: ContainerDir) -> None:
    """Freeze a container that has just been created.

    Raises:
        RootlessError: `RL-CGROUP`: it goes on.
    """
    with Group(store.existing_state(entry).cgroup) as group:
        group.freeze()


def join(state: State, below: str = "") -> Group | None:
    """Open the cgroup of a running container for a further process of it, which is cloned into it.

    Where the container has enabled controllers for cgroups below its own, only those can have processes, and it is that
    of its first process.

    Args:
        state: the container's.
        below: the path of another one, as the container's cgroup namespace has it.

    Returns:
        It, to be closed, or None where the container has none of its own.

    Raises:
        RootlessError: `RL-CGROUP`: it is not there.
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

        path = directory_of(state.pid) or path  # somebody has moved its processes, and removed it
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
