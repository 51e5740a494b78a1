"""Run steps repeatedly and print, as JSON, the CPU and wall time of each in milliseconds.

Standard input: ``{"rounds": 9, "steps": [{"name": …, "argv": […], "status": 0}, {"await_end": "FILE with a pid"}]}``.
Each round runs all steps in order, so that the compared programs alternate. A step without a name is not measured.
``await_program`` waits for a container's program, which crun's `start` does not.

CPU time includes the program and all processes that it has waited for. With ``"orphans": true`` it also includes
processes that the program leaves running, and the step waits for them: conmon calls the runtime and outlives podman.
With ``"speaks": true`` a third figure is the wall time until the program's first output.
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
    """Run one program to its end without input and output; return CPU and wall time in milliseconds."""
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
    """Wait for all orphans that this process has adopted; return their CPU time in seconds."""
    cpu = 0.0
    while True:
        try:
            usage = os.wait4(-1, 0)[2]
        except ChildProcessError:
            return cpu
        cpu += usage.ru_utime + usage.ru_stime


def await_end(pid_file: str) -> None:
    """Wait for the end of the process whose pid is in a file."""
    with open(pid_file) as file:
        pid = int(file.read())
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([process], [], [])
    os.close(process)


def await_program(pid_file: str) -> None:
    """Wait until the process whose pid is in a file has executed the container's program."""
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
    """Read the steps, run them, and print the figures: ``{name: [[CPU, wall, …], …]}``."""
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
