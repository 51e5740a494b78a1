"""Edits of rights: --cap-add, --cap-drop, --security-opt, --device. podman-run(1), capabilities(7)."""

from __future__ import annotations

from rootless.bundle.edit.mounts import set_cgroup_writable, set_proc_options
from rootless.bundle.edit.values import absolute, changed, misused, truth
from rootless.linux import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.edit.values import Config

_ALL = "ALL"
_ROOTS_SETS = ("bounding", "effective", "permitted")
_OTHERS_SETS = ("effective", "permitted", "inheritable", "ambient")
"""What gives capabilities to a program whose user is not root: execve(2) takes them from the ambient set."""
_UNCONFINED = "unconfined"
_CGROUPS = "/sys/fs/cgroup"


def set_capabilities(config: Config, add: Sequence[str], drop: Sequence[str]) -> Config:
    """Return the configuration with more or fewer capabilities; names may omit CAP_, and ALL stands for every one.

    A program whose user is not root gets exactly those that are added, as with podman.

    Raises:
        RootlessError: `RL-USAGE`: there is no such capability, or one is added and dropped.
    """
    process = config.get("process") or {}
    before = list((process.get("capabilities") or {}).get("bounding") or ())
    added, dropped = _named("--cap-add", add), _named("--cap-drop", drop)
    both = next((name for name in added if name in dropped), "")
    if both:
        raise misused("--cap-add", both, "it is dropped as well", "remove one of the two flags")
    every = [f"CAP_{name}" for name in CAPABILITIES]
    kept = every if _ALL in added else [name for name in before if _ALL not in dropped and name not in dropped]
    if _ALL in added:
        kept = [name for name in kept if name not in dropped]
    more = [name for name in added if name != _ALL]
    kept = list(dict.fromkeys((*kept, *more)))
    sets: dict[str, list[str]] = dict.fromkeys(_ROOTS_SETS, kept)
    if (process.get("user") or {}).get("uid"):
        given = [name for name in (every if _ALL in added else more) if name in kept]
        sets |= dict.fromkeys(_OTHERS_SETS, given)
    return config | {"process": process | {"capabilities": {name: list(each) for name, each in sets.items()}}}


def _named(flag: str, asked: Sequence[str]) -> list[str]:
    """Return capabilities in the words of config.json; ALL is itself."""
    found = []
    for word in (name for text in asked for name in text.split(",")):
        bare = word.upper().removeprefix("CAP_")
        if bare not in (*CAPABILITIES, _ALL):
            raise misused(flag, word, "there is no such capability", "name one of capabilities(7), or ALL")
        found.append(bare if bare == _ALL else f"CAP_{bare}")
    return found


def seccomp_file(options: Sequence[str]) -> str:
    """Return the file of ``seccomp=FILE``, the last one of --security-opt; nothing for another value."""
    found = [_split(text)[1] for text in options if _split(text)[0] == "seccomp"]
    return found[-1] if found and found[-1] != _UNCONFINED else ""


def set_security_options(config: Config, options: Sequence[str], seccomp: Config | None) -> Config:
    """Return the configuration with each of --security-opt.

    Args:
        config: the configuration.
        options: the values of the flag.
        seccomp: linux.seccomp from the file that seccomp_file() returns, or None without one.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    for text in options:
        name, value = _split(text)
        edit = _SECURITY_OPTIONS.get(name)
        if not edit:
            known = "seccomp=FILE, seccomp=unconfined, no-new-privileges, apparmor=PROFILE, label=disable, mask=PATHS"
            raise misused("--security-opt", text, "it is not known", f"use {known}, unmask=PATHS or proc-opts=OPTIONS")
        config = edit(config, text, value)
    if seccomp_file(options):
        config = changed(config, "linux", seccomp=seccomp)
    return config


def _split(text: str) -> tuple[str, str]:
    """Return name and value; docker's old form has a colon between them."""
    name, _, value = text.partition("=")
    if ":" in name:
        name, _, value = text.partition(":")
    return name, value


def _no_new_privileges(config: Config, text: str, value: str) -> Config:
    return changed(config, "process", noNewPrivileges=truth("--security-opt", text, value))


