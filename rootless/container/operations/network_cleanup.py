"""The undo of a container's network: the processes that serve it end, and a shared network forgets it.

The note has the identities (process, start time) of the `helper` and the netns `holder`, as far as they were started;
`wait` says that host ports become free only when the helper has ended; `shared` names a shared network.
"""

from __future__ import annotations

from rootless import log
from rootless.container.network import helper_process
from rootless.container.operations.undo import notes
from rootless.errors import RootlessError
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.container.network.shared_state import leave
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
else:
    leave = lazy("rootless.container.network.shared_state", "leave")


def undo(entry: ContainerDir, data: Data) -> None:
    """End the processes that serve the network of a container that has ended, and leave a shared one."""
    if "helper" in data:
        helper_process.end(data["helper"], wait=data["wait"])
    if "holder" in data:
        helper_process.end(data["holder"])
    if "shared" in data:
        try:
            leave(entry.root, data["shared"], entry.container_id)
        except RootlessError as error:  # the next container that joins the network removes the member
            log.warning(f"{error.what}: {error.cause}", fix=error.fix)


def serving_processes(entry: ContainerDir) -> list[Sequence[int]]:
    """Return the identities of the helper, if there is one, and of the netns holder of a container's network."""
    data = notes(entry).get("network", {})
    return [data[name] for name in ("helper", "holder") if _is_identity(data.get(name))]


def _is_identity(value: object) -> bool:
    """Whether this has the shape of procfs.identity(): an edited file may hold something else."""
    pair = 2
    return isinstance(value, list) and len(value) == pair and all(type(each) is int for each in value)
