"""Check config.json against the OCI runtime specification 1.3.0, before anything else happens.

The tables here (config.md) and in check_linux.py (config-linux.md) follow the specification section by section. They
are the only declaration of the types of config.json. Where they differ from the specification's JSON schema, a comment
gives the reason. Other modules check what this host supports and whether sections contradict each other.
"""

from __future__ import annotations

from rootless.bundle.check_linux import ID_MAPPINGS, LINUX, RESOURCES
from rootless.bundle.schema import (
    ABSOLUTE_PATH,
    ID,
    PATH,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT16,
    UINT32,
    UINT64,
    Invalid,
    array,
    boolean,
    distinct,
    integer,
    one_of,
    record,
    string,
    strings,
)
from rootless.errors import RootlessError, quoted
from rootless.linux import RLIMITS as RLIMIT_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.bundle.schema import Rule

MOST_HOSTNAME_BYTES = 64
"""What sethostname(2) and setdomainname(2) take (__NEW_UTS_LEN)."""


def check(config: object) -> None:
    """Refuse a configuration at its first violation of the specification.

    Unknown properties are ignored at every level. An optional property may be null; readers of the configuration treat
    null as absent.

    Args:
        config: the whole config.json as jsontext.parse returns it.

    Raises:
        RootlessError: `RL-CONFIG`, with the place in config.json.
    """
    _apply(config, CONFIG, "config.json is not valid")


def check_process(process: object) -> None:
    """Check the process object of `exec`; the place in an error begins with ``process``.

    Raises:
        RootlessError: `RL-CONFIG`.
    """
    _apply({"process": process}, record(required={"process": PROCESS}), "the process is not valid")


def check_resources(resources: object) -> None:
    """Check the resources of `update`; the place in an error begins with ``resources``.

    Raises:
        RootlessError: `RL-CONFIG`.
    """
    _apply({"resources": resources}, record(required={"resources": RESOURCES}), "the resources are not valid")


def _apply(value: object, rule: Rule, what: str) -> None:
    try:
        rule(value)
    except Invalid as invalid:
        raise RootlessError(
            what,
            cause=invalid.cause,
            where=invalid.where(),
            fix=invalid.fix,
            code="RL-CONFIG",
        ) from None


# -- Rules that a table cannot express ---------------------------------------------------------------------------------


def _supported_version(value: object) -> None:
    SEMANTIC_VERSION(value)
    version = str(value)
    if not version.startswith("1."):
        cause = f"unsupported ociVersion {quoted(version)}: rootless supports 1.x"
        raise Invalid(cause, "use a bundle for version 1 of the specification")


def _is_semantic_version(text: str) -> bool:
    """Whether `text` is MAJOR.MINOR.PATCH[-PRE.RELEASE][+BUILD], as in semver.org 2.0.0."""
    text, plus, build = text.partition("+")
    text, minus, prerelease = text.partition("-")
    numbers = text.split(".")
    return (
        len(numbers) == len(("major", "minor", "patch"))
        and all(_is_word(number) and number.isdigit() and _has_no_leading_zero(number) for number in numbers)
        and (not minus or all(_is_word(part) and _has_no_leading_zero(part) for part in prerelease.split(".")))
        and (not plus or all(_is_word(part) for part in build.split(".")))
    )


def _is_word(part: str) -> bool:
    return part.isascii() and part.replace("-", "0").isalnum()


def _has_no_leading_zero(part: str) -> bool:
    return not part.isdigit() or part == "0" or part[0] != "0"


def _soft_within_hard(rlimit: dict[str, Any]) -> None:
    soft, hard = rlimit["soft"], rlimit["hard"]
    if soft > hard:
        cause = f"found {soft}, expected at most {hard}, the hard limit"
        raise Invalid(cause, "lower it, or raise the hard limit", ["soft"])


# -- Mounts ------------------------------------------------------------------------------------------------------------

MOUNTS = array(
    record(
        required={
            "destination": PATH,  # since 1.2.0 it may be relative to /
        },
        optional={
            "source": STRING,
            "options": STRINGS,
            "type": STRING,
            "uidMappings": ID_MAPPINGS,
            "gidMappings": ID_MAPPINGS,
        },
    ),
)

