"""Choose the container's cgroup, its manager, and the limits that cannot be enforced (config-linux.md).

Imported if config.json has limits or the caller has a delegated cgroup.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.linux import CAP_SYS_ADMIN
from rootless.paths import normal
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rootless.host.facts import Facts
    from rootless.plan.cgroup.limits import Setting
    from rootless.plan.cgroup.unit_properties import Property
    from rootless.plan.context import Context

CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"
DISABLED = "disabled"

PLACE = "linux.resources"
_UNIFIED = f"{PLACE}.unified."
_DEVICE_RULES = "devices"
DEVICES_PLACE = f"{PLACE}.{_DEVICE_RULES}"
_SECTIONS = ("memory", "cpu", "blockIO", "hugepageLimits", "network", "pids", "rdma", "unified")
"""The sections of linux.resources that are limits."""
_UNIT_PARTS = 3
_LONGEST_NAME = 240
"""Out of NAME_MAX, 255 bytes; the rest is for a suffix that makes the name unique."""
_NOTHING_DELEGATED = "your cgroup is not delegated to you"


class Cgroup:
    """The cgroup to create.

    Attributes:
        manager: CGROUPFS or SYSTEMD.
        settings: values for its files, in this order.
        frozen: the container is frozen until `resume`.
        device_rules: the eBPF program that decides about devices; empty without rules.
        resources: linux.resources, for a manager that has properties for them.
        base: CGROUPFS: the directory below which it is created.
        top: CGROUPFS: the directory from which controllers are enabled downwards: `base` or one above it.
        path: CGROUPFS: its directory, if cgroupsPath names it; otherwise empty, and its name begins with `name`.
        name: CGROUPFS: the beginning of its name, below `base`.
        managed: CGROUPFS: the processes in `base` must stay there.
        slice: SYSTEMD: the slice that contains the scope; empty for the default one.
        unit: SYSTEMD: the name of the scope.
        user_manager: SYSTEMD: the runtime directory of the user whose manager creates it.
        properties: SYSTEMD: properties from annotations.
        container: the container's id.
        required: a limit that cannot be enforced is an error.
        spare: CGROUPFS: controllers that no setting needs, to be enabled if possible.
    """

    __slots__ = (
        "base", "container", "device_rules", "frozen", "managed", "manager", "name", "path", "properties", "required",
        "resources", "settings", "slice", "spare", "top", "unit", "user_manager",
    )  # fmt: skip

    def __init__(self, manager: str, context: Context) -> None:
        self.manager = manager
        self.settings: list[Setting] = []
        self.frozen = False
        self.device_rules = b""
        self.resources: dict[str, Any] = context.linux.get("resources") or {}
        self.base = ""
        self.top = ""
        self.path = ""
        self.name = f"rootless-{context.request.container}"[:_LONGEST_NAME]
        self.managed = False
        self.slice = ""
        self.unit = ""
        self.user_manager = ""
        self.properties: list[Property] = []
        self.container = context.request.container
        self.required = context.request.require_limits
        self.spare: frozenset[str] = frozenset()

    @property
    def controllers(self) -> set[str]:
        """The controllers that the settings need."""
        return {setting.controller for setting in self.settings} - {""}

    def __str__(self) -> str:
        """Describe the operation for people."""
        if self.manager == SYSTEMD:
            text = f"have systemd create {self.unit}" + (f" in {self.slice}" if self.slice else "")
        else:
            text = f"create the cgroup {self.path or f'{self.base}/{self.name}.…'}"
        written = ", ".join(f"{setting.file} = {setting.value}" for setting in self.settings)
        return text + (f" with {written}" if written else "")


class Unenforced:
    """The limits that are not enforced, with the reasons."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def add(self, name: str, reason: str, fix: str = "") -> None:
        """Add a limit; `name` is its place in config.json or its flag."""
        names = self._names.setdefault((reason, fix), [])
        short = name.removeprefix(f"{PLACE}.")
        if short not in names:
            names.append(short)

    def line(self) -> tuple[str, str]:
        """Return one line with all limits and reasons, and the fix."""
        text = "; ".join(f"{', '.join(names)}: {reason}" for (reason, _), names in self._names.items())
        fixes = list(dict.fromkeys(fix for _, fix in self._names if fix))
        return f"limits that are not enforced: {text}", "; ".join(fixes)

    def error(self, where: str = PLACE) -> RootlessError:
        """Return the error of --require-limits."""
        text, fix = self.line()
        what, _, cause = text.partition(": ")
        return RootlessError(what, cause=cause, where=where, fix=fix or "leave out --require-limits", code="RL-LIMITS")


