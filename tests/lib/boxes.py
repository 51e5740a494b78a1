"""A box is a bundle and a runtime that runs it as the ordinary user: `rootless`, or runc or crun as an oracle.

The tests of the specification set a property, run a command in the box and check what the command sees.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.compiled import compiled

SHORT = 30  # seconds after which a container counts as hanging

ORACLE = pytest.param("runc", marks=pytest.mark.oracle)
CRUN = pytest.param("crun", marks=pytest.mark.oracle)
BOTH = ("rootless", ORACLE)
ALL = ("rootless", ORACLE, CRUN)
"""All runtimes. tests/lib/conformance.py runs crun only for tests that are marked with the specification."""

RUNC_BUSY = "could not ensure we are a cloned binary: Device or resource busy"
"""A rare failure of runc 1.1.15: it cannot seal the copy of itself that it has just written. The call is repeated."""
RUNC_EARLY = "]: failed to open /proc/"
"""Another one: its `start` ends before the program is executed, and until then `exec` may not open its namespaces."""
ATTEMPTS = 5

STATUS = "cat /proc/self/status"
MOUNTINFO = "cat /proc/self/mountinfo"
"""A command that prints the fields for status_of()."""


class Box:
    """A bundle of `user`, run by `command` (`rootless`, `runc` or `crun`, with its global flags).

    Attributes:
        user: the account that runs it.
        path: the bundle.
        rootfs: its root file system.
        runtime: the name of the program.
        oracle: the runtime is not rootless: a config.json for root gets the user namespace that runc requires.
        name: the container's id.
        options: arguments for every `user.run`, such as another user's ids.
    """

    def __init__(self, user, command, *, name="box", options=None):
        self.user = user
        self.command = list(command)
        self.runtime = os.path.basename(self.command[0]).removesuffix(".py")
        self.oracle = self.runtime != "rootless"
        self.path = make_bundle(user, name=f"bundle-{name}")
        self.rootfs = self.path / "rootfs"
        self.name = name
        self.options = options or {}
        self._created = []

    def run(self, config, *script, flags=(), global_flags=(), check=False, **options):
        """Run the container to its end; `script`, if given, is run by a shell instead of process.args."""
        if script:
            config["process"]["args"] = ["sh", "-c", "\n".join(script)]
        write_config(self.path, config)
        words = [*self.command, *global_flags, "run", *flags, "--bundle", self.path, self.name]
        for _ in range(ATTEMPTS):
            done = self.user.run(words, timeout=SHORT, **self.options | options)
            if RUNC_BUSY not in done.stderr:
                break
        assert not (check and done.returncode), f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def lines(self, config, *script, **options):
        """Run a script that must succeed; return the lines of its output."""
        return self.run(config, *script, check=True, **options).stdout.splitlines()

    def create(self, config, *script, name="held", flags=()):
        """Create the container; return the pid of its init."""
        config["process"]["args"] = ["sh", "-c", "\n".join(script) or "true"]
        write_config(self.path, config)
        pid_file = self.user.tmp / f"{name}.pid"
        log = self.user.tmp / f"{name}.err"
        words = [*self.command, "create", *flags, "--bundle", self.path, "--pid-file", pid_file, name]
        self._created.append(name)
        for _ in range(ATTEMPTS):
            with log.open("w") as err:
                done = self.user.run(words, timeout=SHORT, stdout=subprocess.DEVNULL, stderr=err, **self.options)
            if RUNC_BUSY not in log.read_text():
                break
        assert done.returncode == 0, log.read_text()
        return int(pid_file.read_text())

    def close(self):
        """Delete the container."""
        for name in self._created:
            self.user.run([*self.command, "delete", "--force", name], timeout=SHORT, **self.options)


def make_box(user, runtime, rootless_command, need, **options):
    """Make a Box for a runtime by its name; skip the test if that is not installed."""
    if runtime == "rootless":
        return Box(user, [rootless_command], **options)
    command = [need(runtime), "--root", user.runtime_dir / runtime]
    if runtime == "crun":
        command.append("--cgroup-manager=disabled")
    return Box(user, command, **options)


@contextlib.contextmanager
def pure_cgroup2(runtime):
    """Mount cgroup v2 alone on /sys/fs/cgroup if crun needs it: crun 1.21 refuses a host that has cgroup v1 too.

    The mount is in the mount namespace of tests/run, never on the machine.
    """
    if runtime != "crun" or Path("/sys/fs/cgroup/cgroup.controllers").exists():
        yield
        return
    if os.geteuid() != 0 or " - tmpfs rootless-test-dev " not in Path("/proc/self/mountinfo").read_text():
        pytest.skip("needs a host of pure cgroup v2, or root: crun 1.21 refuses others")
    subprocess.run(["mount", "--types", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/sys/fs/cgroup"], check=True)


def as_real_root(box):
    """Make root of the host call the box's runtime, with its state in the test's directory; return the box."""
    box.options = {"user": 0, "group": 0, "env": {"HOME": str(box.user.tmp), "XDG_RUNTIME_DIR": ""}}
    box.command = [*box.command[:1], "--root", box.user.tmp / "root-state"]
    subprocess.run(["chown", "-R", "0:0", box.path], check=True)
    return box


def own_mappings(user):
    """Return linux.uidMappings and linux.gidMappings that map root to the user, and all subordinate ids."""
    mappings = {}
    for key, file, own_id in (("uidMappings", "/etc/subuid", user.uid), ("gidMappings", "/etc/subgid", user.gid)):
        lines = [line.split(":") for line in Path(file).read_text().splitlines()]
        ranges = [(int(first), int(count)) for name, first, count in lines if name == user.name]
        if not ranges:
            pytest.skip(f"needs a range for {user.name} in {file}")
        first, count = ranges[0]
        mappings[key] = [
            {"containerID": 0, "hostID": own_id, "size": 1},
            {"containerID": 1, "hostID": first, "size": count},
        ]
    return mappings


def subordinate(user, uid):
    """Return the host's uid for `uid` in a container of the user."""
    second = own_mappings(user)["uidMappings"][1]
    return second["hostID"] + uid - 1


