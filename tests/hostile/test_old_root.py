"""Without pivot_root(2) the host's root remains below the container's root and must be of no use there."""

from __future__ import annotations

import pytest

from tests.lib.boxes import as_real_root
from tests.lib.intruders import intruding


@pytest.mark.parametrize("caller", ["user", "root"])
@pytest.mark.parametrize("flags", [[], ["--no-pivot"]], ids=["pivot", "no-pivot"])
@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_proc_and_sysfs_cannot_be_mounted_without_their_masks(box, request, caller, flags, kind):
    """The kernel permits it as long as the mount namespace has an unmasked instance, reachable or not."""
    if caller == "root":
        request.getfixturevalue("require_root")
        as_real_root(box)
    config = intruding()
    config["linux"]["maskedPaths"] = ["/proc/interrupts", "/proc/keys", "/sys/firmware", "/sys/kernel"]
    new = "-Urmpf" if kind == "proc" else "-Urmn"
    script = f"unshare {new} sh -c 'mount -t {kind} {kind} /tmp && echo mounted' 2>&1; true"
    said = "\n".join(box.lines(config, script, flags=flags))
    assert "mounted" not in said
    assert "ermission denied" in said or "not permitted" in said
