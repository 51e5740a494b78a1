"""The cache of compiled filters: no container replaces a filter, and root deletes files nowhere else."""

from __future__ import annotations

import hashlib
import os
import struct

import pytest

from tests.lib.boxes import add_mount, as_real_root
from tests.lib.bundles import base_config, own

REFUSED = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
ALLOW_EVERYTHING = struct.pack("@HBBI", 6, 0, 0, 0x7FFF_0000)  # return SECCOMP_RET_ALLOW
TRY = "mkdir /tmp/made 2>/dev/null && echo allowed || echo refused"
MANY = 100
"""More files than the cache keeps, so that its clean-up deletes some."""


def filtered(*args):
    """Return a config whose filter refuses to make directories."""
    config = base_config(*args)
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [REFUSED]}
    return config


def forged(name):
    """Return a cache file with a correct checksum and a filter that allows everything."""
    checksum = hashlib.blake2b(name.encode() + ALLOW_EVERYTHING, digest_size=16).digest()
    return ALLOW_EVERYTHING + checksum


@pytest.mark.parametrize("bound", [".cache", "."])
def test_a_container_with_the_callers_cache_cannot_replace_later_filters(box, bound):
    """The container has the caller's home or ~/.cache, and knows the names and the format of the entries."""
    user = box.user
    home, runtime, forgeries = (user.tmp / name for name in ("home", "run", "forgeries"))
    for directory in (home / ".cache", runtime, forgeries):
        directory.mkdir(parents=True)
        directory.chmod(0o700)
    own(user, home)
    own(user, runtime)
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    assert box.lines(filtered(), TRY, env=env) == ["refused"]
    entries = [path.name for directory in (home, runtime) for path in directory.rglob("*.bpf")]
    assert len(entries) == 1
    (forgeries / entries[0]).write_bytes(forged(entries[0]))
    own(user, forgeries)

    attack = filtered()
    add_mount(attack, "/data", "bind", home / bound, "rbind")
    add_mount(attack, "/root", "bind", forgeries, "rbind", "ro")
    cache = "/data" if bound == ".cache" else "/data/.cache"
    places = [f"{cache}/rootless/{name}" for name in ("seccomp", "@seccomp")]
    attack["linux"]["seccomp"]["syscalls"] = [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]
    script = (
        f'for to in {" ".join(places)}; do mkdir -p "$to"; rm -f "$to"/*.bpf; cp /root/* "$to"; chmod 600 "$to"/*; done'
    )
    box.run(attack, script.replace("cp ", "busybox cp "), check=True, env=env)
    assert list((home / ".cache").rglob(entries[0]))
    assert box.lines(filtered(), TRY, env=env) == ["refused"]


@pytest.mark.parametrize("kept", ["HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"])
def test_root_deletes_nothing_through_the_calling_users_directories(box, require_root, kept):
    """sudo may keep these variables; the user has placed symlinks where the cache would be."""
    victim = box.user.tmp / "victim"
    victim.mkdir()
    for number in range(MANY):
        file = victim / (f"{number:040x}.bpf" if number % 2 else f"{number}.conf")
        file.write_text("root's")
        os.utime(file, (number, number))
    before = {path.name: path.read_bytes() for path in victim.iterdir()}
    home = box.user.tmp / "home"
    for directory in (home / ".cache/rootless", home / "rootless", home / "links"):
        directory.mkdir(parents=True)
        for name in ("seccomp", "@seccomp"):
            (directory / name).symlink_to(victim)
    own(box.user, home)
    root = as_real_root(box)
    root.options["env"] |= {kept: str(home / ".cache" if kept == "XDG_CACHE_HOME" else home)}
    assert root.lines(filtered(), TRY) == ["refused"]
    assert {path.name: path.read_bytes() for path in victim.iterdir()} == before
