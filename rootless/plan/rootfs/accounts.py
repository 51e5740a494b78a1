"""Names of the caller in the passwd and group files of a root whose changes go to an overlay: `--userns keep-id`.

The executor adds them before anything is mounted in the root, so that no file of the host can be there, and so that
programs such as useradd can replace the files. Source: podman-run(1), --passwd.
"""

from __future__ import annotations

from rootless.paths import normal
from rootless.plan import ops
from rootless.plan.idmaps import kept_ids
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_SHELL = "/bin/sh"


def names(context: Context) -> list[Op]:
    """Return the operations that add the caller's user and group, for ids that the image has no name for."""
    facts = context.facts
    if not facts.uid:
        return []
    uid, gid = map(str, kept_ids(facts, context.request.kept_ids))
    account = facts.account
    user = f"{facts.user}:*:{uid}:{gid}:{account.comment}:{_home(context, account.home)}:{_SHELL}"
    added = (
        ("/etc/passwd", facts.user, uid, user),
        ("/etc/group", account.group, gid, f"{account.group}:x:{gid}:{facts.user}"),
    )
    return [Op(ops.ACCOUNT, *operands, on_error=ops.ELSE) for operands in added]


def _home(context: Context, home: str) -> str:
    """Return $HOME of the program, or else the caller's home if a mount brings it in, or else the working directory."""
    set_by = [entry[5:] for entry in context.process.get("env") or () if entry.startswith("HOME=")]
    mounted = [normal("/" + mount["destination"].lstrip("/")) for mount in context.config.get("mounts") or ()]
    is_mounted = any(home == each or home.startswith(f"{each}/") for each in mounted if each != "/")
    chosen = (set_by and set_by[-1]) or (home if is_mounted else "") or context.process.get("cwd") or "/"
    return chosen if chosen.startswith("/") and not {":", "\n"}.intersection(chosen) else "/"
