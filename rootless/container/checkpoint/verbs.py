"""Checkpoint and restore: criu(8) does it, and needs root for it.

    IMAGES/*.img            criu's
    IMAGES/rootless.json    which of criu's resources the container's standard streams are
    WORK/dump.log, …        what criu did

What is decided here is what belongs to the container and what has to be there again from outside.

Images are processes with any rights, and criu's configuration can name programs that it runs as root. So both come from
root alone: neither from a directory that another user can write to, nor from the caller's environment (PATH excepted),
nor from the container's image. Everything else about a restored container comes from its bundle.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cached_property

from rootless import files, log
from rootless.container.operations.cgroup import start_scope
from rootless.container.operations.container_run import ContainerRun
from rootless.container.operations.teardown import destroy, give_up, remove_ended
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED, PAUSED, allow, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rootless.container.checkpoint.criu_messages import Fields, Service
    from rootless.options import Options
    from rootless.plan.ops import Op

    Pairs = tuple[tuple[str, str], ...]

_IMAGES = "checkpoint"
_OURS = "rootless.json"
_PID_FILE = "criu.pid"
_STREAMS = 3
_NETWORK = "extNetwork"
"""criu's name for a network namespace that is not the container's own."""
_NETWORK_FD = 3
_CRIU_ANNOTATION = "org.criu.config"
"""A file with more options for criu; as for runc."""
_ANNOTATION_PLACE = f"annotations.{_CRIU_ANNOTATION}"
_ADMINISTRATORS_OWN = "/etc/"
_ADMINISTRATORS = ("/etc/criu/crun.conf", "/etc/criu/runc.conf")
"""What is read where there is no annotation: the first that is there, as with crun; runc reads the second."""
_DEFAULT = "/etc/criu/default.conf"
"""One of the two files that criu reads unasked; the other lies in the home that the environment names."""
_OTHERS_WRITE = 0o022

_SWITCHES = (
    # attribute of Options, option of criu
    ("tcp_established", "--tcp-established"),
    ("ext_unix_sk", "--ext-unix-sk"),
    ("shell_job", "--shell-job"),
    ("file_locks", "--file-locks"),
    ("auto_dedup", "--auto-dedup"),
)
_DUMP_SWITCHES = (
    ("tcp_skip_in_flight", "--skip-in-flight"),
    ("link_remap", "--link-remap"),
    ("leave_running", "--leave-running"),
)
_RESTORE_SWITCHES = (("tcp_close", "--tcp-close"),)
_VALUES = (("network_lock", "--network-lock"), ("lsm_profile", "--lsm-profile"))
_RESTORE_VALUES = (("lsm_mount_context", "--lsm-mount-context"),)


def obstacle(program: str) -> RootlessError | None:
    """Return why nothing can be checkpointed or restored here, or None.

    Args:
        program: the criu that the caller named, or nothing.
    """
    from shutil import which

    from rootless.host import facts

    caller = facts.read()
    if not caller.privileged or caller.nested:
        cause = f"criu needs root on the host, and you are {caller.user}"
        return RootlessError("cannot checkpoint or restore", cause=cause, fix="run it as root", code="RL-CRIU")
    if not which(program or "criu"):
        return RootlessError(
            "cannot checkpoint or restore",
            cause=f"executable file not found in $PATH: {program or 'criu'}",
            fix="install criu (Debian: apt install criu; Fedora: dnf install criu), or name it with --criu",
            code="RL-CRIU",
        )
    return None


def checkpoint(options: Options) -> None:
    """Write the state of a container's processes to disk; unless they are to run on, the container goes."""
    with store.find(state_root(options.root), options.container) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        allow("checkpoint", entry.container_id, CREATED if now == PAUSED and entry.has_socket() else now)
        config = entry.read_config()
        criu = _Criu(options, state.rootfs, state.annotations)
        criu.make_directories()
        streams = _streams(state.pid)
        words = ["pre-dump" if options.pre_dump else "dump", "--tree", str(state.pid)]
        if now == PAUSED:
            # criu cannot stop what is frozen: it thaws the cgroup once it has seized the processes, and freezes those
            # that run on again
            words += ["--freeze-cgroup", state.cgroup]
        for stream in streams:
            words += ["--external", stream] if stream.startswith("file[") else []
        if network := _joined_network(config):
            words += ["--external", f"net[{os.stat(network).st_ino}]:{_NETWORK}"]
        if options.parent_path:
            words += ["--prev-images-dir", options.parent_path]
        if options.parent_path or options.pre_dump:
            words.append("--track-mem")
        words += _page_server(options.page_server) if options.page_server else []
        words += _chosen(options, _DUMP_SWITCHES)
        if not options.pre_dump:
            criu.check_directories()
            criu.note(streams)  # before anything ends: without it the images are of no use
        try:
            if config["process"].get("terminal") and not options.pre_dump:
                criu.run_as_service(words, state.pid)
            else:
                criu.run(words)
        except BaseException:
            criu.forget()
            raise
        if not (options.pre_dump or options.leave_running):
            destroy(entry, state)


