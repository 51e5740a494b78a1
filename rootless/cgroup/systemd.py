"""Scopes of a systemd manager: made around a container's first process, changed, stopped (org.freedesktop.systemd1).

The manager has a socket of its own and, for who can reach only that, a message bus. Both are looked for in the user's
runtime directory only: an environment that names another bus, or none, has no effect.
"""

from __future__ import annotations

import posix
from time import sleep

from rootless import paths, procfs
from rootless.cgroup.dbus import Connection, DBusError
from rootless.errors import RootlessError
from rootless.host.delegation import directory_of
from rootless.linux import CGROUP_MOUNT
from rootless.plan.cgroup import unit_properties
from rootless.plan.cgroup.unit_properties import Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

    from rootless.cgroup.dbus import Message
    from rootless.plan.cgroup.limits import Setting
    from rootless.plan.cgroup.manager import Cgroup

SYSTEM = "/run"
"""Instead of a user's runtime directory: that of the host's manager."""

_SERVICE = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"
_UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"
_NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
_UNKNOWN = ("org.freedesktop.DBus.Error.PropertyReadOnly", "org.freedesktop.DBus.Error.UnknownProperty")
_MATCH = f"type='signal',sender='{_SERVICE}',path='{_PATH}',interface='{_MANAGER}',member='JobRemoved'"
_OUTCOMES = {
    "canceled": "the unit was stopped meanwhile",
    "timeout": "it did not start in time",
    "dependency": "a unit that it needs, such as its slice, did not start",
    "skipped": "a condition of the unit did not hold",
}
"""Results of a job in JobRemoved; for `failed` the log has the reason."""
_ROUNDS = 20
_LOOK_AGAIN = 0.05
"""Seconds between two looks at a unit that is about to disappear."""
_SHORTEST = 3
"""Of the name of a property; below that it is a word in any message."""


def start_scope(wanted: Cgroup, pid: int) -> str:
    """Make the scope `wanted.unit` with the process `pid` in it, and return when it is there.

    Returns:
        The directory of its cgroup. Its settings are still to be written there, all of them: systemd does not tell when
        the kernel refuses a value, or has no file for it.

    Raises:
        RootlessError: `RL-SYSTEMD`: there is no manager, or it refuses the scope.
    """
    asked = {each.name: each for each in _own_properties(wanted, pid)}
    asked |= {each.name: each for each in _of_settings(wanted.settings)}
    asked |= {each.name: each for each in wanted.properties}
    with _Manager(wanted.user_manager, f"make {wanted.unit}") as manager:
        manager.start(wanted.unit, list(asked.values()))
    return _cgroup_of(pid, wanted.unit)


def change_scope(unit: str, user_manager: str, settings: list[Setting]) -> None:
    """Let systemd change limits of a scope, until it ends; they are still to be written, as with start_scope.

    Raises:
        RootlessError: `RL-SYSTEMD`: there is no manager, or it refuses a property.
    """
    asked = _of_settings(settings)
    if asked:
        with _Manager(user_manager, f"change {unit}") as manager:
            manager.set_properties(unit, asked)


def stop_scope(unit: str, user_manager: str) -> bool:
    """End a scope, if there is one, with all that is in it; its name is free when this returns.

    Returns:
        Whether there is a manager. Where there is none any more, there is no scope of its either.

    Raises:
        OSError: it stays.
    """
    try:
        with _Manager(user_manager, f"stop {unit}") as manager:
            manager.stop(unit)
    except RootlessError as error:
        if error.code != "RL-SYSTEMD-GONE":
            raise OSError(0, error.cause) from None
        return False
    return True


def _own_properties(wanted: Cgroup, pid: int) -> list[Property]:
    """Return what every scope has. The accounting is what `systemctl status` and `stats` of engines read."""
    found = [
        Property("Description", "s", f"rootless container {wanted.container}"),
        Property("PIDs", "au", [pid]),
        Property("Delegate", "b", value=True),
        Property("CollectMode", "s", "inactive-or-failed"),
        # nothing of the container's is to wait for the user's session, nor to hold it up
        Property("DefaultDependencies", "b", value=False),
        *(Property(f"{name}Accounting", "b", value=True) for name in ("CPU", "IO", "Memory", "Tasks")),
    ]
    if wanted.slice:
        found.append(Property("Slice", "s", wanted.slice, "linux.cgroupsPath"))
    return found


