"""Write what the front door knows of cached Plans: cached.h, from what Python declares.

Run it as ``python3 helpers/front/gen_cached.py DIRECTORY``; helpers/init/build.py does so for every build.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from rootless.launch import protocol  # noqa: E402 - found by the line above
from rootless.plan import cached_ops  # noqa: E402

MADE = "/* Made by gen_cached.py of what rootless/plan/cached_ops.py and rootless/launch/protocol.py declare. */"
MESSAGES = ("TURN", "READY", "SKIPPED", "EXECUTING")


def header() -> str:
    """Return the text of cached.h."""
    kinds = cached_ops.KINDS
    if [kind.code for kind in kinds] != list(range(1, len(kinds) + 1)):
        message = "cached_ops.py: the codes are not 1 to their number, in this order"
        raise SystemExit(message)
    holes = {name: value for name, value in vars(cached_ops).items() if name.startswith("HOLE_")}
    puts = {name: value for name, value in vars(cached_ops).items() if name.startswith("PUT_")}
    lists = [f"[CACHED_{kind.name.upper()}] = {_bits(kind.strings, kind.lists)}" for kind in kinds if kind.lists]
    return "\n".join(
        [
            MADE,
            "#pragma once",
            f'#define CACHED_MAGIC "{cached_ops.MAGIC.decode()}"',
            f"enum {{ CACHED_LARGEST = {cached_ops.LARGEST}, CACHED_ABSENT = {cached_ops.ABSENT} }};",
            f"enum {{ {', '.join(f'{name} = {value[1]}' for name, value in holes.items())} }};",
            f"enum {{ {', '.join(f'{name} = {value}' for name, value in puts.items())} }};",
            f"enum {{ {', '.join(f'MESSAGE_{name} = {getattr(protocol, name)}' for name in MESSAGES)} }};",
            "enum cached {",
            *(f"    CACHED_{kind.name.upper()} = {kind.code}," for kind in kinds),
            "    CACHED_END",
            "};",
            f"#define CACHED_LISTS {', '.join(lists)}",
            "",
        ]
    )


def _bits(strings: tuple[str, ...], lists: tuple[str, ...]) -> int:
    return sum(1 << place for place, name in enumerate(strings) if name in lists)


def write(directory: Path) -> None:
    """Write cached.h into `directory`."""
    (directory / "cached.h").write_text(header())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
