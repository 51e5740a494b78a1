"""What a program asks the kernel for, as strace tells it."""

from __future__ import annotations


def looked_at(user, need, *words):
    """Return the calls that a program itself makes with paths, in order, each with its path and whether it found it."""
    trace = user.tmp / "trace"
    user.run([need("strace"), "-o", trace, "-e", "trace=%file", *words], check=True)
    lines = [line for line in trace.read_text().splitlines() if '"' in line]
    return [(line.partition("(")[0], line.split('"')[1], " = -1 " not in line) for line in lines]


def opened(calls):
    """Return the files that were opened among the calls."""
    return [path for call, path, found in calls if found and call in {"open", "openat"}]
