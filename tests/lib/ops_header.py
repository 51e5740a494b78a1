"""The executor's header from gen_ops.py, for tests that compile the executor's sources."""

from __future__ import annotations

import runpy
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent / "helpers" / "init"
_GENERATOR = runpy.run_path(str(SOURCES / "gen_ops.py"))


def text() -> str:
    """Return the header."""
    return _GENERATOR["header"]()


def includes(directory: Path) -> tuple[str, str]:
    """Write the header into `directory`; return the compiler's options that find it and the sources."""
    _GENERATOR["write"](directory)
    return f"-I{SOURCES}", f"-I{directory}"
