"""Build the executor and the front door: static programs without libraries for each architecture.

Run it as ``python3 helpers/init/build.py``; ``--help`` lists the options. It needs nothing but the standard library and
one of the compilers in `COMPILERS`. The same sources, compiler and architecture give the same bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = Path(__file__).resolve().parent
FRONT = SOURCES.parent / "front"
"""The front door, which rootless/installation installs."""
DEFAULT_OUT = SOURCES.parent.parent / "rootless" / "launch" / "bin"

ZIG_TARGETS = {
    "x86_64": "x86_64-linux-musl",
    "aarch64": "aarch64-linux-musl",
    "riscv64": "riscv64-linux-musl",
    "ppc64le": "powerpc64le-linux-musl",
    "s390x": "s390x-linux-musl",
}
"""Architecture, as ``uname -m`` says it, to the target that zig compiles for."""

WHEEL_ARCHES = ("x86_64", "aarch64")
"""What every wheel carries."""

COMPILERS = ("zig", "musl-gcc", "cc", "gcc", "clang")
"""In order of preference: zig compiles for every architecture and musl makes the smallest program."""

LANGUAGE = ("-std=gnu11", "-D_GNU_SOURCE")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wconversion", "-Wsign-conversion")
"""No errors where somebody installs: with two compilers or a new one there are warnings that nobody has seen yet."""
NO_WARNINGS = ("-Wno-gcc-install-dir-libstdcxx",)
"""Of clang, about the host's C++ headers, which no file here includes; other compilers ignore the flag."""

FLAGS = (
    *LANGUAGE,
    "-Os",
    "-g0",
    "-static",
    "-pthread",
    *WARNINGS,
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-asynchronous-unwind-tables",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-s",
)


class BuildError(Exception):
    """No executor could be built; the message is one line with the cause and the fix."""


def native_arch() -> str:
    """Return this machine's architecture as ``uname -m`` names it."""
    return platform.machine()


def sources(directory: Path = SOURCES) -> list[str]:
    """Return the names of the C files, sorted so that the order on disk leaves no trace in the program.

    Raises:
        BuildError: there are none.
    """
    names = sorted(path.name for path in directory.glob("*.c"))
    if not names:
        raise BuildError(f"build the executor: no C file in {directory}; fix: build from a whole checkout or sdist")
    return names


def command(compiler: str, arch: str) -> list[str] | None:
    """Return the words that start `compiler` for `arch`, or None when it is not here or cannot.

    A compiler of the system compiles for this machine only, and only when it can link a static program: many
    distributions ship `cc` without the static C library.
    """
    if compiler == "zig":
        if arch not in ZIG_TARGETS or importlib.util.find_spec("ziglang") is None:
            return None
        about_the_hosts = "-Wno-gcc-install-dir-libstdcxx"  # GCC, which zig does not use
        return [sys.executable, "-m", "ziglang", "cc", "-target", ZIG_TARGETS[arch], about_the_hosts]
    found = shutil.which(compiler)
    if found is None or arch != native_arch():
        return None
    words = [found]
    if compiler == "musl-gcc":
        # It leaves the kernel's headers out of its path, and they are where the C library's own are.
        words += ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{arch}-linux-gnu"]
    return words if _links_statically(words) else None


def _links_statically(words: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "probe.c")
        source.write_text("#include <linux/openat2.h>\n#include <unistd.h>\nint main(void) { return getpid() < 0; }\n")
        probe = [*words, "-static", str(source), "-o", str(Path(scratch, "probe"))]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def choose(arch: str, wanted: str = "auto") -> list[str]:
    """Return the words that start the best compiler for `arch`, or of the one named `wanted`.

    Raises:
        BuildError: there is none.
    """
    for compiler in COMPILERS if wanted == "auto" else (wanted,):
        words = command(compiler, arch)
        if words is not None:
            return words
    what = "compiler" if wanted == "auto" else wanted
    raise BuildError(
        f"build the executor: no {what} here makes a static program for {arch}; "
        f"fix: {sys.executable} -m pip install ziglang, or install gcc with the static C library "
        "(apt-get install gcc libc6-dev; dnf install gcc glibc-static)"
    )


