"""Many containers: a thousand in a row, and more at once than the kernel's quota of session keyrings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import executors, until

RUNS = 1000
AT_ONCE = 8
CONTAINERS = 300
"""crun and runc stop at 200: kernel.keys.maxkeys session keyrings per user."""
MOST_CALLS = 12
"""System calls of `list` per container: its directory, its state, its process in /proc."""

CALLER = """
import ctypes, json, os, sys
from concurrent.futures import ThreadPoolExecutor

runs, at_once, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
null = os.open("/dev/null", os.O_RDWR)

def run(number):
    complaints = os.memfd_create("complaints", os.MFD_CLOEXEC)
    pid = os.posix_spawn(words[0], [*words, f"c{number}"], os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, complaints, 2)])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = os.pread(complaints, 10000, 0).decode()
    os.close(complaints)
    return status, told

def begun():
    mounts = [line for line in open("/proc/self/mountinfo") if os.getcwd() in line]
    return len(os.listdir("/proc/self/fd")), mounts

with ThreadPoolExecutor(at_once) as pool:
    before = begun()
    results = list(pool.map(run, range(runs)))
    after = begun()
orphans = 0
try:
    while os.waitpid(-1, 0):
        orphans += 1
except ChildProcessError:
    pass
print(json.dumps({"results": results, "same": before == after, "orphans": orphans}))
"""


def _processes(user) -> set[int]:
    """Return the processes of the user, including root of containers."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == user.uid and int(entry.name) != os.getpid():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def _keys(user) -> int:
    """Return the number of the user's keys in the kernel, proc_key-users(5)."""
    found = re.search(rf"^ *{user.uid}: +\d+ (\d+)/", Path("/proc/key-users").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def test_thousand_runs_leave_nothing(rootless, user):
    bundle = make_bundle(user, base_config("true"))
    script = user.tmp / "caller.py"
    script.write_text(CALLER)
    assert rootless("run", "--bundle", bundle, "warm").returncode == 0
    files = _files_of(user)
    processes, keys = _processes(user), _keys(user)
    words = [sys.executable, script, str(RUNS), str(AT_ONCE), *rootless.argv("run", "--bundle", bundle)]
    told = json.loads(user.run(words, check=True, timeout=300).stdout)

    assert [status for status, _ in told["results"]] == [0] * RUNS
    complaints = [complaint for _, complaint in told["results"] if complaint]
    assert all(_is_about_keyring(complaint) for complaint in complaints), complaints
    assert told["same"], "the caller's descriptors and mounts"
    assert told["orphans"] == 0
    assert list(rootless.root.iterdir()) == []
    assert _files_of(user) == files
    assert str(user.tmp) not in Path("/proc/self/mountinfo").read_text()
    until(lambda: _processes(user) <= processes and not executors(user), "every process that was begun ends")
    until(lambda: _keys(user) <= keys, "the kernel collects the session keyrings")


def _files_of(user) -> list[str]:
    """Return the files in the directories of the test and of the user's session."""
    return sorted(str(path) for place in (user.tmp, user.runtime_dir) for path in place.rglob("*"))


def _is_about_keyring(complaint: str) -> bool:
    """Whether a warning is the expected one: the kernel limits keyrings and collects them late."""
    told = complaint.startswith("rootless: warning: join a new session keyring without a name: ")
    return told and "Disk quota exceeded" in complaint and complaint.count("\n") == 1


def test_three_hundred_containers_at_once(rootless, user, need):
    bundle = make_bundle(user, base_config("sleep", "1000"))
    processes, keys = _processes(user), _keys(user)
    names = [f"c{number:03}" for number in range(CONTAINERS)]
    empty = _calls(rootless, need("strace"))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda name: _make(rootless, bundle, name), names))
    failed = [told for told in made if told[0] or not (told[1] == "" or _is_about_keyring(told[1]))]
    assert failed == []
    states = rootless.list()
    assert [(state["id"], state["status"]) for state in states] == [(name, "running") for name in names]
    pids = {state["pid"] for state in states}
    assert len(pids) == CONTAINERS
    assert all(Path(f"/proc/{pid}/root/bin/busybox").exists() for pid in pids)
    assert _calls(rootless, need("strace")) - empty <= MOST_CALLS * CONTAINERS
    done = rootless("run", "--bundle", make_bundle(user, base_config("sh", "-c", "exit 7"), name="another"), "another")
    assert done.returncode == 7

    assert rootless("delete", "--force", "--regex", "c.*", timeout=120).returncode == 0
    assert list(rootless.root.iterdir()) == []
    assert str(user.tmp) not in Path("/proc/self/mountinfo").read_text()
    assert _processes(user) <= processes
    assert not executors(user)
    until(lambda: _keys(user) <= keys, "the kernel collects the session keyrings")
    write_config(bundle, base_config("true"))
    assert rootless("run", "--bundle", bundle, "c000").returncode == 0


def _make(rootless, bundle, name: str) -> tuple[int, str]:
    """Start a container, every third one with `create` and `start`; return the status and standard error."""
    if int(name[1:]) % 3:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        path = rootless.user.tmp / f"{name}.err"
        with path.open("w") as complaints:
            done = rootless("run", "--detach", "--bundle", bundle, name, **quiet, stderr=complaints)
        return done.returncode, path.read_text()
    created = rootless.create(name, bundle, check=False)
    if created.returncode == 0:
        rootless.start(name)
    return created.returncode, created.stderr


def _calls(rootless, strace) -> int:
    """Return the number of system calls of `list`."""
    log = rootless.user.tmp / "calls"
    rootless.user.run([strace, "-o", log, *rootless.argv("list")], check=True)
    return len(log.read_text(errors="replace").splitlines())
