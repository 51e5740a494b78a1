"""The config.json of a new bundle."""

from __future__ import annotations

from rootless import paths
from rootless.image.bundles.spec import CGROUP2, capability_sets, default_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# For root of a container that installs packages, changes owners and runs services; podman's default.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)


def bundle_config(command: list[str]) -> dict[str, Any]:
    """Return the configuration of a new bundle: `command`, or a shell at a terminal.

    It has a network of its own, a file system that can be written, the limits of the caller, and root as powerful as
    other engines have it.
    """
    config: dict[str, Any] = default_config(rootless=False, cgroup2=paths.exists(CGROUP2))
    process, linux = config["process"], config["linux"]
    process["terminal"] = not command
    process["args"] = command or ["sh"]
    process["capabilities"] = capability_sets(_CAPABILITIES)
    process["noNewPrivileges"] = False  # su and sudo work
    del process["rlimits"]
    config["root"]["readonly"] = False
    del linux["resources"]
    return config
