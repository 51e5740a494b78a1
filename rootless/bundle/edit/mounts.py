"""Edits of `mounts` and `root`: --volume, --mount, --tmpfs, --shm-size, --read-only.

podman-run(1); config.md "Mounts", "Root".
"""

from __future__ import annotations

from rootless.bundle.edit.values import absolute, changed, misused, names, size, truth
from rootless.paths import join, normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.bundle.edit.values import Config

_PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable")
_CHOICES = (
    ("rw", "ro"),
    ("exec", "noexec"),
    ("dev", "nodev"),
    ("suid", "nosuid"),
    ("bind", "rbind"),
    _PROPAGATIONS,
)
"""Options of a bind mount; of each group at most one."""
_LABELS = ("z", "Z")
"""Relabelling for SELinux: the caller of these functions warns where that matters."""
_REFUSED = {
    "O": ("an overlay over SRC is not supported", "mount SRC with :ro, or copy it"),
    "U": ("changing owners is not supported", "remove U: without a user's id in DST use --userns keep-id:uid=N,gid=N"),
    "copy": ("there are no named volumes to copy to", "remove it"),
    "nocopy": ("there are no named volumes to copy to", "remove it"),
}
_SIZE_AND_MODE = ("size", "mode", "nr_inodes", "nr_blocks", "huge")
_READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")  # noqa: S108 - in the container
"""What stays writable with --read-only (podman-run(1), --read-only-tmpfs); /dev and /dev/shm are a tmpfs anyway."""
_SHM = "/dev/shm"  # noqa: S108 - in the container
_SHM_OPTIONS = ["nosuid", "noexec", "nodev", "mode=1777"]


def of_volume(text: str, cwd: str) -> Config:
    """Return the mount for ``SRC:DST[:OPTIONS]`` of --volume; a relative SRC starts at `cwd`.

    Raises:
        RootlessError: `RL-USAGE`: it is not of that form, or names a volume.
    """
    source, colon, rest = text.partition(":")
    destination, _, words = rest.partition(":")
    if not colon:
        raise misused("--volume", text, "there are no anonymous volumes", f"write SRC:{text}, or --tmpfs {text}")
    if source not in (".", "..") and "/" not in source:
        cause = f"{source!r} would be a named volume, and there are none" if source else "there is no source"
        raise misused("--volume", text, cause, f"write the path of a directory: ./{source or 'DIR'}:{rest or 'DST'}")
    absolute("--volume", text, destination)
    options = [word for word in words.split(",") if word]
    return _bind("--volume", text, normal(join(cwd, source)), destination, options)


def of_tmpfs(text: str) -> Config:
    """Return the mount for ``DST[:OPTIONS]`` of --tmpfs.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    destination, _, words = text.partition(":")
    absolute("--tmpfs", text, destination)
    return _tmpfs("--tmpfs", text, destination, [word for word in words.split(",") if word])


def of_mount(text: str, cwd: str) -> Config:
    """Return the mount for ``type=TYPE,KEY=VALUE,…`` of --mount, with podman's and docker's keys.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    given: dict[str, str] = {}
    for word in _fields(text):
        name, _, value = word.partition("=")
        name = _SYNONYMS.get(name, name)
        if name in given:
            raise misused("--mount", text, f"{name} is given twice", "remove one of the two")
        given[name] = value if "=" in word else ""
    kind = given.pop("type", "")
    if kind not in _TYPES:
        cause = f"there is no type {kind!r}" if kind else "the type is missing"
        cause = "there are no named volumes" if kind == "volume" else cause
        raise misused("--mount", text, cause, f"write type={names(list(_TYPES))}; a directory is of type bind")
    destination = absolute("--mount", text, given.pop("destination", ""))
    return _TYPES[kind](text, given, destination, cwd)


_SYNONYMS = {
    "src": "source",
    "dst": "destination",
    "target": "destination",
    "readonly": "ro",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "U": "chown",
}


def _fields(text: str) -> list[str]:
    """Split a line of comma-separated values; a field in double quotes may hold commas (RFC 4180)."""
    fields, quoted, field = [], False, ""
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += character
    return [each for each in (*fields, field) if each]


