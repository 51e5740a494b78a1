"""Session keyrings, keyrings(7), and short seccomp filters of our own, seccomp(2), which need no libseccomp.

A filter of config.json is compiled by the launcher instead (seccomp.py).
"""

from __future__ import annotations

from _struct import Struct

from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.context import Context

_INSTRUCTION = Struct("=HBBI")
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 122
"""SECCOMP_RET_ERRNO with EDQUOT."""
_X32 = 0x40000000
_ARCHITECTURES = {
    # machine: its architectures as seccomp(2) knows them: AUDIT_ARCH_…, the numbers of add_key(2) and socket(2) on it,
    # and that of socketcall(2), which is another one of them where it does not exist
    "x86_64": ((0xC000003E, 248, 41, 41), (0x40000003, 286, 359, 102)),
    "aarch64": ((0xC00000B7, 217, 198, 198), (0x40000028, 309, 281, 102)),
    "riscv64": ((0xC00000F3, 217, 198, 198),),
    "ppc64le": ((0xC0000015, 269, 326, 102),),
    "s390x": ((0x80000016, 278, 359, 102), (0x00000016, 278, 359, 102)),
}
_IO_URING_SETUP = 425
"""io_uring_setup(2), on every architecture: it makes sockets as well."""


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


def without_keys(machine: str) -> bytes:
    """Return a seccomp filter that makes the system calls for keys fail, as if the quota were used up."""
    # add_key, request_key and keyctl come one after the other
    return _refusing([(each, (key, key + 1, key + 2)) for each, key, _, _ in _ARCHITECTURES.get(machine, ())])


def without_sockets(machine: str) -> bytes:
    """Return a seccomp filter that makes the system calls fail that make a socket."""
    architectures = _ARCHITECTURES.get(machine, ())
    return _refusing([(each, (socket, call, _IO_URING_SETUP)) for each, _, socket, call in architectures])


def _refusing(refused: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """Return a seccomp filter that makes some system calls fail on each architecture, and all of other ones."""
    if not refused:
        return b""  # the kernel refuses an empty filter
    program = [(0x20, 0, 0, 4)]  # load the architecture
    for architecture, numbers in refused:
        last = len(numbers)
        program += [
            (0x15, 0, last + 4, architecture),  # is it this one?
            (0x20, 0, 0, 0),  # load the number
            (0x54, 0, 0, ~_X32 & 0xFFFFFFFF),
            *[(0x15, last - index, 0, number) for index, number in enumerate(numbers)],
            (0x06, 0, 0, _ALLOW),
            (0x06, 0, 0, _REFUSE),
        ]
    program.append((0x06, 0, 0, _REFUSE))
    return b"".join([_INSTRUCTION.pack(*each) for each in program])
