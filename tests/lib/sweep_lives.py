"""The container lives that are swept: sequences of commands, and bundles with nearly every property."""

from __future__ import annotations

import os
import shlex
import signal
import socket
from pathlib import Path

import pytest

from tests.lib.boxes import subordinate
from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.compiled import compiled
from tests.lib.squashfs import image_config, make_image_bundle
from tests.lib.sweep import ENDED_WELL, NOT_COME, Sweep, is_supported, shared_home


def rich_config(*args: str) -> dict:
    """Return a config.json with nearly every property."""
    config = base_config(*args)
    cpu = min(os.sched_getaffinity(0))
    config["process"] |= {
        "terminal": True,
        "consoleSize": {"width": 80, "height": 25},
        "user": {"uid": 1, "gid": 2, "umask": 0o27, "additionalGids": [3]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "oomScoreAdj": 1000,
        "cwd": "/made/for/this",
        "execCPUAffinity": {"initial": str(cpu), "final": str(cpu)},
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


KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
OWN = "umask"
"""The first system call of a command after Python's start."""


def rare_config(user, agent: Path, *args: str) -> dict:
    """Return a config.json with rare properties; `agent` answers the notifications of its seccomp filter."""
    config = base_config(*args)
    true = {"path": "/bin/true"}
    config["process"] |= {
        "scheduler": {"policy": "SCHED_BATCH"},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    }
    config["annotations"] = {"run.oci.hooks.stdout": "/dev/null"}
    config["hooks"] = {
        "prestart": [true],
        "createRuntime": [true],
        "createContainer": [true],
        "startContainer": [true],
        "poststart": [true],
        "poststop": [true],
    }
    config["mounts"].append({"destination": "/data", "type": "tmpfs", "options": ["remount", "bind", "ro"]})
    config["mounts"].insert(1, {"destination": "/data", "type": "tmpfs", "source": "tmpfs"})
    ids = [(7, user.uid, 1), (0, subordinate(user, 5), 1)]
    lines = [dict(zip(("containerID", "hostID", "size"), each, strict=True)) for each in ids]
    config["mounts"].append(
        {"destination": "/root", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"]}
        | {"uidMappings": lines, "gidMappings": lines}
    )
    config["linux"] |= {
        "memoryPolicy": {"mode": "MPOL_LOCAL"},
        "personality": {"domain": "LINUX"},
        "devices": [{"path": "/dev/queue", "type": "p"}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(agent),
            "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_NOTIFY"}],
        },
    }
    return config


def nested_config(user) -> dict:
    """Return a config.json with an ID-mapped mount of a caller who is root of a user namespace."""
    config = base_config("sh", "-c", f"exit {ENDED_WELL}")
    lines = [{"containerID": 5, "hostID": 1005, "size": 2}]
    config["mounts"].append(
        {"destination": "/data", "source": str(user.tmp / "volume"), "options": ["bind", "idmap"]}
        | {"uidMappings": lines, "gidMappings": lines}
    )
    return config


def nested_command(user, rootless_command: str) -> Path:
    """Return a command that calls `rootless` as under `podman unshare`, with that mount."""
    volume = user.tmp / "volume"
    volume.mkdir(exist_ok=True)
    own(user, volume)
    script = f'mount -t tmpfs -o mode=0755 tmpfs {volume}; exec {rootless_command} "$@"'
    command = user.tmp / "nested-rootless"
    words = "exec unshare --user --map-root-user --map-auto --mount"
    command.write_text(f'#!/bin/sh\n{words} sh -euc {shlex.quote(script)} sh "$@"\n')
    command.chmod(0o755)
    return command


def bundles(user) -> tuple[Path, Path, Path]:
    """Return a rich bundle whose program runs for long, one whose program ends immediately, and a simple bundle."""
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
        pytest.skip("tracer.c does not support this machine")
    return compiled(need, "tracer")


@pytest.fixture
def rare_sweep(user, rootless_command, tracer, need):
    """Return a function that makes a Sweep of a life with rare properties."""
    need("slirp4netns")
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    if KERNEL < (6, 3):
        pytest.skip("this kernel has no ID-mapped tmpfs")
    with socket.socket(socket.AF_UNIX) as agent:
        path = user.tmp / "agent"
        agent.bind(str(path))
        path.chmod(0o777)
        agent.listen(4096)  # no sender waits for an answer
        rare = make_bundle(user, rare_config(user, path, "sh", "-c", f"exit {ENDED_WELL}"), name="rare")
        idle = make_bundle(user, base_config("sleep", "1000"), name="idle")
        simple = make_bundle(user, base_config("sh", "-c", f"exit {ENDED_WELL}"), name="second")
        joined = ["run", "-d", "--network"]
        end = ["delete", "--force", "ID"]
        lives = {
            "rare": [["run", "--no-pivot", "--userns", "keep-id", "--bundle", rare, "ID"]],
            "network": [[*joined, "slirp4netns", "--publish", "127.0.0.1::80", "--bundle", idle, "ID"], end],
            "monitored": [["run", "-d", "--init", "--timeout", "1000", "--network", "none", "--name", "ID", idle], end],
            "pasta": [[*joined, "pasta", "--bundle", idle, "ID"], end],
            "shared network": [[*joined, "shared", "--bundle", idle, "ID"], end],
        }
        image = make_image_bundle(user, image_config("sleep", "1000"), name="image")
        lives["image"] = [["run", "-d", "--network", "none", "--overlay=DIR", "--bundle", image, "ID"], end]
        lives["nested"] = [["run", "--bundle", make_bundle(user, nested_config(user), name="nested"), "ID"]]
        second = ["run", "--bundle", simple, "ID"]

        def make(life):
            command = nested_command(user, rootless_command) if life == "nested" else rootless_command
            if life == "shared network":
                home = shared_home(user)
                user.run([rootless_command, "network", "create", "shared"], env={"HOME": str(home)}, check=True)
            return Sweep(user, tracer, command, lives[life], second=second, notify=life == "rare")

        yield make


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
        "exec": [create, ["start", "ID"], ["exec", "--tty", "ID", "true"]],
        "run": [["run", "--bundle", brief, *files]],
        "run attended": [["run", "--bundle", brief, *files]],
        "run -d": [
            ["run", "-d", "--console-socket", "CONSOLE", "--pidfd-socket", "CONSOLE", "--bundle", rich, *files],
            ["delete", "--force", "ID"],
        ],
    }

    def make(life, **options):
        second = ["run", "--bundle", simple, "ID"]
        options |= {"attended": life == "run attended"}
        return Sweep(user, tracer, rootless_command, lives[life], second=second, **options)

    return make


def all_right(wrong):
    """Fail if there are problems, and list them."""
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)


def came(outcome):
    """Return the problems of an outcome in which only the moment is expected."""
    return [] if outcome.came else [NOT_COME]


def rootless_was_killed(outcome):
    """Return the problems of an outcome."""
    if not outcome.came or (outcome.last, outcome.complaint) == (-signal.SIGKILL, ""):
        return came(outcome)
    return ["it was not killed, or said something"]


def executor_was_killed(outcome):
    """Return the problems: there must be an error, unless the container had started (its end is no error)."""
    if bool(outcome.last) == bool(outcome.complaint) or outcome.last in (128 + signal.SIGKILL, ENDED_WELL):
        return came(outcome)
    return ["status and message do not fit"]


def is_clear(outcome):
    """Return the problems: a failure has its line, and a failed call without a line does not change the status."""
    if outcome.last in (0, ENDED_WELL) or (outcome.last in (1, 255) and outcome.complaint):
        return came(outcome)
    return ["that is neither an error nor the usual result"]
