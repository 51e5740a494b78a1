"""Why a program cannot be executed: execve(2), elf(5). The words before the cause are those that engines match on."""

from __future__ import annotations

import errno
import os

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Op

_MACHINES = {
    3: "x86 (32 bit)",
    8: "MIPS",
    20: "PowerPC",
    21: "ppc64",
    22: "s390x",
    40: "ARM (32 bit)",
    62: "x86_64",
    183: "aarch64",
    243: "RISC-V",
    258: "LoongArch",
}
_ELF = b"\x7fELF"
_PT_INTERP = 3


def not_found(op: Op, number: int) -> RootlessError:
    """Return the error for a program that is not in the image, or cannot be executed by its user."""
    name = str(op.string("name"))
    fix = "name a program that is in the image"
    if number in (errno.ENOENT, errno.ENOTDIR) and "/" not in name:
        cause = "executable file not found in $PATH"
        fix += " and in a directory of PATH in process.env"
    elif number == errno.ENOENT:
        cause = f"stat {name}: no such file or directory"
    elif number == errno.EISDIR:
        cause = "permission denied: it is a directory"  # podman looks for the one, docker for the other
    elif number == errno.EACCES:
        cause = "permission denied"
        fix = "make it executable (chmod +x) and its directories searchable for the user of process.user"
    else:
        cause = os.strerror(number).lower()
    return RootlessError(f'exec: "{name}"', cause=cause, where=op.where, fix=fix, code="RL-EXEC-NOT-FOUND")


def not_executed(op: Op, number: int, head: bytes) -> RootlessError:
    """Return the error for a program that is there and that the kernel refuses to execute.

    Args:
        op: the EXEC operation.
        number: errno of execve(2).
        head: the first bytes of the file.
    """
    name = next(iter(op.string("args")))
    reason = os.strerror(number).lower()
    cause, fix = _cause(number, head)
    return RootlessError(
        f"exec {name}",
        cause=reason + (f": {cause}" if cause else ""),
        where="process.args[0]",
        fix=fix,
        code="RL-EXEC",
    )


def _cause(number: int, head: bytes) -> tuple[str, str]:
    """Return why the kernel refuses the file that begins with `head`, and the fix; both empty where nobody can tell."""
    if head.startswith(b"#!"):
        return _script_cause(number, head)
    if head.startswith(_ELF):
        return _elf_cause(number, head)
    if number == errno.ENOEXEC:
        return "it is neither an ELF program nor a script with a #! line", "begin the script with #!/bin/sh"
    if number == errno.EACCES:
        return "", "make the file executable, and its file system not noexec"
    return "", ""


def _script_cause(number: int, head: bytes) -> tuple[str, str]:
    line = head[2:].partition(b"\n")[0]
    interpreter = (line.split() or [b""])[0].decode("utf-8", "replace")
    cause = fix = ""
    if line.endswith(b"\r"):
        cause = f"its first line, #!{interpreter}, ends with a carriage return"
        fix = "save the script with Unix line ends"
    elif number in (errno.ENOENT, errno.EACCES):
        cause = f"its first line names the interpreter {interpreter}"
        fix = f"put {interpreter} into the image, executable"
    return cause, fix


def _elf_cause(number: int, head: bytes) -> tuple[str, str]:
    elf = _Elf(head)
    cause = fix = ""
    theirs, ours = elf.machine(), os.uname().machine
    if number == errno.ENOEXEC and theirs == ours:
        cause = "its ELF header is damaged"
    elif number == errno.ENOEXEC:
        cause, fix = f"it is for {theirs}, this machine is {ours}", "use an image for this architecture"
    elif number == errno.ENOENT and (interpreter := elf.interpreter()):
        cause = f"its ELF interpreter {interpreter} is not in the image"
        fix = f"put {interpreter} and its libraries into the image"
    return cause, fix


class _Elf:
    """The beginning of an ELF file of either width and byte order; what lies beyond it reads as zeros."""

    __slots__ = ("_big", "_head", "_wide")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._wide = head[4:5] == b"\x02"
        self._big = head[5:6] == b"\x02"

    def machine(self) -> str:
        """Return the architecture in e_machine."""
        number = self._number(18, 2)
        return _MACHINES.get(number, f"ELF machine {number}")

    def interpreter(self) -> str:
        """Return the path in PT_INTERP, if it lies within what is known."""
        table, count = ((32, 8), (56, 2)) if self._wide else ((28, 4), (44, 2))
        entry, offset, size = (56, (8, 8), (32, 8)) if self._wide else (32, (4, 4), (16, 4))
        first = self._number(*table)
        last = min(first + entry * self._number(*count), len(self._head))
        for header in range(first, last, entry):
            if self._number(header, 4) == _PT_INTERP:
                start = self._number(header + offset[0], offset[1])
                length = self._number(header + size[0], size[1])
                return self._head[start : start + length].split(b"\0")[0].decode("utf-8", "replace")
        return ""

    def _number(self, offset: int, size: int) -> int:
        return int.from_bytes(self._head[offset : offset + size], "big" if self._big else "little")
