"""Write ops.h, the executor's header of what it shares with Python: operations, their operands, flags and messages.

rootless/plan/ops.py declares the operations and rootless/launch/protocol.py the messages. Run it as
``python3 helpers/init/gen_ops.py DIRECTORY``; build.py does so for every build.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = Path(__file__).resolve().parent.parent.parent / "rootless"
NUMBERS = 6
STRINGS = 4
ON_ERROR = ("FAIL", "SKIP_ABSENT", "ELSE")


def header() -> str:
    """Return the text of ops.h."""
    declared = runpy.run_path(str(PACKAGE / "plan" / "ops.py"))
    kinds = {
        name: kind
        for name, kind in declared.items()
        if isinstance(kind, declared["Kind"]) and kind.by == declared["EXECUTOR"]
    }
    codes = {kind.code for kind in kinds.values()}
    if codes != set(range(1, len(kinds) + 1)):
        message = f"ops.py: the codes are not 1 to {len(kinds)}, each once"
        raise SystemExit(message)
    constants = {name: value for name, value in declared.items() if name.isupper() and type(value) is int}
    ways = {f"ON_ERROR_{name}": constants.pop(name) for name in ON_ERROR}
    messages = _constants(PACKAGE / "launch" / "protocol.py")
    functions = {f"op_{name.lower()}": kind for name, kind in kinds.items()}
    parts = [
        "/* Made by gen_ops.py: what rootless/plan/ops.py and rootless/launch/protocol.py declare. */",
        "#pragma once",
        "",
        f"enum {{ PLAN_NUMBERS = {NUMBERS}, PLAN_STRINGS = {STRINGS} }};",
        "",
        _enum("opcode", {f"OP_{name}": kind.code for name, kind in kinds.items()} | {"OP_END": len(kinds) + 1}),
        _enum("on_error", ways),
        _enum("message", {f"MESSAGE_{name}": value for name, value in messages.items()}),
        _enum("flag", constants),
        "/* Where an operation has its operands: in `n` and, as text, in `s`. */",
        _enum("operand", dict(_operands(kinds))),
        "struct op;",
        "typedef int operation(const struct op *op);",
        "",
        *[f"operation {function};" for function in functions],
        "",
        "/* By code: the function; whether it may be repeated after EACCES; a bit for each string that is a list. */",
        _table("OPERATIONS", {kind.code: function for function, kind in functions.items()}),
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


def write(directory: Path) -> Path:
    """Write ops.h into `directory` and return its path."""
    path = directory / "ops.h"
    path.write_text(header())
    return path


def _operands(kinds: dict[str, Any]) -> Iterable[tuple[str, int]]:
    for name, kind in kinds.items():
        for operands, most in ((kind.numbers, NUMBERS), (kind.strings, STRINGS)):
            if len(operands) > most:
                message = f"ops.py: {name} has more operands of one sort than a record has room for: {most}"
                raise SystemExit(message)
            for index, operand in enumerate(operands):
                yield f"{name}_{operand.upper()}", index


def _constants(path: Path) -> dict[str, int]:
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
