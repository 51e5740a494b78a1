"""The cost of the installed command's start, and of waiting."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import cgroup2
from tests.lib.containers import Reader, executors, resident
from tests.lib.tracing import looked_at, opened
from tests.lib.waiting import BY_PYTHON

__all__ = ["cgroup2"]

FEW = 6
"""Opened files: the command (twice), the module archive, and in the runtime directory that of the containers and the
table of commands that have come before; one more if Python has some built-in modules in files."""
LOOKS = 12
"""Looked-up paths, including those files: the command's search, the runtime directory, the cached Plan, the bundle's
directory."""
MODULES = "rootless/__pycache__/modules.archive"


@pytest.fixture
def installed(user, rootless_command):
    """A copy of the command's script whose module archive the test may change: (script, archive)."""
    script = Path(f"{rootless_command}.py").read_text()
    image = next(word for word in script.split("'") if word.endswith(MODULES))
    own_image = user.tmp / "modules.archive"
    shutil.copy(image, own_image)
    command = user.tmp / "rootless"
    command.write_text(script.replace(image, str(own_image)))
    command.chmod(0o755)
    return command, own_image


def test_run_opens_few_files_before_it_reads_the_bundle(user, rootless_command, need):
    bundle = make_bundle(user, base_config("true"))
    python = Path(f"{rootless_command}.py").read_text().splitlines()[0].removeprefix("#!").split()
    for_python_itself = looked_at(user, need, *python, "-c", "pass")
    # the front door reads the bundle itself
    words = [f"{rootless_command}.py", "--root", user.tmp / "state", "run", "--bundle", bundle, "c"]
    user.run(words, check=True)
    calls = looked_at(user, need, *words)
    first = next(number for number, (_, path, _) in enumerate(calls) if path == f"{bundle}/config.json")
    own = [call for call in calls[:first] if call[1] not in {path for _, path, _ in for_python_itself}]
    assert len(own) <= LOOKS, own
    files = opened(own)
    assert len(files) <= FEW, files
    assert any(file.endswith(MODULES) for file in files)
    assert [file for file in opened(calls[first:]) if file.endswith((".py", ".pyc"))] == []


def test_without_the_archive_modules_come_from_their_files(user, rootless_command, need):
    words = [need("env"), "ROOTLESS_NO_ARCHIVE=1", rootless_command, "--version"]
    files = opened(looked_at(user, need, *words))
    assert not any(file.endswith(MODULES) for file in files)
    assert any("/rootless/" in file and file.endswith((".py", ".pyc")) for file in files)


def test_engine_verbs_read_their_modules_together(user, rootless_command, need, cgroup2):
    bundle = make_bundle(user, base_config("sleep", "600"))
    verbs = ["create", "state", "start", "list", "exec", "ps", "pause", "resume", "update", "kill", "delete"]
    words = {
        "create": ["--bundle", bundle, "c"],
        "list": [],
        "exec": ["c", "true"],
        "ps": ["--format", "json", "c"],
        "kill": ["--all", "c", "KILL"],
        "delete": ["--force", "c"],
    }
    trace = user.tmp / "trace"
    traced = [*cgroup2.prefix(), need("strace"), "-o", trace, "-e", "trace=openat"]
    reads = {}
    for verb in verbs:
        argv = [rootless_command, "--root", user.tmp / "state", verb, *words.get(verb, ["c"])]
        # no pipe: the container would keep it open
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {"ROOTLESS_FRONT": "0"}}
        done = user.run([*traced, *argv], **quiet, **cgroup2.options)
        assert done.returncode == 0, verb
        reads[verb] = sum(f"{MODULES}" in line for line in trace.read_text().splitlines())
    in_a_cgroup = {"create", "exec", "ps", "kill", "delete"}
    assert reads == {verb: 1 + (verb in in_a_cgroup) for verb in verbs}


@pytest.mark.parametrize("harm", ["missing", "of another Python", "empty"])
def test_command_works_without_a_valid_archive(user, installed, harm):
    command, image = installed
    if harm == "missing":
        image.unlink()
    elif harm == "empty":
        image.write_bytes(b"")
    else:
        image.write_bytes(bytes(16) + image.read_bytes()[16:])
    done = user.run([command, "--root", user.tmp / "state", "state", "nobody"])
    assert done.returncode == 1
    assert "container does not exist" in done.stderr


def test_upgrade_during_a_run_is_harmless(user, installed):
    command, image = installed
    config = base_config("cat")
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]}  # the module that runs them is loaded last
    words = [command, "--root", user.tmp / "state", "run", "--bundle", make_bundle(user, config), "c"]
    with user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdin.write("up\n")
        running.stdin.flush()
        assert Reader(running.stdout).line() == "up"
        upgraded = image.with_name("upgraded")
        upgraded.write_bytes(bytes(image.stat().st_size))
        upgraded.rename(image)
        running.stdin.close()
        assert running.wait() == 0
        assert running.stderr.read() == ""
    assert list((user.tmp / "state").iterdir()) == []


@pytest.mark.parametrize("words", [[], ["state", "c"]], ids=["found", "loaded at once"])
def test_modules_are_imported_from_the_archive(user, installed, words):
    command, _ = installed
    script = command.read_text()
    report = "import sys\nfrom rootless.__main__ import main\n"
    report += (
        "print({type(sys.modules[name].__loader__).__name__ for name in sys.modules if name.startswith('rootless')})\n"
    )
    command.write_text(script.partition("from rootless.__main__")[0] + report)
    assert user.run([command, *words], check=True).stdout == ("{'NoneType'}\n" if words else "{'ModuleArchive'}\n")


def test_closed_output_causes_no_traceback(user, rootless_command):
    with open("/dev/full", "wb") as full:
        done = user.run([rootless_command, "--help"], stdout=full, check=False)
    assert done.returncode
    assert "Traceback" not in done.stderr


def test_python_that_waits_has_no_more_memory_than_runc(user, rootless, need):
    held = {}
    for name, command in (("rootless", rootless.argv()), ("runc", [need("runc"), "--root", user.tmp / "runc"])):
        bundle = make_bundle(user, config_with_maps(user, "sh", "-c", "echo up; exec cat"), name=name)
        words = [*command, "run", "--bundle", bundle, name]
        with user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=BY_PYTHON) as running:
            assert Reader(running.stdout).line() == "up"
            held[name] = resident(running.pid)
            running.stdin.close()
            assert running.wait() == 0
    assert held["rootless"] <= held["runc"], held


def test_created_container_has_at_most_a_megabyte(user, rootless):
    bundle = make_bundle(user, base_config("true"))
    rootless.create("held", bundle)
    assert resident(rootless.pid("held")) <= 1024


def test_detached_container_leaves_no_process_of_rootless(user, rootless):
    bundle = make_bundle(user, base_config("sleep", "600"))
    before = executors(user)
    done = rootless("run", "--detach", "--bundle", bundle, "c", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    assert executors(user) == before
    mine = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    commands = [
        b" ".join((entry / "cmdline").read_bytes().split(b"\0")) for entry in mine if (entry / "cmdline").exists()
    ]
    assert [command for command in commands if str(rootless.root).encode() in command] == []
