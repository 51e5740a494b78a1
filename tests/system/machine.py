"""A whole machine for the tests: Debian, systemd as process 1, a pure cgroup v2 tree, booted by user-mode-linux.

`build` makes its disk, once for each version of it; `agent` carries out what run() asks, inside.
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
BOOT = 180
"""Seconds; it takes 10 on a machine that has nothing else to do."""
POLL = 0.02


class Machine:
    """A running machine.

    Attributes:
        shared: a directory of the host that is /mnt/host inside.
    """

    def __init__(self, image: Path, directory: Path, *words: str) -> None:
        """Boot from a disk, which stays as it is, with a directory of its own for what changes.

        Args:
            image: the disk.
            directory: the directory.
            words: more for the kernel's command line.
        """
        self.shared = directory / "shared"
        self.shared.mkdir()
        self._jobs = 0
        self._console = (directory / "console").open("wb")
        # its memory is a file; on anything but a tmpfs it would be written to disk
        self._memory = tempfile.mkdtemp(dir="/dev/shm")
        self._process = subprocess.Popen(
            [
                shutil.which("linux.uml") or "linux.uml",
                f"mem={MEMORY}",
                f"umid=rootless-test-{os.getpid()}",
                f"uml_dir={directory}",
                f"ubd0={directory / 'changes'},{image}",
                *("root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", "console=tty0", "quiet", "selinux=0"),
                f"systemd.show_status=false shared={self.shared}",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": self._memory},
            start_new_session=True,
        )
        self._await("up", BOOT)

    def run(self, script: str, *, root: bool = False, timeout: float = 120, check: bool = False):
        """Run a shell script inside, as the user in a scope of the user manager or as root."""
        self._jobs += 1
        job = f"{'root' if root else 'user'}{self._jobs}"
        draft = self.shared / f"{job}.draft"
        draft.write_text(script)
        draft.rename(self.shared / f"{job}.ready")
        self._await(f"{job}.status", timeout)
        out, err = ((self.shared / f"{job}.{name}").read_text(errors="replace") for name in ("out", "err"))
        done = subprocess.CompletedProcess(script, int((self.shared / f"{job}.status").read_text()), out, err)
        assert not (check and done.returncode), f"{script}\nended with {done.returncode}\n{out}\n{err}"
        return done

    def stop(self) -> None:
        """End it as a power cut does, unless it has ended."""
        if self._process.returncode is not None:
            return
        os.killpg(self._process.pid, 9)
        self._process.wait()
        self._console.close()
        shutil.rmtree(self._memory, ignore_errors=True)

    def _await(self, name: str, timeout: float) -> None:
        """Wait for a file in the shared directory; inside, nothing can tell the host that it is there."""
        deadline = time.monotonic() + timeout
        ended = os.pidfd_open(self._process.pid)
        try:
            while not (self.shared / name).exists():
                assert not select.select([ended], [], [], POLL)[0], f"the machine has ended: {self._said()}"
                assert time.monotonic() < deadline, f"{name} does not come within {timeout} s: {self._said()}"
        finally:
            os.close(ended)

    def _said(self) -> str:
        return Path(self._console.name).read_text(errors="replace")[-3000:]


def disk(cache: Path) -> Path:
    """Return the disk, built when there is none of this version in `cache`."""
    version = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("build", "agent"))).hexdigest()[:16]
    image = cache / f"machine-{version}.img"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the other one builds it
        if not image.exists():
            for old in cache.glob("machine-*.img*"):
                if old.is_dir():  # of a build that was killed
                    shutil.rmtree(old)
                else:
                    old.unlink()
            subprocess.run([HERE / "build", image], check=True, stdout=subprocess.DEVNULL, timeout=1800)
    return image
