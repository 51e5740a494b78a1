"""`--slurm FILE`: the container of a task of Slurm. It stands for flags of `run`, which this file chooses.

FILE is the environment that slurmstepd writes for the task (oci.conf(5), CreateEnvFile=null). The variables name the
image (SLURM_CONTAINER) and hold the user's wishes (ROOTLESS_…): the user is the only one whom they can harm, because
slurmstepd runs the command as the user. docs/cluster.md explains each.
"""

from __future__ import annotations

import posix

from rootless import files, log, paths
from rootless.bundle.edit.environment import records_of
from rootless.bundle.edit.slurm_line import command_of
from rootless.bundle.edit.values import misused, truth
from rootless.container.edits.apply import asked_file
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.image.reference import is_path
from rootless.xdg import homes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.options import Options

LINE = "ROOTLESS_SLURM_LINE"
"""The variable that holds the line of oci.conf as the shell got it."""
_ADOPTED = (
    "HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables of the step that rootless follows itself: slurmd's HOME is root's. PATH and LD_… stay slurmd's."""
SHARED = ("/tmp", "/dev/shm", "/run/munge", "/run/slurm")  # noqa: S108 - of the host
_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
"""Directories that are the image's, wherever the step was started."""
_ABOVE = ("/", "/opt", "/run", "/var")
"""The same, but not what is below."""
_NAMED = "/tmp/rootless-slurm-"  # noqa: S108 - used only when it is the user's own
"""Where the roots of containers with names lie: a directory for each user, job, and task of the node."""
_IMAGE = "image"


def task_options(options: Options) -> Options:
    """Return the options for the container of a task; flags on the command line go before what --slurm chooses.

    Raises:
        RootlessError: `RL-USAGE`: the file cannot be read, or a variable in it is wrong; the error names it.
    """
    step = _variables(options.slurm)
    line = paths.variable(LINE)
    _adopt(step)
    uid, directory = posix.geteuid(), _directory(options, step)
    asked = dict(vars(options))
    asked |= {
        "slurm": "",
        "args": options.args or command_of(line),
        "network": options.network or "host",
        "hostname": options.hostname or posix.uname().nodename,
        "interactive": True,
        "init": True,  # a signal that the program has no handler for ends it, as it does without a container
        "tty": options.tty or posix.isatty(0),
        "cwd": options.cwd or step.get("ROOTLESS_WORKDIR") or directory,
        "name": options.name or options.container,
    }
    asked["bundle" if options.verb == "explain" else "container"] = _word(step)
    if uid and not options.userns:
        _set_user(asked, step, uid)
    if not options.systemd_cgroup:
        asked["cgroup_manager"] = options.cgroup_manager or "disabled"  # it stays in the cgroup of the step
    _set_entrypoint(asked, options, step)
    _set_overlay(asked, options, step)
    _set_variables(asked, options, step)
    _set_mounts(asked, options, step, directory)
    _set_program(asked, step)
    return options.derived(**asked)


def _variables(path: str) -> dict[str, str]:
    words = records_of(asked_file("--slurm", path, "the environment file of a task, %e"), path)
    step = dict(word.partition("=")[::2] for word in words if "=" in word)
    if not step.get("HOME"):  # srun --export=NONE
        step["HOME"] = homes(posix.geteuid())[0]
    return step


def _adopt(step: dict[str, str]) -> None:
    """Let this process, its image store and its registry client have the user's own settings."""
    for name, value in step.items():
        if name in _ADOPTED or name.startswith(("ROOTLESS_", "SLURM", "PMI")):
            own = name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")
            posix.environ.update([own])
            posix.putenv(*own)  # for programs that rootless starts


def _directory(options: Options, step: dict[str, str]) -> str:
    """Return the step's working directory: that of this process, unless slurmstepd has moved it to the spool."""
    here = posix.getcwd()
    moved = here == paths.resolved(paths.parent(paths.normal(options.slurm)))
    given = step.get("PWD", "")
    if moved and given.startswith("/") and paths.exists(given):
        posix.chdir(given)
        return given
    return here


def _word(step: dict[str, str]) -> str:
    """Return the word that names the bundle or the image: a path, or a reference."""
    word = step.get("SLURM_CONTAINER", "")
    if not word:
        raise misused("--slurm", "", "the task has no variable SLURM_CONTAINER", "use srun --container=IMAGE")
    if paths.exists(word):
        return paths.absolute(word)
    if is_path(word):
        cause, fix = (
            "no such file or directory",
            "name a bundle, an image file, or a reference such as docker://debian:13",
        )
        raise RootlessError(f"--container {word}", cause=cause, fix=fix, code="RL-BUNDLE")
    # a name alone could be the id of a container; that of an image has a tag
    return word if {"/", ":", "@"}.intersection(word) else f"{word}:latest"


def _set_user(asked: dict[str, Any], step: dict[str, str], uid: int) -> None:
    """A task is its user, with all groups; or root of its container, whose files are the user's."""
    as_root = _is_wanted("ROOTLESS_REMAP_ROOT", step.get("ROOTLESS_REMAP_ROOT", ""))
    asked["userns"] = "root" if as_root else "keep-id"
    asked["user"] = asked.get("user") or ("0:0" if as_root else f"{uid}:{posix.getegid()}")
    asked["group_add"] = asked.get("group_add") or ("keep-groups",)


def _is_wanted(name: str, value: str) -> bool:
    return bool(value) and truth(name, value, value)


def _set_entrypoint(asked: dict[str, Any], options: Options, step: dict[str, str]) -> None:
    """A task is the command that srun got; the image's entrypoint goes before it only where the user wants that."""
    wanted = step.get("ROOTLESS_ENTRYPOINT", "")
    if wanted != _IMAGE and not options.entrypoint:
        asked["entrypoint"] = (wanted,)


def _set_overlay(asked: dict[str, Any], options: Options, step: dict[str, str]) -> None:
    where, name = step.get("ROOTLESS_WRITABLE", ""), step.get("ROOTLESS_CONTAINER_NAME", "")
    if where and name:
        raise misused(
            "ROOTLESS_WRITABLE", where, "ROOTLESS_CONTAINER_NAME says where changes go too", "set one of them"
        )
    if name:
        where = _named(name, step)
    asked["overlay"] = options.overlay or where


def _named(name: str, step: dict[str, str]) -> str:
    """Return the directory of a container that has a name: one for each task that runs on this node at once."""
    job, task = step.get("SLURM_JOB_ID", ""), step.get("SLURM_LOCALID", "0")
    if not all(word.isascii() and word.replace("-", "_").replace("_", "a").isalnum() for word in (name, job, task)):
        raise misused("ROOTLESS_CONTAINER_NAME", name, "it is not a name", "use letters, digits, - and _")
    above = f"{_NAMED}{posix.geteuid()}"
    try:
        files.make_private(above)
        posix.close(files.open_own(above))  # /tmp is sticky: nobody can exchange it
    except OSError as error:
        raise RootlessError(
            f"ROOTLESS_CONTAINER_NAME {name}",
            cause=f"{above}: {(error.strerror or str(error)).lower()}",
            fix=f"ask an administrator to remove {above}",
            code="RL-OVERLAY",
        ) from None
    return f"{above}/{job}/{name}.{task}"


def _set_variables(asked: dict[str, Any], options: Options, step: dict[str, str]) -> None:
    """Pass the step's variables on; those of the image go before, except HOME and what ROOTLESS_ENV names.

    LD_LIBRARY_PATH and LD_PRELOAD are about libraries of the host, and break programs of an image.
    """
    strong = {"HOME", "PWD", *step.get("ROOTLESS_ENV", "").split(",")}
    step = {name: value for name, value in step.items() if _is_text(name, value)} | {"PWD": asked["cwd"]}
    asked["env"] = (*(f"{name}={value}" for name, value in step.items() if name in strong), *options.env)
    asked["step_env"] = tuple(
        f"{name}={value}" for name, value in step.items() if name not in strong and name[:3] != "LD_"
    )


def _is_text(name: str, value: str) -> bool:
    """Whether config.json can hold a variable; one that it cannot hold is reported."""
    if (name + value).isascii() or not any("\ud800" <= each <= "\udfff" for each in name + value):
        return True
    log.warning(f"the variable {name} is left out: it is not UTF-8", fix=f"unset {name}, or write it in UTF-8")
    return False


def _set_mounts(asked: dict[str, Any], options: Options, step: dict[str, str], directory: str) -> None:
    """Mount what the user and the administrator name, and what tasks of Slurm share, once each."""
    volumes = {paths.normal(text.split(":")[1]): text for text in options.volume if ":" in text}
    volumes |= dict(_wanted(word) for word in step.get("ROOTLESS_MOUNTS", "").split(",") if word)
    binds: list[str] = []
    home = paths.normal(step.get("HOME") or "/")
    spool = paths.normal(f"{paths.absolute(options.slurm)}/../../..")
    script = asked["args"][0]
    for path in (
        *SHARED,
        step.get("TMPDIR", ""),
        home if _is_wanted("ROOTLESS_MOUNT_HOME", paths.variable("ROOTLESS_MOUNT_HOME")) else "",  # or slurmd's
        spool if spool.startswith("/") and "/oci-job" in options.slurm else "",
        script if paths.name(script) == "slurm_script" else "",
        directory,
    ):
        place = paths.normal(path or "/")
        is_hosts = place in SHARED or not _is_within(place, _SYSTEM)
        if (
            is_hosts
            and not _is_within(place, binds)
            and place.startswith("/")
            and place not in (*_ABOVE, *volumes)
            and paths.exists(place)
        ):
            binds.append(place)
    asked["volume"] = (*volumes.values(), *(f"{path}:{path}" for path in binds if ":" not in path))
    asked["mount"] = (*options.mount, *(f'type=bind,"src={path}","dst={path}"' for path in binds if ":" in path))
    own = f"{posix.geteuid()}:{posix.getegid()}"
    owner = f"mode=0700,uid={posix.geteuid()},gid={posix.getegid()}"
    empty = f"notmpcopyup,{owner if asked.get('user') == own else 'mode=1777'}"
    hidden = state_root(options.root).path  # what rootless reads there as the user is nothing for an image to change
    covered = [hidden] if _is_within(hidden, binds) else []
    if home.startswith("/") and home not in _ABOVE and not _is_within(home, (*binds, *volumes, *_SYSTEM)):
        covered.append(home)
    asked["tmpfs"] = (*options.tmpfs, *(f"{path}:{empty}" for path in covered))


def _set_program(asked: dict[str, Any], step: dict[str, str]) -> None:
    """Look a program up in the PATH of the image if srun has found it in that of the submit host, which is no guide."""
    program, *rest = asked["args"]
    directory, name = paths.parent(program), paths.name(program)
    found = [each for each in step.get("PATH", "").split(":") if posix.access(paths.join(each, name), posix.X_OK)]
    mounted = [each.split(":")[1] for each in asked["volume"]]
    if directory in found[:1] and not _is_within(directory, mounted):
        asked["args"] = (name, *rest)


def _wanted(word: str) -> tuple[str, str]:
    """Return the destination of SRC[:DST[:OPTION+…]], as pyxis spells mounts, and the value of --volume for it."""
    source, _, rest = word.partition(":")
    destination, _, words = rest.partition(":")
    destination = destination or source
    text = f"{source}:{destination}" + (f":{words.replace('+', ',')}" if words else "")
    return paths.normal(destination), text


def _is_within(path: str, directories: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)
