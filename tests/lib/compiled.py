"""The C programs of the tests."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.lib.accounts import RUN


def compiled(need, name: str, *flags: str) -> Path:
    """Compile NAME.c of this directory, once in a run; return the path of the program.

    Two workers may do so at the same time: each has a draft of its own.
    """
    built = Path(RUN) / name
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=RUN) as directory:
            words = [need("cc"), "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", f"{directory}/{name}"]
            subprocess.run([*words, Path(__file__).with_name(f"{name}.c")], check=True)
            Path(directory, name).rename(built)
    return built
