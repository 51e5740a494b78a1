"""The body of `rootless new`: a whole bundle, from this host, a root filesystem archive or an image, or nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress

from rootless import log
from rootless.errors import RootlessError
from rootless.image.archive.unpack import SIGNALS, exit_by_signal, program_of_host, unpack
from rootless.image.bundles.bundle_config import bundle_config
from rootless.image.bundles.from_host import make_rootfs
from rootless.image.bundles.runtime_config import bundle_config_of
from rootless.image.bundles.spec import write_config
from rootless.image.named import names_image
from rootless.image.obtain import MISSING, obtain
from rootless.image.squashfs.image_file import is_image
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from rootless.launch.run_in_userns import own_maps, run_in_userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rootless.image.squashfs.image_file import ImageFile
    from rootless.options import Options

_ARCHIVES = (".tar", ".tgz", ".gz", ".zst", ".xz", ".bz2")
_SHELLS = ("sh", "ash", "bash", "dash", "fish", "ksh", "zsh")


def new(options: Options) -> str:
    """Make the bundle `options.directory` and return what is in it, for people.

    Args:
        options: `directory`; `from_file`, an archive, an image or ``-``; `squashfs`, to keep an image as it is; `args`,
            the command, that of the image or a shell if empty.

    Raises:
        RootlessError: nothing was made.
    """
    with bundle_directory(options.directory) as work:
        image = _image(options)
        if log.is_debug():
            log.debug(f"make {work} from {options.from_file or 'programs of this host'}")
        if image:
            what, config = _from_image(image, work, options)
        else:
            if options.squashfs:
                raise RootlessError(
                    f"new --squashfs {options.from_file}".rstrip(),
                    cause="it is no image",
                    fix="name an image after --from",
                    code="RL-USAGE",
                )
            what, config = _from_programs(work, options), bundle_config(list(options.args))
        if log.is_debug():
            log.debug(f"{what}; process.args is {' '.join(config['process']['args'])}")
        write_config(os.path.join(work, "config.json"), config)
    return what


def _image(options: Options) -> ImageFile | None:
    """Return the image that --from names; None for an archive, or none at all.

    Raises:
        RootlessError: there is no such image.
    """
    word = options.from_file
    if not word or word == "-":
        return None
    if os.path.lexists(word):
        is_named = is_image(word)
    else:  # no registry is asked for an archive that is missing
        is_archive = word.endswith(_ARCHIVES) and ":" not in word
        is_named = not is_archive and names_image(word, platform=options.platform, store=options.store)
    if not is_named:
        return None
    return obtain(word, pull=options.pull or MISSING, platform=options.platform, store=options.store)


def _from_image(image: ImageFile, work: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Put an image into a bundle, and return what it is for people, and the configuration."""
    if image.config:
        config = bundle_config_of(image.config, read=image.read, command=options.args)
        # `rootless run BUNDLE` of a shell is for somebody at a terminal, as it is for a bundle of this host's programs.
        words = config["process"]["args"]
        config["process"]["terminal"] = len(words) == 1 and os.path.basename(words[0]) in _SHELLS
    else:
        config = bundle_config(list(options.args))
    if options.squashfs:
        config["root"]["path"] = name = "image.sif" if image.offset else "image.sqsh"
        size = _copy(image, os.path.join(work, name))
        return f"1 image, {size / 1e6:.1f} MB", config
    rootfs = _rootfs(work)
    with SquashfsTar(image) as archive:
        contents = unpack(archive.path, rootfs, name=image.path)
    return f"{contents.entries} entries, {contents.size / 1e6:.1f} MB", config


def _from_programs(work: str, options: Options) -> str:
    """Put an archive or programs of this host into a bundle, and return what it is for people."""
    rootfs = _rootfs(work)
    if not options.from_file:
        made = make_rootfs(rootfs)
        return f"{made.programs} programs, {made.size / 1e6:.1f} MB"
    contents = unpack(options.from_file, rootfs)
    if not options.args and not contents.has_file("/bin/sh"):
        log.warning(
            f"{options.from_file} has no /bin/sh, which the new bundle runs",
            fix=f"name the command in process.args of {os.path.join(options.directory, 'config.json')}",
        )
    return f"{contents.entries} entries, {contents.size / 1e6:.1f} MB"


def _rootfs(work: str) -> str:
    path = os.path.join(work, "rootfs")
    os.mkdir(path)
    return path


def _copy(image: ImageFile, target: str) -> int:
    """Copy an image's file, sharing its blocks where the file system can; return its size in bytes."""
    with open(image.open(), "rb") as source, open(target, "xb") as sink:
        left = size = os.fstat(source.fileno()).st_size
        while left and (count := os.copy_file_range(source.fileno(), sink.fileno(), left)):
            left -= count
    return size - left


@contextmanager
def bundle_directory(directory: str) -> Iterator[str]:
    """Give a directory to make the bundle in: `directory` itself if it exists and is empty, else one beside it.

    At the end it is, or becomes, `directory`; after any error, and most signals, nothing of it is left.
    """
    final = os.path.abspath(directory)
    exists = _is_empty_directory(directory)
    what = f"make {directory}"
    parent, name = os.path.split(final)
    try:
        work = final if exists else tempfile.mkdtemp(prefix=name + ".tmp-", dir=parent)
        # A set-user-ID program of the root filesystem would run as its owner, you, for everybody who gets at it.
        os.chmod(work, 0o700)
    except OSError as error:
        fix = f"mkdir -p {shlex.quote(parent)}" if isinstance(error, FileNotFoundError) else ""
        raise RootlessError(what, cause=str(error.strerror), fix=fix, code="RL-NEW") from error
    handlers = {number: signal.signal(number, exit_by_signal) for number in SIGNALS}
    try:
        yield work
        if not exists:
            os.rename(work, final)
    except BaseException as error:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        remove(work, keep=exists)
        if isinstance(error, OSError):
            raise RootlessError(what, cause=str(error.strerror), code="RL-NEW") from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _is_empty_directory(path: str) -> bool:
    """Return whether `path` is an empty directory, False when there is nothing.

    Raises:
        RootlessError: it is something else, or cannot be looked into.
    """
    try:
        if not os.listdir(path):
            return True
        cause = "it exists and is not empty"
    except FileNotFoundError:
        if not os.path.islink(path):
            return False
        cause = "it is a symlink to nothing"
    except OSError as error:
        cause = str(error.strerror)
    raise RootlessError(f"make {path}", cause=cause, fix="name a directory that does not exist yet", code="RL-EXISTS")


def remove(work: str, *, keep: bool = False) -> None:
    """Remove what is in `work`, and itself unless `keep`; files of subordinate ids need their user namespace."""
    paths = [os.path.join(work, name) for name in os.listdir(work)]
    for path in paths:
        with suppress(RecursionError):  # before Python 3.13, of a deep tree: rm is asked below
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
    left = [path for path in paths if os.path.lexists(path)]
    if left and run_in_userns([program_of_host("rm"), "-rf", "--", *left], own_maps()[0]):
        log.warning(f"could not remove all of {work}")
    elif not keep:
        os.rmdir(work)
