"""Words of the command line that name images, and the names of containers of images."""

from __future__ import annotations

import posix

from rootless import paths
from rootless.errors import RootlessError
from rootless.image.reference import FILE, REGISTRY, Reference, parse
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.image.obtain import find
    from rootless.image.platform import wanted_platform
else:
    find = lazy("rootless.image.obtain", "find")
    wanted_platform = lazy("rootless.image.platform", "wanted_platform")

_SUFFIX = 6
"""Random bytes that distinguish the containers of one image; so many digits that a cached Plan can get others."""
_LONGEST_NAME = 40


def names_image(word: str, *, platform: str, store: str) -> bool:
    """Whether a word of the command line that names no bundle names an image.

    A word without `:`, `/` and `@` may be a bundle that is misspelled: it is an image only if the store has it, so that
    no registry gets a question that nobody meant to ask. `platform` and `store` are as on the command line.

    Raises:
        RootlessError: `RL-IMAGE-REFERENCE`: it has the form of a reference, and is none.
    """
    if paths.is_file(word):
        return True
    if paths.exists(word) or word in ("", ".", ".."):
        return False
    try:
        reference = parse(word)
    except RootlessError:
        if ":" in word:
            raise
        return False
    if reference.kind == REGISTRY and not {":", "/", "@"}.intersection(word):
        return find(reference, wanted_platform(platform), store) is not None
    return reference.kind != FILE


def name_for(word: str) -> str:
    """Return an id for a container of an image: the name of the image and some random digits."""
    base = paths.name(word).partition(".")[0] if paths.is_file(word) else _short_name(parse(word))
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in base)[:_LONGEST_NAME]
    digits = posix.urandom(_SUFFIX).hex()
    paths.noted(paths.RANDOM, digits)
    return f"{safe.lstrip('.-') or 'image'}-{digits}"


def _short_name(reference: Reference) -> str:
    """Return the last part of an image's name, without its tag, or of its file's, without its suffix."""
    whole = reference.repository or reference.name
    return paths.name(whole).partition(":")[0] if whole else paths.name(reference.path.rstrip("/")).partition(".")[0]