# -- Process -----------------------------------------------------------------------------------------------------------

# An entry without = is permitted, because execve(2) accepts it. An empty one is always a mistake.
ENVIRONMENT = array(string("NAME=value", fix="write NAME=value, or remove it", accepts=len))

USER = record(
    optional={
        "uid": ID,
        "gid": ID,
        "umask": UINT32,
        "additionalGids": array(ID),
        "username": STRING,
    },
)

# Names are not checked: an unknown capability is a warning, not an error (config.md).
CAPABILITIES = record(
    optional={
        "bounding": STRINGS,
        "permitted": STRINGS,
        "effective": STRINGS,
        "inheritable": STRINGS,
        "ambient": STRINGS,
    },
)

RLIMITS = array(
    record(
        required={
            "type": one_of(" ".join(sorted(f"RLIMIT_{name}" for name in RLIMIT_NAMES))),
            "soft": UINT64,
            "hard": UINT64,
        },
        also=_soft_within_hard,
    ),
    also=distinct("type"),
)

SCHEDULER = record(
    required={
        "policy": one_of("SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE"),
    },
    optional={
        "nice": integer(-20, 19),
        "priority": integer(0, 99),
        "flags": array(
            one_of(
                "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN SCHED_FLAG_KEEP_POLICY "
                "SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX",
            ),
        ),
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    },
)

IO_PRIORITY = record(
    required={
        "class": one_of("IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE"),
    },
    optional={
        "priority": integer(0, 7),
    },
)

CPU_LIST = string(
    "a list of CPUs such as 0-3,7",
    fix="write numbers, ranges and commas",
    accepts=lambda text: not text.strip("0123456789, -"),
)

PROCESS = record(
    required={
        "args": strings(filled=True),
        "cwd": ABSOLUTE_PATH,
    },
    optional={
        "terminal": boolean,
        # The schema says uint64, but a terminal has 16 bits for each (TIOCSWINSZ(2const)).
        "consoleSize": record(required={"height": UINT16, "width": UINT16}),
        "env": ENVIRONMENT,
        "user": USER,
        "capabilities": CAPABILITIES,
        "rlimits": RLIMITS,
        "noNewPrivileges": boolean,
        "apparmorProfile": STRING,
        "selinuxLabel": STRING,
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": SCHEDULER,
        "ioPriority": IO_PRIORITY,
        "execCPUAffinity": record(optional={"initial": CPU_LIST, "final": CPU_LIST}),
    },
)

# -- POSIX-platform Hooks ----------------------------------------------------------------------------------------------

HOOK_LIST = array(
    record(
        required={
            "path": ABSOLUTE_PATH,
        },
        optional={
            "args": STRINGS,
            "env": ENVIRONMENT,
            "timeout": integer(1, 2**63 - 1),
        },
    ),
)

HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

HOOKS = record(optional=dict.fromkeys(HOOK_KINDS, HOOK_LIST))

# -- The whole ---------------------------------------------------------------------------------------------------------

SEMANTIC_VERSION = string(
    "a semantic version (semver.org) such as 1.2.0",
    fix="write the version of the specification as MAJOR.MINOR.PATCH",
    accepts=_is_semantic_version,
)

HOSTNAME = string(
    f"at most {MOST_HOSTNAME_BYTES} bytes",
    fix="shorten it",
    accepts=lambda text: len(text.encode()) <= MOST_HOSTNAME_BYTES,
)

CONFIG = record(
    required={
        "ociVersion": _supported_version,
        # Optional in the schema, for virtual machines; a Linux container needs it.
        "root": record(required={"path": PATH}, optional={"readonly": boolean}),
    },
    optional={
        "mounts": MOUNTS,
        # REQUIRED only when `start` is called (config.md): the verbs check that.
        "process": PROCESS,
        "hostname": HOSTNAME,
        "domainname": HOSTNAME,
        "hooks": HOOKS,
        "annotations": STRING_MAP,
        "linux": LINUX,
        # solaris, windows, vm, zos and freebsd are for runtimes of those platforms.
    },
)