def _page_server(place: str) -> list[str]:
    """Return criu's options for ADDRESS:PORT."""
    address, _, port = place.rpartition(":")
    if not (address and port.isascii() and port.isdecimal()):
        raise RootlessError(
            f"--page-server {place}", cause="that is no address with a port", fix="write ADDRESS:PORT", code="RL-CRIU"
        )
    return ["--page-server", "--address", address.strip("[]"), "--port", port]


def restore(options: Options) -> int:
    """Make a container from a checkpoint; unless detached, wait for its end and return its exit status."""
    from rootless.bundle.load import load
    from rootless.container.request import restore_request
    from rootless.container.terminal.console import Console
    from rootless.container.terminal.relay import catch_signals, wait_foreground
    from rootless.host import facts
    from rootless.plan.compile import compile_plan

    request = restore_request(options)
    bundle = load(request.bundle)
    plan = compile_plan(bundle, facts.read(), request)
    network = _joined_network(bundle.config)
    if network:
        _open_network(network)
    terminal = _Terminal(options, _NETWORK_FD + bool(network)) if plan.has_terminal or options.console_socket else None
    criu = _Criu(options, bundle.rootfs, bundle.config.get("annotations") or {})
    streams = criu.noted()
    skipped = [kind for kind, hooks in (bundle.config.get("hooks") or {}).items() if hooks and kind != "poststop"]
    if skipped:
        log.warning(f"hooks are not run again when a container is restored: {', '.join(skipped)}", where="hooks")
    root = state_root(options.root)
    run = ContainerRun(plan, root, Descriptors())
    try:
        wakeup = -1 if options.detach else catch_signals()
        run.only(ops.CLAIM)
        managed = options.manage_cgroups_mode in ("", "ignore")  # else those that the images name become the processes'
        _restore(options, run, criu, streams, terminal, network=network, cgroup=managed)
    except BaseException as error:
        give_up(run, error)
        raise
    run.entry.close()
    if options.detach:
        return 0
    try:
        return wait_foreground(run.pid, terminal.console if terminal else Console(), wakeup)
    finally:
        remove_ended(root, options.container)


def _restore(
    options: Options,
    run: ContainerRun,
    criu: _Criu,
    streams: list[str],
    terminal: _Terminal | None,
    *,
    network: str,
    cgroup: bool,
) -> None:
    """Let criu make the processes of a container; everything else about it is what its bundle says."""
    pid_file = f"{run.entry.place}/{_PID_FILE}"
    words = ["restore", "--restore-detached", "--restore-sibling", "--pidfile", pid_file]
    for number, stream in enumerate(streams):
        words += ["--inherit-fd", f"fd[{number}]:{stream}"] if stream else []
    if network:
        words += ["--inherit-fd", f"fd[{_NETWORK_FD}]:{_NETWORK}"]
    words += _chosen(options, _RESTORE_SWITCHES, _RESTORE_VALUES)
    if cgroup:
        run.only(ops.MAKE_CGROUP)
    scope = run.plan.first(ops.START_SCOPE) if cgroup else None
    criu.run_on_root(words, terminal, run, scope, keep=bool(network) + bool(terminal))
    run.pid = int(run.entry.content(_PID_FILE))
    if cgroup:
        run.only(ops.ATTACH_DEVICE_RULES)
    if terminal:
        terminal.pass_on()
    run.only(ops.RECORD)
    run.only(ops.RECORD_CREATED)
    run.only(ops.WRITE_PID_FILE)


