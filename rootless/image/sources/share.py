"""One download for all processes of this machine that pull the same blob at the same time.

The store has no locks: a temporary file names the process that writes it (store/temporary.py). The others look at its
size, which is their progress too. Where the process ends early, one of them continues its file; where it does not get
on, they stop waiting and download for themselves.
"""

from __future__ import annotations

import time

from rootless.image.registry.client import StoppedError
from rootless.image.registry.http import timeout
from rootless.image.store.blobs import Blob, has_blob, written_elsewhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rootless.image.manifest import Descriptor
    from rootless.image.sources.progress import Bar
    from rootless.image.store.store import Store

_PAUSE = 0.1  # seconds


def download_once(
    store: Store, descriptor: Descriptor, progress: Bar, stop: threading.Event, download: Callable[[Blob], object]
) -> None:
    """Have a blob in the store: download it, unless another process does.

    Args:
        store: where it goes.
        descriptor: which.
        progress: called with the number of bytes of each piece.
        stop: set by another thread, to end early.
        download: completes a Blob.

    Raises:
        RootlessError: as `download`.
        StoppedError: `stop` was set.
    """
    is_patient = True
    while True:
        if is_patient:
            is_patient = _wait(store, descriptor, progress, stop)
            if has_blob(store, descriptor.digest, descriptor.size):
                return
        with Blob(store, descriptor.digest, descriptor.size) as blob:
            if not is_patient or blob.has_precedence():
                download(blob)
                return


def _wait(store: Store, descriptor: Descriptor, progress: Bar, stop: threading.Event) -> bool:
    """Wait until no other process writes a blob; return False if one does, and does not get on."""
    shown, changed = 0, time.monotonic()
    while (size := written_elsewhere(store, descriptor.digest)) >= 0:
        if size != shown:
            progress(size - shown)
            shown, changed = size, time.monotonic()
        elif time.monotonic() > changed + timeout():
            progress(-shown)
            return False
        if stop.wait(_PAUSE):
            raise StoppedError
    if has_blob(store, descriptor.digest, descriptor.size):
        progress(descriptor.size - shown)
    else:
        progress(-shown)
    return True
