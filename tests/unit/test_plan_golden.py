"""Whole Plans for configurations that real programs wrote, for four callers, as readable text.

tests/lib/data/configs contains the configurations and their sources; golden/NAME.txt contains the Plan for an ordinary
user and the differences for the other callers. After an intended change of Plans, write the files again, in a checkout
with the test extras installed, and review every line that git shows:

    ROOTLESS_WRITE_GOLDEN=1 python3 -m pytest tests/unit/test_plan_golden.py
"""

from __future__ import annotations

import difflib
import os
import string
from pathlib import Path

import pytest

from rootless.bundle.check import check
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.compile import compile_plan
from rootless.plan.op_text import WORDS, details, further_lines, sentence
from rootless.plan.request import Request
from tests.lib.configurations import CALLERS, CONFIGURATIONS

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
WRITE = os.environ.get("ROOTLESS_WRITE_GOLDEN", "") == "1"


FLAGS = {
    ops.PLAIN_TARGET: "no link on the way",
    ops.KEEP_MODE: "mode of what it covers",
    ops.LEGACY: "by mount(2)",
}


def lines_of(config, facts):
    """Return all decisions, one per line."""
    check(config)
    request = Request(Options(container="c1"))
    try:
        plan = compile_plan(Bundle("/home/user/bundle", config), facts, request)
    except RootlessError as error:
        return [f"refused, {error.code}: {error}"]
    lines = [f"{note.kind}: {note.text}" + (f" [{note.where}]" if note.where else "") for note in plan.notes]
    lines.append("")
    for op in plan.ops:
        lines += [line_of(op), *(f"    {line}" for line in further_lines(op))]
    return lines


def line_of(op):
    """Return an operation with all operands; objects of launcher operations describe themselves."""
    if op.kind.by == ops.LAUNCHER:
        return f"* {sentence(op)}" + (f" [{op.where}]" if op.where else "")
    told = {field for _, field, _, _ in string.Formatter().parse(WORDS[op.kind][0]) if field}
    more = []
    if "set" in op.kind.numbers:
        told |= {"flags", "propagation", "set", "clear", "set_below", "clear_below", "options"}
        flags = [word for flag, word in FLAGS.items() if op.number("flags") & flag]
        more = [part for part in (details(op), *flags) if part]
    more += [
        f"{name} {oct(value) if name == 'mode' else value}"
        for name, value in zip(op.kind.numbers, op.numbers, strict=True)
        if name not in told
    ]
    more += [f"{name} {value!r}" for name, value in zip(op.kind.strings, op.strings, strict=True) if name not in told]
    line = sentence(op) + (f" ({'; '.join(more)})" if more else "")
    if op.on_error == ops.ELSE:
        line += f", or else the next {op.alternatives}" if op.alternatives else ", if it can be"
    elif op.on_error == ops.SKIP_ABSENT:
        line += ", if it is there"
    elif op.on_error == ops.IGNORE:
        line += ", if it can be"
    return line + (f" [{op.where}]" if op.where else "")


def golden_of(config):
    """Return the text of a golden file."""
    (first, facts), *others = CALLERS.items()
    whole = lines_of(config, facts)
    text = [f"Called by {first}", "", *whole]
    for caller, other in others:
        differences = list(difflib.unified_diff(whole, lines_of(config, other), n=0, lineterm=""))[2:]
        text += ["", f"Called by {caller}: what differs", ""]
        text += [line for line in differences if not line.startswith("@@")] or ["nothing"]
    return "".join(f"{line}".rstrip() + "\n" for line in text)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_plan(name):
    path = GOLDEN / f"{name}.txt"
    text = golden_of(CONFIGURATIONS[name])
    if WRITE:
        path.write_text(text)
    assert text.splitlines() == path.read_text().splitlines(), "see the module's docstring for how to write it again"


def test_every_golden_file_has_its_configuration():
    assert {path.stem for path in GOLDEN.iterdir()} == set(CONFIGURATIONS)
