"""Edits of `process`: command, user, terminal, working directory, limits. podman-run(1), config.md "Process"."""

from __future__ import annotations

from rootless.bundle.edit.values import absolute, changed, is_digits, misused
from rootless.linux import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.edit.accounts import Identity
    from rootless.bundle.edit.values import Config

KEEP_ORIGINAL_GROUPS = "run.oci.keep_original_groups"
"""crun's annotation for --group-add keep-groups, which podman writes as well."""
_UNLIMITED = 2**64 - 1
_TERM = "TERM=xterm"


def set_command(config: Config, command: Sequence[str], entrypoint: Sequence[str]) -> Config:
    """Return the configuration that runs `entrypoint` with the arguments `command`; one of them is not empty."""
    return changed(config, "process", args=[*entrypoint, *command])


def entrypoint_words(text: str) -> list[str]:
    """Return the words of --entrypoint: a JSON array of strings as it is, any other text as one word, none if empty."""
    if text.startswith("["):
        from rootless.errors import RootlessError
        from rootless.jsontext import parse

        try:
            words = parse(text.encode("utf-8", "surrogateescape"), "--entrypoint")
        except RootlessError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [text] if text else []


def set_terminal(config: Config, *, terminal: bool) -> Config:
    """Return the configuration with or without a terminal; a program at one has TERM."""
    config = changed(config, "process", terminal=terminal)
    env = config["process"].get("env") or []
    if terminal and not any(entry.startswith("TERM=") for entry in env):
        config = changed(config, "process", env=[*env, _TERM])
    return config


def set_cwd(config: Config, flag: str, path: str) -> Config:
    """Return the configuration with this working directory, which is made if it is missing.

    Raises:
        RootlessError: `RL-USAGE`: it is not absolute.
    """
    return changed(config, "process", cwd=absolute(flag, path, path))


def set_hostname(config: Config, name: str) -> Config:
    """Return the configuration with this host name; the variable HOSTNAME, if it is set, is the same."""
    config = config | {"hostname": name}
    env = (config.get("process") or {}).get("env") or ()
    if any(entry.startswith("HOSTNAME=") for entry in env):
        replaced = [f"HOSTNAME={name}" if entry.startswith("HOSTNAME=") else entry for entry in env]
        config = changed(config, "process", env=replaced)
    return config


def set_user(config: Config, user: Identity) -> Config:
    """Return the configuration that runs as `user`, with no other groups."""
    return changed(config, "process", "user", uid=user.uid, gid=user.gid, additionalGids=list(user.gids))


def add_groups(config: Config, gids: Sequence[int]) -> Config:
    """Return the configuration with more supplementary groups."""
    before = ((config.get("process") or {}).get("user") or {}).get("additionalGids") or ()
    return changed(config, "process", "user", additionalGids=list(dict.fromkeys((*before, *gids))))


def set_rlimits(config: Config, asked: Sequence[str], own: dict[int, tuple[int, int]]) -> Config:
    """Return the configuration with the limits ``NAME=SOFT[:HARD]``, each instead of one of its kind.

    Args:
        config: the configuration.
        asked: the values of --ulimit; -1 is no limit, and ``host`` stands for all limits of the caller.
        own: the caller's (soft, hard) by the number of the resource.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    limits = {limit["type"]: limit for limit in (config.get("process") or {}).get("rlimits") or ()}
    for text in asked:
        if text == "host":
            limits |= {f"RLIMIT_{RLIMITS[number]}": _rlimit(RLIMITS[number], *pair) for number, pair in own.items()}
            continue
        limit = _parsed(text)
        limits[limit["type"]] = limit
    return changed(config, "process", rlimits=list(limits.values()))


def _parsed(text: str) -> Config:
    name, _, value = text.partition("=")
    name = name.upper().removeprefix("RLIMIT_")
    if name not in RLIMITS:
        known = ", ".join(sorted(word.lower() for word in RLIMITS))
        raise misused("--ulimit", text, f"there is no limit {name.lower()!r}", f"name one of {known}")
    soft, colon, hard = value.partition(":")
    low, high = (_number(text, word) for word in (soft, hard if colon else soft))
    if low > high:
        raise misused("--ulimit", text, "the soft limit is above the hard limit", "lower it, or raise the hard limit")
    return _rlimit(name, low, high)


def _number(text: str, word: str) -> int:
    if word in ("-1", "unlimited"):
        return _UNLIMITED
    if not is_digits(word):
        raise misused("--ulimit", text, f"{word!r} is not a number", "write NAME=SOFT[:HARD], such as nofile=1024:4096")
    return int(word)


def _rlimit(name: str, soft: int, hard: int) -> Config:
    return {"type": f"RLIMIT_{name}", "soft": soft & _UNLIMITED, "hard": hard & _UNLIMITED}
