"""System calls of a program, from strace."""

from __future__ import annotations


def looked_at(user, need, *words):
    """Return a program's own calls that take paths, in order: each with the path and whether it exists."""
    trace = user.tmp / "trace"
    user.run([need("strace"), "-o", trace, "-e", "trace=%file", *words], check=True)
    lines = [line for line in trace.read_text().splitlines() if '"' in line]
    return [(line.partition("(")[0], line.split('"')[1], " = -1 " not in line) for line in lines]


def opened(calls):
    """Return the files that the calls opened."""
    return [path for call, path, found in calls if found and call in {"open", "openat"}]
