"""What documents claim about tests."""

from __future__ import annotations

import ast


def functions(file):
    """Return the names of the functions in a file of Python."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}
