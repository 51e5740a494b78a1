"""Make a release: sdist, wheel, bill of materials, pinned requirements and checksums.

``python3 helpers/release/make_release.py [--out DIR] [--cache DIR]``

The same commit gives the same bytes for every user, in every directory and at every time, as long as Python compresses
with the same zlib. So nothing of the caller gets in: neither uncommitted changes, variables, umask and locale, nor the
programs in PATH. An unpacked sdist gives the same files as its commit: this is how to check a release.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.isolated:  # the modules in PYTHONPATH are not part of the release
    os.execv(sys.executable, [sys.executable, "-I", "-B", *sys.argv])  # noqa: S606 - no shell is needed

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PATH = "/usr/bin:/bin"
PIP_SETTINGS = (
    "HTTPS_PROXY", "NO_PROXY", "PIP_CACHE_DIR", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS",
    "PIP_INDEX_URL", "PIP_NO_INDEX", "PIP_PROXY", "SSL_CERT_FILE", "https_proxy", "no_proxy",
)  # fmt: skip
"""Variables of the caller that pip may have: where to download from. Hashes decide what it installs."""
GIT = ("git", "-c", "safe.directory=*", "-c", "core.autocrlf=false")
"""git without two of its settings. The owner of the checkout, who may be another user, wrote this program too."""
UNRELEASED = 1580601600
"""The time of a version without a date in CHANGELOG.md, in seconds since 1970: hatchling's default."""
LISTS = ("run", "build", "zig")
"""Of helpers/requirements."""
MUSL_VERSION = "ziglang/lib/libc/musl/src/internal/version.h"
PROGRAMS = "rootless/launch/bin/"


class ReleaseError(Exception):
    """The release cannot be made; the message is one line with the cause and the fix."""


class Maker:
    """What makes the release from one source tree.

    Attributes:
        scratch: a directory for everything that does not stay.
        cache: the directory for what the next release can use again.
        environment: the variables of the programs.
    """

    def __init__(self, scratch: Path, cache: Path) -> None:
        self.scratch = scratch
        # ends hatchling's search for .hgignore in all directories above: another user can put one into /tmp
        (scratch / ".hg").mkdir()
        self.cache = cache
        self.environment = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(scratch),
            "LC_ALL": "C.UTF-8",
            "PATH": PATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(scratch),
            "TZ": "UTC",
            "ZIG_GLOBAL_CACHE_DIR": str(cache / "zig"),
        }

    def run(self, *words: str | Path, cwd: Path = CHECKOUT, more: dict[str, str] | None = None) -> bytes:
        """Run a program and return its output.

        Raises:
            ReleaseError: it has failed.
        """
        done = subprocess.run(
            words, cwd=cwd, env=self.environment | (more or {}), stdout=subprocess.PIPE, stderr=None, check=False
        )
        if done.returncode:
            sys.stderr.buffer.write(done.stdout)
            raise ReleaseError(f"{' '.join(map(str, words[:5]))} …: exit status {done.returncode}; fix: see above")
        return done.stdout

    def source(self) -> Path:
        """Return the tree to build: the last commit; without a repository, the tree that this program is in.

        Raises:
            ReleaseError: git cannot write it.
        """
        if not (CHECKOUT / ".git").exists():
            return CHECKOUT
        if self.run(*GIT, "status", "--porcelain"):
            _say("the checkout has uncommitted changes or other files, which are not in the release")
        archive = self.scratch / "commit.tar"
        self.run(*GIT, "archive", f"--output={archive}", "HEAD")
        return _unpacked(archive, self.scratch / "commit")

    def tools(self, tree: Path) -> Path:
        """Return the interpreter of an environment with the tools that a tree pins, hatchling and zig.

        Raises:
            ReleaseError: pip cannot install them.
        """
        lists = [tree / f"helpers/requirements/{name}.txt" for name in ("build", "zig")]
        key = hashlib.sha256(b"\0".join([sys.version.encode(), *(path.read_bytes() for path in lists)])).hexdigest()
        directory = self.cache / f"tools-{key[:16]}"
        python = directory / "bin/python3"
        if not (directory / "complete").exists():
            settings = {name: os.environ[name] for name in PIP_SETTINGS if name in os.environ}
            self.run(sys.executable, "-I", "-m", "venv", "--clear", directory)
            requirements = [f"--requirement={path}" for path in lists]
            pip = (python, "-I", "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
            self.run(*pip, "--require-hashes", "--only-binary", ":all:", *requirements, more=settings)
            (directory / "complete").touch()
        return python

    def build(self, python: Path, target: str, tree: Path, epoch: int) -> Path:
        """Return the sdist or the wheel of a tree, built with the pinned tools.

        Raises:
            ReleaseError: hatchling or zig has failed.
        """
        out = self.scratch / target
        more = {"SOURCE_DATE_EPOCH": str(epoch)}
        self.run(python, "-I", "-m", "hatchling", "build", "--target", target, "--directory", out, cwd=tree, more=more)
        (built,) = out.iterdir()
        return built

    def make(self, out: Path) -> list[Path]:
        """Write the release into a directory and return its files.

        Raises:
            ReleaseError: a step has failed.
        """
        source = self.source()
        version, epoch = version_and_time(source)
        python = self.tools(source)
        sdist = self.build(python, "sdist", source, epoch)
        tree = _unpacked(sdist, self.scratch / "unpacked") / sdist.name.removesuffix(".tar.gz")
        # from the sdist alone, so that everybody can build the wheel again
        wheel = self.build(python, "wheel", tree, epoch)
        lists = {name: (tree / f"helpers/requirements/{name}.txt").read_text() for name in LISTS}
        beginning = f"{self.scratch}/rootless-{version}"
        bill = self.bill(python, version, epoch, wheel, lists)
        files = [
            sdist,
            wheel,
            _written(f"{beginning}.cdx.json", json.dumps(bill, indent=2) + "\n"),
            _written(f"{beginning}.requirements.txt", requirements_of(version, wheel, lists["run"])),
        ]
        sums = "".join(f"{digest(path)}  {path.name}\n" for path in sorted(files, key=lambda path: path.name))
        files.append(_written(f"{self.scratch}/SHA256SUMS", sums))
        out.mkdir(parents=True, exist_ok=True)
        for path in files:
            path.chmod(0o644)
        return [Path(shutil.move(path, out / path.name)) for path in files]

    def bill(self, python: Path, version: str, epoch: int, wheel: Path, lists: dict[str, str]) -> dict[str, object]:
        """Return the bill of materials of a wheel that the tools have built."""
        from sbom import bill_of_materials

        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(PROGRAMS)]
            programs = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
        (musl,) = python.parent.parent.glob(f"lib/python*/site-packages/{MUSL_VERSION}")
        zig = self.run(python, "-I", "-m", "ziglang", "version").decode().strip()
        linked = {"musl": musl.read_text().split('"')[1], "zig-compiler-rt": zig}
        return bill_of_materials(
            version=version,
            epoch=epoch,
            wheel=(wheel.name, digest(wheel)),
            programs=programs,
            linked=linked,
            requirements=lists,
        )


