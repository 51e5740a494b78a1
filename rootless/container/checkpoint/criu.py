"""The criu program: whether it can be used, its command lines, and its errors."""

from __future__ import annotations

import os
import subprocess
from shutil import which

from rootless import log
from rootless.container.checkpoint.configuration import (
    CRIU_ANNOTATION,
    environment,
    open_configuration,
    service_environment,
)
from rootless.container.checkpoint.criu_messages import (
    DUMP,
    IMAGES_FD,
    LOG_FILE,
    LOG_LEVEL,
    PID,
    RESTORE,
    WORK_FD,
    Service,
    options_text,
)
from rootless.container.checkpoint.directories import Directories, failed
from rootless.container.operations.cgroup import start_scope
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.compile import compile_root_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rootless.container.checkpoint.criu_messages import Fields
    from rootless.container.operations.container_run import ContainerRun
    from rootless.options import Options
    from rootless.plan.ops import Op

    Pairs = tuple[tuple[str, str], ...]

NETWORK = "extNetwork"
"""criu's name for a network namespace that the container joins."""

_SWITCHES = (
    # attribute of Options, option of criu
    ("tcp_established", "--tcp-established"),
    ("ext_unix_sk", "--ext-unix-sk"),
    ("shell_job", "--shell-job"),
    ("file_locks", "--file-locks"),
    ("auto_dedup", "--auto-dedup"),
)
_VALUES = (("network_lock", "--network-lock"), ("lsm_profile", "--lsm-profile"))


def obstacle(program: str) -> RootlessError | None:
    """Return the error if criu cannot be used here, or None.

    Args:
        program: the program that the caller named, or empty.
    """
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


class Criu:
    """The criu program for one container.

    Attributes:
        directories: those that it works in.
    """

    def __init__(self, options: Options, rootfs: str, annotations: Mapping[str, str]) -> None:
        """Check that criu can be used.

        Args:
            options: the caller's.
            rootfs: the container's root.
            annotations: those of config.json.

        Raises:
            RootlessError: `RL-CRIU`: it cannot.
        """
        problem = obstacle(options.criu)
        if problem:
            raise problem
        self._program = which(options.criu or "criu") or ""
        self._rootfs = rootfs
        self.directories = Directories(options.image_path, options.work_path)
        self._common = [
            # criu finds the sources of bind mounts at the same paths again
            *("--external", "mnt[]:sm"),
            f"--manage-cgroups={options.manage_cgroups_mode or 'ignore'}",
            *chosen(options, _SWITCHES, _VALUES),
        ]
        if options.empty_ns:
            self._common += ["--empty-ns", "net"]
        self._configuration = open_configuration(annotations.get(CRIU_ANNOTATION))

    def run(self, words: list[str]) -> None:
        """Run criu on the host."""
        self._trace(words)
        command = self._command(words)
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self._complain(words[0], done.returncode, done.stderr.decode("utf-8", "replace"))

    def run_as_service(self, words: list[str], pid: int) -> None:
        """Have criu checkpoint the process `pid` and its descendants, one of which has a terminal."""
        self._trace(words)
        service = Service()
        with subprocess.Popen(
            [self._program, "swrk", str(service.theirs)],
            env=service_environment(),
            pass_fds=[service.theirs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            done = service.ask(DUMP, {PID: pid, **self._service_fields(words[0])}, self._service_options(words))
            service.close()
        self._complain(words[0], process.returncode or int(done < 0), "")

    def run_on_root(
        self, words: list[str], service: Service | None, run: ContainerRun, scope: Op | None, *, keep: int
    ) -> None:
        """Run criu in a mount namespace where the container's root is a mount, with the launcher's standard streams.

        The restored processes inherit criu's cgroup: the container's, if it has one.

        Args:
            words: criu's command, and its options.
            service: the service that hands over the terminal, or None.
            run: the container.
            scope: the operation that starts the systemd scope, or None.
            keep: the number of descriptors after the standard streams that criu inherits.
        """
        self._trace(words)
        variables = service_environment() if service else environment()
        command = [self._program, "swrk", str(service.theirs)] if service else self._command(words)
        env = [f"{name}={value}" for name, value in variables.items()]
        plan = compile_root_command(command, env, self._rootfs)
        criu = Run(plan, Descriptors(keep=keep, cgroup=run.descriptors.cgroup))
        criu.until_or_kill(ops.WAIT_START)
        assert criu.executor
        try:
            if scope:
                run.pid = criu.executor.first
                start_scope(run, scope)
            criu.until()
            done = self._ask(service, words) if service else 0
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
            images, work = self.directories.images, self.directories.work
            log.debug(f"run {self._program} {' '.join(words)}; images in {images}, log files in {work}")

    def _ask(self, service: Service, words: list[str]) -> int:
        try:
            return service.ask(RESTORE, self._service_fields(words[0]), self._service_options(words))
        finally:
            service.close()

    def _service_fields(self, verb: str) -> Fields:
        log_file = f"{verb}.log".encode()
        return {
            IMAGES_FD: self.directories.images_fd,
            WORK_FD: self.directories.work_fd,
            LOG_FILE: log_file,
            LOG_LEVEL: 4,
        }

    def _service_options(self, words: list[str]) -> str:
        configured = ""
        if self._configuration:
            with open(self._configuration, encoding="utf-8", errors="surrogateescape") as file:
                configured = file.read()
        return f"{configured}\n{options_text([*words[1:], *self._common, '--root', self._rootfs])}"

    def _command(self, words: list[str]) -> list[str]:
        opened = f"/proc/{os.getpid()}/fd"
        command = [
            *(self._program, *words, "-v4", "--no-default-config"),
            *("--images-dir", f"{opened}/{self.directories.images_fd}"),
            *("--work-dir", f"{opened}/{self.directories.work_fd}"),
            *(*self._common, "--log-file", f"{words[0]}.log", "--root", self._rootfs),
        ]
        if self._configuration:
            command += ["--config", self._configuration]
        return command

    def _complain(self, verb: str, code: int, printed: str) -> None:
        if not code:
            return
        cause = _first_error(f"/proc/self/fd/{self.directories.work_fd}/{verb}.log")
        cause = cause or printed.strip() or f"it exited with status {code}"
        raise failed(f"criu {verb}", cause, f"see {self.directories.work}/{verb}.log")


def chosen(options: Options, switches: Pairs, values: Pairs = ()) -> list[str]:
    """Return criu's options for those of the caller."""
    words = [word for name, word in switches if getattr(options, name)]
    for name, word in values:
        if text := getattr(options, name):
            words += [word, text]
    return words


def joined_network(config: dict[str, Any]) -> str:
    """Return the path of the network namespace that the container joins; empty if it joins none."""
    for namespace in (config.get("linux") or {}).get("namespaces") or ():
        if namespace["type"] == "network":
            return namespace.get("path") or ""
    return ""


def _first_error(path: str) -> str:
    """Return the first error in a log file of criu that is not about criu's own limits; empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("Error (")[2].partition("): ")[2].strip() for line in file if "Error (" in line]
    except OSError:
        return ""
    return next((line.rstrip(".") for line in lines if line and not line.startswith("rlimit:")), "")
