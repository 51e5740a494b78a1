"""Imports of the verbs that engines call: Python's start is most of their cost."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import pty
import socket
import subprocess
import sys

import pytest

from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.cgroup2 import cgroup2
from tests.lib.configurations import PODMAN_SECCOMP
from tests.lib.manager import JOB, Manager, removed, reply
from tests.lib.netbox import make_net_bundle

__all__ = ["cgroup2"]

FORBIDDEN = {
    "argparse",
    "click",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "inspect",
    "jeepney",
    "json",
    "logging",
    "os",
    "pathlib",
    "platformdirs",
    "psutil",
    "pyroute2",
    "re",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "typing",
}
"""Each costs between one and two hundred milliseconds. `posix` and rootless/paths.py replace `os`."""

MOST = {
    "create": 61,
    "run": 66,
    "start": 38,
    "state": 31,
    "list": 31,
    "kill": 31,
    "delete": 31,
    "exec": 64,
    "ps": 33,
    "state of an unknown container": 31,
    "create in a cgroup": 66,
    "run in a cgroup": 68,
    "exec in a cgroup": 64,
    "start in a cgroup": 38,
    "ps in a cgroup": 33,
    "pause in a cgroup": 32,
    "resume in a cgroup": 32,
    "update in a cgroup": 43,
    "kill in a cgroup": 32,
    "delete in a cgroup": 33,
    "create with systemd": 71,
    "run with systemd": 74,
    "run with hooks": 68,
    "create with a terminal": 61,
    "run with a terminal": 66,
    "run --network slirp4netns": 81,
    "run --network pasta": 79,
    "run --network pasta --publish": 81,
}
"""The number of modules that a verb may load besides those of an empty program and packages' __init__."""

LIMITS = {"rootless.plan.cgroup.limits", "rootless.cgroup.make"}
"""Modules that only a container with limits needs."""
UNFORESEEN = {"rootless.host.controllers"}
"""The module that finds out why a limit is not enforced."""

SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
report = sys.argv.pop(1)
sys.dont_write_bytecode = True
if sys.argv[1:]:
    from rootless.__main__ import main
    status = main()
else:
    status = 0
with open(report, "w") as file:
    print(status, *sorted(sys.modules), file=file)
"""


def interpreter():
    """Return the interpreter of the installed command, which the test users can execute too."""
    system = "/usr/bin/python3"
    recent = [system, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if os.access(system, os.X_OK) and not subprocess.run(recent, check=False).returncode:
        return system
    return sys.executable


def is_package(name):
    """Whether a module is a package's __init__, which in rootless contains only a docstring."""
    return (CHECKOUT / name.replace(".", "/") / "__init__.py").exists()


class Loaded:
    """Run commands of a user, and record the modules that each loads.

    Attributes:
        found: by command, the modules besides those of an empty program.
    """

    def __init__(self, user, cgroup2=None):
        if not os.path.exists(f"{CHECKOUT}/rootless/launch/bin/init-{os.uname().machine}"):
            pytest.skip("needs the executor: start the tests with tests/run")
        self.user = user
        self.found = {}
        self._prefix = cgroup2.prefix() if cgroup2 else []
        self._options = cgroup2.options if cgroup2 else {}
        self._script = user.tmp / "script.py"
        self._script.write_text(SCRIPT)
        self._empty = self._load()

    def __call__(self, what, *words, status=0, **options):
        """Run a command, with the containers' directories in the test's; record it as `what`, unless that is empty."""
        modules = self._load("--root", self.user.tmp / "state", *words, status=status, **options)
        if what:
            self.found[what] = modules - self._empty

    def _load(self, *words, status=0, stdin=subprocess.DEVNULL):
        report = self.user.tmp / "modules"
        report.unlink(missing_ok=True)
        command = [*self._prefix, interpreter(), "-I", "-S", "-B", self._script, CHECKOUT, report, *words]
        # no pipe: a created container would keep it open
        with open(self.user.tmp / "said", "w+b") as said:
            process = self.user.popen(command, stdin=stdin, stdout=said, stderr=said, **self._options)
            process.wait(timeout=60)
        said = (self.user.tmp / "said").read_text()
        assert report.exists(), said
        ended, *modules = report.read_text().split()
        assert int(ended) == status, said
        return set(modules)

    def check(self):
        """Check that no forbidden module and not too many modules were loaded."""
        forbidden = {what: modules & FORBIDDEN for what, modules in self.found.items()}
        assert {what: modules for what, modules in forbidden.items() if modules} == {}
        counts = {what: sum(not is_package(name) for name in modules) for what, modules in self.found.items()}
        assert {what: count for what, count in counts.items() if count > MOST[what]} == {}


def foreseen(verb):
    """Return the modules that the command loads together for a verb in a cgroup (rootless/installation/archive.py)."""
    image = (CHECKOUT / "rootless/__pycache__/modules.archive").read_bytes()
    _, verbs, *_ = marshal.loads(image[8 : 8 + int.from_bytes(image[4:8], "little")])
    return {name for names, _, _ in marshal.loads(verbs[verb]) for name in names}


def podmans_filter():
    """Return a seccomp filter as engines write it; from the second use on, its compiled form is in the cache."""
    return PODMAN_SECCOMP


@pytest.fixture
def bundle(user):
    config = base_config("sleep", "600")
    config["process"]["user"] = {"uid": 0, "gid": 0}
    config["linux"]["seccomp"] = podmans_filter()
    return make_bundle(user, config)


def set_args(bundle, *args):
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = list(args)
    write_config(bundle, config)


