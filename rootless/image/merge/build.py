"""An image's layers made into one file: a squashfs with a trailer (image_file.py).

Nothing is unpacked on the host: sqfstar reads the merged layers as a tar archive and stores owners, devices and
capabilities as data.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import ExitStack, closing, suppress
from typing import cast

from rootless import jsontext, log
from rootless.errors import EXHAUSTED, RootlessError
from rootless.host.subids import find_program
from rootless.image.archive.tar_read import BROKEN, Reader, broken, shown
from rootless.image.archive.tar_write import SinkError
from rootless.image.merge.layers import decompressed_layers, disk_error, temporary_file
from rootless.image.merge.merged_tar import content_of, write_tar
from rootless.image.merge.tree import Tree, from_overlay
from rootless.image.squashfs.image_file import (
    KEPT_FILES,
    LARGEST_CONFIG,
    LARGEST_FILE,
    ImageFile,
    open_image,
    write_trailer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO

    from rootless.image.merge.layers import Layer, LayerFile

_BUFFER = 1 << 18
_COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "3")
"""zstd's own default. sqfstar's, 15, makes files 13 % smaller and takes 16 times as long."""


def build_image(
    layers: Sequence[LayerFile], *, config: bytes, manifest_digest: str, reference: str, output: str
) -> ImageFile:
    """Merge layers into the image file `output`, which appears whole or not at all; an older one is replaced.

    The same layers and configuration give the same file. A process that is killed leaves at most a temporary file in
    the directory of `output`: see layers.temporary_file().

    Args:
        layers: as downloaded and checked, the lowest first.
        config: the image's configuration, JSON.
        manifest_digest: stored in the trailer.
        reference: stored in the trailer, the name of the image.
        output: path of the file.

    Raises:
        RootlessError: `RL-IMAGE`, `RL-ARCHIVE`, `RL-ARCHIVE-ENTRY`, `RL-LIMIT`: nothing was made.
    """
    settings = _parse(config)
    program = _sqfstar()
    directory, name = os.path.split(os.path.abspath(output))
    try:
        with ExitStack() as stack:
            file = stack.enter_context(temporary_file(directory))
            tree, files = merge(layers, directory, _diff_ids(settings), stack)
            _write_squashfs(program, tree, files, file.fd)
            kept = _kept_files(tree, files)
            write_trailer(file.fd, config=settings, digest=manifest_digest, reference=reference, files=kept)
            file.publish(name)
    except OSError as error:
        raise disk_error(error) from error
    _report(tree)
    return open_image(output)


def _parse(config: bytes) -> dict[str, Any]:
    if len(config) > LARGEST_CONFIG:
        cause = f"it has more than {LARGEST_CONFIG >> 20} MB"
        raise RootlessError("read the image's configuration", cause=cause, code="RL-IMAGE")
    try:
        settings = jsontext.parse(config, "configuration")
    except RootlessError as error:
        raise RootlessError("read the image's configuration", cause=error.cause, code="RL-IMAGE") from None
    if not isinstance(settings, dict):
        raise RootlessError("read the image's configuration", cause="it is no JSON object", code="RL-IMAGE")
    return settings


def _diff_ids(settings: dict[str, Any]) -> list[object] | None:
    """Return the digests of the decompressed layers; None if the configuration names none."""
    rootfs = settings.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return found if isinstance(found, list) else None


def _sqfstar() -> str:
    program = find_program("sqfstar")
    if not program:
        raise RootlessError(
            "make the image",
            cause="sqfstar is not installed",
            fix="install squashfs-tools 4.6 or newer: sudo apt-get install squashfs-tools",
            code="RL-IMAGE",
        )
    return program


def merge(
    layers: Sequence[LayerFile], directory: str, diff_ids: list[object] | None, stack: ExitStack
) -> tuple[Tree, list[BinaryIO]]:
    """Return the merged layers and their archives, which `stack` closes.

    Args:
        layers: the lowest first.
        directory: for temporary files.
        diff_ids: digests of the decompressed layers, which are checked; None for no check.
        stack: see above.

    Raises:
        RootlessError: `RL-IMAGE`, `RL-ARCHIVE`, `RL-ARCHIVE-ENTRY`, `RL-LIMIT`.
    """
    if diff_ids is not None and len(diff_ids) != len(layers):
        cause = f"its configuration has the digests of {len(diff_ids)} layers, its manifest has {len(layers)} layers"
        raise RootlessError("make the image", cause=cause, code="RL-IMAGE")
    tree = Tree()
    files: list[BinaryIO] = []
    decompressed = stack.enter_context(closing(decompressed_layers(layers, directory)))
    for number, layer in enumerate(decompressed, 1):
        files.append(stack.enter_context(layer.file))
        if diff_ids is not None and diff_ids[number - 1] != layer.diff_id:
            cause = f"its content has the digest {layer.diff_id}, not {shown(str(diff_ids[number - 1]))}"
            raise RootlessError(f"read {layer.name}", cause=cause, fix="pull the image again", code="RL-IMAGE")
        _apply(tree, layer, number, overlay=layers[number - 1].overlay)
    return tree, files


def _apply(tree: Tree, layer: Layer, number: int, *, overlay: bool = False) -> None:
    if not layer.size:
        return
    try:
        reader = Reader(layer.file, layer.name, seekable=True)  # type: ignore[arg-type]
        tree.apply(from_overlay(reader) if overlay else reader, number)
    except BROKEN as error:
        raise broken(layer.name, error) from error


def _write_squashfs(program: str, tree: Tree, files: list[BinaryIO], fd: int) -> None:
    root = tree.root
    words = [program, *_COMPRESSION, "-quiet", "-no-progress", "-exit-on-error", "-mkfs-time", "0"]
    words += ["-root-mode", f"{root.mode:o}", "-root-uid", str(root.uid), "-root-gid", str(root.gid)]
    words += ["-root-time", str(root.mtime), "-force", f"/dev/fd/{fd}"]
    # SOURCE_DATE_EPOCH does not go together with -mkfs-time. Ctrl-C is for this process, which ends sqfstar.
    run = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C"},
        pass_fds=(fd,),
        process_group=0,
        bufsize=_BUFFER,
    )
    assert run.stdin
    assert run.stderr
    complaint: list[bytes] = []
    listener = threading.Thread(target=lambda: complaint.append(run.stderr.read()))  # type: ignore[union-attr]
    listener.start()
    try:
        with suppress(SinkError):
            write_tar(tree, files, cast("BinaryIO", run.stdin))
        with suppress(BrokenPipeError):
            run.stdin.close()
        run.wait()
    except BaseException:
        run.kill()
        run.wait()
        with suppress(BrokenPipeError):
            run.stdin.close()
        raise
    finally:
        listener.join()
        run.stderr.close()
    if run.returncode:
        text = complaint[0].decode("utf-8", "replace").strip()
        for number in EXHAUSTED:
            if os.strerror(number) in text:
                raise disk_error(OSError(number, os.strerror(number)))
        lines = text.splitlines()
        cause = "sqfstar: " + shown(lines[0] if lines else f"it ended with status {run.returncode}")
        raise RootlessError("make the image", cause=cause, code="RL-IMAGE")


def _kept_files(tree: Tree, files: list[BinaryIO]) -> dict[str, bytes | None]:
    """Return the files for the trailer; None for one that is too large."""
    kept: dict[str, bytes | None] = {}
    for path in KEPT_FILES:
        node = tree.find(path)
        if node and node.content:
            large = node.content.size > LARGEST_FILE
            kept[path] = None if large else b"".join(content_of(node.content, files))
    return kept


def _report(tree: Tree) -> None:
    if tree.devices:
        more = f" and {len(tree.devices) - 1} more" if tree.devices[1:] else ""
        log.info(f"left out the device node {tree.devices[0]}{more}: every container gets its own /dev")
    if tree.xattrs:
        log.info(f"left out extended attributes that only host root may set: {', '.join(sorted(tree.xattrs))}")