def _mount_bind(text: str, given: dict[str, str], destination: str, cwd: str) -> Config:
    source = given.pop("source", "")
    if not source:
        raise misused("--mount", text, "a bind needs a source", "add src=PATH, a path of this host")
    options = []
    for name, value in given.items():
        if name in _FLAGS:
            options.append(_FLAGS[name][not truth("--mount", text, value)])
        elif name == "bind-propagation":
            options.append(value)
        elif name == "bind-nonrecursive":
            options.append("bind" if truth("--mount", text, value) else "rbind")
        elif name == "relabel" and value in ("shared", "private"):
            options.append("z" if value == "shared" else "Z")
        elif name in ("idmap", "no-dereference"):
            options.append(f"{name}={value}" if value else {"no-dereference": "copy-symlink"}.get(name, name))
        elif name == "chown":
            options += ["U"] * truth("--mount", text, value)
        elif name != "consistency":  # docker's, for the host's file system of a Mac
            raise _unknown_key(text, name)
    return _bind("--mount", text, normal(join(cwd, source)), destination, [word for word in options if word])


def _mount_tmpfs(text: str, given: dict[str, str], destination: str, cwd: str) -> Config:
    del cwd
    options = []
    for name, value in given.items():
        if name in _FLAGS:
            options.append(_FLAGS[name][not truth("--mount", text, value)])
        elif name in ("size", "mode"):
            options.append(f"{name}={value}")
        elif name in ("tmpcopyup", "notmpcopyup"):
            options.append(name)
        elif name == "chown":
            options += ["U"] * truth("--mount", text, value)
        elif name != "consistency":
            raise _unknown_key(text, name)
    return _tmpfs("--mount", text, destination, [word for word in options if word])


def _mount_devpts(text: str, given: dict[str, str], destination: str, cwd: str) -> Config:
    del cwd
    unknown = next((name for name in given if name not in ("uid", "gid", "mode", "max")), "")
    if unknown:
        raise _unknown_key(text, unknown)
    options = [f"{name}={value}" for name, value in given.items()]
    return {"destination": destination, "type": "devpts", "source": "devpts", "options": options}


def _mount_ramfs(text: str, given: dict[str, str], destination: str, cwd: str) -> Config:
    del cwd
    if given:
        raise _unknown_key(text, next(iter(given)))
    return {"destination": destination, "type": "ramfs", "source": "ramfs", "options": []}


_TYPES: dict[str, Callable[[str, dict[str, str], str, str], Config]] = {
    "bind": _mount_bind,
    "tmpfs": _mount_tmpfs,
    "devpts": _mount_devpts,
    "ramfs": _mount_ramfs,
}
_FLAGS = {
    # key: option if true, option if false
    "ro": ("ro", "rw"),
    "rw": ("rw", "ro"),
    "noexec": ("noexec", "exec"),
    "exec": ("exec", "noexec"),
    "nosuid": ("nosuid", "suid"),
    "suid": ("suid", "nosuid"),
    "nodev": ("nodev", "dev"),
    "dev": ("dev", "nodev"),
}


def _unknown_key(text: str, name: str) -> Exception:
    return misused("--mount", text, f"{name!r} is not known for this type", "see docs/run.md for the keys")


def _bind(flag: str, text: str, source: str, destination: str, options: Sequence[str]) -> Config:
    """Return a bind mount with podman's defaults: writable, with the mounts below, and propagating nothing."""
    known = [word for group in _CHOICES for word in group]
    for word in options:
        if word in _REFUSED:
            raise misused(flag, text, *_REFUSED[word])
        if word not in (*known, *_LABELS, "copy-symlink") and word.partition("=")[0] not in ("idmap", "ridmap"):
            raise misused(flag, text, f"there is no option {word!r}", f"use {', '.join((*known, *_LABELS))} or idmap")
    _at_most_one(flag, text, options, (*_CHOICES, _LABELS))
    kept = [word for word in options if word not in _LABELS]
    recursive = "bind" not in kept
    kept += _missing(kept, _CHOICES[0], "rw")
    kept += _missing(kept, _PROPAGATIONS, "rprivate" if recursive else "private")
    kept += _missing(kept, ("bind", "rbind"), "rbind")
    return {"destination": destination, "type": "bind", "source": source, "options": kept}


def _tmpfs(flag: str, text: str, destination: str, options: Sequence[str]) -> Config:
    """Return a tmpfs with podman's defaults, which begins with what it covers."""
    known = [word for group in _CHOICES[:4] for word in group]
    for word in options:
        if word == "U":
            raise misused(flag, text, *_REFUSED[word])
        name, equals, _ = word.partition("=")
        is_known = word in (*known, *_PROPAGATIONS, "tmpcopyup", "notmpcopyup", "noatime", "relatime", "strictatime")
        if not (is_known or (equals and name in (*_SIZE_AND_MODE, "uid", "gid"))):
            fix = "use size=, mode=, ro, noexec, exec or notmpcopyup"
            raise misused(flag, text, f"there is no option {word!r}", fix)
    _at_most_one(flag, text, options, (*_CHOICES[:4], _PROPAGATIONS, ("tmpcopyup", "notmpcopyup")))
    kept = [word for word in options if word != "notmpcopyup"]
    kept += _missing(kept, _CHOICES[0], "rw")
    kept += _missing(kept, _PROPAGATIONS, "rprivate")
    kept += _missing(kept, ("suid", "nosuid"), "nosuid")
    kept += _missing(kept, ("dev", "nodev"), "nodev")
    kept += [] if "notmpcopyup" in options else _missing(kept, ("tmpcopyup",), "tmpcopyup")
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": kept}


