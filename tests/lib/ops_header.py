"""What gen_ops.py makes of the executor, for tests that compile the executor's sources."""

from __future__ import annotations

import runpy
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent / "helpers" / "init"
_GENERATOR = runpy.run_path(str(SOURCES / "gen_ops.py"))


def text() -> str:
    """Return the header, and the C file that it is for."""
    return _GENERATOR["header"]() + _GENERATOR["source"]()


def includes(directory: Path) -> tuple[str, str]:
    """Write both into `directory`, as ops.h and ops.c; return the compiler's options that find it and the sources."""
    _GENERATOR["write"](directory)
    return f"-I{SOURCES}", f"-I{directory}"
