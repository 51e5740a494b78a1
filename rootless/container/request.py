"""From the command line to the Request of a Plan: the only place that fills in defaults and resolves names."""

from __future__ import annotations

import fcntl
import posix
import sys

from rootless import log, paths
from rootless.container.state import store
from rootless.errors import RootlessError
from rootless.files import HIGHEST_FD, is_inherited
from rootless.lazy import lazy
from rootless.plan.request import AUTO, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.edits.ranks import check_key, name_of_rank
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.image.named import name_for as image_name
    from rootless.image.named import names_image
    from rootless.options import Options
else:
    check_key = lazy("rootless.container.edits.ranks", "check_key")
    name_of_rank = lazy("rootless.container.edits.ranks", "name_of_rank")
    image_name = lazy("rootless.image.named", "name_for")
    names_image = lazy("rootless.image.named", "names_image")

_EXPLAINED = "CONTAINER-ID"
"""The id in a Plan that is shown; `run --plan` replaces it by its own."""
_LOG_SIZE = 10_000_000
"""Bytes of output that are kept of a container that runs detached."""
_USERNS = ("", "keep-id", "root", "single", "systemd")
_TOKEN = 8
"""Bytes that nobody guesses."""


def request_for(options: Options) -> Request:
    """Return the Request of `create`, `run` and `explain`; resolve_network() completes it.

    It comes first: files that this process opens must not get the numbers of descriptors that the caller passes on.

    Raises:
        RootlessError: a value is wrong.
    """
    request = Request(options)
    by_person = request.verb == "explain"
    if by_person:
        if request.bundle and not request.config and _is_image(request.bundle, options):
            request.bundle, request.image = "", request.bundle
        request.container = request.container or _EXPLAINED
        request.network = request.network or AUTO
    elif request.verb == "run" and not options.plan:
        by_person = choose_bundle(request, options)
        if options.name:
            _choose_name(request, options, is_id=not by_person)
    if by_person:
        request.asked = {"options": dict(vars(options)), "directory": posix.getcwd()}
    request.monitored = request.detach and (by_person or request.timeout > 0)
    request.attended = request.verb in ("run", "explain") and not request.detach
    request.log_size = _LOG_SIZE if by_person and request.detach and not request.console_socket else 0
    if ":" in request.userns or request.userns not in _USERNS:
        _choose_kept_ids(request)
    if request.publish or request.add_host or request.dns or request.dns_search:
        request.network = request.network or AUTO
    if request.overlay and request.overlay != "memory":
        request.overlay = paths.absolute(request.overlay)
    request.join = check_key(options.join) if options.join else ""
    store.check_id(request.container)
    _take_descriptors(request, options.preserve_fds)
    request.seccomp_receiver = paths.variable("RUN_OCI_SECCOMP_RECEIVER")
    request.keyring = f"_ses.{request.container}.{posix.urandom(_TOKEN).hex()}"
    return request


def _take_descriptors(request: Request, count: int) -> None:
    """Take those of the caller's service manager, `count` more, and with `run` that of an MPI rank (edits/mpi.py)."""
    from_manager = 0
    if paths.variable("LISTEN_FDS") or paths.variable("NOTIFY_SOCKET"):
        from_manager = adopt_systemd_env(request)
    request.preserve_fds = preserve_descriptors(from_manager + count)
    if request.verb == "run" and (paths.variable("PMI_FD") or paths.variable("SLURM_MPI_TYPE")):
        reserve_numbers()


def restore_request(options: Options) -> Request:
    """Return the Request of `restore`: criu makes the processes, and keeps their descriptors, keyring and network.

    Raises:
        RootlessError: `RL-ID`: the id is not one.
    """
    store.check_id(options.container)
    return Request(options)


def exec_request(options: Options, state: State, preserve_fds: int) -> Request:
    """Return the Request of `exec`.

    Args:
        options: the caller's.
        state: the container's.
        preserve_fds: what preserve_descriptors() returned, which comes before anything is opened.
    """
    request = Request(options)
    request.preserve_fds = preserve_fds
    request.fake_chown = state.fake_chown
    request.no_new_keyring = not state.keyring
    request.keyring = state.keyring_name
    request.seccomp_receiver = paths.variable("RUN_OCI_SECCOMP_RECEIVER")
    return request


def cache_key_of(options: Options, known: set[str]) -> str:
    """Return the key by which the front door will find the Plan of this command; empty if it shall not be cached.

    `known` are the options that it may have. Only `create` may have a log, which is written when it ends.
    """
    started = sys._xoptions  # noqa: SLF001 - the only way to the interpreter's own options
    asked = {name for name, value in vars(options).items() if value}
    is_logged = log.is_plain() or (options.verb == "create" and log.waits())
    return str(started.get("cache", "")) if asked <= known and is_logged else ""


