"""Whole machines for the tests: Debian, systemd as process 1, a pure cgroup v2 tree.

Most tests use user-mode Linux. Its kernel has one processor, and no cpuset, huge pages, pressure or time namespaces.
QEMU has these, and takes twice as long for everything. `build` makes the disk of both, once for each version of it.
`agent` executes the requests of run() inside.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
MEMORY = "1500M"
KEPT = 86400
"""Seconds without use after which an old disk is removed when a new one is built."""
BOOT = 180
"""Seconds; an idle host takes 10."""
POLL = 0.02
VIRTIOFSD = "/usr/libexec/virtiofsd"


class Machine:
    """A running machine.

    Attributes:
        shared: a directory of the host that is /mnt/host inside.
    """

    def __init__(self, image: Path, directory: Path, *words: str) -> None:
        """Boot from a disk, which stays unchanged, with a directory for the changes.

        Args:
            image: the disk.
            directory: the directory.
            words: more for the kernel's command line.
        """
        self.shared = directory / "shared"
        self.shared.mkdir()
        self._jobs = 0
        self._directory = directory
        self._console = (directory / "console").open("wb")
        # on any file system other than a tmpfs, memory that is a file would be written to disk
        self._memory = tempfile.mkdtemp(dir="/dev/shm")
        self._processes: list[subprocess.Popen] = []
        try:
            self._boot(image, words)
            self._await(self.shared / "up", BOOT)
        except BaseException:
            self.stop()
            raise

    def _boot(self, image: Path, words: tuple[str, ...]) -> None:
        """Start the processes that are the machine."""
        raise NotImplementedError

    def _start(self, *words: str) -> None:
        self._processes.append(
            subprocess.Popen(
                [shutil.which(words[0]) or words[0], *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": self._memory},
                start_new_session=True,
            )
        )

    def run(self, script: str, *, root: bool = False, timeout: float = 120, check: bool = False):
        """Run a shell script inside, as the user in a scope of the user manager or as root."""
        self._jobs += 1
        job = f"{'root' if root else 'user'}{self._jobs}"
        draft = self.shared / f"{job}.draft"
        draft.write_text(script)
        draft.rename(self.shared / f"{job}.ready")
        self._await(self.shared / f"{job}.status", timeout)
        out, err = ((self.shared / f"{job}.{name}").read_text(errors="replace") for name in ("out", "err"))
        done = subprocess.CompletedProcess(script, int((self.shared / f"{job}.status").read_text()), out, err)
        assert not (check and done.returncode), f"{script}\nended with {done.returncode}\n{out}\n{err}"
        return done

    def stop(self) -> None:
        """Stop the machine as a power failure does, unless it has ended."""
        for process in self._processes:
            os.killpg(process.pid, 9)
            process.wait()
        self._processes.clear()
        self._console.close()
        shutil.rmtree(self._memory, ignore_errors=True)

    def _await(self, path: Path, timeout: float) -> None:
        """Wait for a file by polling: the machine cannot notify the host of it."""
        deadline = time.monotonic() + timeout
        ended = os.pidfd_open(self._processes[-1].pid)
        try:
            while not path.exists():
                assert not select.select([ended], [], [], POLL)[0], f"the machine has ended: {self._said()}"
                assert time.monotonic() < deadline, f"{path.name} does not come within {timeout} s: {self._said()}"
        finally:
            os.close(ended)

    def _said(self) -> str:
        return Path(self._console.name).read_text(errors="replace")[-3000:]


class UserModeLinux(Machine):
    """A machine whose kernel is a program of the host."""

    PROGRAMS = ("linux.uml", "cc")

    def _boot(self, image: Path, words: tuple[str, ...]) -> None:
        shim = self._directory / "xstate.so"
        build = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", shim, HERE / "xstate.c"]
        subprocess.run(build, check=True)
        self._start(
            *("env", f"LD_PRELOAD={shim}", "linux.uml"),
            f"mem={MEMORY}",
            f"umid=rootless-test-{os.getpid()}",
            f"uml_dir={self._directory}",
            f"ubd0={self._directory / 'changes'},{image}",
            *("root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", "console=tty0", "quiet", "security=apparmor"),
            f"systemd.show_status=false shared={self.shared}",
            *words,
        )


class Qemu(Machine):
    """A machine of two processors, each with its own memory, emulated by a program of the host."""

    PROGRAMS = ("qemu-system-x86_64", VIRTIOFSD)
    HUGE_PAGES = 16
    """Number of reserved pages of 2 MiB."""

    def _boot(self, image: Path, words: tuple[str, ...]) -> None:
        socket = self._directory / "virtiofs"
        self._start(
            VIRTIOFSD, f"--socket-path={socket}", f"--shared-dir={self.shared}", "--sandbox=none", "--cache=never"
        )
        kernel = (
            *("root=/dev/nvme0n1", "rw", "console=ttyS0", "quiet", "selinux=0", "mitigations=off", "no_timer_check"),
            *(f"hugepages={self.HUGE_PAGES}", "systemd.show_status=false", "shared=host"),
            *words,
        )
        nodes = [
            words
            for node in range(2)
            for words in (
                "-object", f"memory-backend-memfd,id=memory{node},size=768M,share=on",
                "-numa", f"node,nodeid={node},cpus={node},memdev=memory{node}",
            )
        ]  # fmt: skip
        self._await(socket, BOOT)
        # no lock: user-mode Linux holds one on the whole disk, which both only read
        self._start(
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2,sockets=2", "-m", "1536M"),
            *nodes,
            *("-kernel", str(image.with_suffix(".vmlinuz")), "-append", " ".join(kernel)),
            *("-drive", f"file={image},if=none,id=disk,format=raw,snapshot=on,cache=unsafe,file.locking=off"),
            *("-device", "nvme,drive=disk,serial=disk"),
            *("-chardev", f"socket,id=shared,path={socket}", "-device", "vhost-user-fs-pci,chardev=shared,tag=host"),
        )


def disk(cache: Path) -> Path:
    """Return the disk; build it if `cache` has none of this version."""
    version = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("build", "agent"))).hexdigest()[:16]
    image = cache / f"machine-{version}.img"
    files = (image, image.with_suffix(".vmlinuz"))
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two parallel runs, one builds it
        if not all(path.exists() for path in files):
            for old in cache.glob("machine-*"):
                if old.is_dir():  # of a build that was killed
                    shutil.rmtree(old)
                elif time.time() - old.stat().st_mtime > KEPT:  # another checkout may use it
                    old.unlink()
            subprocess.run([HERE / "build", image], check=True, stdout=subprocess.DEVNULL, timeout=1800)
        for path in files:
            path.touch()
    return image
