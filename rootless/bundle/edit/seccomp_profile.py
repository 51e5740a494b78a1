"""A seccomp profile of podman and docker as linux.seccomp: seccomp.json(5), config-linux.md "Seccomp"."""

from __future__ import annotations

import errno

from rootless.bundle.edit.values import is_digits, misused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.edit.values import Config

_MACHINES = {
    # of uname(2): the name in `arches` of a profile, that in `architecture` of its archMap
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
_KEPT = ("defaultAction", "flags", "listenerPath", "listenerMetadata")


def linux_seccomp(
    profile: object, path: str, machine: str, kernel: tuple[int, int], capabilities: Sequence[str]
) -> Config:
    """Return linux.seccomp for a profile; one that is linux.seccomp already stays as it is.

    Args:
        profile: the content of the file, as JSON data.
        path: the file, for errors.
        machine: the name of the hardware, uname(2).
        kernel: major and minor number of its release.
        capabilities: the bounding set of the program; rules of a profile depend on it.

    Raises:
        RootlessError: `RL-USAGE`: the file does not hold a profile.
    """
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise _wrong(path, "it has no defaultAction")
    if profile.get("architectures") and profile.get("archMap"):
        raise _wrong(path, "it has both architectures and archMap")
    name, native = _MACHINES.get(machine, ("", ""))
    found = {key: profile[key] for key in _KEPT if profile.get(key)}
    number = _number(profile.get("defaultErrno"), profile.get("defaultErrnoRet"), path)
    if number is not None:
        found["defaultErrnoRet"] = number
    architectures = list(profile.get("architectures") or ())
    for each in _objects(profile, "archMap", path):
        if each.get("architecture") == native:
            architectures = [native, *(each.get("subArchitectures") or ())]
    if architectures:
        found["architectures"] = architectures

    def applies(rule: Config) -> bool:
        includes, excludes = (_conditions(rule, key, path) for key in ("includes", "excludes"))
        return (
            (not includes.get("arches") or name in includes["arches"])
            and name not in (excludes.get("arches") or ())
            and all(word in capabilities for word in includes.get("caps") or ())
            and not any(word in capabilities for word in excludes.get("caps") or ())
            and _is_at_least(kernel, includes.get("minKernel"), path, default=True)
            and not _is_at_least(kernel, excludes.get("minKernel"), path, default=False)
        )

    found["syscalls"] = [_rule(rule, path) for rule in _objects(profile, "syscalls", path) if applies(rule)]
    return found


def _rule(rule: Config, path: str) -> Config:
    if rule.get("name") and rule.get("names"):
        raise _wrong(path, "a rule has both name and names")
    names = rule.get("names") or [rule.get("name")]
    made = {"names": names, "action": rule.get("action")}
    number = _number(rule.get("errno"), rule.get("errnoRet"), path)
    if number is not None:
        made["errnoRet"] = number
    if rule.get("args"):
        made["args"] = rule["args"]
    return made


def _number(name: object, number: object, path: str) -> object:
    """Return the number of an error, which its name or number overrides: ``EPERM`` or ``1``."""
    if not name:
        return number
    found = getattr(errno, name, None) if isinstance(name, str) and name.isupper() else None
    if found is None and isinstance(name, str) and is_digits(name):
        found = int(name)
    if not isinstance(found, int):
        raise _wrong(path, f"there is no error {name!r}")
    return found


def _objects(profile: Config, key: str, path: str) -> list[Config]:
    found = profile.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _wrong(path, f"{key} is not an array of objects")
    return found


def _conditions(rule: Config, key: str, path: str) -> Config:
    found = rule.get(key) or {}
    if not isinstance(found, dict):
        raise _wrong(path, f"{key} of a rule is not an object")
    for kind in ("arches", "caps"):
        words = found.get(kind) or []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _wrong(path, f"{key}.{kind} of a rule is not an array of strings")
    return found


def _is_at_least(kernel: tuple[int, int], wanted: object, path: str, *, default: bool) -> bool:
    if not wanted:
        return default
    major, _, minor = str(wanted).partition(".")
    if not is_digits(major) or not is_digits(minor):
        raise _wrong(path, f"minKernel is {wanted!r}")
    return kernel >= (int(major), int(minor))


def _wrong(path: str, cause: str) -> Exception:
    return misused("--security-opt", f"seccomp={path}", cause, "name a profile as podman and docker have it")
