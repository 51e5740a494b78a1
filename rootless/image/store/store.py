"""A store of images: a directory of the caller's, or one that a site provides for reading.

    sha256-DIGEST.sqsh    an image, named after its manifest's digest, which differs between platforms
    references/           which manifest a name had when it was pulled, a small file per name and platform
    blobs/sha256/         what registries sent, verified: manifests, configurations, layers

Every file appears whole, by a rename, and no file changes afterwards. Several processes and machines may use a store at
once: the worst that happens is that two do the same work.
"""

from __future__ import annotations

import errno
import posix
import stat
from contextlib import suppress

from rootless import files, jsontext, log, paths, xdg
from rootless.errors import EXHAUSTED, RootlessError
from rootless.image.reference import is_digest
from rootless.image.store.temporary import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

BLOBS = "blobs/sha256"
REFERENCES = "references"
_SUFFIX = ".sqsh"
_ALGORITHM = "sha256-"
_LONGEST_FILE_NAME = 200
_LARGEST_NOTE = 1 << 16
_OPEN = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_OPEN_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


class Note:
    """Which manifest a name had when it was pulled.

    Attributes:
        name: as asked: a whole reference, or a short name.
        reference: the whole reference.
        platform: ``os/architecture[/variant]``.
        digest: of the manifest for that platform.
    """

    __slots__ = ("digest", "name", "platform", "reference")

    def __init__(self, name: str, reference: str, platform: str, digest: str) -> None:
        self.name = name
        self.reference = reference
        self.platform = platform
        self.digest = digest


