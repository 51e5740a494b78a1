"""The state that the parts of the planner share: inputs, namespaces and notes."""

from __future__ import annotations

from rootless.plan.idmaps import has

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.host.running import Running
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.network.mode import Network
    from rootless.plan.ops import Op
    from rootless.plan.process.seccomp import SeccompFilter
    from rootless.plan.request import Request
    from rootless.procfs import IdMap

ADAPTED = "adapted"
"""Done differently from config.json, with the same effect for the program."""
UNSUPPORTED = "not honoured"
"""Requested and not done: a warning."""


class Note:
    """A place where the Plan differs from config.json: `kind` is ADAPTED or UNSUPPORTED; `fix` is an imperative."""

    __slots__ = ("fix", "kind", "text", "where")

    def __init__(self, kind: str, where: str, text: str, fix: str = "") -> None:
        self.kind = kind
        self.where = where
        self.text = text
        self.fix = fix

    def __str__(self) -> str:
        """Return the note as one sentence."""
        return f"{self.text} (config.json: {self.where})" if self.where else self.text


class Context:
    """The inputs of one compilation and the decisions so far.

    Attributes:
        bundle, facts, request: the inputs.
        config, linux, process: sections of config.json; an absent one is empty.
        created: types of the new namespaces.
        joined: paths of the joined namespaces, by type.
        places: places of namespaces in config.json, by type.
        shared: types of the new namespaces that the containers of one group have in common (plan/namespaces/group.py).
        maps: the ID maps of the new user namespace, or None.
        network: its network; None if the engine sets it up.
        running: the running container, for a further process of it; else None.
        uid, gid: ids of the program, inside.
        capability_sets: its capabilities, once they are decided (plan/process/identity.py).
        notes: differences from config.json.
        sources: operations that copy mounts of the host before the process takes on the container's IDs.
        pretence: the filter of --fake-chown, or None.
        sealing: operations that make mounts read-only when their contents are complete.
        in_own_cgroup: operations for a process that is in its cgroup but not yet in its cgroup namespace.
    """

    def __init__(self, bundle: Bundle, facts: Facts, request: Request) -> None:
        self.bundle = bundle
        self.facts = facts
        self.request = request
        self.config = bundle.config
        self.linux: dict[str, Any] = bundle.config.get("linux") or {}
        self.process: dict[str, Any] = bundle.config.get("process") or {}
        self.created: set[str] = set()
        self.joined: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.shared: tuple[str, ...] = ()
        self.maps: IdMaps | None = None
        self.network: Network | None = None
        self.running: Running | None = None
        user = self.process.get("user") or {}
        self.uid: int = user.get("uid") or 0
        self.gid: int = user.get("gid") or 0
        self.capability_sets: tuple[int, ...] = ()
        self.notes: list[Note] = []
        self.pretence: SeccompFilter | None = None
        self.sources: list[Op] = []
        self.sealing: list[Op] = []
        self.in_own_cgroup: list[Op] = []

    def adapted(self, where: str, text: str) -> None:
        """Note something that is done differently."""
        self.notes.append(Note(ADAPTED, where, text))

    def warn_ignored(self, where: str, text: str, fix: str = "") -> None:
        """Note something that cannot be done."""
        self.notes.append(Note(UNSUPPORTED, where, text, fix))

    @property
    def in_user_namespace(self) -> bool:
        """Whether the container is outside the host's initial user namespace."""
        return self.facts.nested or "user" in self.created or "user" in self.joined

    @property
    def gains_capabilities(self) -> bool:
        """Whether the container's user namespace grants every capability, independently of the caller."""
        return "user" in self.created or "user" in self.joined

    @property
    def shares_mounts(self) -> bool:
        """Whether the container's mounts are made in the mount namespace of its caller."""
        return not self.running and "mount" not in self.created and "mount" not in self.joined

    def may_mount(self, namespace: str) -> bool:
        """Whether the container may mount a file system that shows `namespace`, or has to try.

        The container's user namespace has to own the namespace. It owns a new one, but not one that it shares with
        the host.
        """
        return namespace in self.created or namespace in self.joined or not self.gains_capabilities

    @property
    def uid_map(self) -> Sequence[IdMap]:
        """The user IDs in the container; empty for a joined user namespace, whose IDs are unknown here."""
        if "user" in self.joined:
            return self.running.uid_map if self.running else ()
        return self.maps.uids if self.maps else self.facts.uid_map

    @property
    def gid_map(self) -> Sequence[IdMap]:
        """The group IDs in the container; empty as in `uid_map`."""
        if "user" in self.joined:
            return self.running.gid_map if self.running else ()
        return self.maps.gids if self.maps else self.facts.gid_map

    def has_uid(self, number: int) -> bool:
        """Whether `number` is a user ID in the container; true if the IDs are unknown."""
        return not self.uid_map or has(self.uid_map, number)

    def has_gid(self, number: int) -> bool:
        """Whether `number` is a group ID in the container; true if the IDs are unknown."""
        return not self.gid_map or has(self.gid_map, number)

    @property
    def setgroups_denied(self) -> bool:
        """Whether the container's user namespace denies setgroups(2); a nested one inherits that."""
        if "user" in self.joined:
            return bool(self.running and self.running.setgroups_denied)
        return self.facts.setgroups_denied or bool(self.maps and self.maps.deny_setgroups)