def test_imports_of_each_verb(user, bundle):
    loaded = Loaded(user)
    loaded("", "run", "--detach", "--bundle", bundle, "warm")
    loaded("", "delete", "--force", "warm")
    try:
        loaded("create", "create", "--bundle", bundle, "c1")
        loaded("state", "state", "c1")
        loaded("start", "start", "c1")
        loaded("list", "list", "--format", "json")
        loaded("exec", "exec", "c1", "true")
        loaded("ps", "ps", "--format", "json", "c1")
        loaded("kill", "kill", "c1", "KILL")
        loaded("delete", "delete", "--force", "c1")
        set_args(bundle, "true")
        loaded("run", "run", "--bundle", bundle, "c2")
        loaded("state of an unknown container", "state", "nobody", status=1)
    finally:
        loaded("", "delete", "--force", "c1")
    loaded.check()


def test_imports_for_a_container_in_a_cgroup(user, cgroup2):
    bundle = make_bundle(user, base_config("sleep", "600"))
    loaded = Loaded(user, cgroup2)
    try:
        loaded("create in a cgroup", "create", "--bundle", bundle, "c1")
        loaded("start in a cgroup", "start", "c1")
        loaded("exec in a cgroup", "exec", "c1", "true")
        loaded("ps in a cgroup", "ps", "--format", "json", "c1")
        loaded("pause in a cgroup", "pause", "c1")
        loaded("resume in a cgroup", "resume", "c1")
        loaded("update in a cgroup", "update", "--pids-limit", "100", "c1")
        loaded("kill in a cgroup", "kill", "--all", "c1", "KILL")
        loaded("delete in a cgroup", "delete", "--force", "c1")
        set_args(bundle, "true")
        loaded("run in a cgroup", "run", "--bundle", bundle, "c2")
    finally:
        loaded("", "delete", "--force", "c1")
    loaded.check()
    for what, modules in loaded.found.items():
        own = {name for name in modules if name.partition(".")[0] == "rootless"} - UNFORESEEN
        assert own <= foreseen(what.partition(" ")[0]) <= own | LIMITS, what


@contextlib.contextmanager
def manager(user, cgroup2):
    """Listen in place of the user's systemd manager for one scope: create the cgroup and move the process into it."""

    def answer(serial):
        unit, _, properties, _ = systemd.heard[-1][1]
        directory = cgroup2.directory / unit
        directory.mkdir()
        cgroup2.delegate(directory)
        (directory / "cgroup.procs").write_text(str(dict(properties)["PIDs"][1][0]))
        return [reply(serial, "o", (JOB,)), removed(JOB, "done")]

    systemd = Manager(user.runtime_dir, [answer], owner=user.uid)
    systemd.start()
    try:
        yield
    finally:
        systemd.close()


def test_imports_for_a_systemd_scope(user, cgroup2):
    bundle = make_bundle(user, base_config("sleep", "600"))
    loaded = Loaded(user, cgroup2)
    try:
        with manager(user, cgroup2):
            loaded("create with systemd", "--systemd-cgroup", "create", "--bundle", bundle, "c1")
    finally:
        loaded("", "delete", "--force", "c1")
    set_args(bundle, "true")
    with manager(user, cgroup2):
        loaded("run with systemd", "--systemd-cgroup", "run", "--bundle", bundle, "c2")
    loaded.check()


def test_imports_for_hooks(user):
    hook = [{"path": "/bin/true", "args": ["true"], "timeout": 10}]
    config = base_config("true")
    config["hooks"] = dict.fromkeys(("prestart", "createRuntime", "poststart", "poststop"), hook)
    bundle = make_bundle(user, config)
    loaded = Loaded(user)
    loaded("run with hooks", "run", "--bundle", bundle, "c1")
    loaded.check()


def test_imports_for_a_terminal(user):
    config = base_config("true")
    config["process"]["terminal"] = True
    bundle = make_bundle(user, config)
    loaded = Loaded(user)
    master, slave = pty.openpty()
    try:
        loaded("run with a terminal", "run", "--bundle", bundle, "c1", stdin=slave)
    finally:
        os.close(master)
        os.close(slave)
    path = user.tmp / "console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        loaded("create with a terminal", "create", "--bundle", bundle, "--console-socket", path, "c2")
    loaded("", "delete", "--force", "c2")
    loaded.check()


@pytest.mark.parametrize(
    ("helper", "flags"), [("slirp4netns", []), ("pasta", []), ("pasta", ["--publish", "127.0.0.1::8080"])]
)
def test_imports_for_a_network(net_user, need, helper, flags):
    """Without ports of slirp4netns, which need `ctypes` for a system call that Python does not have."""
    need(helper)
    bundle = make_net_bundle(net_user, "true")
    loaded = Loaded(net_user)
    loaded(" ".join(["run --network", helper, *flags[:1]]), "run", "--network", helper, *flags, bundle)
    loaded.check()


def test_imports_for_a_shared_network(net_user, need):
    """Its addresses need `ipaddress`, which imports two of the forbidden modules."""
    need("slirp4netns")
    bundle = make_net_bundle(net_user, "sleep", "600")
    loaded = Loaded(net_user)
    loaded("", "network", "create", "backend")
    try:
        loaded("create", "create", "--network", "backend", "--bundle", bundle, "c1")
        loaded("delete", "delete", "--force", "c1")
    finally:
        loaded("", "delete", "--force", "c1")
        loaded("", "network", "rm", "backend")
    assert loaded.found["create"] & FORBIDDEN == {"collections", "functools"}
    assert loaded.found["delete"] & FORBIDDEN == set()
