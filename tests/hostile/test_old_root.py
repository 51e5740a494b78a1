"""Without pivot_root(2) the host's root stays below the container's: nothing of it must be of any use there."""

from __future__ import annotations

import pytest

from tests.lib.boxes import as_real_root
from tests.lib.intruders import intruding


@pytest.mark.parametrize("caller", ["user", "root"])
@pytest.mark.parametrize("flags", [[], ["--no-pivot"]], ids=["pivot", "no-pivot"])
@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_a_user_of_the_container_cannot_mount_what_is_masked(box, request, caller, flags, kind):
    """The kernel allows it as long as the mount namespace has one with nothing masked, reachable or not."""
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
