"""Bundles for the tests: a small root file system that belongs to the user, and a config.json as from `runc spec`."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

APPLETS = (
    "awk",
    "cat",
    "chmod",
    "chown",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "nc",
    "nproc",
    "od",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "wc",
    "which",
    "xargs",
    "dmesg",
    "fuser",
    "setsid",
    "su",
    "mkfifo",
    "sync",
    "ulimit",
    "ifconfig",
    "ip",
)

DEFAULT_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
]

CONFIG = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable"), DEFAULT_CAPABILITIES),
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": False},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": ["/proc/kcore", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys"],
    },
}
"""A config.json for root, without a user namespace."""


def base_config(*args: str) -> dict:
    """Return a copy of the config.json, for the caller to change; `args` become process.args."""
    config = copy.deepcopy(CONFIG)
    if args:
        config["process"]["args"] = list(args)
    return config


def make_rootfs(directory: Path) -> Path:
    """Make a root file system with static busybox in `directory`."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root", "data"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox", path="/usr/bin:/bin")
    assert busybox, "busybox-static is one of the packages that tests/run installs"
    shutil.copy(busybox, directory / "bin/busybox")
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nuser:x:4321:4321::/home/user:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\nwww-data:x:33:\nuser:x:4321:\n")
    return directory


def make_bundle(user, config: dict | None = None, *, name: str = "bundle") -> Path:
    """Make a bundle that belongs to `user`, in the user's directory for this test."""
    bundle = user.tmp / name
    bundle.mkdir()
    make_rootfs(bundle / "rootfs")
    write_config(bundle, base_config("true") if config is None else config)
    own(user, bundle)
    return bundle


def write_config(bundle: Path, config: dict) -> None:
    """Write the config.json of a bundle."""
    (bundle / "config.json").write_text(json.dumps(config, indent=1))


def own(user, path: Path) -> None:
    """Make `user` the owner of `path` and everything below it."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "--no-dereference", f"{user.uid}:{user.gid}", path], check=True)
