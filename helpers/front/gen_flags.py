"""Write the words that the front door understands: flags.h, from the tables of the command line.

Run it as ``python3 helpers/front/gen_flags.py DIRECTORY``; helpers/init/build.py does so for every build.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from rootless.cli.flags import CHOICE, ENGINE_VERBS, GLOBAL_FLAGS, SWITCH  # noqa: E402 - found by the line above

if TYPE_CHECKING:
    from rootless.cli.flags import Flag

MADE = "/* Made by gen_flags.py of what rootless/cli/flags.py declares. */"
GLOBAL = {"--root": "FLAG_ROOT", "--log": "FLAG_LOG"}
"""Global flags that these verbs heed; of the others below, every value but those in DECLINED means the same to them."""
SAME = ("--log-format", "--log-level", "--debug", "--systemd-cgroup", "--cgroup-manager", "--rootless")
DECLINED = {"--log-level": ("debug",), "--debug": ("true",), "--force": ("false",)}
DECLINED |= {"--quiet": ("false",), "--format": ("table",)}
OF_VERBS = {
    ("delete", "--force"): "FLAG_FORCE",
    ("list", "--quiet"): "FLAG_QUIET",
    ("list", "--format"): "FLAG_FORMAT",
} | {("exec", name): "FLAG_EXEC" for name in ("--env", "--cwd", "--user", "--interactive", "--tty")}
"""The front door compares the words of `exec` with those of the entry that Python has written."""
TOGETHER = ("-it", "-ti")
"""Letters of `exec` that people write as one word."""


def rows() -> list[str]:
    """Return the initializers of the flags."""
    found = []
    for flag in GLOBAL_FLAGS:
        name = flag.names[-1]
        if name in GLOBAL or name in SAME:
            found += _rows("", flag, GLOBAL.get(name, "FLAG_CHOICE"))
    for (verb, name), kind in OF_VERBS.items():
        found += _rows(verb, next(flag for flag in ENGINE_VERBS[verb].flags if name in flag.names), kind)
    return found + [f'{{"exec", "{word}", FLAG_EXEC, "", "true"}},' for word in TOGETHER]


def _rows(verb: str, flag: Flag, kind: str) -> list[str]:
    choices = {SWITCH: "true|false", CHOICE: flag.metavar}.get(flag.kind, "").split("|")
    allowed = "|".join(word for word in choices if word not in DECLINED.get(flag.names[-1], ()))
    alone = '"true"' if flag.kind == SWITCH else "0"
    return [f'{{"{verb}", "{name}", {kind}, "{allowed}", {alone}}},' for name in flag.names]


def header() -> str:
    """Return the text of flags.h."""
    names = {name[3:]: int(number) for name, number in signal.Signals.__members__.items()}
    return "\n".join(
        [
            MADE,
            "#pragma once",
            "enum flag_kind { FLAG_ROOT, FLAG_LOG, FLAG_CHOICE, FLAG_FORCE, FLAG_QUIET, FLAG_FORMAT, FLAG_EXEC };",
            "static const struct flag {",
            "    const char *verb, *name;",
            "    enum flag_kind kind;",
            "    const char *choices, *alone;",
            "} flags[] __attribute__((unused)) = {",
            *rows(),
            "};",
            "static const struct {",
            "    const char *name;",
            "    int number;",
            "} signals[] __attribute__((unused)) = {",
            *(f'{{"{name}", {number}}},' for name, number in names.items() if not name.startswith("RT")),
            "};",
            "",
        ]
    )


def write(directory: Path) -> None:
    """Write flags.h into `directory`."""
    (directory / "flags.h").write_text(header())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
