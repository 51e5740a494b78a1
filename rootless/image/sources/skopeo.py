"""Images in the storage of podman and of docker's daemon, by skopeo: their formats are not interfaces.

Source: skopeo-copy(1), containers-transports(5).
"""

from __future__ import annotations

import re
import subprocess

from rootless.errors import RootlessError, one_line
from rootless.host.subids import find_program
from rootless.image.reference import DOCKER_ARCHIVE, Reference
from rootless.image.sources.layout import load
from rootless.image.store.store import failed
from rootless.image.store.temporary import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.platform import Platform
    from rootless.image.store.store import Store

_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_SHOWN = 300


def load_by_skopeo(reference: Reference, platform: Platform, store: Store, *, strict: bool) -> str:
    """Copy an image into the store and return the digest of its manifest.

    skopeo writes an archive of `docker save`, the only one of its formats whose layers it does not compress.

    Raises:
        RootlessError: `RL-IMAGE-SKOPEO`: skopeo is not installed, or fails; else as load().
    """
    program = find_program("skopeo")
    if not program:
        raise RootlessError(
            f"image {reference}",
            cause="skopeo is not installed",
            fix="install it (package skopeo), or use docker-archive: and the output of podman save or docker save",
            code="RL-IMAGE-SKOPEO",
        )
    try:
        archive = Temporary(store.directory(), "skopeo")
    except OSError as error:
        raise failed(f"write to {store.path}", error) from error
    with archive:
        path = f"{store.path}/{archive.name}"
        words = [program, "copy", "--quiet", str(reference), f"{DOCKER_ARCHIVE}:{path}"]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        if done.returncode:
            said = _MESSAGE.findall(done.stderr) or done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            cause = "skopeo: " + one_line(said[-1].replace('\\"', '"')[-_SHOWN:])  # the reason stands at the end
            raise RootlessError(f"image {reference}", cause=cause, code="RL-IMAGE-SKOPEO")
        return load(Reference(DOCKER_ARCHIVE, path=path), platform, store, strict=strict)
