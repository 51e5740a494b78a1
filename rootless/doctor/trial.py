"""How the checks try an operation: in a child process, which it may change and which cannot hold up the check."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rootless.host import subids
from rootless.linux import CLONE_NEWNS, CLONE_NEWUSER

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.host.facts import Facts

NOBODY = 65534
PATIENCE = 3000
"""Milliseconds after which an operation counts as hanging, such as one on a file server that is away."""
SCRATCH = "/tmp"  # noqa: S108 - in a mount namespace of its own
"""Where enter() mounts an empty file system."""
_PR_SET_DUMPABLE = 4


def become_ordinary(facts: Facts) -> None:
    """In a child of host root, become an unprivileged user: the checks are about those."""
    if facts.uid == 0 and not facts.nested:
        os.setgroups(())
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def unshare(flags: int) -> None:
    """Move this process into namespaces of its own."""
    if sys.version_info >= (3, 12):
        os.unshare(flags)
        return
    call("unshare", flags)


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library, and return its result.

    Raises:
        OSError: it has failed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library[name](*arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def mount(source: str, target: str, kind: str, options: str = "") -> None:
    """Mount a file system of this type, with options of its own."""
    call("mount", *(os.fsencode(word) for word in (source, target, kind)), 0, os.fsencode(options))


def enter(facts: Facts, flags: int = 0) -> None:
    """Become root of a user namespace with further namespaces, and an empty file system on SCRATCH."""
    become_ordinary(facts)
    # after a change of its ids a process does not own /proc/self (PR_SET_DUMPABLE(2const))
    call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    mount("tmpfs", SCRATCH, "tmpfs")


def errno_in_child(action: Callable[[], None]) -> int:
    """Run `action` in a child process; return the errno of its failure, ETIMEDOUT if it hangs, or 0."""
    child = os.fork()
    if child == 0:
        run_and_exit(action)
    return _status(child)


def run_and_exit(action: Callable[[], None]) -> None:
    """In a child process, run `action` and exit with the errno of its failure, or 0."""
    status = errno.ECANCELED
    try:
        action()
        status = 0
    except OSError as error:
        status = error.errno or errno.ECANCELED
    finally:
        os._exit(status)


def _status(child: int) -> int:
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(PATIENCE):
            os.kill(child, signal.SIGKILL)
            # a call to a file server may not even be interruptible: nothing is waited for
            os.waitpid(child, os.WNOHANG)
            return errno.ETIMEDOUT
    finally:
        os.close(handle)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else errno.ECANCELED


def mapped(facts: Facts, action: Callable[[], None]) -> tuple[str, str, int]:
    """Run `action` as root of a user namespace with the caller's first subordinate range, as in a container.

    Returns:
        The program that does not map the IDs and its message, or empty strings and the errno of `action`.

    Raises:
        OSError: no user namespace can be created.
    """
    ready, go = os.pipe(), os.pipe()

    def wait_for_maps() -> None:
        unshare(CLONE_NEWUSER)
        os.close(go[1])
        os.write(ready[1], b"x")
        if os.read(go[0], 1):
            action()

    child = os.fork()
    if child == 0:
        run_and_exit(wait_for_maps)
    os.close(ready[1])
    os.close(go[0])
    refused = ("", "")
    try:
        created = os.read(ready[0], 1)
        if created:
            refused = _map(child, facts)
            if not refused[0]:
                os.write(go[1], b"x")
    finally:
        os.close(ready[0])
        os.close(go[1])
        error = _status(child)
    if not created:
        raise OSError(error, f"no user namespace: {os.strerror(error)}")
    return *refused, error


def _map(child: int, facts: Facts) -> tuple[str, str]:
    """Write the maps of a child; return the program that fails, and its message."""
    plans = zip(subids.programs(), (facts.uid, facts.gid), (facts.subuids, facts.subgids), strict=True)
    for program, own, ((first, count), *_) in plans:
        words = [program, str(child), *map(str, (0, own, 1, 1, first, count))]
        limit = PATIENCE / 1000
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            return program, "it does not answer"
        if done.returncode:
            return program, " ".join(done.stderr.split()) or f"exit status {done.returncode}"
    return "", ""
