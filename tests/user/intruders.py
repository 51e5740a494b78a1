"""The program of intruder.c, and others that play a hostile process: built, put into a bundle, run and understood."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from rootless.plan.process import CAPABILITIES
from tests.user.boxes import RUN
from tests.user.bundles import base_config, own

EVERYTHING = ["CAP_" + name for name in CAPABILITIES]


def add_program(box, need, name, *flags):
    """Put the program that NAME.c makes into the box as /bin/NAME; return its path."""
    built = Path(RUN) / name
    if not built.exists():
        source = Path(__file__).with_name(f"{name}.c")
        draft = built.with_suffix(".new")
        words = [need("cc"), "-static", "-O1", "-Wall", "-Wextra", "-Werror", *flags, "-o", draft, source]
        subprocess.run(words, check=True)
        draft.chmod(0o755)
        draft.rename(built)
    target = box.rootfs / "bin" / name
    shutil.copy(built, target)
    target.chmod(0o755)
    own(box.user, target)
    return built


def intruding(*words, capabilities=EVERYTHING):
    """Return a config.json in which the intruder runs, as root with every capability."""
    config = base_config("intruder", *words)
    config["process"]["capabilities"] = {
        name: list(capabilities) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    config["process"]["noNewPrivileges"] = False
    return config


def results(text):
    """Return the lines of the intruder: {name: [result, …]}."""
    found = {}
    for line in text.splitlines():
        name, _, result = line.partition(" ")
        found.setdefault(name, []).append(result)
    return found