def decide(context: Context) -> Cgroup | None:
    """Return the cgroup to create, or None, and warn about the limits that are not enforced.

    Raises:
        RootlessError: `RL-RESOURCES`: a limit is invalid; `RL-LIMITS`: --require-limits is given and a limit cannot be
            enforced; `RL-CGROUP`: cgroupsPath is invalid or a value of `unified` cannot be written; `RL-ANNOTATION`.
    """
    resources = context.linux.get("resources") or {}
    manager, reason, fix = _manager(context, resources)
    unenforced = Unenforced()
    made = None
    if manager:
        made = Cgroup(manager, context)
        made.settings = _settings(resources)
        made.frozen = any(_is_freeze(each) for each in made.settings)
        made.settings = [each for each in made.settings if not _is_freeze(each)]
        if manager == SYSTEMD:
            _choose_unit(context, made)
        else:
            _choose_directory(context, made)
            _drop_missing_controllers(context, made, unenforced)
    else:
        _report_all(context, resources, unenforced, (reason, fix))
    if resources.get(_DEVICE_RULES) and not _rule_devices(context, resources[_DEVICE_RULES], made):
        unenforced.add(DEVICES_PLACE, reason, fix)
    for name in _without_counterpart(resources):
        unenforced.add(name, "cgroup v2 has no counterpart", "leave it out")
    if made:
        context.in_own_cgroup = owner(context)
    elif context.linux.get("cgroupsPath"):
        text = f"the container stays in its caller's cgroup: {reason}"
        if unenforced:
            context.adapted("linux.cgroupsPath", text)  # the warning about limits gives the reason
        else:
            context.warn_ignored("linux.cgroupsPath", text, fix)
    if unenforced and context.request.require_limits:
        raise unenforced.error()
    if unenforced:
        context.warn_ignored(PLACE, *unenforced.line())
    return made


def _manager(context: Context, resources: dict[str, Any]) -> tuple[str, str, str]:
    """Return the cgroup manager, or an empty string, the reason and the fix."""
    request, facts = context.request, context.facts
    if request.cgroup_manager == DISABLED:
        return "", "--cgroup-manager disabled", ""
    delegated = CGROUPFS if facts.cgroups and facts.cgroups.base else ""
    asks_systemd = request.systemd_cgroup or request.cgroup_manager == SYSTEMD or _unit_of(context) is not None
    needs_systemd = asks_systemd or _misses_controllers(context, resources, delegated)
    if request.cgroup_manager == CGROUPFS:
        asks_systemd = needs_systemd = False
    if needs_systemd and facts.user_manager:
        return SYSTEMD, "", ""
    if asks_systemd and delegated:
        context.adapted("linux.cgroupsPath", "there is no systemd user manager: rootless creates the cgroup without it")
    if delegated or not (resources or context.linux.get("cgroupsPath")):
        return delegated, "", ""
    return "", *why_none(context.facts, asks_systemd=asks_systemd)


def _misses_controllers(context: Context, resources: dict[str, Any], delegated: str) -> bool:
    """Whether the delegated cgroup has no controller for some limit; a cgroupsPath below it is used regardless."""
    if delegated and context.linux.get("cgroupsPath"):
        return False
    needed = {setting.controller for setting in _sensible(resources)} - {""}
    return bool(needed) and not _holds(context, needed)


def why_none(facts: Facts, *, asks_systemd: bool = False) -> tuple[str, str]:
    """Return why no cgroup can be created, and the fix."""
    cgroups = facts.cgroups
    if not cgroups:
        return _NOTHING_DELEGATED, ""
    reason, fix = cgroups.obstacle, cgroups.fix
    if not facts.user_manager and (asks_systemd or (cgroups.systemd and not fix)):
        reason += f", and user {facts.uid} has no systemd manager to create another"
    if fix:
        return reason, fix
    if not cgroups.systemd:
        return reason, 'have root delegate one to you: see "Cgroup delegation" in cgroups(7)'
    if facts.user_manager:
        return reason, "leave out --cgroup-manager cgroupfs"
    return reason, "log in through PAM (machinectl shell, ssh), or have root run: loginctl enable-linger"