def copy_request(options: Options) -> Request:
    """Return the Request of `cp`: of a process that executes no program."""
    return Request(options)


def choose_bundle(request: Request, options: Options) -> bool:
    """Decide whether the word of `run` names a bundle, an image or a container, and set these attributes accordingly.

    It is the container's id, as for runc, with --bundle or --config or a config.json in the current directory;
    otherwise it is a directory that holds config.json, and the container is named after it. A word that cannot be an
    id is always a directory or an image. A caller who names one gets a network that works; an engine makes that itself.

    Returns whether it is one: a person calls, and a detached container's output is kept.

    Raises:
        RootlessError: it is neither.
    """
    word = request.container
    if request.bundle or request.config:
        return False
    is_name = "/" not in word and word not in ("", ".", "..")
    if is_name and not {":", "@"}.intersection(word) and paths.exists("config.json"):
        return False
    request.network = request.network or AUTO
    if _is_image(word, options):
        request.image = word
        request.container = _name_of_one(image_name(word))
        return True
    if is_name and not paths.exists(paths.join(word, "config.json")):
        raise RootlessError(
            "run " + word,
            cause=f"no such file or directory: {word}/config.json, and there is no config.json here",
            fix=f"rootless new {word} makes a bundle; rootless run docker://{word} runs an image; "
            f"--bundle DIR says where the bundle of container {word} is",
            code="RL-BUNDLE",
        )
    request.bundle = word
    name = paths.name(paths.resolved(word))
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_+-.") else "_" for c in name) or "_"
    request.container = _name_of_one(name)
    return True


def _name_of_one(name: str) -> str:
    """Return the name of a container: that of its image or bundle, with numbers if this is one of several MPI ranks."""
    return name_of_rank(name) if paths.variable("PMIX_RANK") or paths.variable("PMI_RANK") else name


def _is_image(word: str, options: Options) -> bool:
    """Whether a word that may name a bundle names an image."""
    return not paths.exists(paths.join(word, "config.json")) and names_image(
        word, platform=options.platform, store=options.store
    )


def _choose_name(request: Request, options: Options, *, is_id: bool) -> None:
    """Take the container's id from --name, unless the word of the command line is one already (`is_id`).

    Raises:
        RootlessError: `RL-USAGE`: both name the container.
    """
    if is_id and request.container != options.name:
        raise RootlessError(
            f"--name {options.name}",
            cause=f"the container is already named {request.container}: the bundle is another word or this directory",
            fix="leave out --name, or name the bundle instead of the container",
            code="RL-USAGE",
        )
    request.container = options.name


def _choose_kept_ids(request: Request) -> None:
    """Split --userns keep-id:uid=N,gid=N.

    Raises:
        RootlessError: `RL-USAGE`: it is something else.
    """
    from rootless.bundle.schema import HIGHEST_ID
    from rootless.plan.idmaps import id_number

    mode, _, rest = request.userns.partition(":")
    ids = {"uid": -1, "gid": -1}
    for word in rest.split(","):
        name, _, text = word.partition("=")
        number = id_number(text)
        if mode != "keep-id" or name not in ids or not 0 <= number <= HIGHEST_ID:
            cause = f"{word!r} is neither uid=N nor gid=N" if mode == "keep-id" else "there is no such user namespace"
            raise RootlessError(
                f"--userns {request.userns}",
                cause=cause,
                fix="write keep-id, keep-id:uid=N,gid=N, root, single or systemd",
                code="RL-USAGE",
            )
        ids[name] = number
    request.userns, request.kept_ids = mode, (ids["uid"], ids["gid"])


def resolve_network(request: Request, root: StateRoot) -> None:
    """Look up the container or network that --network names, if it names one.

    Raises:
        RootlessError: `RL-NETWORK`: there is no such container or network, or it does not run.
    """
    if not request.network:
        return
    from rootless.plan.network.helpers import PASTA, SLIRP
    from rootless.plan.network.mode import CONTAINER, HOST, NONE

    kind, _, rest = request.network.partition(":")
    request.network_files = f"{root.path}/{request.container}"
    if kind == CONTAINER:
        _join_network_of(rest, request, root)
    elif kind not in (AUTO, NONE, HOST, PASTA, SLIRP):
        from rootless.container.network import registry

        request.shared = registry.find(request.network)


