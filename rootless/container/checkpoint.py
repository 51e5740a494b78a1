"""Checkpoint and restore: criu(8) does it, and needs root for it.

    IMAGES/*.img            criu's
    IMAGES/rootless.json    the container's state, and which of criu's resources its standard streams are
    WORK/dump.log, …        what criu did

What is decided here is what belongs to the container and what has to be there again from outside.
"""

from __future__ import annotations

import os

from rootless import log
from rootless.container import store
from rootless.container.lifecycle import CREATED, PAUSED, Process, allow, boot_id, status
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.bundle.load import Bundle
    from rootless.container.entry import Entry
    from rootless.plan.options import Options

    Pairs = tuple[tuple[str, str], ...]

_IMAGES = "checkpoint"
_OURS = "rootless.json"
_STREAMS = 3
_NETWORK = "extNetwork"
"""criu's name for a network namespace that is not the container's own."""
_NETWORK_FD = 3
_CRIU_ANNOTATION = "org.criu.config"
"""A file with more options for criu; as for runc."""

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
        return RootlessError("cannot checkpoint or restore", cause=cause, fix="do it as root", code="RL-CRIU")
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
    from rootless.container.ending import destroy
    from rootless.container.verbs import existing_state

    with store.find(store.state_root(options.root), options.container) as entry:
        state = existing_state(entry)
        now = status(entry, state)
        allow("checkpoint", entry.container_id, now)
        config = entry.read_config()
        if config["process"].get("terminal"):
            raise RootlessError(
                f"cannot checkpoint container {entry.container_id}",
                cause="it has a terminal, whose other side is not criu's to keep",
                where="process.terminal",
                fix="run it without a terminal",
                code="RL-CRIU",
            )
        criu = _Criu(options)
        streams = _streams(state["pid"])
        words = ["pre-dump" if options.pre_dump else "dump", "--tree", str(state["pid"])]
        if now == PAUSED:
            # criu cannot stop what is frozen: it thaws the cgroup once it has seized the processes, and freezes those
            # that run on again
            words += ["--freeze-cgroup", state["cgroup"]]
        for stream in streams:
            words += ["--external", stream] if stream.startswith("file[") else []
        if network := _joined_network(config):
            words += ["--external", f"net[{os.stat(network).st_ino}]:{_NETWORK}"]
        if options.parent_path:
            words += ["--prev-images-dir", options.parent_path]
        if options.parent_path or options.pre_dump:
            words.append("--track-mem")
        words += _page_server(options.page_server) if options.page_server else []
        criu.run([*words, *_chosen(options, _DUMP_SWITCHES)], state)
        if options.pre_dump:
            return
        criu.note({"streams": streams, "state": state})
        if not options.leave_running:
            destroy(entry, state)


def _page_server(place: str) -> list[str]:
    """Return criu's options for ADDRESS:PORT."""
    address, _, port = place.rpartition(":")
    if not (address and port.isdecimal()):
        raise RootlessError(
            f"--page-server {place}", cause="that is no address with a port", fix="write ADDRESS:PORT", code="RL-CRIU"
        )
    return ["--page-server", "--address", address.strip("[]"), "--port", port]


def restore(options: Options) -> int:
    """Make a container from a checkpoint; unless detached, wait for its end and return its exit status."""
    from rootless.bundle.load import load
    from rootless.container.console import Console
    from rootless.container.ending import abandon
    from rootless.container.foreground import attend, catch_signals
    from rootless.container.run import remove_ended

    store.check_id(options.container)
    bundle = load(options.bundle)
    criu = _Criu(options)
    noted = criu.noted()
    skipped = [kind for kind, hooks in (bundle.config.get("hooks") or {}).items() if hooks and kind != "poststop"]
    if skipped:
        log.warning(f"hooks are not run again when a container is restored: {', '.join(skipped)}", where="hooks")
    network = _joined_network(bundle.config)
    if network:
        _open_network(network)
    root = store.state_root(options.root)
    with store.claim(root, options.container) as entry:
        try:
            signals = -1 if options.detach else catch_signals()
            pid = _restore(options, bundle, noted, entry, criu, network=network)
        except BaseException:
            abandon(entry)
            raise
    if options.detach:
        return 0
    try:
        return attend(pid, Console(), signals)
    finally:
        remove_ended(root, options.container)


def _open_network(path: str) -> None:
    """Open a network namespace as the descriptor that criu gets; whatever the caller had there is nobody's."""
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


