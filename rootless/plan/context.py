"""What the parts of the planner share: the inputs, the namespaces that were decided, and the notes for people."""

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
    from rootless.plan.request import Request
    from rootless.procfs import IdMap

ADAPTED = "adapted"
"""Done in another way than config.json says, with the same effect for the program."""
UNSUPPORTED = "not honoured"
"""Asked for and not done: a warning."""


class Note:
    """A place where the Plan differs from config.json: `kind` is ADAPTED or UNSUPPORTED; `fix` says what would help."""

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
    """The inputs of one compilation and what has been decided so far.

    Attributes:
        bundle, facts, request: the inputs.
        config, linux, process: sections of config.json; an absent one is empty.
        created: types of the namespaces that the container gets new.
        joined: path of the namespace that it joins, by type.
        places: where config.json lists a namespace, by type.
        maps: the id maps of its new user namespace, or None.
        network: what was decided about its network, where that is ours to decide.
        running: the container that there is already, for a further process of it; else None.
        uid, gid: ids of the program, inside.
        notes: what differs from config.json.
        sources: operations that come before the container's ids are taken on: copies of mounts of the host's.
        sealing: operations that make mounts read-only once everything in them has been made.
        in_own_cgroup: operations for a process that is in its cgroup and does not have its cgroup namespace yet.
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
        self.maps: IdMaps | None = None
        self.network: Network | None = None
        self.running: Running | None = None
        user = self.process.get("user") or {}
        self.uid: int = user.get("uid") or 0
        self.gid: int = user.get("gid") or 0
        self.notes: list[Note] = []
        self.sources: list[Op] = []
        self.sealing: list[Op] = []
        self.in_own_cgroup: list[Op] = []

    def adapted(self, where: str, text: str) -> None:
        """Note something that is done in another way."""
        self.notes.append(Note(ADAPTED, where, text))

    def warn_ignored(self, where: str, text: str, fix: str = "") -> None:
        """Note something that cannot be done."""
        self.notes.append(Note(UNSUPPORTED, where, text, fix))

    @property
    def in_user_namespace(self) -> bool:
        """Whether the container will not be in the host's own user namespace."""
        return self.facts.nested or "user" in self.created or "user" in self.joined

    @property
    def gains_capabilities(self) -> bool:
        """Whether the container's user namespace gives every capability, whatever the caller has."""
        return "user" in self.created or "user" in self.joined

    @property
    def shares_mounts(self) -> bool:
        """Whether the container's mounts are made in the mount namespace of its caller."""
        return not self.running and "mount" not in self.created and "mount" not in self.joined

    def may_mount(self, namespace: str) -> bool:
        """Whether a file system that shows `namespace` may be mounted, or whether trying is the only way to know.

        The user namespace that owns it has to be ours: it is for a new one, it is not for one that a new user namespace
        leaves shared.
        """
        return namespace in self.created or namespace in self.joined or not self.gains_capabilities

    @property
    def uid_map(self) -> Sequence[IdMap]:
        """The user ids that exist in the container; empty for a joined user namespace, whose ids are not known here."""
        if "user" in self.joined:
            return self.running.uid_map if self.running else ()
        return self.maps.uids if self.maps else self.facts.uid_map

    @property
    def gid_map(self) -> Sequence[IdMap]:
        """The group ids that exist in the container."""
        if "user" in self.joined:
            return self.running.gid_map if self.running else ()
        return self.maps.gids if self.maps else self.facts.gid_map

    def has_uid(self, number: int) -> bool:
        """Whether `number` is a user id in the container, as far as that is known."""
        return not self.uid_map or has(self.uid_map, number)

    def has_gid(self, number: int) -> bool:
        """Whether `number` is a group id in the container, as far as that is known."""
        return not self.gid_map or has(self.gid_map, number)

    @property
    def setgroups_denied(self) -> bool:
        """Whether supplementary groups cannot be set in the container's user namespace; a nested one inherits that."""
        if "user" in self.joined:
            return bool(self.running and self.running.setgroups_denied)
        return self.facts.setgroups_denied or bool(self.maps and self.maps.deny_setgroups)