def _join_network_of(container_id: str, request: Request, root: StateRoot) -> None:
    from rootless.container.state.lifecycle import RUNNING, status
    from rootless.container.state.processes import has_ended
    from rootless.host import running
    from rootless.plan.network.mode import NONE

    with store.find(root, container_id, lock=False) as entry:
        state = entry.read()
        if state is None or status(entry, state) != RUNNING or (first := state.open_process()) < 0:
            raise _not_running(request)
        try:
            request.peer = running.read(state.pid)
            if has_ended(first):  # then it seems to have no namespaces: the new one would get those of the caller
                raise _not_running(request)
        finally:
            posix.close(first)
        its_network = state.network
        if its_network and its_network.files:
            request.network_files = entry.path
        elif its_network and its_network.mode == NONE:
            request.network_files = ""


def _not_running(request: Request) -> RootlessError:
    return RootlessError(
        f"--network {request.network}",
        cause="container not running",
        fix="start it first",
        code="RL-NETWORK",
    )


def adopt_systemd_env(request: Request) -> int:
    """Pass the sockets of the caller's service manager to the container, as runc does.

    Returns how many descriptors it passed, from 3 on: they come before those of --preserve-fds. They are meant for this
    process only if LISTEN_PID names it (sd_listen_fds(3)).

    Raises:
        RootlessError: `RL-DESCRIPTORS`: LISTEN_FDS is not a number, or counts a descriptor that is closed.
    """
    environment = []
    passed = 0
    count = paths.variable("LISTEN_FDS").lstrip("0")
    if count and paths.variable("LISTEN_PID") == str(posix.getpid()):
        if not count.isascii() or not count.isdigit():
            raise RootlessError(
                f"LISTEN_FDS={count}",
                cause="it is not a number",
                fix="unset LISTEN_FDS, or set it to the number of descriptors that are passed",
                code="RL-DESCRIPTORS",
            )
        passed = int(count)
        closed = next((fd for fd in range(3, 3 + passed) if not is_inherited(fd)), 0)
        if closed:
            raise RootlessError(
                f"LISTEN_FDS={count}",
                cause=f"descriptor {closed} is not open",
                fix="open it before, or set LISTEN_FDS to a smaller number",
                code="RL-DESCRIPTORS",
            )
        environment += [f"LISTEN_FDS={count}", "LISTEN_PID=1"]
        names = paths.variable("LISTEN_FDNAMES")
        environment += [f"LISTEN_FDNAMES={names}"] if names else []
    if paths.variable("NOTIFY_SOCKET"):
        from rootless.plan.process.sd_notify import SOCKET

        request.notify = True
        environment.append(f"NOTIFY_SOCKET={SOCKET}")
    request.environment = tuple(environment)
    return passed


def preserve_descriptors(count: int) -> int:
    """Pass on the descriptors from 3 to 2 + `count` that the caller has opened, and return how many to keep.

    Closed descriptors stay closed, as with runc and crun: podman passes only the number of the last one.
    Files that this process opens later must not get their numbers, because the executor keeps those numbers open.

    Raises:
        RootlessError: `RL-DESCRIPTORS`: none of them is open.
    """
    if not count:
        return 0
    paths.noted(paths.UNKNOWN, "descriptors")
    requested = range(3, 3 + count)
    given = [fd for fd in map(int, posix.listdir("/proc/self/fd")) if fd in requested and is_inherited(fd)]
    if not given:
        raise RootlessError(
            f"--preserve-fds {count}",
            cause="descriptor 3 is not open" if count == 1 else f"descriptors 3 to {2 + count} are not open",
            fix="open one of them before, or leave the flag out",
            code="RL-DESCRIPTORS",
        )
    last = max(given)
    for fd in given:
        fcntl.fcntl(fd, fcntl.F_SETFD, 0)
    for hole in {*range(3, last)}.difference(given):
        fcntl.fcntl(last, fcntl.F_DUPFD_CLOEXEC, hole)
    return last - 2


def reserve_numbers() -> None:
    """Occupy the free numbers below the caller's descriptors.

    A rank may need one of these (PMI_FD), which config.json tells. The executor keeps the numbers up to that one open,
    so that no file that this process opens before may get one.
    """
    paths.noted(paths.UNKNOWN, "descriptors")
    inherited = {fd for fd in map(int, posix.listdir("/proc/self/fd")) if fd > 2 and is_inherited(fd)}  # noqa: PLR2004
    last = max(inherited, default=0)
    holes = {*range(3, last)}.difference(inherited) if last <= HIGHEST_FD else ()
    if holes:
        filling = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
        for hole in holes:
            fcntl.fcntl(filling, fcntl.F_DUPFD_CLOEXEC, hole)
        posix.close(filling)
