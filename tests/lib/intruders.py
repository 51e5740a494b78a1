"""Hostile programs such as intruder.c: build them, add them to a bundle, run them, parse their output."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager

from rootless.linux import CAPABILITIES
from tests.lib.boxes import add_mount, make_volume, set_namespaces
from tests.lib.bundles import base_config, own, write_config
from tests.lib.compiled import compiled
from tests.lib.containers import PATIENCE, Reader

EVERYTHING = ["CAP_" + name for name in CAPABILITIES]
TRIES = 40
"""How often a process joins the namespaces; while the attack was possible, the hunter needed at most four."""


def add_program(box, need, name, *flags):
    """Compile NAME.c into the box as /bin/NAME; return its path."""
    built = compiled(need, name, "-static", *flags)
    target = box.rootfs / "bin" / name
    shutil.copy(built, target)
    target.chmod(0o755)
    own(box.user, target)
    return built


def intruding(*words, capabilities=EVERYTHING):
    """Return a config.json that runs the intruder as root with every capability."""
    config = base_config("intruder", *words)
    config["process"]["capabilities"] = {
        name: list(capabilities) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    config["process"]["noNewPrivileges"] = False
    return config


def results(text):
    """Return the intruder's output: {name: [result, …]}."""
    found = {}
    for line in text.splitlines():
        name, _, result = line.partition(" ")
        found.setdefault(name, []).append(result)
    return found


@contextmanager
def hunter(box, *secret, shares_pids=True, tries=TRIES, flags=()):
    """Run a container that attacks processes that join it, to read a secret of the host; it must not succeed.

    Yields the pid of its first process. With `shares_pids`, its pid namespace is the host's. It must try more than
    `tries` times.
    """
    config = intruding("hunt", "/volume/end", *map(str, secret))
    if shares_pids:
        set_namespaces(config, "network", "ipc", "uts", "mount")
    volume = make_volume(box.user)
    add_mount(config, "/volume", "bind", volume, "rbind")
    write_config(box.path, config)
    words = [*box.command, "run", *flags, "--bundle", box.path, "hunter"]
    with box.user.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            box._created.append("hunter")
            reader = Reader(process.stdout)
            assert reader.line() == "hunting"
            yield json.loads(box.user.run([*box.command, "state", "hunter"], check=True).stdout)["pid"]
        finally:
            (volume / "end").touch()
        found = results(reader.rest().decode())
        assert process.wait(timeout=PATIENCE) == 0
    assert int(found["looks"][0]) > tries
    assert int(found["seen"][0]) > 0, "it came by while they were set up"
    assert "read" not in found
    assert found["caught"] == ["0"]


def namespace_paths(pid, *kinds):
    """Return the paths of a process's namespaces, by kind."""
    files = {"network": "net", "mount": "mnt"}
    return {kind: f"/proc/{pid}/ns/{files.get(kind, kind)}" for kind in kinds}
