"""Shared fixtures of the image tests."""

from __future__ import annotations

import pytest

from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
from tests.lib.bundles import own
from tests.lib.layers import DIRECTORY, HARD, LINK, entry, layout, packed

CONFIG = {
    "Cmd": ["id", "-u"],
    "Env": ["PATH=/bin", "NAME=value"],
    "User": "web",
    "WorkingDir": "/srv",
    "Labels": {"run.oci.hooks.stdout": "/tmp/out", "a": "b"},
}


@pytest.fixture
def image(user, need):
    """An image with busybox, files of several owners, and a configuration."""
    with open(need("busybox"), "rb") as file:
        busybox = file.read()
    names = ("sh", "id", "cat", "stat", "pwd", "env", "ls", "rm", "mkdir", "chown", "touch", "ln", "find")
    layer = packed(
        entry("bin/busybox", data=busybox, mode=0o755),
        *(entry(f"bin/{name}", LINK, "busybox") for name in names),
        entry("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"),
        entry("etc/group", data=b"web:x:34:\n"),
        entry("srv", DIRECTORY, uid=33, gid=34, mode=0o2750),
        entry('srv/a file\twith \\ and "', data=b"content\n", uid=33, gid=34, mode=0o640),
        entry("srv/hard", HARD, 'srv/a file\twith \\ and "'),
        entry("srv/empty", uid=12, gid=13),
        entry("data/old/file", data=b"old"),
        entry("tmp", DIRECTORY, mode=0o1777),
    )
    paths, config, digest = layout(user.tmp / "oci", layer, config=CONFIG)
    path = user.tmp / "image.sqsh"
    layers = [LayerFile(path) for path in paths]
    build_image(layers, config=config, manifest_digest=digest, reference="test", output=str(path))
    own(user, path)
    return path
