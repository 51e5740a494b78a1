"""The state of a container in state.json: one reader, State.parse(), and one writer, State.render().

The file may be damaged, or edited by hand: parse() returns only a State that every verb can use.
"""

from __future__ import annotations

import posix

from rootless import OCI_VERSION, jsontext
from rootless.errors import RootlessError
from rootless.procfs import Process, boot_id, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Kind = Callable[[object], bool]
    """Whether a value may stand at a place of state.json."""

FORMAT = 1
"""The `format` of state.json, also in groups and networks, and of a file without one; raised when older releases would
misread it."""


# --- The shape of the file --------------------------------------------------------------------------------------------


def _text(value: object) -> bool:
    """Whether this is text that can be printed and passed to a system call."""
    if type(value) is not str or "\0" in value:
        return False
    try:
        return value.isascii() or bool(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _integer(value: object) -> bool:
    return type(value) is int


def _pid(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _id(value: object) -> bool:
    return type(value) is int and 0 <= value < (1 << 32) - 1


def _boolean(value: object) -> bool:
    return type(value) is bool


def _path(value: object) -> bool:
    return _text(value) and str(value).startswith("/")


def _object(value: object) -> bool:
    return type(value) is dict


def _run_hook(value: object) -> bool:
    """Whether this is the name of ops.RUN_HOOK, the only operation after DELETE."""
    return value == "run_hook"


def _or_null(kind: Kind) -> Kind:
    return lambda value: value is None or kind(value)


def _list(kind: Kind) -> Kind:
    return lambda value: type(value) is list and all(map(kind, value))


def _pair(first: Kind, second: Kind) -> Kind:
    return lambda value: type(value) is list and len(value) == 2 and first(value[0]) and second(value[1])  # noqa: PLR2004


def _map(kind: Kind) -> Kind:
    return lambda value: type(value) is dict and all(map(_text, value)) and all(map(kind, value.values()))


def _record(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Kind:
    needed = tuple(required.items())
    possible = tuple((optional or {}).items())

    def fits(value: object) -> bool:
        if type(value) is not dict:
            return False
        for name, kind in needed:
            if name not in value or not kind(value[name]):
                return False
        for name, kind in possible:  # noqa: SIM110 - all() with a generator takes a third longer
            if name in value and not kind(value[name]):
                return False
        return True

    return fits


_TEXTS = _or_null(_list(_text))
_HOOK = _record({"path": _path}, {"args": _TEXTS, "env": _TEXTS, "timeout": _or_null(_integer)})
_RUN_HOOK = _record({"op": _run_hook, "kind": _text, "hook": _HOOK, "status": _text}, {"where": _text})
REQUIRED: dict[str, Kind] = {
    "ociVersion": _text,
    "id": _text,
    "pid": _pid,
    "status": _text,
    "startTime": _integer,
    "bootId": _text,
    "bundle": _path,
    "rootfs": _path,
    "created": _text,
    "annotations": _map(_text),
    "owner": _text,
    "afterStart": _record({"first": _integer, "operations": _list(_object)}),
    "user": _pair(_id, _id),
    "keyring": _boolean,
}
OPTIONAL: dict[str, Kind] = {
    "format": _integer,
    "keyringName": _text,
    "fakeChown": _boolean,
    "cgroup": _path,
    "unit": _text,
    "userManager": _text,
    "made": _map(_integer),
    "network": _record(
        {"mode": _text, "reason": _text},
        {
            "of": _text,
            "files": _boolean,
            "addresses": _list(_text),
            "ports": _list(
                _record({"protocol": _text, "hostIP": _text, "hostPort": _integer, "containerPort": _integer}),
            ),
        },
    ),
    "afterDelete": _list(_RUN_HOOK),
}
_STATE = _record(REQUIRED, OPTIONAL)
_TOGETHER = (("unit", "userManager"), ("unit", "cgroup"))
"""The first property requires the second."""


def _is_sound(data: dict[str, Any]) -> bool:
    """Whether every verb can use a state."""
    if not (_STATE(data) and data.get("format", FORMAT) <= FORMAT):
        return False
    network = data.get("network")
    if network and network["mode"] == "shared" and "of" not in network:
        return False
    return all(second in data for first, second in _TOGETHER if first in data)


def is_newer(data: object) -> bool:
    """Whether the JSON data of a state has a format that this release does not know."""
    noted = data.get("format") if isinstance(data, dict) else None
    return isinstance(noted, int) and noted > FORMAT


# --- The records ------------------------------------------------------------------------------------------------------


class NetworkState:
    """The network of a container.

    Attributes:
        mode: the word of --network.
        reason: the reason for the mode.
        of: the container or the network that it shares, or empty.
        files: whether the container's directory has its resolv.conf and hosts.
        addresses: the container's, or None if they are unknown.
        ports: the published ports in the form of Port.as_data(), or None.
        resolver: what its resolv.conf was made from beside the host's: `servers` and `search` of the flags, and the
            `forwarder` of the helper.
    """

    __slots__ = ("addresses", "files", "mode", "of", "ports", "reason", "resolver")

    def __init__(self, mode: str, reason: str) -> None:
        self.mode = mode
        self.reason = reason
        self.of = ""
        self.files = False
        self.addresses: list[str] | None = None
        self.ports: list[dict[str, Any]] | None = None
        self.resolver: dict[str, Any] | None = None

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> NetworkState:
        """Return the record of the data that as_data() returns."""
        found = cls(data["mode"], data["reason"])
        found.of = data.get("of", "")
        found.files = data.get("files", False)
        found.addresses = data.get("addresses")
        found.ports = data.get("ports")
        found.resolver = data.get("resolver")
        return found

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {"mode": self.mode, "reason": self.reason} | _given(
            {
                "of": self.of or None,
                "files": self.files or None,
                "addresses": self.addresses,
                "ports": self.ports,
                "resolver": self.resolver,
            }
        )

    def report(self, *, is_served: bool) -> dict[str, object]:
        """Return its part of `state` and `list`; `is_served` is false if its helper has ended."""
        if not is_served:
            return {"mode": "none", "reason": f"{self.mode} has ended"}
        shown = _given({"of": self.of or None, "addresses": self.addresses, "ports": self.ports})
        return {"mode": self.mode, "reason": self.reason} | shown


class AfterStart:
    """The operations of the Plan that `start` runs: those after WAIT_START.

    Attributes:
        first: the executor's number of its first operation.
        operations: all of them, in the form of Op.as_data().
    """

    __slots__ = ("first", "operations")

    def __init__(self, first: int, operations: list[dict[str, Any]]) -> None:
        self.first = first
        self.operations = operations


class State:
    """The state of a container.

    Attributes:
        id: the container's.
        oci_version: the version of the specification (runtime.md, "State").
        pid: the first process on the host; 0 before it exists.
        start_time: the start of that process, in clock ticks since boot.
        boot_id: the boot in which it started.
        status: ABSENT, CREATING or CREATED; lifecycle.status() returns the present one.
        bundle: the bundle's directory.
        rootfs: the root file system on the host.
        created: the time (RFC 3339).
        annotations: the annotations of config.json.
        owner: the name of the user.
        after_start: the operations that `start` runs.
        user: the user and the group of the container's process, in the container.
        keyring: whether the container has a session keyring.
        fake_chown: whether changes of owner and of user only seem to succeed.
        keyring_name: its name; empty in the states of older releases.
        after_delete: the operations of the Plan after DELETE, in the form of Op.as_data().
        cgroup: the directory of the container's own cgroup, or empty.
        unit: the systemd scope, or empty.
        user_manager: the runtime directory of the user manager that has the scope; empty for the system manager.
        made: the namespaces made for the container: inode numbers by kind; empty in the states of older releases.
        network: the network, or None if rootless does not make it.
    """

    __slots__ = (
        "after_delete",
        "after_start",
        "annotations",
        "boot_id",
        "bundle",
        "cgroup",
        "created",
        "fake_chown",
        "id",
        "keyring",
        "keyring_name",
        "made",
        "network",
        "oci_version",
        "owner",
        "pid",
        "rootfs",
        "start_time",
        "status",
        "unit",
        "user",
        "user_manager",
    )

    def __init__(self, container_id: str) -> None:
        self.id = container_id
        self.oci_version = OCI_VERSION
        self.pid = 0
        self.start_time = 0
        self.boot_id = ""
        self.status = ""
        self.bundle = ""
        self.rootfs = ""
        self.created = ""
        self.annotations: dict[str, str] = {}
        self.owner = ""
        self.after_start = AfterStart(0, [])
        self.user = [0, 0]
        self.keyring = False
        self.fake_chown = False
        self.keyring_name = ""
        self.after_delete: list[dict[str, Any]] = []
        self.cgroup = ""
        self.unit = ""
        self.user_manager = ""
        self.made: dict[str, int] = {}
        self.network: NetworkState | None = None

    @classmethod
    def parse(cls, text: bytes, container_id: str, path: str) -> State:
        """Return the state of a container from the text of state.json.

        Args:
            text: the content of the file.
            container_id: the id that it has to name.
            path: the file, for messages.

        Raises:
            RootlessError: `RL-STATE`: it is not a sound state.
        """
        try:
            data = jsontext.parse(text, path)
        except RootlessError:
            data = None
        if isinstance(data, dict) and _is_sound(data) and data["id"] == container_id:
            return cls.from_data(data)
        newer = is_newer(data)
        raise RootlessError(
            f"cannot use {path}",
            cause="a newer release has written it" if newer else "it does not hold the state of a container",
            fix=f"{'use that release, or run ' * newer}rootless delete --force {container_id}",
            code="RL-STATE",
        )

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> State:
        """Return the state of JSON data of sound shape."""
        found = cls(data["id"])
        found.oci_version = data["ociVersion"]
        found.pid = data["pid"]
        found.start_time = data["startTime"]
        found.boot_id = data["bootId"]
        found.status = data["status"]
        found.bundle = data["bundle"]
        found.rootfs = data["rootfs"]
        found.created = data["created"]
        found.annotations = data["annotations"]
        found.owner = data["owner"]
        found.after_start = AfterStart(data["afterStart"]["first"], data["afterStart"]["operations"])
        found.user = data["user"]
        found.keyring = data["keyring"]
        found.fake_chown = data.get("fakeChown", False)
        found.keyring_name = data.get("keyringName", "")
        found.after_delete = data.get("afterDelete", [])
        found.cgroup = data.get("cgroup", "")
        found.unit = data.get("unit", "")
        found.user_manager = data.get("userManager", "")
        found.made = data.get("made", {})
        found.network = NetworkState.from_data(data["network"]) if "network" in data else None
        return found

    def render(self) -> bytes:
        """Return the text of state.json."""
        return jsontext.render(self.as_data(), None).encode("utf-8", "surrogateescape")

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data. salvage.py finds the keys before `annotations` in a damaged file."""
        return {
            "format": FORMAT,
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": self.pid,
            "status": self.status,
            "startTime": self.start_time,
            "bootId": self.boot_id,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "annotations": self.annotations,
            "owner": self.owner,
            "afterStart": {"first": self.after_start.first, "operations": self.after_start.operations},
            "user": self.user,
            "keyring": self.keyring,
            "keyringName": self.keyring_name,
        } | _given(
            {
                "afterDelete": self.after_delete or None,
                "fakeChown": self.fake_chown or None,
                "cgroup": self.cgroup or None,
                "unit": self.unit or None,
                "userManager": self.user_manager if self.unit else None,
                "made": self.made or None,
                "network": self.network.as_data() if self.network else None,
            }
        )

    def is_of_this_boot(self) -> bool:
        """Whether the container was made in this boot: otherwise its pid, namespaces and cgroup mean nothing."""
        return self.boot_id == boot_id()

    def process(self) -> Process | None:
        """Return the first process, a zombie included; None if it has ended, or its pid was reused."""
        process = Process.read(self.pid)
        if process is None or process.start_time != self.start_time or not self.is_of_this_boot():
            return None
        return process

    def open_process(self) -> int:
        """Return a pidfd of the first process, which the caller closes, or -1 if process() returns None."""
        try:
            fd = posix.pidfd_open(self.pid)
        except ProcessLookupError:
            return -1
        if self.process() is None:
            posix.close(fd)
            return -1
        return fd

    def is_frozen(self) -> bool:
        """Whether the container's cgroup is frozen; false if that cannot be read."""
        try:
            return bool(self.cgroup) and read(f"{self.cgroup}/cgroup.freeze").startswith(b"1")
        except OSError:
            return False

    def document(self, status: str) -> dict[str, object]:
        """Return the state that hooks and the seccomp listener get (runtime.md, "State")."""
        document: dict[str, object] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        }
        if status != "stopped":
            document["pid"] = self.pid
        if self.annotations:
            document["annotations"] = self.annotations
        return document

    def report(self, status: str, *, is_served: bool = True) -> dict[str, object]:
        """Return the output of `state` and `list`: the properties of runtime.md, and those that callers of runc use.

        Args:
            status: the present one, from lifecycle.status().
            is_served: false if the helper of its network has ended.
        """
        report: dict[str, object] = {
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
        }
        if self.annotations:
            report["annotations"] = self.annotations
        report["owner"] = self.owner
        if self.network:
            report["network"] = self.network.report(is_served=is_served or status == "stopped")
        return report


def _given(properties: dict[str, Any]) -> dict[str, object]:
    """Return the properties that have a value."""
    return {name: value for name, value in properties.items() if value is not None}
