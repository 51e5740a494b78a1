"""The verb `kill`."""

from __future__ import annotations

import posix

from rootless import log
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, allow, status
from rootless.container.state.processes import is_process_1, send, signal_all, signal_cgroup
from rootless.container.state.root import state_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

_SIGKILL = 9


def kill(options: Options) -> None:
    """Send a signal to the first process of a container, or with --all to every process of it.

    Only in a pid namespace does the kernel end the others with the first: elsewhere SIGKILL goes to all, as with runc.
    """
    root = state_root(options.root)
    for container_id in store.chosen(root, options.container, regex=options.regex):
        with store.find(root, container_id, lock=False) as entry:
            found = store.existing_state(entry)
            now = status(entry, found)
            process = found.open_process() if now != STOPPED else -1
            if process < 0:
                if not options.all:
                    allow("kill", container_id, STOPPED)
                if found.cgroup and now == STOPPED and found.is_of_this_boot():
                    signal_cgroup(found.cgroup, options.signal)
                continue
            try:
                allow("kill", container_id, now)
                log.debug(f"send signal {options.signal} to process {found.pid}{' and all others' * options.all}")
                if options.all or (options.signal == _SIGKILL and not is_process_1(found.pid)):
                    signal_all(found, process, options.signal)
                else:
                    send(process, options.signal)
            finally:
                posix.close(process)
