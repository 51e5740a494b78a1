"""What the verbs that engines call import: Python's start-up is most of what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.user.bundles import base_config, make_bundle

CHECKOUT = Path(__file__).resolve().parent.parent.parent

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
"""Each costs between one and two hundred milliseconds. What `os` has is in `posix` and in rootless/paths.py."""

MOST = {
    "create": 60,
    "run": 66,
    "start": 38,
    "state": 31,
    "list": 31,
    "kill": 31,
    "delete": 31,
    "exec": 64,
    "ps": 33,
    "pause": 36,
    "update": 39,
    "state of an unknown container": 31,
}
"""How many modules a verb may load beyond those of an empty program: today's number and a few more."""

STATUS = {"pause": 1, "update": 1}
"""They are refused without a cgroup."""

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
    """Return the interpreter that the launcher would take, which the users of the tests can execute too."""
    system = "/usr/bin/python3"
    recent = [system, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if os.access(system, os.X_OK) and not subprocess.run(recent, check=False).returncode:
        return system
    return sys.executable


@pytest.fixture
def loaded(user):
    """Return a function that carries out a command and returns its status and the modules that it has loaded."""
    report = user.tmp / "modules"
    script = user.tmp / "script.py"
    script.write_text(SCRIPT)

    def carry_out(*words):
        report.unlink(missing_ok=True)
        command = [interpreter(), "-I", "-S", "-B", script, CHECKOUT, report, *words]
        # no pipe: a created container keeps what it is given, and would keep the other end waiting
        with open(user.tmp / "said", "w+b") as said:
            process = user.popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            process.wait(timeout=60)
        assert report.exists(), (user.tmp / "said").read_text()
        status, *modules = report.read_text().split()
        return int(status), set(modules)

    return carry_out


@pytest.fixture
def bundle(user):
    config = base_config("sleep", "600")
    config["process"]["user"] = {"uid": 0, "gid": 0}
    # as engines write it; its compiled form is in the cache from the second time on
    config["linux"]["seccomp"] = json.loads((Path(__file__).parent / "data/podman_seccomp.json").read_text())
    return make_bundle(user, config)


def test_what_each_verb_imports(loaded, user, bundle):
    if not os.path.exists(f"{CHECKOUT}/rootless/launch/bin/init-{os.uname().machine}"):
        pytest.skip("needs the executor: start the tests with tests/run")
    root = ["--root", user.tmp / "state"]
    _, empty = loaded()
    warm = [*root, "run", "--detach", "--bundle", bundle, "warm"]
    assert loaded(*warm)[0] == 0, (user.tmp / "said").read_text()
    assert loaded(*root, "delete", "--force", "warm")[0] == 0
    found = {}
    try:
        for verb, *words in (
            ("create", "--bundle", bundle, "c1"),
            ("state", "c1"),
            ("start", "c1"),
            ("list", "--format", "json"),
            ("exec", "c1", "true"),
            ("ps", "--format", "json", "c1"),
            ("pause", "c1"),
            ("update", "--resources", "-", "c1"),
            ("kill", "c1", "KILL"),
            ("delete", "--force", "c1"),
        ):
            status, modules = loaded(*root, verb, *words)
            assert status == STATUS.get(verb, 0), (verb, (user.tmp / "said").read_text())
            found[verb] = modules - empty
        config = json.loads((bundle / "config.json").read_text())
        config["process"]["args"] = ["true"]
        (bundle / "config.json").write_text(json.dumps(config))
        status, modules = loaded(*root, "run", "--bundle", bundle, "c2")
        assert status == 0, (user.tmp / "said").read_text()
        found["run"] = modules - empty
        status, modules = loaded(*root, "state", "nobody")
        assert status == 1
        found["state of an unknown container"] = modules - empty
    finally:
        loaded(*root, "delete", "--force", "c1")
    assert {verb: sorted(modules & FORBIDDEN) for verb, modules in found.items()} == {verb: [] for verb in found}
    counts = {verb: len(modules) for verb, modules in found.items()}
    assert {verb: count for verb, count in counts.items() if count > MOST[verb]} == {}
    assert found.keys() == MOST.keys()
