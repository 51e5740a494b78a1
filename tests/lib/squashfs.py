"""Images for the tests: a squashfs whose every entry, owner and attribute a test chooses, made by sqfstar."""

from __future__ import annotations

import io
import socket
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def make_sif(squashfs, path, *, filesystem=1, offset=8192, role=2, total=3):
    """Write a SIF file as apptainer does: header, descriptors (one of them a definition file), partition."""
    header = struct.pack("<32s10s3s3s16sqqqqqqqq", b"#!/bin/sh\n", b"SIF_MAGIC\0", b"01\0", b"02\0", bytes(16), 0, 0, 0,
                         total, 4096, 3 * 585, 8192, 0)  # fmt: skip

    def descriptor(kind, where, extra=b"", used=1):
        return struct.pack("<i?IIIqqqqqqq128s384s", kind, used, 1, 0, 0, where, 10, 10, 0, 0, 0, 0, b"", extra)

    partition = struct.pack("<ii3s", filesystem, role, b"02\0")
    table = descriptor(0x4001, 7000) + descriptor(0x4004, 1, partition, used=0)
    table += descriptor(0x4004, offset, partition)
    path.write_bytes((header.ljust(4096, b"\0") + table).ljust(8192, b"\0") + squashfs.read_bytes())
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


_SPY = r"""#!/usr/bin/perl
use Socket;
my ($socket, $i, $magic);
open(STDOUT, ">&STDERR") if {to_stderr};
sub attempt {{ my ($what, $done) = @_; print "$what\n" if $done; }}
attempt("read $_", open(my $f, "<", $_)) for ($0, "/etc/hostname", "{secret}", "/proc/{victim}/environ");
attempt("listed", opendir(my $d, "{home}"));
attempt("made a file", open(my $n, ">", "{secret}.new"));
attempt("made a directory", mkdir("{secret}.d"));
attempt("truncated", truncate("{secret}", 0));
attempt("changed the mode", chmod(0777, "{secret}"));
attempt("changed the time", utime(1, 1, "{secret}"));
attempt("signalled", kill(0, {victim}));
attempt("connected", socket($socket, PF_UNIX, SOCK_STREAM, 0) && connect($socket, pack_sockaddr_un("{socket}")));
attempt("made a socket", socket($socket, PF_INET, SOCK_STREAM, 0));
open($i, "<", "/proc/self/fd/{image}") and read($i, $magic, 4) and print "$magic\n";
exit({status});
"""


@contextmanager
def spy(user, *, image: int, status: int, to_stderr: bool, confined: bool = True) -> Iterator[Path]:
    """Yield a program that tries what one that reads images could do if an image took it over.

    It prints what succeeds. At the end nothing may have changed, if it was confined.

    Args:
        user: who runs it.
        image: its descriptor of the image, whose first bytes it prints.
        status: its exit status.
        to_stderr: where it prints.
        confined: see above.
    """
    home = user.tmp / "home"
    home.mkdir()
    secret, path = home / "secret", home / "socket"
    secret.write_text("secret")
    secret.chmod(0o644)
    with user.popen(["sleep", "1000"]) as victim, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o777)
        own(user, home)
        before = secret.stat()
        program = user.tmp / "spy"
        names = {"secret": secret, "home": home, "socket": path, "victim": victim.pid}
        program.write_text(_SPY.format(**names, image=image, status=status, to_stderr=int(to_stderr)))
        program.chmod(0o755)
        yield program
        victim.kill()
    if not confined:
        return
    after = secret.stat()
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size)
    assert sorted(each.name for each in home.iterdir()) == ["secret", "socket"]