def config_with_maps(user, *args):
    """Return base_config with a user namespace and ID maps, which runc needs."""
    config = base_config(*args)
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= own_mappings(user)
    return config


def set_namespaces(config, *kinds, **paths):
    """Replace linux.namespaces: `kinds` are new, `paths` are joined."""
    joined = [{"type": kind, "path": str(path)} for kind, path in paths.items()]
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds] + joined


def add_mount(config, destination, kind="tmpfs", source="tmpfs", *options):
    """Append an element to `mounts`."""
    mount = {"destination": str(destination), "type": kind, "source": str(source), "options": list(options)}
    config["mounts"].append(mount)


def make_volume(user, name="volume", **files):
    """Make a directory of the user on the host, with files of this text."""
    directory = user.tmp / name
    directory.mkdir()
    for file, text in files.items():
        (directory / file).write_text(text)
    own(user, directory)
    return directory


def add_probe(box, need):
    """Compile probe.c into the box as /bin/probe."""
    target = box.rootfs / "bin/probe"
    shutil.copy(compiled(need, "probe", "-static", "-pthread"), target)
    target.chmod(0o755)
    own(box.user, target)
    return target


def mount_table(lines):
    """Return {mount point: (options, optional fields, type, source, options of the file system)} of mountinfo lines."""
    table = {}
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        kind, source, options = right.split(" ", 2)
        point = fields[4].encode().decode("unicode_escape")
        table[point] = (set(fields[5].split(",")), fields[6:], kind, source, set(options.split(",")))
    return table


def status_of(lines, *names):
    """Return fields of /proc/self/status."""
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    values = tuple(found[name].strip() for name in names)
    return values[0] if len(values) == 1 else values


BEGUN = "({}); true"
"""A command for the end of a script, so that the shell forks for the command before it."""
