"""The files of a bundle or an image, and changes to them, as one image."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack

from rootless import files, jsontext, log
from rootless.bundle.load import load
from rootless.errors import RootlessError
from rootless.image.archive.unpack import program_of_host, tar_words
from rootless.image.bundles.runtime_config import DERIVED
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile, disk_error, nameless_file
from rootless.image.merge.oci_archive import write_archive
from rootless.image.platform import host_platform
from rootless.image.squashfs.image_file import ImageFile, is_image, open_image
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from rootless.launch.run_in_userns import own_maps, run_in_userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ARCHIVE = "oci-archive:"
_TAKEN_OVER = ("ExposedPorts", "Volumes", "StopSignal")
"""Properties of an image's configuration that config.json has as annotations, or not at all."""
_CHANGED = 1
"""tar's exit status for a file that was written to meanwhile."""


def target_of(output: str) -> str:
    """Return the file that an output names.

    Raises:
        RootlessError: `RL-USAGE`: it names none.
    """
    target = output.removeprefix(_ARCHIVE)
    if not target:
        fix = "write --output FILE.sqsh or --output oci-archive:FILE.tar"
        raise RootlessError("save", cause="it needs a file to write to", fix=fix, code="RL-USAGE")
    return target


def save_bundle(word: str, overlay: str, output: str) -> None:
    """Save a bundle or an image, with the changes in the directory of an overlay, as an image.

    Args:
        word: names the bundle or the image's file.
        overlay: the directory; empty for none.
        output: as `--output` has it.

    Raises:
        RootlessError: nothing was made.
    """
    image, rootfs, config = _source(word)

    def layers(stack: ExitStack, directory: str) -> list[LayerFile]:
        found = [_layer(stack, directory, image or rootfs)]
        if overlay:
            found.append(_layer(stack, directory, _upper(overlay), overlay=True))
        return found

    write_image(layers, config, output, reference=word)


def write_image(
    layers: Callable[[ExitStack, str], list[LayerFile]], config: dict[str, Any], output: str, *, reference: str
) -> None:
    """Write an image, as a file or as an archive for other engines.

    Args:
        layers: returns the layers, the lowest first, as files that the stack closes; it may use a directory for them.
        config: the image's configuration.
        output: as `--output` has it.
        reference: stored in an image file.

    Raises:
        RootlessError: nothing was made.
    """
    target = target_of(output)
    with ExitStack() as stack:
        try:
            found = layers(stack, os.path.dirname(os.path.abspath(target)))
            if output.startswith(_ARCHIVE):
                write_archive(found, config, target)
            else:
                text = jsontext.render(config, None).encode()
                build_image(found, config=text, manifest_digest="", reference=reference, output=target)
        except OSError as error:
            raise disk_error(error) from error


def _source(word: str) -> tuple[ImageFile | None, str, dict[str, Any]]:
    """Return the image that a word names or whose bundle it names, else the directory; and the configuration."""
    if is_image(word):
        image = open_image(word)
        return image, "", {**image.config, **_platform(), "rootfs": {}}
    bundle = load(word)
    image_of_bundle = open_image(bundle.rootfs) if bundle.is_image else None
    return image_of_bundle, bundle.rootfs, configuration(bundle.config, image_of_bundle)


def configuration(config: dict[str, Any], image: ImageFile | None) -> dict[str, Any]:
    """Return the configuration of an image that runs as a config.json does.

    Args:
        config: the config.json.
        image: its root, if that is an image: what config.json has no place for is taken over.
    """
    return {**_platform(), "config": _settings(config, image), "rootfs": {}}


def _platform() -> dict[str, str]:
    host = host_platform()
    variant = host.variant or ("v8" if host.architecture == "arm64" else "")
    return {"architecture": host.architecture, "os": host.os} | ({"variant": variant} if variant else {})


def _settings(config: dict[str, Any], image: ImageFile | None) -> dict[str, Any]:
    """Return the property `config` of an image that runs as a bundle does: conversion.md, backwards."""
    process = config.get("process") or {}
    user = process.get("user") or {}
    settings = (image and image.config.get("config")) or {}
    args, entrypoint = process.get("args") or [], settings.get("Entrypoint") or []
    if args[: len(entrypoint)] != entrypoint:
        entrypoint = []
    settings = {name: settings[name] for name in _TAKEN_OVER if settings.get(name)}
    settings |= {
        "Cmd": args[len(entrypoint) :],
        "Env": process.get("env") or [],
        "WorkingDir": process.get("cwd") or "/",
        "Labels": {
            name: value for name, value in (config.get("annotations") or {}).items() if not (image and name in DERIVED)
        },
    }
    if entrypoint:
        settings["Entrypoint"] = entrypoint
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