def _of_settings(settings: list[Setting]) -> list[Property]:
    asked = any(each.file == unit_properties.BFQ_WEIGHT for each in settings)
    # where it is at all, it is in every cgroup that shares out the disk
    bfq = asked and any(
        paths.exists(f"{CGROUP_MOUNT}/{top}.slice/{unit_properties.BFQ_WEIGHT}") for top in ("user", "system")
    )
    return unit_properties.of_settings(settings, bfq=bfq)


def _cgroup_of(pid: int, unit: str) -> str:
    """Return the directory of the cgroup that a process is in: systemd has just put it there."""
    directory = directory_of(pid)
    if unit in directory.split("/"):
        return directory
    path = procfs.cgroup(pid)
    raise RootlessError(
        f"cannot find the cgroup of {unit}",
        cause=f"its process is in {path!r}" if path else "its process has ended",
        fix="call rootless in the cgroup namespace of systemd" if path else "",
        code="RL-SYSTEMD",
    )


class _Manager:
    """A connection to a systemd manager."""

    def __init__(self, directory: str, doing: str) -> None:
        """Connect.

        Args:
            directory: the runtime directory of its user, or SYSTEM.
            doing: the purpose, as it follows "cannot" in an error.

        Raises:
            RootlessError: `RL-SYSTEMD-GONE`: no manager answers.
        """
        self._doing = doing
        self._user = "" if directory == SYSTEM else " --user"
        self._connection, is_bus = self._connected(directory)
        try:
            if is_bus:
                self._connection.send(_BUS, _BUS_PATH, _BUS, "Hello", "")
                self._connection.send(_BUS, _BUS_PATH, _BUS, "AddMatch", "s", _MATCH)
                self._connection.send(_SERVICE, _PATH, _MANAGER, "Subscribe", "")
        except OSError as error:
            self._connection.close()
            raise self._broken(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._connection.close()
        if isinstance(error, OSError):
            raise self._broken(error) from None

    def start(self, unit: str, asked: list[Property]) -> None:
        """Make a unit, and return when it has started."""
        for _ in range(_ROUNDS + len(asked)):
            try:
                self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", _on_the_wire(asked), ())
            except DBusError as error:
                if error.name != _UNIT_EXISTS:
                    self._do_without(error, asked)
                    continue
                if self._is_in_use(unit):
                    raise RootlessError(
                        f"cannot {self._doing}",
                        cause="a unit of that name already has processes",
                        where="linux.cgroupsPath",
                        fix=f"name another in cgroupsPath, or run: systemctl{self._user} stop {unit}",
                        code="RL-SYSTEMD",
                    ) from None
                # what has it now has ended, and systemd is about to notice
                self.stop(unit)
                sleep(_LOOK_AGAIN)
            else:
                return
        raise self._failed(unit, "the unit of that name does not go away")

    def set_properties(self, unit: str, asked: list[Property]) -> None:
        """Change properties of a unit until it ends."""
        while asked:
            try:
                self._call("SetUnitProperties", "sba(sv)", unit, True, _on_the_wire(asked))  # noqa: FBT003 - of D-Bus
            except DBusError as error:
                self._do_without(error, asked)
            else:
                return

    def _do_without(self, error: DBusError, asked: list[Property]) -> None:
        """Leave out the property that this systemd does not know, or cannot change, and that is spare."""
        if error.name in _UNKNOWN:
            for each in asked:
                if each.spare and each.name in _words(error.text):
                    asked.remove(each)
                    return
        raise self._refused(error, asked) from None

    def stop(self, unit: str) -> None:
        """Stop a unit, and return when it has; one that is not there, or has failed before, is gone likewise."""
        for method, signature, words in (("StopUnit", "ss", (unit, "replace")), ("ResetFailedUnit", "s", (unit,))):
            try:
                if method == "StopUnit":
                    self._job(method, signature, *words)
                else:
                    self._call(method, signature, *words)
            except DBusError as error:
                if error.name == _NO_SUCH_UNIT:
                    return
                raise self._refused(error, ()) from None

    def _job(self, method: str, signature: str, *words: Any) -> None:  # noqa: ANN401 - see signature
        """Call a method that begins a job, and wait for the end of that."""
        (job,) = self._call(method, signature, *words)

        def is_its_end(signal: Message) -> bool:
            return len(signal.body) == len("uoss") and signal.body[1] == job

        outcome = self._connection.signal(is_its_end).body[3]
        if outcome != "done":
            raise self._failed(words[0], _OUTCOMES.get(outcome, ""))

    def _call(self, method: str, signature: str, *words: Any) -> list[Any]:  # noqa: ANN401 - see signature
        return self._connection.reply(self._connection.send(_SERVICE, _PATH, _MANAGER, method, signature, *words))

    def _is_in_use(self, unit: str) -> bool:
        """Whether there are processes in a unit."""
        try:
            (found,) = self._call("GetUnitProcesses", "s", unit)
        except DBusError:
            return False
        return bool(found)

    def _connected(self, directory: str) -> tuple[Connection, bool]:
        """Return a connection, and whether it is to a bus."""
        names = ("systemd/private", "dbus/system_bus_socket" if directory == SYSTEM else "bus")
        reasons = []
        for name in names:
            path = f"{directory}/{name}"
            try:
                connection = Connection(path)
            except OSError as error:
                reasons.append(f"{path}: {(error.strerror or str(error)).lower()}")
                continue
            process, user, _ = connection.peer
            if process and user == posix.geteuid():
                return connection, name != names[0]
            connection.close()
            whose = f"it belongs to user {user}" if process else "its processes have other numbers than they have here"
            reasons.append(f"{path}: {whose}")
        raise RootlessError(
            f"cannot {self._doing}",
            cause="no systemd manager answers: " + "; ".join(reasons),
            fix="log in through PAM (machinectl shell, ssh), have root run: loginctl enable-linger, or use "
            "--cgroup-manager cgroupfs",
            code="RL-SYSTEMD-GONE",
        )

    def _refused(self, error: DBusError, asked: Sequence[Property]) -> RootlessError:
        """Return the error for an answer of systemd's; where it names a property, it is about what asked for that."""
        words = _words(error.text)
        names = {each.name: each.where for each in asked if len(each.name) > _SHORTEST}
        blamed = [where for name, where in names.items() if where and name in words]
        # systemd names some properties as its files do, without the unit of time
        blamed = blamed or [
            where for name, where in names.items() if where and name.removesuffix("PerSecUSec") in words
        ]
        places = blamed or sorted({each.where for each in asked if each.where})
        return RootlessError(
            f"cannot {self._doing}",
            cause=f"systemd says: {error.text or error.name}".rstrip("."),
            where=", ".join(places[:3]),
            fix="write a value that systemd.resource-control(5) allows" if blamed else "",
            code="RL-SYSTEMD",
        )

    def _failed(self, unit: str, why: str) -> RootlessError:
        return RootlessError(
            f"cannot {self._doing}",
            cause=why or "systemd could not put the process there",
            fix=f"read the log: journalctl{self._user} --unit {unit}",
            code="RL-SYSTEMD",
        )

    def _broken(self, error: OSError) -> RootlessError:
        return RootlessError(
            f"cannot {self._doing}",
            cause=f"the connection to systemd broke off: {(error.strerror or str(error)).lower()}",
            fix=f"check systemd: systemctl{self._user} status",
            code="RL-SYSTEMD",
        )


def _words(text: str) -> set[str]:
    return {word.strip("'\"=,.:;()") for word in text.split()}


def _on_the_wire(asked: Sequence[Property]) -> list[tuple[str, tuple[str, Any]]]:
    return [(each.name, (each.signature, each.value)) for each in asked]
