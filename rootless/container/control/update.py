"""The verb `update`: new limits for a container, by flags or by a file of linux.resources."""

from __future__ import annotations

from rootless import log
from rootless.container.state import store
from rootless.container.state.own_cgroup import cgroup_for
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.plan.cgroup import limits
from rootless.plan.cgroup.manager import Unenforced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.cgroup.group import Group
    from rootless.container.state.state import State
    from rootless.options import Options
    from rootless.plan.cgroup.limits import Setting

_STANDARD_INPUT = "-"
_NUMBERS = {
    # attribute of Options: section and name in linux.resources, flag
    "blkio_weight": ("blockIO", "weight", "--blkio-weight"),
    "cpu_period": ("cpu", "period", "--cpu-period"),
    "cpu_quota": ("cpu", "quota", "--cpu-quota"),
    "cpu_burst": ("cpu", "burst", "--cpu-burst"),
    "cpu_share": ("cpu", "shares", "--cpu-share"),
    "cpu_rt_period": ("cpu", "realtimePeriod", "--cpu-rt-period"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime", "--cpu-rt-runtime"),
    "cpu_idle": ("cpu", "idle", "--cpu-idle"),
    "memory": ("memory", "limit", "--memory"),
    "memory_reservation": ("memory", "reservation", "--memory-reservation"),
    "memory_swap": ("memory", "swap", "--memory-swap"),
    "kernel_memory": ("memory", "kernel", "--kernel-memory"),
    "kernel_memory_tcp": ("memory", "kernelTCP", "--kernel-memory-tcp"),
    "pids_limit": ("pids", "limit", "--pids-limit"),
}
_TEXTS = {
    "cpuset_cpus": ("cpu", "cpus", "--cpuset-cpus"),
    "cpuset_mems": ("cpu", "mems", "--cpuset-mems"),
}
_SIZES = "bkmgtp"


def update(options: Options) -> None:
    """Change limits of a container."""
    changes = _asked(options)
    group, state = cgroup_for(options, "update")
    with group:
        _complete(changes, group)
        settings = changes.settings()
        _check_memory(changes, group)
        unenforced = _without_counterpart(changes)
        try:
            _change(group, state, settings, unenforced, required=options.require_limits)
        except RootlessError as error:
            raise changes.placed(error) from None
    if changes.resources.get("devices"):
        _keep_device_rules(options, changes.resources["devices"])
    if unenforced:
        text, fix = unenforced.line()
        log.warning(text, fix=fix)


def _keep_device_rules(options: Options, rules: list[dict[str, Any]]) -> None:
    """Warn that device rules stay: engines send them with other limits, and hooks may have allowed more."""
    with store.find(state_root(options.root), options.container) as entry:
        resources = (entry.read_config().get("linux") or {}).get("resources") or {}
    if rules != resources.get("devices"):
        log.warning("rules for devices stay as they were when the container was created", fix="create it again")


def _change(group: Group, state: State, settings: list[Setting], unenforced: Unenforced, *, required: bool) -> None:
    """Change the limits of an existing cgroup; add limits without effect to `unenforced`."""
    from rootless.cgroup.make import missing_in, write

    is_scope = bool(state.unit)
    missing = missing_in(group, settings, ours=is_scope)
    if missing and not is_scope:
        missing = _enable(group, set(missing))
    if log.is_debug():
        for controller, (why, _) in missing.items():
            log.debug(f"controller {controller} is missing: {why}")
        log.debug(f"ask systemd to change {state.unit}" if is_scope else "no systemd unit: write to the cgroup")
    write(group, [setting for setting in settings if setting.controller in missing], missing, unenforced)
    if unenforced and required:
        raise unenforced.error(where="")
    before = [(setting.file, group.read(setting.file)) for setting in settings]
    possible = [setting for setting in settings if setting.controller not in missing]
    try:
        if is_scope:
            from rootless.cgroup import systemd

            # the kernel first, which may refuse: systemd does not take a request back
            write(group, possible, {}, Unenforced())
            systemd.change_scope(state.unit, state.user_manager, settings)
        write(group, possible, {}, unenforced)
    except RootlessError:
        _restore(group, before)
        raise


def _restore(group: Group, before: list[tuple[str, str]]) -> None:
    """Write back the former values after a change that failed half-way, as far as the kernel accepts them."""
    for file, text in reversed(before):
        for line in text.splitlines():
            try:
                group.write(file, line)
            except OSError:
                continue


def _enable(group: Group, controllers: set[str]) -> dict[str, tuple[str, str]]:
    """Enable controllers for a cgroup that was made without them; return the missing ones, with the reason."""
    from rootless import paths
    from rootless.cgroup.make import enable
    from rootless.host import delegation

    there = delegation.read()
    parent = paths.parent(group.path)
    if there.base and f"{parent}/".startswith(f"{there.base}/"):
        return enable(controllers, there.top, parent, there.base)
    return enable(controllers, parent, parent, "")


class Changes:
    """The requested changes.

    Attributes:
        resources: in the form of linux.resources.
        document: the file that has them; empty if flags do.
        flags: the flag of each, by its place in linux.resources.
    """

    def __init__(self, resources: dict[str, Any], document: str, flags: dict[str, str]) -> None:
        self.resources = resources
        self.document = document
        self.flags = flags

    def settings(self) -> list[Setting]:
        """Return the settings to write, each with the flag, or the place in the file, that requests it.

        Raises:
            RootlessError: `RL-RESOURCES`: a value is invalid.
        """
        try:
            found = limits.settings(self.resources, "")
        except RootlessError as error:
            raise self.placed(error) from None
        for setting in found:
            for each in (setting, setting.otherwise):
                if each:
                    each.where = self.named(each.where)
        # the kernel refuses a weight for an idle cgroup (cpu.idle)
        return sorted(found, key=lambda each: (each.file, each.value) != ("cpu.idle", "0"))

    def named(self, where: str) -> str:
        """Return the flag, or the place in the file, that requests a property of linux.resources."""
        place = where.lstrip(".")
        return self.flags.get(place, place)

    def placed(self, error: RootlessError) -> RootlessError:
        """Let an error name the flag, or the place in the file."""
        where = self.named(error.where)
        if self.document:
            error.document, error.where = self.document, where
        elif where.startswith("--"):
            error.what, error.where = f"{where}: {error.what}", ""
        return error


def _asked(options: Options) -> Changes:
    """Return the changes that the command line requests.

    Raises:
        RootlessError: a value is not a number, or the file does not hold resources.
    """
    if options.l3_cache_schema or options.mem_bw_schema:
        raise RootlessError(
            "cannot change the container's share of the caches",
            cause="that is settled when it is created",
            fix="write linux.intelRdt into its config.json and create it again",
            code="RL-RESCTRL",
        )
    if options.resources:
        document = "standard input" if options.resources == _STANDARD_INPUT else options.resources
        return Changes(_read(options.resources, document), document, {})
    resources: dict[str, Any] = {}
    flags = {}
    for attribute, (section, name, flag) in (_NUMBERS | _TEXTS).items():
        text: str = getattr(options, attribute)
        if text:
            resources.setdefault(section, {})[name] = text if attribute in _TEXTS else _number(text, flag)
            flags[f"{section}.{name}"] = flag
    if options.cpus:
        from rootless.bundle.edit.resources import set_cpus
        from rootless.bundle.edit.values import misused

        if options.cpu_period or options.cpu_quota:
            raise misused("--cpus", options.cpus, "--cpu-period and --cpu-quota say the same", "give only one")
        resources.setdefault("cpu", {}).update(set_cpus({}, options.cpus)["linux"]["resources"]["cpu"])
        flags["cpu.quota"] = "--cpus"
    return Changes(resources, "", flags)


def _without_counterpart(changes: Changes) -> Unenforced:
    """Return the requested limits that cgroup v2 has no counterpart for."""
    unenforced = Unenforced()
    for name in limits.without_counterpart(changes.resources):
        unenforced.add(changes.named(name), "it is deprecated, and cgroup v2 has nothing of the kind", "leave it out")
    return unenforced


def _complete(changes: Changes, group: Group) -> None:
    """Complete a change from the cgroup, where a file's line holds a second, unchanged value."""
    cpu = changes.resources.get("cpu") or {}
    quota, _, period = group.read("cpu.max").partition(" ")
    if cpu.get("period") and not cpu.get("quota") and quota.isdecimal():
        cpu["quota"] = int(quota)
        changes.flags.setdefault("cpu.quota", changes.flags.get("cpu.period", "cpu.period"))
    elif cpu.get("quota") and not cpu.get("period") and period.strip().isdecimal():
        cpu["period"] = int(period)
    block_io = changes.resources.get("blockIO") or {}
    if block_io.get("weight"):
        # BFQ drops the weights of devices with every new default weight
        block_io["weightDevice"] = [*_weights_of_devices(group), *(block_io.get("weightDevice") or ())]
    memory = changes.resources.get("memory") or {}
    limit = group.read("memory.max").strip()
    if (memory.get("swap") or 0) > 0 and not memory.get("limit") and limit.isdecimal():
        memory["limit"] = int(limit)


def _weights_of_devices(group: Group) -> list[dict[str, int]]:
    """Return the weights of single devices in io.bfq.weight, in the form of blockIO.weightDevice."""
    found = []
    for line in group.read("io.bfq.weight").splitlines():
        device, _, weight = line.partition(" ")
        major, colon, minor = device.partition(":")
        if colon:
            found.append({"major": int(major), "minor": int(minor), "weight": int(weight)})
    return found


def _check_memory(changes: Changes, group: Group) -> None:
    """Refuse limits below the present usage, if memory.checkBeforeUpdate asks for that.

    Raises:
        RootlessError: `RL-RESOURCES`.
    """
    memory = changes.resources.get("memory") or {}
    if not memory.get("checkBeforeUpdate"):
        return
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    for name, most, file in (("limit", limit, "memory.current"), ("swap", swap - limit, "memory.swap.current")):
        used = group.read(file).strip()
        if limit > 0 and memory.get(name, 0) > 0 and used.isdecimal() and int(used) > most:
            raise changes.placed(
                RootlessError(
                    "cannot limit memory",
                    cause=f"{used} bytes are in use, more than the new limit of {most}",
                    where=f"memory.{name}",
                    fix="ask for more, or leave out checkBeforeUpdate: then memory is taken away from the container",
                    code="RL-RESOURCES",
                )
            )


def _number(text: str, flag: str) -> int:
    """Return a whole number, such as ``-1`` or ``512m``."""
    digits = text.lower().removesuffix("ib").removesuffix("b")
    factor = 1
    if digits[-1:] in _SIZES and digits[-1:]:
        factor = 1024 ** _SIZES.index(digits[-1])
        digits = digits[:-1]
    if not (digits.removeprefix("-").isdecimal() and digits.isascii()):
        raise RootlessError(
            f"{flag} {text}",
            cause="it is not a number",
            fix="write a whole number, of bytes also with a unit: 512m",
            code="RL-RESOURCES",
        )
    return int(digits) * factor


def _read(path: str, document: str) -> dict[str, Any]:
    """Return the resources in a file, checked."""
    from rootless.bundle.check import check_resources
    from rootless.jsontext import parse

    try:
        with open(0 if path == _STANDARD_INPUT else path, "rb", buffering=0, closefd=path != _STANDARD_INPUT) as file:
            text = file.readall()
    except OSError as error:
        raise RootlessError(
            f"--resources: cannot read {document}",
            cause=(error.strerror or "").lower(),
            fix="name a file that holds what a config.json has as linux.resources",
            code="RL-RESOURCES",
        ) from None
    resources = parse(text, document)
    try:
        check_resources(resources)
    except RootlessError as error:
        error.document = document
        error.where = error.where.removeprefix("resources").lstrip(".")
        raise
    return resources if isinstance(resources, dict) else {}
