"""The verb `checkpoint`: criu(8), which needs root, writes the processes of a container to disk."""

from __future__ import annotations

import os

from rootless.container.checkpoint.criu import NETWORK, Criu, chosen, joined_network
from rootless.container.checkpoint.directories import STREAMS
from rootless.container.operations.teardown import destroy
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED, PAUSED, allow, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.container.state.state import State
    from rootless.options import Options

_SWITCHES = (
    # attribute of Options, option of criu
    ("tcp_skip_in_flight", "--skip-in-flight"),
    ("link_remap", "--link-remap"),
    ("leave_running", "--leave-running"),
)


def checkpoint(options: Options) -> None:
    """Write a container's processes to disk, and delete the container unless they keep running.

    Raises:
        RootlessError: `RL-STATUS`: it does not run; `RL-CRIU`: criu fails.
    """
    with store.find(state_root(options.root), options.container) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        allow("checkpoint", entry.container_id, CREATED if now == PAUSED and entry.has_socket() else now)
        config = entry.read_config()
        criu = Criu(options, state.rootfs, state.annotations)
        criu.directories.make()
        streams = _streams(state.pid)
        words = _words(options, state, config, streams, is_frozen=now == PAUSED)
        if not options.pre_dump:
            criu.directories.check()
            criu.directories.note(streams)  # before criu ends a process: without the note, the images are useless
        try:
            if config["process"].get("terminal") and not options.pre_dump:
                criu.run_as_service(words, state.pid)
            else:
                criu.run(words)
        except BaseException:
            criu.directories.forget()
            raise
        if not (options.pre_dump or options.leave_running):
            destroy(entry, state)


def _words(options: Options, state: State, config: dict[str, Any], streams: list[str], *, is_frozen: bool) -> list[str]:
    """Return criu's command, and the options that are about this container."""
    words = ["pre-dump" if options.pre_dump else "dump", "--tree", str(state.pid)]
    if is_frozen:
        # criu cannot stop frozen processes. It thaws the cgroup once it has seized them, and freezes it again if they
        # keep running.
        words += ["--freeze-cgroup", state.cgroup]
    for stream in streams:
        words += ["--external", stream] if stream.startswith("file[") else []
    if network := joined_network(config):
        words += ["--external", f"net[{os.stat(network).st_ino}]:{NETWORK}"]
    if options.parent_path:
        words += ["--prev-images-dir", options.parent_path]
    if options.parent_path or options.pre_dump:
        words.append("--track-mem")
    words += _page_server(options.page_server) if options.page_server else []
    return words + chosen(options, _SWITCHES)


def _page_server(place: str) -> list[str]:
    """Return criu's options for ADDRESS:PORT."""
    address, _, port = place.rpartition(":")
    if not (address and port.isascii() and port.isdecimal()):
        raise RootlessError(
            f"--page-server {place}", cause="it is not an address with a port", fix="write ADDRESS:PORT", code="RL-CRIU"
        )
    return ["--page-server", "--address", address.strip("[]"), "--port", port]


def _streams(pid: int) -> list[str]:
    """Return criu's name for each standard stream of a process that comes from outside the container.

    The name is ``pipe:[INODE]``, or ``file[MOUNT:INODE]`` for a file in a mount of the host; it is empty for others.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        own = {line.split(None, 1)[0] for line in file}
    found = []
    for number in range(STREAMS):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as file:
                mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        except FileNotFoundError:
            found.append("")
            continue
        if target.startswith("pipe:"):
            found.append(target)
        else:
            is_outside = target.startswith("/") and mount not in own
            found.append(f"file[{int(mount):x}:{inode:x}]" if is_outside else "")
    return found