def _open_network(path: str) -> None:
    """Open a network namespace as the descriptor that criu gets, before another file can take its number."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        cause = (error.strerror or "").lower()
        fix = "make the namespace that config.json names"
        raise RootlessError(
            f"cannot open {path}", cause=cause, where="linux.namespaces", fix=fix, code="RL-CRIU"
        ) from None
    if fd != _NETWORK_FD:
        os.dup2(fd, _NETWORK_FD)
        os.close(fd)
    os.set_inheritable(_NETWORK_FD, True)  # noqa: FBT003 - the signature of the standard library


class _Terminal:
    """The terminal of a container that is restored: criu makes it and gives up its other side.

    Attributes:
        service: the criu that does it.
        console: what relays it, where it does not go to the caller's socket.
    """

    def __init__(self, options: Options, number: int) -> None:
        """Connect; `number` is the descriptor of criu's end.

        Raises:
            RootlessError: `RL-CONSOLE`, as for `create` and `run`.
        """
        from rootless.container.checkpoint.criu_messages import Service
        from rootless.container.terminal.console import Console, connect

        self.service = Service(number)
        self.console = Console()
        passed = options.console_socket or options.detach
        self._connection = connect(options.console_socket) if passed else -1

    def pass_on(self) -> None:
        """Send its other side over the caller's socket, or keep it for the relay."""
        import socket

        if self._connection < 0:
            self.console.master, self.service.master = self.service.master, -1
            return
        with socket.socket(fileno=self._connection) as connection:
            socket.send_fds(connection, [b"/dev/ptmx"], [self.service.master])
        files.close_fds(self.service, "master")


