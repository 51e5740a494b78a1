"""A release: the same files for everybody who makes it, and a wheel that pip installs by its hashes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from rootless import __version__
from rootless.cli.commands import VERBS
from tests.lib.installing import CHECKOUT, SHARED_FILES, pip_settings
from tests.lib.readme import commands

MAKER = "helpers/release/make_release.py"
ELF_EXECUTABLE = 2
PROGRAMS = ("init", "front")
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
PT_INTERP = 3
WHEEL, SDIST = f"rootless-{__version__}-py3-none-any.whl", f"rootless-{__version__}.tar.gz"
BILL, REQUIREMENTS = f"rootless-{__version__}.cdx.json", f"rootless-{__version__}.requirements.txt"
NATIVE = pytest.mark.skipif(
    platform.machine() not in ELF_MACHINES, reason="the wheel has no program for this architecture"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The directory in which tools and C libraries outlast the tests."""
    zig = os.environ.get("ZIG_GLOBAL_CACHE_DIR")
    return Path(zig).parent if zig else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def release(tmp_path_factory, cache, need):
    """The release of a commit, made in a checkout that somebody has changed since."""
    checkout = tmp_path_factory.mktemp("maintainer") / "checkout"
    shutil.copytree(CHECKOUT, checkout, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    git = [need("git"), "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    # neither the repository of a hook that runs the tests, nor anybody's settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    for words in (["init"], ["add", "--all"], ["commit", "--message", "All"], ["config", "core.autocrlf", "true"]):
        subprocess.run([*git, *words], cwd=checkout, env=environment, check=True, capture_output=True)
    with (checkout / "rootless/__init__.py").open("a") as file:
        file.write("raise SystemExit('uncommitted')\n")
    (checkout / "docs/secret.md").write_text("not of this release\n")
    (checkout / "helpers/requirements/zig.txt").write_text("no-such-package==1\n")
    if os.geteuid() == 0:
        os.chown(checkout, 1, 1)  # git refuses a repository of another user
    out = checkout.parent / "out"
    words = [sys.executable, checkout / MAKER, "--out", out, "--cache", cache]
    environment = os.environ | {"TMPDIR": str(checkout.parent)}
    (checkout.parent / ".hgignore").write_text("syntax: glob\n*.md\n*.fish\n")  # another user's, in /tmp
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uncommitted changes" in done.stderr
    return out


def hashes(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_another_user_makes_the_same_files_from_the_sdist_alone(tmp_path, release, cache):
    """In another place, at another time, with hostile variables, and programs in PATH that all fail."""
    fake, tree = tmp_path / "fake", tmp_path / "another place"
    scripts = dict.fromkeys(("python3", "python", "pip", "git", "cc", "gcc", "zig", "tar"), "#!/bin/sh\nexit 99\n")
    poisoned = ("argparse.py", "json.py", "hatchling.py", "sbom.py")
    scripts |= dict.fromkeys(poisoned, f"import sys\nsys.exit('{fake} was imported')\n")
    scripts["pip.conf"] = "[install]\nuser = true\ntarget = /nonexistent\n"
    fake.mkdir()
    for name, script in scripts.items():
        (fake / name).write_text(script)
        (fake / name).chmod(0o755)
    tree.mkdir()
    subprocess.run(["tar", "-xzf", release / SDIST, "--strip-components=1", "-C", tree], check=True)
    subprocess.run(["find", tree, "-exec", "touch", "-d", "1999-12-31 23:59", "{}", "+"], check=True)
    hostile = {
        "CC": "false",
        "CFLAGS": "-DX",
        "HOME": str(fake),
        "LC_ALL": "tr_TR.UTF-8",
        "PATH": f"{fake}:/usr/bin:/bin",
        "PIP_CONFIG_FILE": str(fake / "pip.conf"),
        "PIP_TARGET": "/nonexistent",
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": str(fake),
        "ROOTLESS_BUILD_INIT": "native",
        "SOURCE_DATE_EPOCH": "1",
        "TZ": "Pacific/Kiritimati",
        "USER": "nobody",
        "ZIG_GLOBAL_CACHE_DIR": "/nonexistent",
    }
    # another ID that has the same permissions, so that it can use the cache
    unshare = ["/usr/bin/unshare", "--user", "--map-user=1234", "--map-group=1234"]
    words = [*unshare, "sh", "-c", 'umask 077; exec "$@"', "sh"]
    words += [sys.executable, tree / MAKER, "--out", tmp_path / "out", "--cache", cache]
    done = subprocess.run(words, env=hostile, cwd=fake, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashes(tmp_path / "out") == hashes(release)


def test_checksums_are_those_of_all_other_files(release):
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=True
    )
    checked = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert checked | {"SHA256SUMS"} == hashes(release).keys() == {WHEEL, SDIST, BILL, REQUIREMENTS, "SHA256SUMS"}


def test_the_bill_of_materials_is_valid_and_complete(release):
    text = (release / BILL).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    components = {each["bom-ref"]: each for each in bill["components"]}
    depends = {each["ref"]: set(each["dependsOn"]) for each in bill["dependencies"]}
    root = f"pkg:pypi/rootless@{__version__}"
    assert bill["metadata"]["component"]["externalReferences"][0]["hashes"][0]["content"] == hashes(release)[WHEEL]
    with zipfile.ZipFile(release / WHEEL) as wheel:
        programs = {name: wheel.read(name) for name in wheel.namelist() if "/bin/" in name and "/launch/" in name}
    assert len(programs) == len(PROGRAMS) * len(ELF_MACHINES)
    for name, content in programs.items():
        [found] = components[f"{root}#{name}"]["hashes"]
        assert found["content"] == hashlib.sha256(content).hexdigest()
        assert {each.partition("@")[0] for each in depends[f"{root}#{name}"]} == {
            "pkg:generic/musl",
            "pkg:generic/zig-compiler-rt",
        }
    for name, scope in {"run": "required", "build": "excluded", "zig": "excluded"}.items():
        pinned = (CHECKOUT / f"helpers/requirements/{name}.txt").read_text()
        packages = re.findall(r"^([\w.-]+)==([\w.]+)", pinned, re.MULTILINE)
        assert packages
        found = [components[f"pkg:pypi/{package}@{version}"] for package, version in packages]
        assert {each["scope"] for each in found} == {scope}
        listed = [each["content"] for one in found for each in one["externalReferences"][0]["hashes"]]
        assert listed == re.findall(r"sha256:(\w+)", pinned)
        assert ({each["bom-ref"] for each in found} <= depends[root]) is (scope == "required")


def test_the_sdist_is_the_commit_without_built_files(release):
    with tarfile.open(release / SDIST) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        script = archive.extractfile(f"rootless-{__version__}/install.sh").read()
    assert script == (CHECKOUT / "install.sh").read_bytes()
    assert {"pyproject.toml", "install.sh", "tests/run", "LICENSE", "README.md", "SECURITY.md", "RELEASING.md"} <= names
    assert {"helpers/init/build.py", "helpers/manual/gen_pages.py", "helpers/completion/_rootless", MAKER} <= names
    assert not [name for name in names if "init-" in name or "__pycache__" in name or name.startswith(".git/")]
    assert "docs/secret.md" not in names


# --- The wheel --------------------------------------------------------------------------------------------------------


VENV, DOWNLOAD, INSTALL, QUICK = commands("Verify and pin a release", "docs/administrators.md")[-4:]


def shell(user, line, **environment):
    """Run a command of the administrators' guide, in the user's directory."""
    line = line.replace("/opt/rootless", "environment").replace("/usr/local/bin", ".")
    return user.run(["/bin/sh", "-c", line], env=pip_settings(user) | environment, timeout=600)


@pytest.fixture(scope="module")
def environment(module_user, release):
    """A new environment with what the requirements of the release pin, made without a compiler in PATH."""
    user = module_user
    path = user.tmp / "bin"
    user.run(["mkdir", path], check=True)
    (path / "python3").symlink_to(os.path.realpath(sys.executable))
    for name in (WHEEL, REQUIREMENTS):
        shutil.copy(release / name, user.tmp)
    for line in (VENV, DOWNLOAD, INSTALL):
        done = shell(user, line, PATH=str(path))
        assert done.returncode == 0, done.stderr
    return user.tmp / "environment"


def test_a_changed_wheel_is_not_installed(module_user, environment):
    wheels = [module_user.tmp / WHEEL, module_user.tmp / "wheels" / WHEEL]
    whole = wheels[0].read_bytes()
    for wheel in wheels:
        wheel.write_bytes(whole + b"\0")
    module_user.run([environment / "bin/pip", "--quiet", "uninstall", "--yes", "rootless"], check=True)
    done = shell(module_user, INSTALL)
    assert done.returncode
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    for wheel in wheels:
        wheel.write_bytes(whole)
    assert shell(module_user, INSTALL).returncode == 0


def test_the_wheel_carries_manual_pages_and_completion(environment):
    for name in SHARED_FILES:
        assert (environment / "share" / name).is_file(), name
    pages = {path.name for path in (environment / "share/man/man1").glob("rootless*")}
    assert pages == {"rootless.1", *(f"rootless-{verb}.1" for verb in VERBS)}


def test_the_wheel_carries_a_static_program_for_every_architecture(environment):
    [directory] = environment.glob("lib/python*/site-packages/rootless/launch/bin")
    programs = {directory / f"{name}-{arch}": machine for arch, machine in ELF_MACHINES.items() for name in PROGRAMS}
    assert set(directory.iterdir()) == programs.keys()
    for program, machine in programs.items():
        content = program.read_bytes()
        kind, found = struct.unpack_from("<HH", content, 16)
        assert (content[:5], kind, found) == (b"\x7fELF\x02", ELF_EXECUTABLE, machine)
        offset, size, count = struct.unpack("<32xQ14xHH", content[:58])[0:3]
        segments = [struct.unpack_from("<I", content, offset + number * size)[0] for number in range(count)]
        assert PT_INTERP not in segments
        assert os.access(program, os.X_OK)
        assert len(content) < 220_000


@NATIVE
def test_the_wheel_runs_a_bundle_without_a_compiler(user, environment):
    command = environment / "bin" / "rootless"
    user.run([command, "new", "bundle", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], check=True)
    done = user.run([command, "run", "bundle"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


@NATIVE
def test_a_wheel_gives_the_quick_command(user, module_user, environment):
    done = shell(module_user, QUICK)
    assert done.returncode == 0, done.stderr
    command = module_user.tmp / "rootless"
    assert command.read_bytes().startswith(b"\x7fELF")
    done = user.run([command, "--root", user.tmp / "state", "list", "-q"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (
        user.run([command, "--version"], check=True).stdout
        == user.run([environment / "bin/rootless", "--version"]).stdout
    )
