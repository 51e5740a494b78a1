"""Carry out steps again and again and print, as JSON, what each took: CPU and wall time, in milliseconds.

Standard input: ``{"rounds": 9, "steps": [{"name": …, "argv": […], "status": 0}, {"await_end": "FILE with a pid"}]}``.
The steps are taken in their order in every round, those of the programs that are compared side by side; a step without
a name is not measured. ``await_program`` waits for a container's program, which crun's `start` does not.

CPU time is that of the program and of all that it waited for; with ``"orphans": true`` also that of what it left
running, which is waited for, too: conmon calls the runtime, and outlives podman. With ``"speaks": true`` the wall time
until it has written something comes as a third figure.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def carry_out(step: dict) -> tuple[float, ...]:
    """Run one program to its end, with no input and nobody to read its output; return CPU and wall milliseconds."""
    streams = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(2)]
    complaints = os.memfd_create("stderr")
    streams.append((os.POSIX_SPAWN_DUP2, complaints, 2))
    said, saying = os.pipe()
    if step.get("speaks"):
        streams.append((os.POSIX_SPAWN_DUP2, saying, 1))
    start = time.perf_counter()
    pid = os.posix_spawn(step["argv"][0], step["argv"], os.environ, file_actions=streams)
    os.close(saying)
    spoke = (time.perf_counter() - start,) if step.get("speaks") and os.read(said, 1) else ()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    os.close(said)
    cpu = usage.ru_utime + usage.ru_stime + (await_orphans() if step.get("orphans") else 0)
    status = os.waitstatus_to_exitcode(status)
    if status != step.get("status", 0):
        said = os.pread(complaints, 4096, 0).decode()
        sys.exit(f"{step['argv']} ended with {status}: {said}")
    os.close(complaints)
    return tuple(seconds * 1000 for seconds in (cpu, wall, *spoke))


def await_orphans() -> float:
    """Wait for everything that has become a child of this process; return its CPU time in seconds."""
    cpu = 0.0
    while True:
        try:
            usage = os.wait4(-1, 0)[2]
        except ChildProcessError:
            return cpu
        cpu += usage.ru_utime + usage.ru_stime


def await_end(pid_file: str) -> None:
    """Wait for the end of the process that a file names."""
    with open(pid_file) as file:
        pid = int(file.read())
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([process], [], [])
    os.close(process)


def await_program(pid_file: str) -> None:
    """Wait until the process that a file names has become the container's program, and can be looked at."""
    with open(pid_file) as file:
        pid = int(file.read())
    while True:
        try:
            os.readlink(f"/proc/{pid}/ns/mnt")
        except PermissionError:
            time.sleep(0.001)
        else:
            return


def main() -> None:
    """Read the task, do it, print what was measured: ``{name: [[CPU, wall, …], …]}``."""
    task = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    figures: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(task["rounds"]):
        for step in task["steps"]:
            if "await_end" in step:
                await_end(step["await_end"])
            elif "await_program" in step:
                await_program(step["await_program"])
            else:
                figure = carry_out(step)
                if "name" in step:
                    figures.setdefault(step["name"], []).append(figure)
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
