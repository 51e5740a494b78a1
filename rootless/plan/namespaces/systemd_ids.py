"""`--userns systemd`: 65536 IDs that systemd lends to an image, for callers without subordinate IDs.

systemd-nsresourced.service(8) gives a user namespace a free range of the host's IDs for as long as it exists. The
caller's own ID is not among them, and nothing on disk may belong to them, because others get them later. So the mode
fits a root that FUSE serves, with changes in memory: the owners are those of the image. It does not fit a bundle, an
overlay that stays, or the caller's files, which belong to nobody in the container. Hence the caller has to choose it,
and a single ID stays the default. Binds are read-only: systemd before 262 trusts every mount of the container's mount
namespace, and would let it leave files in a directory that everybody may write to.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.idmaps import UNKNOWN, IdMaps
from rootless.plan.rootfs.image import MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

RANGE = 65536
"""systemd gives one ID or so many."""


def choose(context: Context) -> None:
    """Choose the maps that systemd will write, and warn of the caller's files.

    Raises:
        RootlessError: `RL-IDMAP-SYSTEMD`: there is no such service here, or the container needs the caller's own ID.
    """
    facts = context.facts
    cause = fix = ""
    if facts.nested:
        cause, fix = "you are in a user namespace already", "run rootless outside of it"
    elif not facts.id_service:
        cause = "systemd-nsresourced does not listen on this host"
        fix = (
            "have an administrator install systemd 257 (Debian: apt install systemd-container) and run "
            '"systemctl enable --now systemd-nsresourced.socket"'
        )
    elif not context.bundle.is_image:
        cause = "the files of a bundle belong to you, and the container has no ID of yours"
        fix = "run an image on a host with squashfuse and /dev/fuse (rootless doctor), or use --userns single"
    elif context.request.overlay not in ("", MEMORY):
        cause = "the container has no ID of yours, so it cannot write to a directory of yours"
        fix = "leave out --overlay, or use --userns single"
    elif context.request.join:
        cause, fix = "the containers of a group share files on this host", "leave out --join, or use --userns single"
    if cause:
        raise RootlessError("--userns systemd", cause=cause, fix=fix, code="RL-IDMAP-SYSTEMD")
    if context.linux.get("uidMappings") or context.linux.get("gidMappings"):
        context.adapted("linux.uidMappings", "--userns systemd replaces linux.uidMappings and gidMappings")
    line = (0, UNKNOWN, RANGE)
    context.maps = IdMaps((line,), (line,), f"{RANGE} ids that systemd lends it", facts, facts.id_service)
    for index, mount in enumerate(context.config.get("mounts") or ()):
        if {"bind", "rbind"}.intersection([mount.get("type"), *(mount.get("options") or ())]):
            where, what = f"mounts[{index}]", f"your files in {mount['destination']}"
            context.warn_ignored(where, f"{what} are read-only and belong to nobody: the container has no ID of yours")
