"""The download of an image: from a registry or its mirrors into blobs of the store."""

from __future__ import annotations

import queue
import threading
from functools import partial

from rootless import log
from rootless.errors import RootlessError
from rootless.image.manifest import LARGEST_CONFIG, Index, Manifest, bad_manifest, parse
from rootless.image.reference import REGISTRY, Reference
from rootless.image.registry import credentials, registries_conf
from rootless.image.registry.client import Client, StoppedError
from rootless.image.sources.convert import check_platform
from rootless.image.sources.progress import bars
from rootless.image.sources.share import download_once
from rootless.image.store.blobs import has_blob, put_blob, read_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.image.manifest import Descriptor
    from rootless.image.platform import Platform
    from rootless.image.registry.registries_conf import Place, RegistriesConf
    from rootless.image.sources.progress import Bar
    from rootless.image.store.store import Store

_THREADS = 6
"""Parallel downloads, as podman."""
_MOST_INDEXES = 3
"""An index may name indexes."""
_ELSEWHERE = ("RL-REGISTRY", "RL-IMAGE-NOT-FOUND", "RL-IMAGE-DIGEST", "RL-IMAGE-MANIFEST")
"""Errors after which the next place is tried: those about this one. A full disk is full for all."""


def download(reference: Reference, platform: Platform, store: Store, *, strict: bool, quiet: bool = False) -> str:
    """Download an image into the store and return the digest of its manifest.

    Args:
        reference: a whole name.
        platform: the wanted one.
        store: gets manifest, configuration and layers.
        strict: whether an image for another platform is an error; else it is a warning.
        quiet: whether no progress is shown.

    Raises:
        RootlessError: `RL-REGISTRY-*`, `RL-IMAGE-*`, `RL-STORE`: all places failed; it is about the last one.
    """
    conf = registries_conf.read()
    for place in conf.places(reference):
        try:
            return _download_from(place, conf, reference, platform, store, strict=strict, quiet=quiet)
        except RootlessError as error:
            if not place.mirror or not error.code.startswith(_ELSEWHERE):
                raise
            log.info(f"mirror {place.reference.registry}: {error}")
    raise AssertionError


def client_of(place: Place, conf: RegistriesConf) -> Client:
    """Return the client of a place, with the user's credentials for it."""
    reference = place.reference
    return Client(place, credentials.find(reference.registry, reference.repository, conf.credential_helpers))


def _download_from(
    place: Place,
    conf: RegistriesConf,
    reference: Reference,
    platform: Platform,
    store: Store,
    *,
    strict: bool,
    quiet: bool,
) -> str:
    assert reference.kind == REGISTRY
    client = client_of(place, conf)
    name = str(reference)
    content, media_type = client.manifest(reference.digest or reference.tag)
    found = parse(content, media_type, name)
    for _ in range(_MOST_INDEXES):
        if isinstance(found, Manifest):
            break
        chosen = found.best(platform, name)
        content, media_type = client.manifest(chosen.digest)
        found = parse(content, chosen.media_type, name)
    if isinstance(found, Index):
        raise bad_manifest(name, "its indexes are nested too deeply")
    with bars(quiet=quiet) as bar:
        _download_blobs(client, [found.config], store, bar)
        check_platform(read_blob(store, found.config.digest, LARGEST_CONFIG), platform, name, strict=strict)
        _download_blobs(client, found.layers, store, bar)
    return put_blob(store, content)


def _download_blobs(
    client: Client, descriptors: Sequence[Descriptor], store: Store, bar: Callable[[str, int], Bar]
) -> None:
    """Download the blobs that the store does not have, several at a time.

    The threads are daemons: a signal ends the program while they wait for the network. What they have received stays.

    Raises:
        RootlessError: the first that failed.
    """
    todo: queue.SimpleQueue[Descriptor] = queue.SimpleQueue()
    missing = {each.digest: each for each in descriptors if not has_blob(store, each.digest, each.size)}
    for each in missing.values():
        todo.put(each)
    stop = threading.Event()
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        outcome: BaseException | None = None
        try:
            while not stop.is_set():
                descriptor = todo.get_nowait()
                progress = bar(descriptor.digest, descriptor.size)
                download_once(store, descriptor, progress, stop, partial(client.download, progress=progress, stop=stop))
        except queue.Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            outcome = error
            stop.set()
        outcomes.put(outcome)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(missing)))]
    for thread in threads:
        thread.start()
    errors = [error for error in (outcomes.get() for _ in threads) if error and not isinstance(error, StoppedError)]
    if errors:
        raise errors[0]