def _settings(resources: dict[str, Any]) -> list[Setting]:
    if not resources:
        return []
    from rootless.plan.cgroup import limits

    return limits.settings(resources)


def _without_counterpart(resources: dict[str, Any]) -> Iterable[str]:
    if not resources:
        return ()
    from rootless.plan.cgroup import limits

    return limits.without_counterpart(resources)


def _sensible(resources: dict[str, Any]) -> Sequence[Setting]:
    try:
        return _settings(resources)
    except RootlessError:
        return ()  # decide() reports the error


def _holds(context: Context, controllers: set[str]) -> bool:
    """Whether the caller's own cgroup has these controllers, except those that no cgroup of this host has."""
    cgroups = context.facts.cgroups
    if not cgroups or not cgroups.base:
        return False
    missing = controllers - (cgroups.enabled if cgroups.managed else cgroups.controllers)
    return all(cgroups.why_nowhere(controller) for controller in missing)


def _unit_of(context: Context) -> tuple[str, str, str] | None:
    """Return slice, prefix and name of a cgroupsPath of the form slice:prefix:name; None for any other."""
    path = context.linux.get("cgroupsPath") or ""
    parts = path.split(":")
    if path.startswith("/") or len(parts) != _UNIT_PARTS:
        return None
    return parts[0], parts[1], parts[2]


def _choose_unit(context: Context, made: Cgroup) -> None:
    from rootless.plan.cgroup import unit_properties

    path = context.linux.get("cgroupsPath") or ""
    unit = _unit_of(context)
    request = context.request
    if path and unit is None and (request.systemd_cgroup or request.cgroup_manager == SYSTEMD):
        raise RootlessError(
            f"cannot have systemd create the cgroup {path}",
            cause='expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups',
            where="linux.cgroupsPath",
            fix="write slice:prefix:name, or leave out --systemd-cgroup",
            code="RL-CGROUP",
        )
    made.user_manager = context.facts.user_manager
    in_slice, prefix, name = unit or ("", "rootless", context.request.container)
    made.slice, made.unit = unit_properties.slice_name(in_slice), unit_properties.scope_name(prefix, name)
    if path and unit is None:
        context.adapted("linux.cgroupsPath", f"it is not delegated to you: systemd creates {made.unit} instead")
    made.properties = unit_properties.of_annotations(context.config.get("annotations") or {})


def _choose_directory(context: Context, made: Cgroup) -> None:
    cgroups = context.facts.cgroups
    if not cgroups:
        return
    path = context.linux.get("cgroupsPath") or ""
    made.base, made.top = cgroups.base, cgroups.top
    # with a cgroupsPath, `base` counts as delegated to its processes: whether it has Delegate=, only systemd knows
    made.managed = cgroups.managed and not path and context.request.cgroup_manager != CGROUPFS
    if not cgroups.managed or context.request.cgroup_manager == CGROUPFS:
        # `update`, or cgroups inside the container, may need them later
        made.spare = cgroups.controllers if path else cgroups.controllers - cgroups.enabled
    unit = _unit_of(context)
    if unit:
        path = "-".join(unit[1:]) + ".scope"
    if not path:
        return
    inside = normal("/" + path.lstrip("/"))
    absolute = cgroups.mount + inside
    if path.startswith("/") and f"{absolute}/".startswith(f"{cgroups.reach}/") and absolute != cgroups.reach:
        made.path = absolute
        if not absolute.startswith(f"{cgroups.base}/"):
            made.base, made.top, made.managed = cgroups.reach, cgroups.reach, True
    elif inside != "/":
        made.path = cgroups.base + inside
        if path.startswith("/"):
            context.adapted("linux.cgroupsPath", f"it is created below your own cgroup: {cgroups.path(made.path)}")
    else:
        context.warn_ignored(
            "linux.cgroupsPath", f"{path} cannot be a container's cgroup: the container gets one below yours"
        )


