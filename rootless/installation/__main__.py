"""Write the installed `rootless` command: the front door, and a script that starts Python isolated and fast.

``python3 -m rootless.installation OUT``

OUT becomes the front door (helpers/front), which executes the script OUT.py by this interpreter; if the package has no
front door for this machine, OUT is the script. The modules of the package go into the module archive that the script
loads (archive.py). install.sh does this; after `pip install` it replaces the command that pip has written.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FLAGS = "-IS"
"""Ignore the environment and the working directory; import only from the standard library and the script's paths."""

HERE = os.path.dirname(os.path.abspath(__file__))
ARCHIVE_WRITER = os.path.join(HERE, "archive.py")
ARCHIVE = "rootless/__pycache__/modules.archive"
FRONT = f"rootless/launch/bin/front-{platform.machine()}"
MARK = b"@PYTHON AND SCRIPT@"
"""Where the front door has the paths of the interpreter and the script, each with a NUL behind it."""
LONGEST_PATHS = 4095
"""Bytes, of both."""

SCRIPT = """\
import sys
import _signal
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # no traceback while modules are loaded
if "unblock" in sys._xoptions:
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
sys.argv[0] = sys._xoptions.get("called", sys.argv[0])
sys.path += {paths!r}
import gc
gc.set_threshold(100_000)  # hardly ever: verbs are short and create few cycles
import posix
try:
    archive = None if b"ROOTLESS_NO_ARCHIVE" in posix.environ else open({archive!r}, "rb", 0)
except OSError:
    archive = None
if archive:
    from _frozen_importlib_external import MAGIC_NUMBER
    with archive:
        start = archive.read(8)
        if start[:4] == MAGIC_NUMBER:
            import marshal
            loader, *index = marshal.loads(archive.read(int.from_bytes(start[4:], "little")))
            exec(loader)
            use(archive, *index)
from rootless.__main__ import main_and_exit
main_and_exit()
"""

SHEBANG_LIMIT = 127
"""Bytes of a first line, with its newline, that every kernel reads (255 since Linux 5.1): execve(2)."""


def script(python: str, paths: Sequence[str]) -> bytes:
    """Return the text of the command, which `python` interprets and which imports from the directories `paths`.

    In the command, sys.argv[0] is the name by which it was called.

    Raises:
        ValueError: a path is not absolute, or has a backslash or a character that is not printable.
    """
    for path in (python, *paths):
        if not os.path.isabs(path) or "\\" in path or not path.isprintable():
            raise ValueError(f"{path!r} is not an absolute path in plain characters")
    first = f"#!{python} {FLAGS}\n"
    if len(first.encode()) > SHEBANG_LIMIT or " " in python:
        # Valid in two languages: for sh the line is an exec, for Python it is an unused string.
        first = f"#!/bin/sh\n'''exec' {shlex.quote(python)} {FLAGS} \"$0\" \"$@\"\n' '''\n"
    return (first + SCRIPT.format(paths=list(paths), archive=os.path.join(paths[0], ARCHIVE))).encode()


def write(out: str, python: str, paths: Sequence[str]) -> None:
    """Write the module archive, and the command to the executable file `out`.

    Raises:
        ValueError: see script().
        CalledProcessError: the module archive could not be written.
    """
    script(python, paths)  # checks the paths before anything is written
    subprocess.run(
        [python, FLAGS, "-X", "no_debug_ranges", ARCHIVE_WRITER, os.path.join(paths[0], "rootless")], check=True
    )
    content = script(python, paths)
    front = front_door(python, os.path.abspath(f"{out}.py"), paths[0])
    if front:
        _write_program(f"{out}.py", content)
    _write_program(out, front or content)


def front_door(python: str, script_path: str, package: str) -> bytes:
    """Return the front door for this interpreter and this script; empty if the package does not contain it."""
    try:
        with open(os.path.join(package, FRONT), "rb") as file:
            program = file.read()
    except FileNotFoundError:
        return b""
    words = b"".join(os.fsencode(path) + b"\0" for path in (python, script_path))
    if len(words) > LONGEST_PATHS or program.count(MARK) != 1:
        return b""
    place = program.index(MARK)
    return program[:place] + words + program[place + len(words) :]


def _write_program(path: str, content: bytes) -> None:
    """Replace an executable file atomically: a process may be executing the old one."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        os.fchmod(file.fileno(), 0o755)
        file.write(content)
    os.replace(temporary, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser("rootless.installation", description="Write the `rootless` command.")
    parser.add_argument("out", metavar="OUT", help="the file to write, such as ~/.local/bin/rootless")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that it starts (default: this one)")
    parser.add_argument("--path", action="append", help="a directory to import from (default: where this package is)")
    options = parser.parse_args(argv)
    package = os.path.dirname(os.path.dirname(HERE))
    paths = options.path or list(dict.fromkeys((package, sysconfig.get_path("purelib"))))
    try:
        write(options.out, options.python, paths)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"cannot write the command {options.out}: {error}; fix: install to another directory\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
