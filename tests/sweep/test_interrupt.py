"""Ctrl-C from the first instruction of the installed command to its last: the command ends without a traceback."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lib.sweep import WHOLE
from tests.lib.sweep_lives import tracer

__all__ = ["tracer"]  # fixture

PATIENCE = "30"
ENDS = (-signal.SIGINT, 128 + signal.SIGINT)


def traced(user, tracer, moment, action, *command, **options):
    """Run a command under the tracer; return its exit status, the reported system calls and its standard error."""
    words = [tracer, PATIENCE, moment, action, *command, ";"]
    done = user.run(words, timeout=60, **options)
    lines = done.stdout.splitlines()
    [status] = [int(line.split()[1]) for line in lines if line.startswith("end ")]
    calls = [int(line.split()[2]) for line in lines if line.startswith("call 0 ")]
    return os.waitstatus_to_exitcode(status), calls, done.stderr


def moments(calls):
    """Return moments for the tracer: the first and the last of each run of equal system calls, or all of them."""
    counts = dict.fromkeys(calls, 0)
    rows = []
    for call, row in itertools.groupby(calls):
        numbers = []
        for _ in row:
            counts[call] += 1
            numbers.append(f"0:{call}:{counts[call]}")
        rows.append(numbers if WHOLE else [numbers[0], numbers[-1]][: len(numbers)])
    return [moment for row in rows for moment in row]


@pytest.mark.parametrize("words", [["--version"], ["state", "nobody"], ["list"], ["ls", "--frobnicate"]], ids=" ".join)
def test_an_interrupt_at_any_moment_shows_no_traceback(user, rootless_command, tracer, words):
    command = [rootless_command, "--root", user.tmp / "state", *words]
    usual, calls, complaint = traced(user, tracer, "-", "-", *command)
    assert len(calls) > 100

    def interrupted(moment):
        status, _, said = traced(user, tracer, moment, f"+{signal.SIGINT:d}", *command)
        return [] if said in ("", complaint) and status in (usual, *ENDS) else [(moment, status, said)]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        wrong = [each for found in pool.map(interrupted, moments(calls)) for each in found]
    assert wrong == []


def test_an_interrupt_before_python_starts_ends_the_command(user, rootless_command, tracer):
    """The interrupt is not lost: it takes effect as soon as Python is ready for it."""
    command = [rootless_command, "--root", user.tmp / "state", "list"]
    _, calls, _ = traced(user, tracer, "-", "-", *command)
    for moment in moments(calls)[10:40:10]:
        status, _, said = traced(user, tracer, moment, f"+{signal.SIGINT:d}", *command)
        assert (status in ENDS, said) == (True, "")


def test_interrupts_that_the_caller_blocks_stay_blocked(user, rootless_command, need):
    script = (
        "import signal, subprocess, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [2]); subprocess.run(sys.argv[1:])"
    )
    trace = user.tmp / "trace"
    words = [need("strace"), "-o", trace, "-e", "trace=rt_sigprocmask", rootless_command, "--version"]
    user.run(["python3", "-c", script, *words], check=True, stdout=subprocess.DEVNULL)
    assert "SIG_UNBLOCK, [INT]" not in trace.read_text()
