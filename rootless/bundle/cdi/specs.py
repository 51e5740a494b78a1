"""The CDI specs of this host: their directories, their files, and the devices that they define.

No other source of devices exists: labels of an image and annotations of a bundle name none.
"""

from __future__ import annotations

import _stat as stat
import errno
import posix

from rootless import paths, xdg
from rootless.bundle.cdi.rules import SPEC
from rootless.bundle.schema import Invalid
from rootless.errors import RootlessError
from rootless.jsontext import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.bundle.edit.values import Config

CODE = "RL-CDI"
_SYSTEM = ("/etc/cdi", "/var/run/cdi")
_MOST_BYTES = 4 << 20
_EDITS = "containerEdits"
_GENERATORS = {"nvidia.com": "nvidia-ctk cdi generate", "amd.com": "amd-ctk cdi generate"}


class Spec:
    """A spec that is valid.

    Attributes:
        directory: the directory that it was found in.
        path: its path.
        kind: VENDOR/CLASS of its devices.
        edits: the container edits for a container with any of its devices.
        devices: the container edits of each device, by name.
    """

    __slots__ = ("_places", "devices", "directory", "edits", "kind", "path")

    def __init__(self, directory: str, path: str, content: Config) -> None:
        self.directory = directory
        self.path = path
        self.kind: str = content["kind"]
        self.edits: Config = content.get(_EDITS) or {}
        self.devices: dict[str, Config] = {each["name"]: each[_EDITS] for each in content["devices"]}
        self._places = {name: f"devices[{index}].{_EDITS}" for index, name in enumerate(self.devices)}

    def place(self, name: str) -> str:
        """Return the place of a device's edits in the file, or that of the edits for all devices if `name` is empty."""
        return self._places.get(name, _EDITS)

    @property
    def regenerate(self) -> str:
        """The fix for a spec that names files which this host does not have (any more)."""
        return generator(self.kind, self.path) or f"write {self.path} again, with the tool of the vendor"


class Specs:
    """The specs of this host.

    Attributes:
        valid: those of each directory, directories with higher priority last.
        broken: an error for each directory or file that cannot be used.
    """

    def __init__(self) -> None:
        """Read all specs."""
        self.valid: list[Spec] = []
        self.broken: list[RootlessError] = []
        for directory in directories():
            try:
                self._read_directory(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.broken.append(_unreadable(directory, error))
            except RootlessError as error:
                self.broken.append(error)

    def names(self) -> dict[str, list[Spec]]:
        """Return VENDOR/CLASS=NAME of each device with the specs that define it; several are a conflict.

        A directory of higher priority replaces devices of others.
        """
        found: dict[str, list[Spec]] = {}
        for spec in self.valid:
            for name in spec.devices:
                same = found.setdefault(f"{spec.kind}={name}", [])
                if same and same[0].directory != spec.directory:
                    same.clear()
                same.append(spec)
        return found

    def _read_directory(self, directory: str) -> None:
        fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            _check(directory, posix.fstat(fd))
            for name in sorted(name for name in posix.listdir(fd) if name.endswith((".json", ".yaml"))):
                path = f"{directory}/{name}"
                try:
                    self.valid.append(Spec(directory, path, _content(path, name, fd)))
                except OSError as error:
                    self.broken.append(_unreadable(path, error))
                except RootlessError as error:
                    self.broken.append(error)
        finally:
            posix.close(fd)


def directories() -> list[str]:
    """Return the directories of specs; those with higher priority are later."""
    own = xdg.config()
    return list(dict.fromkeys((*_SYSTEM, f"{own}/cdi") if own else _SYSTEM))


def conflict(name: str, specs: list[Spec]) -> tuple[str, str]:
    """Return the cause and the fix for a device that several specs of one directory define."""
    files = [spec.path for spec in specs]
    return f"{' and '.join(files)} define {name}", f"remove it from {files[-1]}, or that file"


def _content(path: str, name: str, directory: int) -> Config:
    """Return the checked content of the file `name` in a directory.

    Raises:
        OSError: it cannot be read.
        RootlessError: `RL-CDI`: it is no spec, or others than root and the caller can change it.
    """
    # /var/run/cdi may hold a symlink to a generated file: the descriptor is what is checked
    fd = posix.open(name, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=directory)
    try:
        status = posix.fstat(fd)
        _check(path, status)
        if not stat.S_ISREG(status.st_mode):
            raise refused(path, "it is not a file", "remove it")
        text = b""
        while len(text) <= _MOST_BYTES and (chunk := posix.read(fd, _MOST_BYTES)):
            text += chunk
    finally:
        posix.close(fd)
    if len(text) > _MOST_BYTES:
        raise refused(path, "it is longer than 4 MiB", "write a shorter one")
    try:
        content = _yaml(text) if name.endswith(".yaml") else parse(text, path)
        SPEC(content)
    except Invalid as invalid:
        where = invalid.where()
        raise refused(path, f"{where}: {invalid.cause}" if where else invalid.cause, invalid.fix) from None
    except RootlessError as error:
        raise refused(path, f"not valid JSON: {error.cause}", error.fix) from None
    return content  # type: ignore[return-value]  # SPEC has checked it


def _yaml(text: bytes) -> object:
    try:
        from rootless.bundle.cdi.yaml_file import parse_yaml
    except ImportError:
        raise Invalid("PyYAML is not installed", "install it: pip install pyyaml; or write the spec as JSON") from None
    return parse_yaml(text)


def _check(path: str, status: posix.stat_result) -> None:
    """Refuse what a third user can change: a spec names programs that run as the caller.

    Raises:
        RootlessError: `RL-CDI`.
    """
    owners = {0, posix.geteuid()}
    if path in _SYSTEM or paths.parent(path) in _SYSTEM:
        # in a user namespace that does not map the host's root, its files belong to the owner of /
        owners.add(posix.stat("/").st_uid)
    if status.st_uid not in owners:
        raise refused(
            path, f"it belongs to uid {status.st_uid}", f"let it belong to you or root: sudo chown root {path}"
        )
    if status.st_mode & 0o022:
        raise refused(path, f"others can write to it (mode {status.st_mode & 0o7777:o})", f"run chmod go-w {path}")


def refused(path: str, cause: str, fix: str) -> RootlessError:
    """Return the error for a spec, or a directory of specs, that cannot be used."""
    return RootlessError(f"CDI spec {path}", cause=cause, fix=fix, code=CODE)


def _unreadable(path: str, error: OSError) -> RootlessError:
    fix = "correct or remove it"
    if error.errno == errno.EACCES and path.startswith(_SYSTEM):
        fix = f"let users read it: sudo chmod a+rX {path}"
    elif error.errno == errno.EACCES:  # after su or sudo, HOME may be another user's
        fix = "set HOME, or XDG_CONFIG_HOME, to a directory of your own, or make it readable"
    return refused(path, (error.strerror or str(error)).lower(), fix)


def generator(kind: str, path: str) -> str:
    """Return a fix: the command that writes the spec `path` for the devices of this host, if one is known."""
    command = _GENERATORS.get(kind.partition("/")[0])
    return f"run {command} --output={path}" if command else ""