class Store:
    """A store that exists.

    Attributes:
        path: of its directory.
        shared: whether a site provides it: it is never changed, and its files belong to root or the caller.
    """

    __slots__ = ("_directories", "path", "shared")

    def __init__(self, path: str, fd: int, *, shared: bool) -> None:
        self.path = path
        self.shared = shared
        self._directories = {"": fd}
        if log.is_debug():
            log.debug(f"opened the image store {path}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its descriptors."""
        for fd in self._directories.values():
            posix.close(fd)
        self._directories.clear()

    def directory(self, name: str = "") -> int:
        """Return the descriptor of the store's directory, or of one below it; the caller's own is created.

        Raises:
            RootlessError: `RL-STORE`: it cannot be opened.
            FileNotFoundError: a shared store has none.
        """
        if name not in self._directories:
            parent = self.directory(paths.parent(name))
            base = paths.name(name)
            try:
                self._directories[name] = self._open_directory(base, parent)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise failed(f"open {self.path}/{name}", error) from error
            paths.noted(paths.SYMLINK, f"{self.path}/{name}", posix.fstat(self._directories[name]))
        return self._directories[name]

    def _open_directory(self, name: str, parent: int) -> int:
        if self.shared:
            return _checked(posix.open(name, _OPEN_DIRECTORY, dir_fd=parent))
        with suppress(FileExistsError):
            posix.mkdir(name, 0o755, dir_fd=parent)
        return files.open_own(name, parent)

    # --- images

    def image_path(self, digest: str) -> str:
        """Return where the image of a manifest is, or will be."""
        return f"{self.path}/{_ALGORITHM}{digest.removeprefix('sha256:')}{_SUFFIX}"

    def has_image(self, digest: str) -> bool:
        """Whether the image of a manifest is here, as a file that nobody but its owner can change."""
        try:
            posix.close(self.open_file(paths.name(self.image_path(digest))))
        except FileNotFoundError:
            return False
        return True

    def images(self) -> list[str]:
        """Return the digests of the manifests whose images are here, sorted."""
        names = [name for name in posix.listdir(self.directory()) if name.endswith(_SUFFIX)]
        found = ["sha256:" + name.removeprefix(_ALGORITHM).removesuffix(_SUFFIX) for name in names]
        return sorted(digest for digest in found if is_digest(digest))

    def open_file(self, name: str, directory: str = "") -> int:
        """Return a descriptor of a file, for reading.

        Raises:
            FileNotFoundError: there is none.
            RootlessError: `RL-STORE`: it is no file, or others can change it.
        """
        path = f"{self.path}/{directory + '/' if directory else ''}{name}"
        what = f"open {path}"
        try:
            fd = _checked(posix.open(name, _OPEN, dir_fd=self.directory(directory)))
        except FileNotFoundError:
            paths.noted(paths.SYMLINK, path, None)
            raise
        except OSError as error:
            raise failed(what, error) from error
        if not stat.S_ISREG(posix.fstat(fd).st_mode):
            posix.close(fd)
            raise RootlessError(what, cause="it is not a file", fix="rootless image prune", code="RL-STORE")
        files.note_identity(path, fd)
        return fd

    # --- references

    def note(self, name: str, reference: str, platform: str, digest: str) -> None:
        """Remember which manifest a name has.

        Raises:
            RootlessError: `RL-STORE`: it cannot be written.
        """
        data = {"name": name, "reference": reference, "platform": platform, "manifest": digest}
        file_name = _file_name(name, platform)
        try:
            directory = self.directory(REFERENCES)
            with Temporary(directory, "reference") as file:
                file.write(jsontext.render(data).encode() + b"\n")
                file.publish(file_name, directory)
        except OSError as error:
            raise failed(f"write {self.path}/{REFERENCES}/{file_name}", error) from error

    def noted(self, name: str, platform: str) -> Note | None:
        """Return what is remembered of a name."""
        found = self._read_note(_file_name(name, platform))
        return found if found and (found.name, found.platform) == (name, platform) else None

    def notes(self) -> list[Note]:
        """Return what is remembered of all names, sorted by name."""
        try:
            names = posix.listdir(self.directory(REFERENCES))
        except FileNotFoundError:
            return []
        found = (self._read_note(name) for name in names if not name.startswith("."))
        return sorted((note for note in found if note), key=lambda note: (note.reference, note.name, note.platform))

    def forget(self, note: Note) -> None:
        """Remove what is remembered of a name."""
        files.unlink(_file_name(note.name, note.platform), self.directory(REFERENCES))

    def _read_note(self, file_name: str) -> Note | None:
        """Return the content of a file, None if there is none, or what it holds is no note."""
        try:
            fd = self.open_file(file_name, REFERENCES)
        except FileNotFoundError:
            return None
        try:
            text = posix.read(fd, _LARGEST_NOTE)
            # on NFS, only a read is sure to find what another node has pulled
            paths.noted(files.CONTENT, f"{self.path}/{REFERENCES}/{file_name}", text)
        finally:
            posix.close(fd)
        try:
            data = jsontext.parse(text, file_name)
        except RootlessError:
            return None
        values = (
            [data.get(key) for key in ("name", "reference", "platform", "manifest")] if isinstance(data, dict) else []
        )
        words = [value for value in values if isinstance(value, str)]
        return Note(*words) if len(words) == len(Note.__slots__) and is_digest(words[3]) else None


def open_store(path: str, *, create: bool) -> Store | None:
    """Open the caller's store; None if it does not exist and is not created.

    Args:
        path: as `--store` has it; empty for $ROOTLESS_IMAGES, else the user's data directory.
        create: whether to create it, for the caller alone.

    Raises:
        RootlessError: `RL-STORE`: it cannot be opened or created, or others can change it.
    """
    path = path or paths.variable("ROOTLESS_IMAGES") or default_path()
    path = paths.absolute(path)
    try:
        if create:
            files.make_private(path)
        fd = files.open_own(path)
        paths.noted(paths.SYMLINK, path, posix.fstat(fd))
        return Store(path, fd, shared=False)
    except OSError as error:
        paths.noted(paths.SYMLINK, path, None)
        if isinstance(error, FileNotFoundError) and not create:
            if log.is_debug():
                log.debug(f"the image store {path} does not exist")
            return None
        what = f"open the image store {path}"
        if error.errno != errno.EPERM:
            raise failed(what, error, fix="name a directory that you can write: --store DIR") from error
        raise RootlessError(
            what,
            cause="it belongs to another user, or others can write to it",
            fix="use it for reading only: ROOTLESS_ADDITIONAL_IMAGES=DIR, or name a directory of your own: --store DIR",
            code="RL-STORE",
        ) from None


def default_path() -> str:
    """Return the store in the user's data directory.

    Raises:
        RootlessError: `RL-STORE`: the user has no home.
    """
    data = xdg.data()
    if not data:
        cause = "HOME is not set"
        raise RootlessError("open the image store", cause=cause, fix="name a directory: --store DIR", code="RL-STORE")
    return f"{data}/rootless/images"


def shared_stores() -> Iterator[Store]:
    """Yield the stores of $ROOTLESS_ADDITIONAL_IMAGES, directories that colons separate; missing ones are left out.

    Raises:
        RootlessError: `RL-STORE`: one belongs to a third user, or others can write to it.
    """
    for path in filter(None, paths.variable("ROOTLESS_ADDITIONAL_IMAGES").split(":")):
        try:
            fd = _checked(posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC))
            paths.noted(paths.STATUS, path, posix.fstat(fd))
        except FileNotFoundError:
            paths.noted(paths.STATUS, path, None)
            continue
        except OSError as error:
            raise failed(f"open the shared image store {path}", error) from error
        yield Store(paths.absolute(path), fd, shared=True)


def failed(what: str, error: OSError, fix: str = "") -> RootlessError:
    """Return the error of a store that refuses something."""
    fix = EXHAUSTED.get(error.errno or 0, fix)
    return RootlessError(what, cause=(error.strerror or str(error)).lower(), fix=fix, code="RL-STORE")


def _checked(fd: int) -> int:
    """Return a descriptor of what only root or the caller can change.

    Raises:
        OSError: EPERM: others can, who could exchange the programs that the caller runs.
    """
    status = posix.fstat(fd)
    if status.st_uid not in (0, posix.geteuid()) or status.st_mode & 0o022:
        posix.close(fd)
        raise PermissionError(errno.EPERM, "it does not belong to you or root alone")
    return fd


def _file_name(name: str, platform: str) -> str:
    """Return the name of a note's file: no name of an image has a comma or a plus sign."""
    text = f"{name},{platform}".replace("/", "+")
    if len(text) <= _LONGEST_FILE_NAME:
        return text
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
