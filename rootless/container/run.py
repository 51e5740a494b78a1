"""The verb `run`: create, start, wait, delete, in one process."""

from __future__ import annotations

from rootless.container import store
from rootless.container.console import Console
from rootless.container.create import make, plan_for, prepare
from rootless.container.lifecycle import STOPPED, status
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.options import Options


def run(options: Options) -> int:
    """Create and start a container; unless detached, wait for its program, remove it, and return its exit status."""
    from rootless.container.foreground import attend, catch_signals, copy_size

    bundle, plan = plan_for(options)
    console = Console.for_run(options, plan)
    root = store.state_root(options.root)
    with store.claim(root, options.container) as entry:
        try:
            prepare(plan)
            launch = make(options, bundle, plan, entry, console=console.passed)
            console.receive()
            if console.master >= 0:
                copy_size(console.master)  # the program may ask for it at once
            signals = -1 if options.detach else catch_signals()  # before there is a program to forward them to
            launch.start()
        except BaseException:
            console.close()
            entry.remove()
            raise
    launch.close()
    if options.detach:
        return 0
    try:
        return attend(launch.pid, console, signals)
    finally:
        console.close()
        if not options.keep:
            _remove_ended(root, options.container)


def _remove_ended(root: str, container_id: str) -> None:
    """Remove what a foreground container leaves, unless somebody else did."""
    try:
        with store.find(root, container_id) as entry:
            found = entry.read()
            if found is None or status(entry, found) == STOPPED:
                entry.remove()
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise
