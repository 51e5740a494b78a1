"""The lives that are swept: sequences of commands, and bundles that ask for nearly all that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.user.bundles import base_config, make_bundle, own
from tests.user.sweep import ENDED_WELL, NOT_COME, Sweep, build_tracer, is_supported


def rich_config(*args: str) -> dict:
    """Return a config.json that asks for nearly all that there is."""
    config = base_config(*args)
    config["process"] |= {
        "terminal": True,
        "consoleSize": {"width": 80, "height": 25},
        "user": {"uid": 1, "gid": 2, "umask": 0o27, "additionalGids": [3]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "oomScoreAdj": 1000,
        "cwd": "/made/for/this",
    }
    config["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    config["root"]["readonly"] = True
    config |= {"hostname": "box", "domainname": "example", "annotations": {"org.example.key": "value"}}
    config["mounts"] += [
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777", "size=64k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
        {"destination": "/data", "type": "bind", "source": "/usr/share", "options": ["rbind", "ro", "rslave"]},
        {"destination": "/tmp/hostname", "type": "bind", "source": "/etc/hostname", "options": ["bind"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    config["linux"] |= {
        "timeOffsets": {"boottime": {"secs": 100}},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "rootfsPropagation": "private",
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}
        ],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["kexec_load", "reboot"], "action": "SCMP_ACT_ERRNO"}],
        },
    }
    return config


def bundles(user) -> tuple[Path, Path, Path]:
    """Return a rich bundle whose program does nothing for long, one whose program ends at once, and a simple one."""
    exits = ("sh", "-c", f"exit {ENDED_WELL}")
    rich = make_bundle(user, rich_config("sleep", "1000"), name="rich")
    (rich / "rootfs/tmp/hostname").touch()
    own(user, rich)
    brief = make_bundle(
        user, rich_config(*exits) | {"root": {"path": str(rich / "rootfs"), "readonly": True}}, name="brief"
    )
    simple = make_bundle(user, base_config(*exits), name="simple")
    return rich, brief, simple


@pytest.fixture
def tracer(need):
    """The path of the tracer."""
    if not is_supported():
        pytest.skip("tracer.c does not know the registers of this machine")
    return build_tracer(need)


@pytest.fixture
def sweep(user, rootless_command, tracer):
    """Return a function that makes a Sweep of one of these."""
    rich, brief, simple = bundles(user)
    log = ["--log", "LOG", "--log-format", "json"]
    files = ["--pid-file", "PID-FILE", "ID"]
    create = [*log, "create", "--console-socket", "CONSOLE", "--bundle", rich, *files]
    lives = {
        "create": [create, [*log, "start", "ID"], ["delete", "--force", "ID"]],
        "kill": [create, ["start", "ID"], ["kill", "ID", "KILL"]],
        "look": [create, ["state", "ID"], ["list"]],
        "exec": [create, ["start", "ID"], ["exec", "ID", "true"]],
        "run": [["run", "--bundle", brief, *files]],
        "run -d": [["run", "-d", "--console-socket", "CONSOLE", "--bundle", rich, *files], ["delete", "--force", "ID"]],
    }

    def make(life, **options):
        return Sweep(user, tracer, rootless_command, lives[life], second=["run", "--bundle", simple, "ID"], **options)

    return make


def all_right(wrong):
    """Fail, and list what is wrong."""
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)


def came(outcome):
    """Return what is wrong with an outcome of which nothing but a moment is expected."""
    return [] if outcome.came else [NOT_COME]
