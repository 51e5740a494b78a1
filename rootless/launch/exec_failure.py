"""The reason why a program cannot be executed: execve(2), elf(5). Engines match on the words before the cause."""

from __future__ import annotations

import errno
import os

from rootless.errors import RootlessError
from rootless.launch.elf_header import MAGIC, ElfHeader

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


def not_found(op: Op, refusals: bytes) -> RootlessError:
    """Return the error for a program that is not in the image, or cannot be executed by its user.

    Args:
        op: the COMMAND operation.
        refusals: an errno for each of its candidates; as with execvp(3), the last one that says more than that the
            candidate is absent counts.
    """
    name = str(op.string("name"))
    number = errno.ENOENT
    for each in refusals:
        if each != errno.ENOENT and (each != errno.ENOTDIR or number == errno.ENOENT):
            number = each
    fix = "name a program that is in the image"
    if number in (errno.ENOENT, errno.ENOTDIR) and "/" not in name:
        cause = "executable file not found in $PATH"
        fix += " and in a directory of PATH in process.env"
    elif number == errno.ENOENT:
        cause = f"stat {name}: no such file or directory"
    elif number == errno.EISDIR:
        cause = "permission denied: it is a directory"  # podman matches the first words, docker the last ones
    elif number == errno.EACCES:
        cause = "permission denied"
        fix = "make it executable (chmod +x), on a mount without noexec, in directories that the user may search"
    else:
        cause = os.strerror(number).lower()
    return RootlessError(f'exec: "{name}"', cause=cause, where=op.where, fix=fix, code="RL-EXEC-NOT-FOUND")


def not_executed(op: Op, number: int, head: bytes) -> RootlessError:
    """Return the error for an existing program that the kernel refuses to execute.

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
        where=op.where and f"{op.where}[0]",  # a program of the host is in no config.json
        fix=fix,
        code="RL-EXEC",
    )


def _cause(number: int, head: bytes) -> tuple[str, str]:
    """Return the reason why the kernel refuses the file that starts with `head`, and the fix; both may be empty."""
    if head.startswith(b"#!"):
        return _script_cause(number, head)
    if head.startswith(MAGIC):
        return _elf_cause(number, head)
    if number == errno.ENOEXEC:
        return "it is neither an ELF program nor a script with a #! line", "start the script with #!/bin/sh"
    if number == errno.EACCES:
        return "", "make the file executable (chmod +x), and mount its file system without noexec"
    return "", ""


def _script_cause(number: int, head: bytes) -> tuple[str, str]:
    line = head[2:].partition(b"\n")[0]
    interpreter = (line.split() or [b""])[0].decode("utf-8", "replace")
    cause = fix = ""
    if line.endswith(b"\r"):
        cause = f"its first line, #!{interpreter}, ends with a carriage return"
        fix = "save the script with Unix line endings"
    elif number in (errno.ENOENT, errno.EACCES):
        cause = f"its first line names the interpreter {interpreter}"
        fix = f"put {interpreter} into the image, executable"
    return cause, fix


def _elf_cause(number: int, head: bytes) -> tuple[str, str]:
    elf = ElfHeader(head)
    cause = fix = ""
    theirs, ours = _MACHINES.get(elf.machine, f"ELF machine {elf.machine}"), os.uname().machine
    if number == errno.ENOEXEC and theirs == ours:
        cause = "its ELF header is damaged"
    elif number == errno.ENOEXEC:
        cause, fix = f"it is for {theirs}, this machine is {ours}", "use an image for this architecture"
    elif number == errno.ENOENT and (interpreter := elf.interpreter().decode("utf-8", "replace")):
        cause = f"its ELF interpreter {interpreter} is not in the image"
        fix = f"put {interpreter} and its libraries into the image"
    return cause, fix