def _seccomp(config: Config, text: str, value: str) -> Config:
    if not value:
        raise misused("--security-opt", text, "it names no file", "write seccomp=FILE or seccomp=unconfined")
    linux = config.get("linux") or {}
    return config | {"linux": {name: each for name, each in linux.items() if name != "seccomp"}}


def _apparmor(config: Config, text: str, value: str) -> Config:
    if not value:
        raise misused("--security-opt", text, "it names no profile", "write apparmor=PROFILE or apparmor=unconfined")
    return changed(config, "process", apparmorProfile="" if value == _UNCONFINED else value)


def _label(config: Config, text: str, value: str) -> Config:
    if value != "disable":
        raise misused("--security-opt", text, "only label=disable is supported", "write a label into config.json")
    config = changed(config, "process", selinuxLabel="")
    return changed(config, "linux", mountLabel="")


def _mask(config: Config, text: str, value: str) -> Config:
    paths = [absolute("--security-opt", text, path) for path in value.split(":")]
    masked = (config.get("linux") or {}).get("maskedPaths") or ()
    return changed(config, "linux", maskedPaths=list(dict.fromkeys((*masked, *paths))))


def _unmask(config: Config, text: str, value: str) -> Config:
    every = value.upper() == _ALL
    paths = [] if every else [absolute("--security-opt", text, path) for path in value.split(":")]
    linux = config.get("linux") or {}
    kept = {
        name: [path for path in linux.get(name) or () if not every and not _covers(paths, path)]
        for name in ("maskedPaths", "readonlyPaths")
    }
    config = config | {"linux": linux | kept}
    return set_cgroup_writable(config) if every or any(path.startswith(_CGROUPS) for path in paths) else config


def _covers(patterns: Sequence[str], path: str) -> bool:
    """Whether a path is one of these, which may hold wildcards."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _system_paths(config: Config, text: str, value: str) -> Config:
    if value != _UNCONFINED:
        raise misused("--security-opt", text, "it is not known", "write systempaths=unconfined")
    return _unmask(config, text, _ALL)


def _proc_options(config: Config, text: str, value: str) -> Config:
    if not value:
        raise misused("--security-opt", text, "it names no option", "write proc-opts=hidepid=2, for example")
    return set_proc_options(config, value.split(","))


_SECURITY_OPTIONS = {
    "no-new-privileges": _no_new_privileges,
    "seccomp": _seccomp,
    "apparmor": _apparmor,
    "label": _label,
    "mask": _mask,
    "unmask": _unmask,
    "systempaths": _system_paths,
    "proc-opts": _proc_options,
}


def is_device_name(text: str) -> bool:
    """Whether a value of --device is the name of a CDI device, ``VENDOR/CLASS=NAME``, and not a path."""
    return "=" in text and not text.startswith("/")


def device_words(text: str) -> tuple[str, str, str]:
    """Return the path on the host, the path in the container and the permissions of ``SRC[:DST][:rwm]``.

    Raises:
        RootlessError: `RL-USAGE`: it is not of that form.
    """
    words = text.split(":")
    access = words.pop() if len(words) > 1 and not words[-1].startswith("/") else "rwm"
    if not access or access.strip("rwm") or len(words) > 2:  # noqa: PLR2004 - source and destination
        raise misused("--device", text, "it is not SRC[:DST][:rwm]", "write a path such as /dev/fuse")
    for path in words:
        absolute("--device", text, path)
    return words[0], words[-1], access


def add_devices(config: Config, devices: Sequence[tuple[Config, str]]) -> Config:
    """Return the configuration with more elements of linux.devices, and rules that allow them where there are rules.

    Args:
        config: the configuration.
        devices: elements of linux.devices, each with the letters among rwm that are allowed.
    """
    linux = config.get("linux") or {}
    paths = {device["path"] for device, _ in devices}
    kept = [device for device in linux.get("devices") or () if device["path"] not in paths]
    config = changed(config, "linux", devices=[*kept, *(device for device, _ in devices)])
    rules = (linux.get("resources") or {}).get("devices")
    if not rules:
        return config
    allowed = [
        {
            "allow": True,
            "type": device["type"].replace("u", "c"),
            "major": device["major"],
            "minor": device["minor"],
            "access": letters,
        }
        for device, letters in devices
        if device["type"] != "p"
    ]
    return changed(config, "linux", "resources", devices=[*rules, *allowed])
