"""The body of `rootless save`: the files of a bundle or an image, and changes to them, as one image."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack

from rootless import files, jsontext, log
from rootless.bundle.load import load
from rootless.errors import RootlessError
from rootless.image.archive.unpack import program_of_host, tar_words
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile, disk_error, nameless_file
from rootless.image.merge.oci_archive import write_archive
from rootless.image.platform import host_platform
from rootless.image.squashfs.image_file import ImageFile, is_image, open_image
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from rootless.launch.run_in_userns import own_maps, run_in_userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.options import Options

_ARCHIVE = "oci-archive:"
_CHANGED = 1
"""tar's exit status for a file that was written to meanwhile."""


def save(options: Options) -> None:
    """Save a bundle or an image, with the changes in the directory of an overlay, as an image.

    Raises:
        RootlessError: nothing was made.
    """
    output = options.output.removeprefix(_ARCHIVE)
    if not output:
        fix = "write --output FILE.sqsh or --output oci-archive:FILE.tar"
        raise RootlessError("save", cause="it needs a file to write to", fix=fix, code="RL-USAGE")
    word = options.bundle or "."
    image, rootfs, config = _source(word)
    directory = os.path.dirname(os.path.abspath(output))
    with ExitStack() as stack:
        try:
            layers = [_layer(stack, directory, image or rootfs)]
            if options.overlay:
                layers.append(_layer(stack, directory, _upper(options.overlay), overlay=True))
            if options.output.startswith(_ARCHIVE):
                write_archive(layers, config, output)
            else:
                text = jsontext.render(config, None).encode()
                build_image(layers, config=text, manifest_digest="", reference=word, output=output)
        except OSError as error:
            raise disk_error(error) from error


def _source(word: str) -> tuple[ImageFile | None, str, dict[str, Any]]:
    """Return the image that a word names or whose bundle it names, else the directory; and the configuration."""
    if is_image(word):
        image = open_image(word)
        return image, "", {**image.config, **_platform(), "rootfs": {}}
    bundle = load(word)
    image_of_bundle = open_image(bundle.rootfs) if bundle.is_image else None
    return image_of_bundle, bundle.rootfs, {**_platform(), "config": _settings(bundle.config), "rootfs": {}}


def _platform() -> dict[str, str]:
    host = host_platform()
    variant = host.variant or ("v8" if host.architecture == "arm64" else "")
    return {"architecture": host.architecture, "os": host.os} | ({"variant": variant} if variant else {})


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the property `config` of an image that runs as a bundle does: conversion.md, backwards."""
    process = config.get("process") or {}
    user = process.get("user") or {}
    settings = {
        "Cmd": process.get("args") or [],
        "Env": process.get("env") or [],
        "WorkingDir": process.get("cwd") or "/",
        "Labels": config.get("annotations") or {},
    }
    if user.get("uid") or user.get("gid"):
        settings["User"] = f"{user.get('uid', 0)}:{user.get('gid', 0)}"
    return settings


def _upper(overlay: str) -> str:
    """Return the directory with the changes, of one that `run --overlay` was given.

    Raises:
        RootlessError: `RL-USAGE`: it is none.
    """
    path = os.path.join(overlay, "upper")
    try:
        os.close(files.open_own(overlay))
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
    except OSError as error:
        fix = "name the directory that run --overlay was given"
        raise RootlessError(f"--overlay {overlay}", cause=str(error.strerror), fix=fix, code="RL-USAGE") from error
    return path


def _layer(stack: ExitStack, directory: str, source: ImageFile | str, *, overlay: bool = False) -> LayerFile:
    """Return a tar archive of an image or a directory, in a file without a name."""
    # no name of it is used: others who can write to the directory may exchange what has the name
    file = stack.enter_context(nameless_file(directory))
    if isinstance(source, str):
        _pack(source, file.fileno())
    else:
        with SquashfsTar(source) as archive, open(archive.path, "rb") as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
    return LayerFile(f"/proc/self/fd/{file.fileno()}", overlay=overlay)


def _pack(directory: str, target: int) -> None:
    """Pack a directory as root of a user namespace: owners are those that a container sees.

    The descriptor `target` is standard input there, and open for writing.
    """
    words = [
        program_of_host("tar"),
        *("--create", "--file=/proc/self/fd/0", f"--directory={directory}"),
        *("--format=pax", "--numeric-owner", "--sort=name"),
        *("--xattrs", "--xattrs-include=*", "--sparse", "--one-file-system", "--warning=no-file-ignored", "."),
    ]
    with tempfile.NamedTemporaryFile("r", errors="replace") as complaints:
        status = run_in_userns(tar_words(complaints.name, words), own_maps()[0], stdin=target)
        complaint = complaints.read().partition("\n")[0]
    if status == _CHANGED:
        log.warning(f"{directory} was changed while it was read: {complaint}")
    elif status:
        cause = complaint or f"tar ended with status {status}"
        raise RootlessError(f"save {directory}", cause=cause, code="RL-UNPACK")
