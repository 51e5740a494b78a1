"""Images for the tests: a squashfs whose every entry, owner and attribute a test chooses, made by sqfstar."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.lib.bundles import base_config, make_rootfs, own, write_config

CAPABLE = {"SCHILY.xattr.security.capability": b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode()}
"""cap_net_bind_service=ep as an attribute of an entry (revision 2 of struct vfs_cap_data)."""


def entry(name, kind=tarfile.REGTYPE, target="", *, data=b"", mode=0o644, uid=0, gid=None, **more):
    """Return an entry for make_image()."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, len(data), mode
    info.uid, info.gid = uid, uid if gid is None else gid
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info, data


def make_image(path: Path, *entries, tree: Path | None = None, options=("-comp", "zstd")) -> Path:
    """Make a squashfs of `tree`, which root of the image owns, and of `entries`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(tree.rglob("*")) if tree else ():
            info = tar.gettarinfo(file, str(file.relative_to(tree)))
            info.uid = info.gid = 0
            tar.addfile(info, io.BytesIO(file.read_bytes()) if info.isreg() else None)
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    command = ["sqfstar", "-quiet", "-no-progress", "-processors", "1", *options, path]
    subprocess.run(command, input=archive.getvalue(), check=True, stdout=subprocess.DEVNULL)
    path.chmod(0o644)
    return path


def make_image_bundle(user, config: dict | None = None, *entries, name: str = "image-bundle") -> Path:
    """Make a bundle whose root is the image `root.sqsh` of busybox and `entries`."""
    bundle = user.tmp / name
    bundle.mkdir()
    tree = make_rootfs(user.tmp / f"{name}.tree")
    make_image(bundle / "root.sqsh", *entries, tree=tree)
    write_config(bundle, image_config() if config is None else config)
    own(user, bundle)
    return bundle


def image_config(*args: str) -> dict:
    """Return a config.json whose root is that image."""
    config = base_config(*args)
    config["root"] = {"path": "root.sqsh"}
    return config


def servers() -> set[int]:
    """Return the processes that serve images."""
    found = set()
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and (each / "comm").read_text() == "squashfuse_ll\n":
                found.add(int(each.name))
        except OSError:
            continue
    return found