def _drop_missing_controllers(context: Context, made: Cgroup, unenforced: Unenforced) -> None:
    cgroups = context.facts.cgroups
    if not cgroups or made.base != cgroups.base:
        return  # the controllers of other directories are read when the cgroup is created
    for setting in list(made.settings):
        controller = setting.controller
        if not controller or controller in cgroups.controllers:
            continue
        made.settings.remove(setting)
        if is_unlimited(setting):
            continue
        reason, fix = cgroups.why_missing(controller)
        check_unified(setting, reason, fix)
        unenforced.add(setting.where, reason, fix)


def _report_all(context: Context, resources: dict[str, Any], unenforced: Unenforced, why: tuple[str, str]) -> None:
    """Report every requested limit: the reason is `why`, or that no cgroup of this host has its controller."""
    cgroups = context.facts.cgroups if context.request.cgroup_manager != DISABLED else None
    nowhere: dict[str, tuple[str, str] | None] = {}
    for name, controller in _asked(resources):
        if cgroups and controller and controller not in nowhere:
            nowhere[controller] = cgroups.why_nowhere(controller)
        unenforced.add(name, *(nowhere.get(controller) or why))


def check_unified(setting: Setting, reason: str, fix: str) -> None:
    """Refuse a setting of `unified` that cannot be written: the runtime "MUST generate an error", config-linux.md."""
    if setting.where.startswith(_UNIFIED):
        raise RootlessError(
            f"cannot write {setting.file}", cause=reason, where=setting.where, fix=fix or "remove it", code="RL-CGROUP"
        )


def is_unlimited(setting: Setting) -> bool:
    """Whether a setting imposes no limit."""
    return setting.value == "max" or setting.value.startswith("max ")


def _is_freeze(setting: Setting) -> bool:
    """Whether a setting freezes the cgroup. It cannot be written early: the container's set-up would never end."""
    return setting.file == "cgroup.freeze" and setting.value == "1"


def _asked(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the places of the requested limits, each with the controller that it needs."""
    try:
        return [(each.where, each.controller) for each in _settings(resources) if not is_unlimited(each)]
    except RootlessError:
        # perhaps valid for cgroup v1: reported by their names
        names = []
        for section, asked in resources.items():
            if section not in _SECTIONS or not asked:
                continue
            pairs = asked.items() if isinstance(asked, dict) else ((f"[{index}]", True) for index in range(len(asked)))
            names += [
                (section + (name if name.startswith("[") else f".{name}"), "")
                for name, value in pairs
                if value not in (None, 0, -1, "", [], {})
            ]
        return names


def _rule_devices(context: Context, rules: list[dict[str, Any]], made: Cgroup | None) -> bool:
    """Have device rules enforced, which needs root of the host; return whether they are enforced or reported."""
    if not context.facts.may(CAP_SYS_ADMIN):
        context.adapted(
            DEVICES_PLACE,
            "device rules are not enforced, because only root of the host can do that: the container uses its devices "
            "with the caller's rights and cannot create others",
        )
        return True
    if made:
        from rootless.plan.cgroup import device_filter

        made.device_rules = device_filter.program(rules)
        if made.device_rules:
            context.adapted(DEVICES_PLACE, "default devices and mknod stay allowed, as in runc and crun")
    return bool(made)


def owner(context: Context) -> list[Op]:
    """Return the operation that makes the container own its cgroup: config-linux.md "Cgroup ownership"."""
    mounts = context.config.get("mounts") or ()
    writable = any(
        mount.get("source") == "cgroup"
        and normal("/" + mount["destination"].lstrip("/")) == "/sys/fs/cgroup"
        and "ro" not in (mount.get("options") or ())
        for mount in mounts
    )
    cgroups = context.facts.cgroups
    maps = context.maps.uids if context.maps else ()
    is_caller = any(
        first <= context.uid < first + count and outside + context.uid - first == context.facts.uid
        for first, outside, count in maps
    )
    if not cgroups or not writable or is_caller or "cgroup" not in context.created:
        return []
    files = cgroups.delegated_files()
    return [Op(ops.CGROUP_OWNER, context.uid, cgroups.mount, files, where="linux.cgroupsPath", on_error=ops.ELSE)]