def _restore(
    options: Options, bundle: Bundle, noted: dict[str, Any], entry: Entry, criu: _Criu, *, network: str
) -> int:
    """Let criu make the processes, and write down that they are there; return the first one."""
    from rootless.container.prepare import write_pid_file

    pid_file = f"{entry.path}/criu.pid"
    words = ["restore", "--restore-detached", "--restore-sibling", "--pidfile", pid_file]
    for number, stream in enumerate(noted["streams"]):
        words += ["--inherit-fd", f"fd[{number}]:{stream}"] if stream else []
    if network:
        words += ["--inherit-fd", f"fd[{_NETWORK_FD}]:{_NETWORK}"]
    words += _chosen(options, _RESTORE_SWITCHES, _RESTORE_VALUES)
    state: dict[str, Any] = noted["state"]
    state |= {"id": options.container, "bundle": bundle.directory, "rootfs": bundle.rootfs}
    criu.run_on_root(words, state, 1 if network else 0)
    pid = int(entry.content("criu.pid"))
    try:
        process = Process.read(pid)
        state.pop("made", None)  # the namespaces are others now
        state |= {"pid": pid, "startTime": process.start_time if process else 0, "bootId": boot_id(), "status": CREATED}
        entry.write_config(bundle.text)
        entry.write(state)
        if options.pid_file:
            write_pid_file(options.pid_file, pid)
    except BaseException:
        os.kill(pid, 9)
        raise
    return pid


class _Criu:
    """The criu program, with the directories that it works in."""

    def __init__(self, options: Options) -> None:
        """Look whether it can be used.

        Raises:
            RootlessError: `RL-CRIU`.
        """
        from shutil import which

        problem = obstacle(options.criu)
        if problem:
            raise problem
        self._program = which(options.criu or "criu") or ""
        self._images = os.path.abspath(options.image_path or _IMAGES)
        self._work = os.path.abspath(options.work_path or self._images)
        self._common = [
            *("--images-dir", self._images, "--work-dir", self._work, "-v4"),
            # what is bound into the container from outside is found again at the same place
            *("--external", "mnt[]:sm"),
            f"--manage-cgroups={options.manage_cgroups_mode or 'ignore'}",
            *_chosen(options, _SWITCHES, _VALUES),
        ]
        if options.empty_ns:
            self._common += ["--empty-ns", "net"]

    def run(self, words: list[str], state: dict[str, Any]) -> None:
        """Run criu on the host."""
        import subprocess

        self._make(self._images)
        self._make(self._work)
        command = self._command(words, state)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self._complain(words[0], done.returncode, done.stderr.decode("utf-8", "replace"))

    def run_on_root(self, words: list[str], state: dict[str, Any], keep: int) -> None:
        """Run criu where the container's root is a mount, which nobody else sees, with our standard streams."""
        from rootless.launch.protocol import Launch
        from rootless.plan.compile import compile_root_command

        self._make(self._work)
        env = [f"{name}={value}" for name, value in os.environ.items()]
        launch = Launch(compile_root_command(self._command(words, state), env, state["rootfs"]), keep=keep)
        launch.until_executed()
        try:
            code = os.waitstatus_to_exitcode(launch.wait_first())
        except BaseException:
            launch.kill()
            raise
        launch.close()
        self._complain(words[0], code, "")

    def note(self, ours: dict[str, object]) -> None:
        """Keep what `restore` needs besides criu's images."""
        from rootless.bundle.jsontext import render

        fd = os.open(f"{self._images}/{_OURS}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(render(ours, None))

    def noted(self) -> dict[str, Any]:
        """Return what note() kept.

        Raises:
            RootlessError: `RL-CRIU`: this is not a checkpoint.
        """
        from rootless.bundle.jsontext import parse

        path = f"{self._images}/{_OURS}"
        try:
            with open(path, "rb") as file:
                found = parse(file.read(), path)
        except OSError as error:
            cause = (error.strerror or "").lower()
            raise self._failed(f"cannot read {path}", cause, "name a directory that checkpoint wrote") from None
        if not isinstance(found, dict) or not {"streams", "state"} <= found.keys():
            cause = "it does not hold the state of a container"
            raise self._failed(f"cannot use {path}", cause, "name a directory that checkpoint wrote")
        return found

    def _make(self, directory: str) -> None:
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
        except OSError as error:
            cause = (error.strerror or "").lower()
            raise self._failed(f"cannot use {directory}", cause, "name another directory") from None

    def _command(self, words: list[str], state: dict[str, Any]) -> list[str]:
        command = [self._program, *words, *self._common, "--log-file", f"{words[0]}.log", "--root", state["rootfs"]]
        if config := state["annotations"].get(_CRIU_ANNOTATION):
            command += ["--config", config]
        return command

    def _complain(self, verb: str, code: int, said: str) -> None:
        if not code:
            return
        log = f"{self._work}/{verb}.log"
        raise self._failed(f"criu {verb}", _first_error(log) or said.strip() or f"it ended with {code}", f"see {log}")

    @staticmethod
    def _failed(what: str, cause: str, fix: str) -> RootlessError:
        return RootlessError(what, cause=cause, fix=fix, code="RL-CRIU")


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
