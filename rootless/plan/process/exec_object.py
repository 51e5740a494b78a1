"""The process object of an `exec`: --process or the container's own process, changed by flags."""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.idmaps import id_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.options import Options

_INHERITED = (
    "capabilities",
    "oomScoreAdj",
    "apparmorProfile",
    "selinuxLabel",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
)
"""Properties that a process of --process inherits from the container, as in runc."""


class Found:
    """What was looked up for names on the command line.

    Attributes:
        env: the variables, as NAME=VALUE.
        user: `uid`, `gid` and `additionalGids` of a user who is named; None for ids.
    """

    __slots__ = ("env", "user")

    def __init__(self, env: Sequence[str]) -> None:
        self.env = env
        self.user: dict[str, Any] | None = None


def process_object(
    container: dict[str, Any], given: dict[str, Any] | None, options: Options, found: Found | None = None
) -> dict[str, Any]:
    """Return the process to run.

    Args:
        container: the process object of the container's config.json.
        given: the object that --process names, or None.
        options: the command line.
        found: what was looked up, if names_something().

    Raises:
        RootlessError: `RL-USAGE`: there is no command, or both a command and --process; a group is not a number.
    """
    if given is None:
        process = {"cwd": "/"} | container
        process["terminal"] = False
    else:
        process = {name: container[name] for name in _INHERITED if container.get(name) is not None}
        process |= {name: value for name, value in given.items() if value is not None}
        _inherit_umask(process, container)
    if bool(options.args) == (given is not None):
        raise _misuse(
            "COMMAND is missing" if given is None else "COMMAND and --process cannot be combined",
            "write rootless exec CONTAINER COMMAND, or rootless exec --process FILE CONTAINER",
        )
    given_flags = {
        "args": list(options.args),
        "cwd": options.cwd,
        "terminal": options.tty,
        "noNewPrivileges": options.no_new_privs,
        "apparmorProfile": options.apparmor,
        "selinuxLabel": options.process_label,
    }
    process |= {name: value for name, value in given_flags.items() if value}
    env = found.env if found else options.env
    if env:
        process["env"] = [*(process.get("env") or ()), *env]
    _choose_user(process, options, found.user if found else None)
    if options.cap:
        _add_capabilities(process, options.cap)
    return process


def names_something(options: Options) -> bool:
    """Whether the command line has a name or a file that process_object() does not know: ids and NAME=VALUE do."""
    return bool(options.env_file) or is_named(options.user) or any("=" not in each for each in options.env)


def is_named(user: str) -> bool:
    """Whether a user and group are not only ids."""
    ids = user.replace(":", "", 1)
    return bool(ids) and not (ids.isascii() and ids.isdigit())


def flags_by_place(options: Options) -> dict[str, str]:
    """Return the flag that sets each place: an error at such a place names the flag, not config.json."""
    flags = {
        "process.args": ("", options.args),
        "process.cwd": ("--cwd", options.cwd),
        "process.env": ("--env", options.env or options.env_file),
        "process.terminal": ("--tty", options.tty),
        "process.noNewPrivileges": ("--no-new-privs", options.no_new_privs),
        "process.apparmorProfile": ("--apparmor", options.apparmor),
        "process.selinuxLabel": ("--process-label", options.process_label),
        "process.user.additionalGids": ("--additional-gids", options.additional_gids),
        "process.user": ("--user", options.user),
        "process.capabilities": ("--cap", options.cap),
    }
    return {place: flag for place, (flag, value) in flags.items() if value}


def _inherit_umask(process: dict[str, Any], container: dict[str, Any]) -> None:
    umask = (container.get("user") or {}).get("umask")
    user = process.get("user") or {}
    if umask is not None and user.get("umask") is None:
        process["user"] = user | {"umask": umask}


def _choose_user(process: dict[str, Any], options: Options, named: dict[str, Any] | None) -> None:
    user = dict(process.get("user") or {}) | (named or {})
    if options.user and not named:
        uid, colon, gid = options.user.partition(":")
        user["uid"] = _id("--user", uid)
        if colon:
            user["gid"] = _id("--user", gid)
    if options.additional_gids:
        more = [_id("--additional-gids", text) for text in options.additional_gids]
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *more]
    process["user"] = user


def _id(flag: str, text: str) -> int:
    number = id_number(text)
    if number < 0:
        raise _misuse(f"{flag}: {text!r} is not an id", "write a number in digits")
    return number


def _add_capabilities(process: dict[str, Any], names: tuple[str, ...]) -> None:
    """Add capabilities to the sets that execve(2) consults, which include the ambient one for any user but root."""
    sets = dict(process.get("capabilities") or {})
    wanted = ["bounding", "permitted", "effective"]
    if process["user"].get("uid"):
        wanted += ["inheritable", "ambient"]
    for name in wanted:
        sets[name] = [*(sets.get(name) or ()), *names]
    process["capabilities"] = sets


def _misuse(problem: str, fix: str) -> RootlessError:
    return RootlessError(f"exec: {problem}", fix=fix, code="RL-USAGE")
