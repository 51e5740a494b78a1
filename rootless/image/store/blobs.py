"""Blobs of a store: files that are named after the digest of their content, and verified before they get that name."""

from __future__ import annotations

import errno
import hashlib
import os

from rootless.errors import RootlessError
from rootless.image.manifest import digest_of
from rootless.image.store.store import BLOBS, Store, failed
from rootless.image.store.temporary import Temporary, others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, Self

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def has_blob(store: Store, digest: str, size: int) -> bool:
    """Whether a blob is in the store. One of another size was not written by rootless and is not used."""
    try:
        fd = store.open_file(_hex(digest), BLOBS)
    except FileNotFoundError:
        return False
    found = os.fstat(fd).st_size
    os.close(fd)
    return found == size


def open_blob(store: Store, digest: str) -> int:
    """Return a descriptor of a blob.

    Raises:
        RootlessError: `RL-STORE`: it is missing; another process has pruned the store.
    """
    try:
        return store.open_file(_hex(digest), BLOBS)
    except FileNotFoundError:
        raise RootlessError(
            f"open the blob {digest} in {store.path}",
            cause="it was removed meanwhile",
            fix="pull again",
            code="RL-STORE",
        ) from None


def read_blob(store: Store, digest: str, limit: int) -> bytes:
    """Return the content of a small blob.

    Raises:
        RootlessError: `RL-STORE`: it is missing, or has more than `limit` bytes.
    """
    with open(open_blob(store, digest), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise RootlessError(f"read the blob {digest}", cause=f"it has more than {limit} bytes", code="RL-STORE")
    return content


def put_blob(store: Store, content: bytes) -> str:
    """Add a small blob and return its digest.

    Raises:
        RootlessError: `RL-STORE`: it cannot be written.
    """
    digest = digest_of(content)
    if not has_blob(store, digest, len(content)):
        with Blob(store, digest, len(content)) as blob:
            blob.restart()
            blob.write(content)
            blob.finish()
    return digest


def add_blob(store: Store, stream: BinaryIO) -> tuple[str, int]:
    """Add what a stream holds, and return its digest and its size in bytes.

    Raises:
        RootlessError: `RL-STORE`: it cannot be written.
        OSError: the stream cannot be read.
    """
    found, size = hashlib.sha256(), 0
    try:
        temporary = Temporary(store.directory(BLOBS), "added")
    except OSError as error:
        raise failed(f"write to {store.path}/{BLOBS}", error) from error
    with temporary as file:
        while data := stream.read(_CHUNK):
            found.update(data)
            size += len(data)
            try:
                file.write(data)
            except OSError as error:
                raise failed(f"write to {store.path}/{BLOBS}", error) from error
        try:
            file.publish(found.hexdigest())
        except OSError as error:
            raise failed(f"write to {store.path}/{BLOBS}", error) from error
    return "sha256:" + found.hexdigest(), size


def written_elsewhere(store: Store, digest: str) -> int:
    """Return how many bytes of a blob another process of this machine has written; -1 if none writes it."""
    return max((size for _, size, _ in others(store.directory(BLOBS), _hex(digest))), default=-1)


class Blob:
    """A blob that is being written.

    Left by an exception, what was written stays for the next attempt, except if it is wrong or the disk is full.

    Attributes:
        digest, size: of what it will be.
        done: bytes that were written.
    """

    __slots__ = ("_file", "_hash", "_store", "digest", "done", "size")

    def __init__(self, store: Store, digest: str, size: int) -> None:
        """Begin, or continue what an ended process has left.

        Raises:
            RootlessError: `RL-STORE`: it cannot be written.
        """
        self._store = store
        self.digest = digest
        self.size = size
        self.done = 0
        self._hash = hashlib.sha256()
        try:
            self._file = Temporary(store.directory(BLOBS), _hex(digest), resume=True)
        except OSError as error:
            raise failed(f"write to {store.path}/{BLOBS}", error) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; what was written stays for the next attempt."""
        if self.done:
            self._file.leave()
        else:
            self._file.close()

    def has_precedence(self) -> bool:
        """Whether no other process of this machine should write it: one that has begun, or is older."""
        if os.fstat(self._file.fd).st_size:
            return True
        start_time = int(self._file.name.rpartition(".")[2])
        writers = others(self._store.directory(BLOBS), _hex(self.digest))
        return not any(size or started < start_time for started, size, _ in writers)

    def resume(self, progress: Callable[[int], object]) -> None:
        """Count what was written before, and place the next write behind it."""
        self.restart(truncate=False)
        while self.done < self.size:
            data = os.read(self._file.fd, min(_CHUNK, self.size - self.done))
            if not data:
                break
            self._hash.update(data)
            self.done += len(data)
            progress(len(data))
        os.truncate(self._file.fd, self.done)

    def restart(self, *, truncate: bool = True) -> None:
        """Begin at the beginning."""
        self.done = 0
        self._hash = hashlib.sha256()
        os.lseek(self._file.fd, 0, os.SEEK_SET)
        if truncate:
            os.truncate(self._file.fd, 0)

    def write(self, data: bytes) -> None:
        """Append `data`.

        Raises:
            RootlessError: `RL-STORE`: it cannot be written; `RL-IMAGE-DIGEST`: there is more than `size`.
        """
        if self.done + len(data) > self.size:
            raise self._wrong(f"there are more than its {self.size} bytes")
        try:
            self._file.write(data)
        except OSError as error:
            if error.errno in _FULL:
                self.done = 0  # a part would keep the disk full
            raise failed(f"write to {self._store.path}/{BLOBS}", error) from error
        self._hash.update(data)
        self.done += len(data)

    def finish(self) -> None:
        """Check size and digest, and give the blob its name.

        Raises:
            RootlessError: `RL-IMAGE-DIGEST`: it is not what its digest says; `RL-STORE`: it cannot be written.
        """
        if self.done != self.size:
            raise self._wrong(f"it has {self.done} bytes, not {self.size}")
        found = "sha256:" + self._hash.hexdigest()
        if found != self.digest:
            raise self._wrong(f"its digest is {found}")
        try:
            self._file.publish(_hex(self.digest))
        except OSError as error:
            self.done = 0
            raise failed(f"write to {self._store.path}/{BLOBS}", error) from error

    def _wrong(self, cause: str) -> RootlessError:
        self.done = 0
        return RootlessError(f"receive the blob {self.digest}", cause=cause, code="RL-IMAGE-DIGEST")


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
