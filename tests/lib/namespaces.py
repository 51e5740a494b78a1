"""The namespaces of a process, as /proc names them."""

from __future__ import annotations

import os

FILES = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "cgroup": "cgroup",
    "time": "time",
    "user": "user",
}
"""The file in /proc/PID/ns of each type of namespace."""


LINKS = f"for name in {' '.join(FILES.values())}; do readlink /proc/self/ns/$name; done"


def own(kind):
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


def inside(lines):
    return dict(zip(FILES, lines, strict=True))


def outside(pid):
    return {kind: os.readlink(f"/proc/{pid}/ns/{file}") for kind, file in FILES.items()}


def maps(lines):
    return [tuple(int(word) for word in line.split()) for line in lines]
