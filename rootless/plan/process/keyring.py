"""Session keyrings: keyrings(7), session-keyring(7)."""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.process.refused_calls import without_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context


def keyring(context: Context) -> list[Op]:
    """Return the operations for a session keyring, which `exec` joins by its name.

    The container never keeps the caller's keyring with its keys, such as Kerberos tickets. If the user's quota of 200
    keys is used up, which one container can do, the system calls for keys fail instead.
    """
    request = context.request
    if request.no_new_keyring:
        return []
    # a new user namespace has no other keyring; elsewhere another container may have created one of this name, unless
    # the name is secret
    name = "" if "user" in context.created and "user" not in context.shared else request.keyring
    return [
        Op(ops.KEYRING, name or f"_ses.{request.container}", on_error=ops.ELSE, alternatives=2),
        # the kernel lets a process without a session keyring exceed its quota for this one
        Op(ops.UNNAMED_KEYRING, on_error=ops.ELSE, alternatives=1),
        Op(ops.NO_KEYS, without_keys(context.facts.machine)),
    ]