def _at_most_one(flag: str, text: str, options: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    for group in groups:
        found = [word for word in options if word in group]
        if len(found) > 1:
            raise misused(flag, text, f"{' and '.join(found)} exclude each other", "keep one of them")


def _missing(options: Sequence[str], group: Sequence[str], default: str) -> list[str]:
    return [] if any(word in group for word in options) else [default]


def add_mounts(config: Config, mounts: Sequence[Config]) -> Config:
    """Return the configuration with `mounts`, each instead of what config.json mounts on its destination.

    As with podman, what covers others comes before them, and a mount on /dev removes what is mounted below.
    """
    covered = {_place(mount) for mount in mounts}
    kept = [
        mount
        for mount in config.get("mounts") or ()
        if _place(mount) not in covered and not ("/dev" in covered and _place(mount).startswith("/dev/"))
    ]
    for mount in sorted(mounts, key=lambda each: _place(each).count("/")):
        below = _place(mount).rstrip("/") + "/"
        at = next((index for index, each in enumerate(kept) if _place(each).startswith(below)), len(kept))
        kept.insert(at, mount)
    return config | {"mounts": kept}


def duplicate(mounts: Sequence[Config]) -> str:
    """Return a destination that two of these mounts have, or nothing."""
    places = [_place(mount) for mount in mounts]
    return next((place for place in places if places.count(place) > 1), "")


def set_shm_size(config: Config, text: str) -> Config:
    """Return the configuration with a /dev/shm of this size; 0 is no limit of its own.

    Raises:
        RootlessError: `RL-USAGE`.
    """
    option = f"size={size('--shm-size', text)}"
    mounts = list(config.get("mounts") or ())
    for index, mount in enumerate(mounts):
        if _place(mount) == _SHM and mount.get("type") == "tmpfs":
            others = [word for word in mount.get("options") or () if not word.startswith("size=")]
            mounts[index] = mount | {"options": [*others, option]}
            return config | {"mounts": mounts}
    shm = {"destination": _SHM, "type": "tmpfs", "source": "shm", "options": [*_SHM_OPTIONS, option]}
    return add_mounts(config, [shm])


def share_shm(config: Config) -> Config:
    """Return the configuration with the host's /dev/shm, in which processes of several containers share memory."""
    return add_mounts(config, [_bind("--join", "", _SHM, _SHM, _SHM_OPTIONS[:-1])])


def set_read_only(config: Config, *, tmpfs: bool) -> Config:
    """Return the configuration with a read-only root; with `tmpfs`, /run, /tmp and /var/tmp stay writable.

    They are then a tmpfs each, unless something is mounted there. Without `tmpfs`, /dev and /dev/shm are read-only too.
    """
    config = changed(config, "root", readonly=True)
    mounts = config.get("mounts") or ()
    if tmpfs:
        there = [_place(mount) for mount in mounts]
        return add_mounts(config, [of_tmpfs(path) for path in _READ_ONLY_TMPFS if path not in there])
    sealed = [_switched(mount, "rw", "ro") if _place(mount) in ("/dev", _SHM) else mount for mount in mounts]
    return config | {"mounts": sealed}


def _switched(mount: Config, before: str, after: str) -> Config:
    """Return a mount with the option `after`, and without `before`."""
    return mount | {"options": [*(word for word in mount.get("options") or () if word != before), after]}


def set_proc_options(config: Config, options: Sequence[str]) -> Config:
    """Return the configuration with more options for /proc (proc(5), "Mount options")."""
    mounts = [
        mount | {"options": [*(mount.get("options") or ()), *options]} if mount.get("type") == "proc" else mount
        for mount in config.get("mounts") or ()
    ]
    return config | {"mounts": mounts}


def set_cgroup_writable(config: Config) -> Config:
    """Return the configuration in which the container may write to its own cgroup."""
    mounts = [
        _switched(mount, "ro", "rw") if mount.get("type") in ("cgroup", "cgroup2") else mount
        for mount in config.get("mounts") or ()
    ]
    return config | {"mounts": mounts}


def _place(mount: Config) -> str:
    """Return where a mount is, as an absolute path."""
    return normal("/" + mount["destination"].lstrip("/"))
