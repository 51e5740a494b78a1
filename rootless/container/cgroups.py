"""What verbs do with the cgroup of a container: pause, resume, update."""

from __future__ import annotations

from rootless import log
from rootless.cgroup.group import Group
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED, RUNNING, allow, status
from rootless.container.verbs import existing_state
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.options import Options
    from rootless.plan.cgroup.limits import Setting
    from rootless.plan.cgroup.manager import Unenforced


def pause(options: Options) -> None:
    """Let all processes of a container stand still."""
    with _cgroup_for(options, "pause")[0] as group:
        group.freeze()


def resume(options: Options) -> None:
    """Let the processes of a paused container go on."""
    with _cgroup_for(options, "resume")[0] as group:
        group.thaw()


def update(options: Options) -> None:
    """Change limits of a container."""
    from rootless.container import update

    changes = update.asked(options)
    group, state = _cgroup_for(options, "update")
    with group:
        update.complete(changes, group)
        settings = changes.settings()
        update.check_memory(changes, group)
        unenforced = update.without_counterpart(changes)
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
    """Say that rules for devices stay: engines send them along with other limits; hooks may have allowed more."""
    with store.find(store.state_root(options.root), options.container) as entry:
        resources = (entry.read_config().get("linux") or {}).get("resources") or {}
    if rules != resources.get("devices"):
        log.warning("rules for devices stay as they were when the container was created", fix="create it again")


def _change(
    group: Group, state: dict[str, Any], settings: list[Setting], unenforced: Unenforced, *, required: bool
) -> None:
    """Change limits of a cgroup that is there; `unenforced` gets what is not enforced."""
    from rootless.cgroup.make import missing_in, write
    from rootless.plan.cgroup.manager import Unenforced

    is_scope = "unit" in state
    missing = missing_in(group, settings, ours=is_scope)
    if missing and not is_scope:
        missing = _enable(group, set(missing))
    write(group, [setting for setting in settings if setting.controller in missing], missing, unenforced)
    if unenforced and required:
        raise unenforced.error(where="")
    before = [(setting.file, group.read(setting.file)) for setting in settings]
    possible = [setting for setting in settings if setting.controller not in missing]
    try:
        if is_scope:
            from rootless.cgroup import systemd

            # the kernel has its say first: what systemd has been asked for stays
            write(group, possible, {}, Unenforced())
            systemd.change_scope(state["unit"], state["userManager"], settings)
        write(group, possible, {}, unenforced)
    except RootlessError:
        _restore(group, before)
        raise


def _restore(group: Group, before: list[tuple[str, str]]) -> None:
    """Write back what files said before a change that went wrong half way, as far as the kernel takes it."""
    for file, text in reversed(before):
        for line in text.splitlines():
            try:
                group.write(file, line)
            except OSError:
                continue


def _enable(group: Group, controllers: set[str]) -> dict[str, tuple[str, str]]:
    """Enable controllers for a cgroup that was made without; return those that cannot be had, and why."""
    from rootless import paths
    from rootless.cgroup.make import enable
    from rootless.host import delegation

    there = delegation.read()
    parent = paths.parent(group.path)
    if there.base and f"{parent}/".startswith(f"{there.base}/"):
        return enable(controllers, there.top, parent, there.base)
    return enable(controllers, parent, parent, "")


def _cgroup_for(options: Options, verb: str) -> tuple[Group, dict[str, Any]]:
    """Return the cgroup of a container that `verb` may meet in its state, and that state.

    Raises:
        RootlessError: `RL-STATUS`: not now; `RL-CGROUP`: it has no cgroup of its own.
    """
    with store.find(store.state_root(options.root), options.container) as entry:
        state = existing_state(entry)
        now = status(entry, state)
        if now in (CREATED, RUNNING) and "cgroup" not in state:
            group_of(state, f"{verb} container {entry.container_id}")  # says why there is none
        allow(verb, entry.container_id, now)
        return group_of(state, f"{verb} container {entry.container_id}"), state


def group_of(state: dict[str, Any], what: str) -> Group:
    """Return the cgroup of a container; `what` is to be done begins the sentence about there being none.

    Raises:
        RootlessError: `RL-CGROUP`: it has none of its own.
    """
    if "cgroup" not in state:
        from rootless.host import delegation

        there = delegation.read()
        raise RootlessError(
            what,
            cause="it has no cgroup of its own" + ("" if there.base else f": {there.obstacle}"),
            fix=there.fix or "create it again where a cgroup is delegated to you",
            code="RL-CGROUP",
        )
    try:
        return Group(state["cgroup"])
    except OSError as error:
        raise RootlessError(
            what,
            cause=f"its cgroup {state['cgroup']}: {(error.strerror or '').lower()}",
            fix="look whether /sys/fs/cgroup shows the same here as where it was created",
            code="RL-CGROUP",
        ) from None