def generate(directory: Path) -> str:
    """Write into `directory` what gen_ops.py makes of Python's declarations; return the path of its C file."""
    return str(runpy.run_path(str(SOURCES / "gen_ops.py"))["write"](directory))


def generate_flags(directory: Path) -> None:
    """Write into `directory` the words that the front door understands, and the operations of cached Plans."""
    for name in ("gen_flags.py", "gen_cached.py"):
        runpy.run_path(str(FRONT / name))["write"](directory)


def _compile(words: Sequence[str], headers: str, directory: Path = SOURCES) -> None:
    # In the sources' own directory and with relative names: no path of this machine gets into the program.
    done = subprocess.run(
        [*words, "-I.", f"-I{headers}"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        raise BuildError(f"build the executor: {' '.join(words[:4])} …: exit status {done.returncode}; fix: see above")


def build(arch: str, out: Path = DEFAULT_OUT, compiler: str = "auto") -> Path:
    """Compile the executor for `arch` into `out` and return the path of the program, ``init-ARCH``.

    Raises:
        BuildError: no compiler, no sources, or the compiler refused them.
    """
    return _built("init", SOURCES, arch, out, compiler)


def build_front(arch: str, out: Path = DEFAULT_OUT, compiler: str = "auto") -> Path:
    """Compile the front door for `arch` into `out` and return the path of the program, ``front-ARCH``.

    Raises:
        BuildError: no compiler, no sources, or the compiler refused them.
    """
    return _built("front", FRONT, arch, out, compiler)


def _built(name: str, directory: Path, arch: str, out: Path, compiler: str) -> Path:
    """Compile a program.

    The program appears whole or not at all: others may be running the one that it replaces.

    Raises:
        BuildError: no compiler, no sources, or the compiler refused them.
    """
    words = [*choose(arch, compiler), *FLAGS]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out) as scratch:
        program = Path(scratch, name)
        generated = _generated(directory, Path(scratch))
        _compile([*words, "-o", str(program), *sources(directory), *generated], scratch, directory)
        program.chmod(0o755)
        return program.rename(out / f"{name}-{arch}")


def _generated(directory: Path, scratch: Path) -> list[str]:
    """Write what is generated for a program, and return the C files among it."""
    if directory == SOURCES:
        return [generate(scratch)]
    generate_flags(scratch)
    return []


def check(arch: str, compiler: str = "auto") -> None:
    """Compile without writing a program: the warnings are what is wanted.

    Raises:
        BuildError: the compiler is not here, or it had something to say.
    """
    # -O2, for warnings such as maybe-uninitialized that need the optimiser; an object file, so that it runs.
    words = [*choose(arch, compiler), *LANGUAGE, "-O2", *WARNINGS, *NO_WARNINGS, "-Werror"]
    with tempfile.TemporaryDirectory() as scratch:
        for directory in (SOURCES, FRONT):
            for name in (*sources(directory), *_generated(directory, Path(scratch))):
                _compile([*words, "-c", name, "-o", str(Path(scratch, "object.o"))], scratch, directory)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Build the static programs, for each architecture.")
    parser.add_argument(
        "--arch",
        action="append",
        choices=sorted({*ZIG_TARGETS, native_arch()}),
        help=f"an architecture, repeatable (this machine's by default, {native_arch()})",
    )
    parser.add_argument("--all", action="store_true", help=f"all that a wheel carries: {' '.join(WHEEL_ARCHES)}")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where to (%(default)s)")
    parser.add_argument(
        "--compiler", choices=("auto", *COMPILERS), default="auto", help="by default the first that fits"
    )
    parser.add_argument("--check", action="store_true", help="only print the compiler's warnings")
    parser.add_argument("--probe", action="store_true", help="only print the compiler")
    options = parser.parse_args(argv)
    try:
        for arch in WHEEL_ARCHES if options.all else options.arch or (native_arch(),):
            if options.probe:
                print(*choose(arch, options.compiler))
            elif options.check:
                check(arch, options.compiler)
            else:
                print(build(arch, options.out.absolute(), options.compiler))
                print(build_front(arch, options.out.absolute(), options.compiler))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