def version_and_time(tree: Path) -> tuple[str, int]:
    """Return the version of a source tree and the time of its release, in seconds since 1970.

    Raises:
        ReleaseError: it has no version.
    """
    found = re.search(r'^__version__ = "(.*)"$', (tree / "rootless/__init__.py").read_text(), re.MULTILINE)
    if not found:
        raise ReleaseError(f"no version in {tree}/rootless/__init__.py; fix: build a whole checkout")
    heading = rf"^## \[{re.escape(found[1])}\] - (\d{{4}}-\d\d-\d\d)$"
    date = re.search(heading, (tree / "CHANGELOG.md").read_text(), re.MULTILINE)
    if date:
        return found[1], int(datetime.strptime(date[1], "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    _say(f"CHANGELOG.md has no date for {found[1]}: this is a trial, not a release")
    return found[1], UNRELEASED


def requirements_of(version: str, wheel: Path, run: str) -> str:
    """Return the requirements with which pip installs exactly this wheel and the pinned packages."""
    return (
        f"# pip install --require-hashes --only-binary :all: --requirement rootless-{version}.requirements.txt\n"
        f"--find-links .\nrootless=={version} \\\n    --hash=sha256:{digest(wheel)}\n{run}"
    )


def digest(path: Path) -> str:
    """Return the SHA-256 hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(archive: Path, directory: Path) -> Path:
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    return directory


def _written(path: str, text: str) -> Path:
    Path(path).write_text(text)
    return Path(path)


def _say(text: str) -> None:
    sys.stderr.write(f"make_release: {text}\n")


def main() -> int:
    """Run the command line and return its exit status."""
    os.umask(0o022)
    sys.path.append(str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description="Make a release: the same commit gives the same bytes.")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="where to (%(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the tools and the built C libraries in DIR")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rootless-release-") as directory:
        scratch = Path(directory)
        try:
            for path in Maker(scratch, (options.cache or scratch / "cache").absolute()).make(options.out):
                print(path)
        except ReleaseError as error:
            _say(str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