class _Criu:
    """The criu program, with the directories that it works in."""

    def __init__(self, options: Options, rootfs: str, annotations: Mapping[str, str]) -> None:
        """Look whether it can be used.

        Args:
            options: what the caller asked.
            rootfs: the container's root.
            annotations: those of config.json.

        Raises:
            RootlessError: `RL-CRIU`.
        """
        from shutil import which

        problem = obstacle(options.criu)
        if problem:
            raise problem
        self._program = which(options.criu or "criu") or ""
        self._rootfs = rootfs
        self._images = os.path.abspath(options.image_path or _IMAGES)
        self._work = os.path.abspath(options.work_path or self._images)
        self._common = [
            # what is bound into the container from outside is found again at the same place
            *("--external", "mnt[]:sm"),
            f"--manage-cgroups={options.manage_cgroups_mode or 'ignore'}",
            *_chosen(options, _SWITCHES, _VALUES),
        ]
        if options.empty_ns:
            self._common += ["--empty-ns", "net"]
        self._configuration = self._open_configuration(annotations.get(_CRIU_ANNOTATION))

    def make_directories(self) -> None:
        """Make the directories that a checkpoint goes to, where they are not there.

        Raises:
            RootlessError: `RL-CRIU`.
        """
        for directory in (self._images, self._work):
            try:
                files.make_private(directory)
            except OSError as error:
                cause = (error.strerror or "").lower()
                raise self._failed(f"cannot use {directory}", cause, "name another directory") from None

    def run(self, words: list[str]) -> None:
        """Run criu on the host."""
        self._trace(words)
        import subprocess

        command = self._command(words)
        done = subprocess.run(command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self._complain(words[0], done.returncode, done.stderr.decode("utf-8", "replace"))

    def run_as_service(self, words: list[str], pid: int) -> None:
        """Have criu checkpoint the process `pid` and its descendants, one of which has a terminal."""
        self._trace(words)
        import subprocess

        from rootless.container.checkpoint.criu_messages import DUMP, PID, Service

        service = Service()
        with subprocess.Popen(
            [self._program, "swrk", str(service.theirs)],
            env=_service_environment(),
            pass_fds=[service.theirs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            done = service.ask(DUMP, {PID: pid, **self._service_fields(words[0])}, self._service_options(words))
            service.close()
        self._complain(words[0], process.returncode or int(done < 0), "")

    def run_on_root(
        self, words: list[str], terminal: _Terminal | None, run: ContainerRun, scope: Op | None, *, keep: int
    ) -> None:
        """Run criu where the container's root is a mount, which nobody else sees, with our standard streams.

        What it makes is where it is itself: in the container's cgroup, where there is one. It gets the first `keep`
        descriptors after the standard streams.
        """
        from rootless.plan.compile import compile_root_command

        self._trace(words)
        environment = _service_environment() if terminal else _environment()
        command = [self._program, "swrk", str(terminal.service.theirs)] if terminal else self._command(words)
        env = [f"{name}={value}" for name, value in environment.items()]
        plan = compile_root_command(command, env, self._rootfs)
        criu = Run(plan, Descriptors(keep=keep, cgroup=run.descriptors.cgroup))
        criu.until_or_kill(ops.WAIT_START)
        assert criu.executor
        try:
            if scope:
                run.pid = criu.executor.first
                start_scope(run, scope)
            criu.until()
            done = self._ask(terminal.service, words) if terminal else 0
            code = os.waitstatus_to_exitcode(criu.executor.wait_first())
        except BaseException:
            criu.kill()
            raise
        finally:
            run.pid = 0
        criu.close()
        self._complain(words[0], code or int(done < 0), "")

    def _trace(self, words: list[str]) -> None:
        if log.is_debug():
            log.debug(f"run {self._program} {' '.join(words)}; images in {self._images}, log files in {self._work}")

    def _ask(self, service: Service, words: list[str]) -> int:
        from rootless.container.checkpoint.criu_messages import RESTORE

        try:
            return service.ask(RESTORE, self._service_fields(words[0]), self._service_options(words))
        finally:
            service.close()

    def _service_fields(self, verb: str) -> Fields:
        from rootless.container.checkpoint.criu_messages import IMAGES_FD, LOG_FILE, LOG_LEVEL, WORK_FD

        log_file = f"{verb}.log".encode()
        return {IMAGES_FD: self._images_fd, WORK_FD: self._work_fd, LOG_FILE: log_file, LOG_LEVEL: 4}

    def _service_options(self, words: list[str]) -> str:
        from rootless.container.checkpoint.criu_messages import options_text

        configured = ""
        if self._configuration:
            with open(self._configuration, encoding="utf-8", errors="surrogateescape") as file:
                configured = file.read()
        return f"{configured}\n{options_text([*words[1:], *self._common, '--root', self._rootfs])}"

    def note(self, streams: list[str]) -> None:
        """Keep what `restore` needs besides criu's images."""
        from rootless.jsontext import render

        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_OURS, flags, 0o600, dir_fd=self._images_fd)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(render({"streams": streams}, None))

    def check_directories(self) -> None:
        """Open both directories, before anything is written to one.

        Raises:
            RootlessError: `RL-CRIU`: one may come from another user.
        """
        _ = self._images_fd, self._work_fd

    def forget(self) -> None:
        """Remove what note() kept: there is no checkpoint."""
        with suppress(OSError):
            os.unlink(_OURS, dir_fd=self._images_fd)

    def noted(self) -> list[str]:
        """Return what note() kept.

        Raises:
            RootlessError: `RL-CRIU`: this is not a checkpoint.
        """
        from rootless.jsontext import parse

        path = f"{self._images}/{_OURS}"
        try:
            fd = os.open(_OURS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._images_fd)
            with open(fd, "rb") as file:
                found = parse(file.read(), path)
        except OSError as error:
            cause = (error.strerror or "").lower()
            raise self._failed(f"cannot read {path}", cause, "name a directory that checkpoint wrote") from None
        streams = found.get("streams") if isinstance(found, dict) else None
        if not (isinstance(streams, list) and len(streams) == _STREAMS and all(map(_is_stream, streams))):
            cause = "it does not hold the streams of a container"
            raise self._failed(f"cannot use {path}", cause, "name a directory that checkpoint wrote")
        return streams

    @cached_property
    def _images_fd(self) -> int:
        return self._open_directory(self._images)

    @cached_property
    def _work_fd(self) -> int:
        return self._open_directory(self._work)

    def _open_directory(self, directory: str) -> int:
        """Open a directory once; criu gets the descriptor: by its name it may be another one a moment later.

        It may be a symlink of root's, as containerd makes it.
        """
        from rootless.container.state.untrusted import followed

        cause, fd = "", -1
        try:
            path = followed(directory) if os.path.islink(directory) else directory
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            cause = _distrusted(os.fstat(fd))
        except RootlessError as error:
            cause = error.cause
        except OSError as error:
            cause = (error.strerror or "").lower()
        if cause:
            raise self._failed(f"cannot use {directory}", cause, "name a directory that only root can write to")
        return fd

    def _open_configuration(self, annotated: str | None) -> str:
        """Return a path of the file with more options that criu is to read; nothing where there is none.

        Where the annotation is empty, none is read, as with runc.
        """
        if annotated is None:
            return next(filter(os.path.exists, _ADMINISTRATORS), "")
        if not annotated:
            return ""
        fd = -1
        cause = "" if annotated.startswith("/") else "it is not an absolute path"
        if not cause:
            try:
                fd = os.open(annotated, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                found = os.fstat(fd)
                cause = "" if stat.S_ISREG(found.st_mode) else "it is no regular file"
                cause = cause or _distrusted(found) or self._of_image(fd)
            except OSError as error:
                cause = (error.strerror or "").lower()
        if cause:
            raise RootlessError(
                f"cannot use {annotated}",
                cause=cause,
                where=_ANNOTATION_PLACE,
                fix=f"name a file of root's below {_ADMINISTRATORS_OWN}, or remove the annotation",
                code="RL-CRIU",
            )
        return f"/proc/{os.getpid()}/fd/{fd}"

    @staticmethod
    def _of_image(fd: int) -> str:
        """Return what is wrong with an open file that an image may supply; nothing with others.

        Engines unpack the layers of images into directories of root's, and volumes are such directories.
        """
        path = os.readlink(f"/proc/self/fd/{fd}")
        return "" if path.startswith(_ADMINISTRATORS_OWN) else "an image or a volume may supply it"

    def _command(self, words: list[str]) -> list[str]:
        ours = f"/proc/{os.getpid()}/fd"
        command = [
            *(self._program, *words, "-v4", "--no-default-config"),
            *("--images-dir", f"{ours}/{self._images_fd}", "--work-dir", f"{ours}/{self._work_fd}"),
            *(*self._common, "--log-file", f"{words[0]}.log", "--root", self._rootfs),
        ]
        if self._configuration:
            command += ["--config", self._configuration]
        return command

    def _complain(self, verb: str, code: int, said: str) -> None:
        if not code:
            return
        log = f"{self._work}/{verb}.log"
        cause = _first_error(f"/proc/self/fd/{self._work_fd}/{verb}.log") or said.strip() or f"it ended with {code}"
        raise self._failed(f"criu {verb}", cause, f"see {log}")

    @staticmethod
    def _failed(what: str, cause: str, fix: str) -> RootlessError:
        return RootlessError(what, cause=cause, fix=fix, code="RL-CRIU")


def _environment() -> dict[str, str]:
    """Return the environment of criu, and of what it runs as root: the caller's may be another user's, as with sudo."""
    import pwd

    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    return env | ({"CRIU_CONFIG_FILE": _DEFAULT} if os.path.exists(_DEFAULT) else {})


def _service_environment() -> dict[str, str]:
    """Return the environment of a criu that is a service, which no option keeps from reading a home's configuration."""
    return _environment() | {"HOME": "/nonexistent"}


def _distrusted(found: os.stat_result) -> str:
    """Return why what a file or directory holds may come from another user than root; nothing where it cannot."""
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}"
    return "others can write to it" if found.st_mode & _OTHERS_WRITE else ""


def _is_stream(found: object) -> bool:
    """Whether `found` is a name that _streams() gives."""
    import re

    return isinstance(found, str) and bool(re.fullmatch(r"|pipe:\[\d+\]|file\[[0-9a-f]+:[0-9a-f]+\]", found))


def _chosen(options: Options, switches: Pairs, values: Pairs = ()) -> list[str]:
    """Return what the caller asked, in criu's words."""
    words = [word for name, word in switches if getattr(options, name)]
    for name, word in values:
        if text := getattr(options, name):
            words += [word, text]
    return words


def _streams(pid: int) -> list[str]:
    """Return what criu calls each standard stream of a process that comes from outside of the container.

    That is ``pipe:[INODE]``, ``file[MOUNT:INODE]`` for a file in a mount of the host's, and nothing for others.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        own = {line.split(None, 1)[0] for line in file}
    found = []
    for number in range(_STREAMS):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as file:
                mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        except FileNotFoundError:
            found.append("")
            continue
        if target.startswith("pipe:"):
            found.append(target)
        else:
            is_outside = target.startswith("/") and mount not in own
            found.append(f"file[{int(mount):x}:{inode:x}]" if is_outside else "")
    return found


def _joined_network(config: dict[str, Any]) -> str:
    """Return the path of the network namespace that the container joins."""
    for namespace in (config.get("linux") or {}).get("namespaces") or ():
        if namespace["type"] == "network":
            return namespace.get("path") or ""
    return ""


def _first_error(log: str) -> str:
    """Return the first error in a log of criu's that is not about criu's own limits."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("Error (")[2].partition("): ")[2].strip() for line in file if "Error (" in line]
    except OSError:
        return ""
    return next((line.rstrip(".") for line in lines if line and not line.startswith("rlimit:")), "")
