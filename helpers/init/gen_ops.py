"""Write the part of the executor that follows from Python's declarations.

ops.h has operations, their operands, flags and messages; ops.c has the functions of the operations that are a single
system call, and run(), which calls the function of any operation. rootless/plan/ops.py declares the operations and
rootless/launch/protocol.py the messages. Run it as ``python3 helpers/init/gen_ops.py DIRECTORY``; build.py does so for
every build.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent.parent / "rootless"
NUMBERS = 6
STRINGS = 4
ON_ERROR = ("FAIL", "SKIP_ABSENT", "ELSE", "IGNORE")
TYPES = {
    **dict.fromkeys(("columns", "rows"), "unsigned short"),
    **dict.fromkeys(("alone", "deep", "early", "exclusive", "move", "new"), "bool"),
    **dict.fromkeys(("flags", "hook_flags", "major", "minor", "prefix"), "unsigned"),
    **dict.fromkeys(("mask", "mode", "type"), "mode_t"),
    **dict.fromkeys(("namespace", "namespaces", "resource", "root_of", "value"), "int"),
    **dict.fromkeys(("effective", "permitted", "inheritable", "keep", "raise"), "uint64_t"),
    **dict.fromkeys(("allowed", "attributes", "handled", "hard", "propagation", "soft"), "uint64_t"),
    **dict.fromkeys(("device", "inode", "tree"), "uint64_t"),
    "domain": "unsigned long",
    "gid": "gid_t",
    "uid": "uid_t",
}
"""The C type of a number, by its name; another one is an int64_t, as in the Plan."""
MADE = "/* Made by gen_ops.py of what rootless/plan/ops.py and rootless/launch/protocol.py declare. */"


def header() -> str:
    """Return the text of ops.h."""
    declared, kinds = _declared()
    codes = {kind.code for kind in kinds.values()}
    if codes != set(range(1, len(kinds) + 1)):
        message = f"ops.py: the codes are not 1 to {len(kinds)}, each once"
        raise SystemExit(message)
    constants = {name: value for name, value in declared.items() if name.isupper() and type(value) is int}
    ways = {f"ON_ERROR_{name}": constants.pop(name) for name in ON_ERROR}
    messages = numbers_of(PACKAGE / "launch" / "protocol.py")
    change = tuple(declared["CHANGE"].split())
    parameters = {name: _parameters(name, kind, change) for name, kind in kinds.items()}
    parts = [
        MADE,
        "#pragma once",
        "",
        "#include <stdbool.h>",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#include <sys/types.h>",
        "",
        _enum("opcode", {f"OP_{name}": kind.code for name, kind in kinds.items()} | {"OP_END": len(kinds) + 1}),
        _enum("on_error", ways),
        _enum("message", {f"MESSAGE_{name}": value for name, value in messages.items()}),
        _enum("flag", constants),
        "/* A string of bytes, or a list of strings, with a NUL after each. */",
        "struct bytes {",
        "    const char *at;",
        "    size_t length;",
        "};",
        "",
        "/* How a mount is changed. */",
        "struct change {",
        *[f"    uint64_t {name};" for name in change],
        "};",
        "",
        *[
            f"int op_{name.lower()}({', '.join(what for what, _, _ in found) or 'void'});"
            for name, found in parameters.items()
        ],
        "",
        "/* By code: whether the operation may be repeated after EACCES; a bit for each string that is a list. */",
        _table("MAY_RETRY", {kind.code: 1 for kind in kinds.values() if kind.retry}),
        _table(
            "LISTS",
            {
                kind.code: sum(1 << kind.strings.index(name) for name in kind.lists)
                for kind in kinds.values()
                if kind.lists
            },
        ),
    ]
    return "\n".join(parts)


def source() -> str:
    """Return the text of ops.c."""
    declared, kinds = _declared()
    change = tuple(declared["CHANGE"].split())
    parameters = {name: _parameters(name, kind, change) for name, kind in kinds.items()}
    parts = [MADE, '#include "init.h"', "", "#include <linux/keyctl.h>", ""]
    for name, kind in kinds.items():
        if kind.call:
            call, _, arguments = kind.call[:-1].partition("(")
            words = ", ".join(filter(None, (f"SYS_{call}", arguments)))
            operands = ", ".join(f"{what} {operand}" for what, _, operand in parameters[name])
            body = f'    return syscall({words}) < 0 ? failed("{call}") : 0;'
            parts += [f"int op_{name.lower()}({operands or 'void'})", "{", body, "}", ""]
    parts += ["int run(const struct op *op)", "{", "    switch (op->code) {"]
    for name, found in parameters.items():
        arguments = ", ".join(value for _, value, _ in found)
        parts += [f"    case OP_{name}:", f"        return op_{name.lower()}({arguments});"]
    parts += ["    default:", '        return failed_with("the plan", EINVAL);', "    }", "}", ""]
    return "\n".join(parts)


def write(directory: Path) -> Path:
    """Write ops.h and ops.c into `directory` and return the path of ops.c."""
    (directory / "ops.h").write_text(header())
    path = directory / "ops.c"
    path.write_text(source())
    return path


def _declared() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all that ops.py declares, and the kinds of the executor."""
    declared = runpy.run_path(str(PACKAGE / "plan" / "ops.py"))
    executor = declared["EXECUTOR"]
    return declared, {
        name: kind for name, kind in declared.items() if isinstance(kind, declared["Kind"]) and kind.by == executor
    }


def _parameters(name: str, kind: Any, change: tuple[str, ...]) -> list[tuple[str, str, str]]:  # noqa: ANN401
    """Return for each parameter of an operation's function its type, the argument for it, and its name."""
    for operands, most in ((kind.numbers, NUMBERS), (kind.strings, STRINGS)):
        if len(operands) > most:
            message = f"ops.py: {name} has more operands of one sort than a record has room for: {most}"
            raise SystemExit(message)
    found = []
    if kind.numbers == change:
        found.append(("const struct change *", "change_of(op)", "change"))
    else:
        for index, number in enumerate(kind.numbers):
            what = TYPES.get(number, "int64_t")
            found.append((what, f"({what})op->n[{index}]", number))
    for index, string in enumerate(kind.strings):
        if string in kind.lists or string in kind.raw:
            found.append(("struct bytes", f"bytes(op, {index})", string))
        elif string not in kind.words:
            found.append(("const char *", f"text(op, {index})", string))
    return found


def numbers_of(path: Path) -> dict[str, int]:
    """Return the whole numbers that a module names at its top, without importing it."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            name, value = node.targets[0].id, node.value.value
            if name.isupper() and name[0] != "_" and type(value) is int:
                found[name] = value
    return found


def _enum(name: str, values: dict[str, int]) -> str:
    return "\n".join([f"enum {name} {{", *[f"    {key} = {value}," for key, value in values.items()], "};", ""])


def _table(name: str, entries: dict[int, object]) -> str:
    return " \\\n".join([f"#define {name}", *[f"    [{code}] = {value}," for code, value in entries.items()]]) + "\n"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
