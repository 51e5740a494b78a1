"""Outputs that depend on the name of the command, runc or crun, because callers of the two read them.

Under any other name they are those of runc, except for the version.
"""

from __future__ import annotations

import sys

from rootless import OCI_VERSION, __version__
from rootless.errors import EXIT_FAILURE, EXIT_UNKNOWN_VERB, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

PROGRAM = "rootless"
_RUNC = "runc"
_CRUN = "crun"

_EXIT_EXEC = 255
"""Status of an `exec` that fails before its program runs."""
_EXIT_USAGE = 64
"""EX_USAGE, sysexits(3head)."""

_OF_THE_HOST = (
    "RL-FUSE", "RL-IDMAP", "RL-INIT", "RL-NEW-USER-NAMESPACE", "RL-OVERLAY", "RL-PROPAGATION", "RL-SYSTEM",
    "RL-UNSHARE",
)  # fmt: skip
"""Codes of errors that a check of the host may explain: see rootless/doctor/at_failure.py."""


def called() -> str:
    """Return ``runc`` or ``crun`` when the command, or a link to it, has this name, and ``rootless`` otherwise."""
    name = sys.argv[0].rpartition("/")[2]
    return name if name in (_RUNC, _CRUN) else PROGRAM


def version(options: Options) -> str:
    """Return what --version prints.

    docker takes the last line that has the word "version" in it, containerd the first when it begins with "runc
    version "; `commit` says which program this is, whatever its name.
    """
    name = called()
    lines = [f"{name} version {__version__}"]
    if name != PROGRAM:
        lines.append(f"commit: {PROGRAM}-{__version__}")
    if name == _CRUN:
        from rootless.container.state.root import state_root

        lines.append(f"rundir: {state_root(options.root).path}")
    lines.append(f"spec: {OCI_VERSION}")
    if name == _CRUN:
        from rootless.container.features import words

        lines.append(" ".join(f"+{word}" for word in words()))
    return "\n".join(lines) + "\n"


def empty_list() -> str:
    """Return the JSON of no containers."""
    return "[\n]\n" if called() == _CRUN else "null\n"


def unknown_verb_status() -> int:
    """Return the exit status for a verb that does not exist."""
    return EXIT_FAILURE if called() == _CRUN else EXIT_UNKNOWN_VERB


def bad_flag_status() -> int:
    """Return the exit status for a flag that does not exist, or has no argument."""
    return _EXIT_USAGE if called() == _CRUN else EXIT_FAILURE


def installed_command() -> str:
    """Return the path of the installed `rootless`; empty for a checkout."""
    import os

    command = os.path.realpath(sys.argv[0])
    return command if os.path.basename(command) == PROGRAM else ""


def worded(error: RootlessError, options: Options) -> RootlessError:
    """Return the error with the cause that the host's checks find, and the status and the words that callers expect."""
    if error.path or error.code in _OF_THE_HOST:
        from rootless.doctor.at_failure import explain

        explain(error, installed_command())
    if options.verb == "exec":
        error.status = EXIT_FAILURE if called() == _CRUN else _EXIT_EXEC
    if error.code != "RL-NOT-FOUND" or called() != _CRUN:
        return error
    from rootless.container.state.root import state_root

    path = f"{state_root(options.root).path}/{options.container}/status"
    cause = "No such file or directory"
    return RootlessError(
        f"error opening file `{path}`", cause=cause, fix=error.fix, code=error.code, status=error.status
    )
