"""What the tests of images share."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

TRIXIE_PACKAGES = "mount,passwd"


@pytest.fixture(scope="session")
def trixie(request, need):
    """A Debian trixie root file system as a tar archive, made by mmdebstrap with this host's own package sources."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mmdebstrap writes device nodes")
    sources = b"".join(
        path.read_bytes()
        for path in sorted(Path("/etc/apt").glob("sources.list*/*"))
        if path.suffix in (".list", ".sources")
    )
    key = hashlib.sha256(sources + TRIXIE_PACKAGES.encode()).hexdigest()[:12]
    archive = Path(request.config.cache.mkdir("images")) / f"trixie-{key}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".new.tar")
        command = [
            need("mmdebstrap"),
            "--quiet",
            "--variant=minbase",
            f"--include={TRIXIE_PACKAGES}",
            '--aptopt=APT::Sandbox::User "root"',
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")),
            "trixie",
            str(unfinished),
        ]
        subprocess.run(command, input=sources, check=True, timeout=900)
        unfinished.rename(archive)
    return archive
