"""Commands under strace(1), which injects an event at a chosen system call."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

from tests.lib.containers import Reader

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}

Moment = tuple[str, int]
"""The name of a system call, and the number of the call."""


def moments(user, strace, words, *, count: int, since: str, names=frozenset()) -> list[Moment]:
    """Run a command and return `count` of its system calls, evenly spread from the first whose line contains `since`.

    `names` selects the system calls; without it, all count.
    """
    log = user.tmp / "trace"
    user.run([strace, "-o", log, *words], **QUIET, stderr=subprocess.DEVNULL)
    seen: Counter[str] = Counter()
    found: list[Moment] = []
    for line in log.read_text(errors="replace").splitlines():
        if call := re.match(r"(\w+)\(", line):
            seen[call[1]] += 1
            if found or since in line:
                found.append((call[1], seen[call[1]]))
    found = [moment for moment in found if moment[0] not in ("exit_group", "execve") and moment[0] in (names or seen)]
    assert len(found) >= count, f"{since} is not in the trace of {words}"
    return [found[index * len(found) // count] for index in range(count)]


def interrupted(user, strace, words, number: int, moment: Moment) -> tuple[int, str]:
    """Run a command that receives a signal at a system call; return its status and standard error."""
    call, count = moment
    inject = f"inject={call}:signal={number}:when={count}"
    with (user.tmp / "interrupted.err").open("w+") as complaints:
        traced = [strace, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *words]
        status = user.run(traced, **QUIET, stderr=complaints).returncode
        complaints.seek(0)
        return status, complaints.read()


def killed_at(user, strace, words, moment: Moment) -> bool:
    """Run a command that is killed at a system call; return False if this run, which must succeed, did not come to it.

    Calls that wait are not made equally often in each run.
    """
    status, complaints = interrupted(user, strace, words, signal.SIGKILL, moment)
    assert (status, complaints) in ((-signal.SIGKILL, ""), (0, "")), moment
    return status != 0


class Stopped:
    """A command that is stopped at a system call until go_on()."""

    def __init__(self, user, strace, words, moment: Moment) -> None:
        call, count = moment
        reader, writer = os.pipe()
        if os.geteuid() == 0:
            os.fchown(writer, user.uid, -1)  # strace opens the log again
        inject = f"inject={call}:signal=STOP:when={count}"
        log = ["-o", f"/proc/self/fd/{writer}", "-e", f"trace={call}", "-e", inject]
        self._complaints = (user.tmp / "stopped.err").open("w+")
        self.process = user.popen([strace, *log, *words], **QUIET, stderr=self._complaints, pass_fds=[writer])
        os.close(writer)
        self._reader = reader
        Reader(reader).until(b"--- stopped by SIGSTOP ---")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (self.pid,) = map(int, children.split())

    def go_on(self) -> tuple[int, str]:
        """Let the command continue to its end; return its status and standard error."""
        os.kill(self.pid, signal.SIGCONT)
        status = self.process.wait(timeout=30)
        os.close(self._reader)
        with self._complaints:
            self._complaints.seek(0)
            return status, self._complaints.read()
