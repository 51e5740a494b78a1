"""config.md "Platform-specific configuration": sections of other platforms, and bundles for them."""

from __future__ import annotations

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, assert_refused, differs

ELSEWHERE = {
    "vm": {"kernel": {"path": "/boot/vmlinuz"}},
    "windows": {"layerFolders": ["C:\\layers"]},
    "solaris": {"milestone": "svc:/milestone/container:default"},
    "freebsd": {"jail": {"host": "new"}},
    "zos": {"namespaces": [{"type": "pid"}]},
}


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.spec(name, refused="it is not a Linux container"),
                *(
                    differs(runtime, f"a bundle for another platform: {IGNORED}, which no sentence forbids")
                    for runtime in ("runc", "crun")
                ),
            ],
        )
        for name in ELSEWHERE
    ],
)
def test_another_platform(either, section):
    config = config_with_maps(either.user) | {section: ELSEWHERE[section]}
    assert_refused(either, config, section)


@pytest.mark.parametrize(
    ("section", "content", "platform"),
    [
        ("vm", {"kernel": {"path": "/boot/vmlinuz"}}, "in a virtual machine"),
        ("windows", {"layerFolders": ["C:\\layers"]}, "on Windows"),
        ("solaris", {"milestone": "svc:/milestone/container:default"}, "on Solaris"),
    ],
)
def test_a_bundle_for_another_platform(box, section, content, platform):
    done = box.run(base_config() | {section: content}, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"rootless: this bundle is for a container that runs {platform}: rootless runs containers on the host's own "
        f"Linux kernel (config.json: {section}); fix: remove {section} from config.json"
    )
