"""Why a program cannot be executed: execve(2), elf(5). The words before the cause are those that engines match on."""

from __future__ import annotations

import errno
import os

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Op

_MACHINES = {
    3: "x86 (32 bit)", 8: "MIPS", 20: "PowerPC", 21: "ppc64", 22: "s390x", 40: "ARM (32 bit)", 62: "x86_64", 183: "aarch64",
    243: "RISC-V", 258: "LoongArch",
}  # fmt: skip
_PT_INTERP = 3


def not_found(op: Op, number: int) -> RootlessError:
    """Return the error for a program that is not in the image, or cannot be executed by its user."""
    candidates = [str(path) for path in op.string("candidates")]
    name = candidates[0] if len(candidates) == 1 else os.path.basename(candidates[0]) if candidates else ""
    fix = "name a program that is in the image"
    if number == errno.ENOENT and len(candidates) != 1:
        cause = "executable file not found in $PATH"
        fix += " and in a directory of PATH in process.env"
    elif number == errno.ENOENT:
        cause = f"stat {name}: no such file or directory"
    elif number == errno.EISDIR:
        cause = "is a directory"
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
    name = str(next(iter(op.string("args"))))
    reason = os.strerror(number).lower()
    cause, fix = _cause(number, head)
    return RootlessError(
        f'exec: "{name}"',
        cause=reason + (f": {cause}" if cause else ""),
        where="process.args[0]",
        fix=fix,
        code="RL-EXEC",
    )


def _cause(number: int, head: bytes) -> tuple[str, str]:
    if head.startswith(b"#!"):
        line = head[2:].partition(b"\n")[0]
        interpreter = (line.split() or [b""])[0].decode("utf-8", "replace")
        if line.endswith(b"\r"):
            return (
                f"its first line, #!{interpreter}, ends with a carriage return",
                "save the script with Unix line ends",
            )
        if number in (errno.ENOENT, errno.EACCES):
            return (
                f"its first line names the interpreter {interpreter}",
                f"put {interpreter} into the image, executable",
            )
        return "", ""
    if head.startswith(b"\x7fELF"):
        machine = _machine(head)
        if number == errno.ENOEXEC:
            return f"it is for {machine}, this machine is {os.uname().machine}", "use an image for this architecture"
        interpreter = _elf_interpreter(head)
        if number == errno.ENOENT and interpreter:
            return (
                f"its ELF interpreter {interpreter} is not in the image",
                f"put {interpreter} and its libraries into the image",
            )
        return "", ""
    if number == errno.ENOEXEC:
        return "it is neither an ELF program nor a script with a #! line", "begin the script with #!/bin/sh"
    if number == errno.EACCES:
        return "", "make the file executable, and its file system not noexec"
    return "", ""


def _machine(head: bytes) -> str:
    number = int.from_bytes(head[18:20], "big" if head[5:6] == b"\x02" else "little")
    return _MACHINES.get(number, f"ELF machine {number}")


def _elf_interpreter(head: bytes) -> str:
    """Return the path in PT_INTERP of an ELF file of this machine's byte order, if it lies within `head`."""
    wide = head[4:5] == b"\x02"
    order = "big" if head[5:6] == b"\x02" else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(head[offset : offset + size], order)  # type: ignore[arg-type]

    table, entry, count = (
        (number(32, 8), number(54, 2), number(56, 2)) if wide else (number(28, 4), number(42, 2), number(44, 2))
    )
    for index in range(count):
        header = table + index * entry
        if number(header, 4) == _PT_INTERP:
            start, size = (
                (number(header + 8, 8), number(header + 32, 8))
                if wide
                else (number(header + 4, 4), number(header + 16, 4))
            )
            return head[start : start + size].split(b"\0")[0].decode("utf-8", "replace")
    return ""
