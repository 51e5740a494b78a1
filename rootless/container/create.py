"""From a bundle to a container that waits for its start: the verb `create`, and the first half of `run`."""

from __future__ import annotations

from rootless import files, log, paths, signals
from rootless.bundle.load import Bundle, load
from rootless.container.operations.container_run import ContainerRun
from rootless.container.request import cache_key_of, request_for, resolve_network
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.launch.protocol import Descriptors
from rootless.lazy import lazy
from rootless.options import EDITS, has_edits
from rootless.plan import ops
from rootless.plan.compile import compile_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.container.cached_plan import keep as cache_plan
    from rootless.container.edits.apply import edit, name_flag, name_flags
    from rootless.container.edits.from_image import image_bundle, use_directory
    from rootless.container.edits.mpi import prepare_rank
    from rootless.container.edits.slurm import task_options
    from rootless.container.operations.teardown import give_up
    from rootless.container.replay import read_plan
    from rootless.container.state.root import StateRoot
    from rootless.options import Options
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request
else:
    cache_plan = lazy("rootless.container.cached_plan", "keep")
    edit = lazy("rootless.container.edits.apply", "edit")
    name_flag = lazy("rootless.container.edits.apply", "name_flag")
    name_flags = lazy("rootless.container.edits.apply", "name_flags")
    image_bundle = lazy("rootless.container.edits.from_image", "image_bundle")
    use_directory = lazy("rootless.container.edits.from_image", "use_directory")
    prepare_rank = lazy("rootless.container.edits.mpi", "prepare_rank")
    task_options = lazy("rootless.container.edits.slurm", "task_options")
    give_up = lazy("rootless.container.operations.teardown", "give_up")
    read_plan = lazy("rootless.container.replay", "read_plan")


CACHED = {
    "add_host", "bundle", "cgroup_manager", "config", "container", "debug", "detach", "dns", "dns_search", "init",
    "log", "log_format", "log_level", "name", "network", "no_new_keyring", "no_pivot", "overlay", "pid_file",
    "platform", "pull", "require_limits", "root", "store", "systemd_cgroup", "userns", "verb", *EDITS - {"join"},
}  # fmt: skip
"""The options of commands whose Plans may be cached."""
_UNCACHED = (
    ops.ATTACH_DEVICE_RULES, ops.AWAIT_NETWORK, ops.CONNECT_CONSOLE, ops.HOOK, ops.MONITOR, ops.OPEN_UPPER,
    ops.RUN_HOOK, ops.START_SCOPE,
)  # fmt: skip
"""Usual operations because of which a Plan is not cached."""
_OF_RANKS = ("PMIX_NAMESPACE", "PMI_FD")
"""Variables; one of them is in the environment of each rank of an MPI program."""


def plan_for(options: Options) -> tuple[Request, Plan, StateRoot]:
    """Read the bundle or image and the host, and compile the Plan; open the state directory.

    Nothing is changed, but an image that is missing is pulled, and unpacked if the host cannot serve images.

    Raises:
        RootlessError: the bundle or image is wrong, or cannot be run here.
    """
    if options.slurm:
        options = task_options(options)
    request = request_for(options)
    edited = bool(request.image) or has_edits(options)
    if options.plan:
        if edited:
            cause = "the plan is complete: COMMAND and flags that edit config.json would change nothing"
            fix = "give them to explain --json, which writes the plan"
            raise RootlessError(f"--plan {options.plan}", cause=cause, fix=fix, code="RL-USAGE")
        return request, read_plan(options.plan, request.container), state_root(options.root)
    if request.image:
        root = state_root(options.root)
        bundle = image_bundle(request, options, f"{root.path}/{request.container}")
    else:
        bundle = load(request.bundle, request.config)
        if edited:
            bundle = edit(bundle, request, options)
        root = state_root(options.root)  # after the errors of a bundle
    if request.verb != "create" and (request.join or _may_be_rank(bundle)):
        bundle = prepare_rank(bundle, request)
    found = facts.read()
    if bundle.is_image and not found.squashfuse:
        use_directory(bundle, request, options.store, root.path)
    resolve_network(request, root)
    if not edited:
        return request, compile_plan(bundle, found, request), root
    try:
        return request, name_flags(compile_plan(bundle, found, request), request.places), root
    except RootlessError as error:
        raise name_flag(error, request.places) from None


def _may_be_rank(bundle: Bundle) -> bool:
    """Whether a process manager of MPI has started this process, or config.json has its variables."""
    entries = (bundle.config.get("process") or {}).get("env") or ()
    return any(paths.variable(name) for name in _OF_RANKS) or any(entry.startswith(_OF_RANKS) for entry in entries)


def may_be_cached(plan: Plan, reads: Sequence[tuple[object, ...]]) -> bool:
    """Whether a Plan and what planning has read may be cached; else cached_plan.py, which knows it, is not loaded."""
    return not plan.first(*_UNCACHED) and all(read[0] != paths.UNKNOWN for read in reads)


def create(options: Options) -> None:
    """Make a container that waits for `start`; its process stays when this one ends."""
    cache_key = cache_key_of(options, CACHED)
    if cache_key:
        paths.note_reads()
    request, plan, root = plan_for(options)
    reads = paths.taken_reads()
    run = ContainerRun(plan, root, Descriptors(keep=request.preserve_fds))
    try:
        run.until(ops.WAIT_START)
        if cache_key and may_be_cached(plan, reads):
            cache_plan(run, cache_key, reads, log.said(), leaves=True)
        run.close()
        signals.commit()
    except BaseException as error:
        files.close_fds(run.descriptors, "start")  # if descriptors have run out, the import of give_up() needs one
        give_up(run, error)
        raise
    run.entry.close()
