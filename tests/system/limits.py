"""The limits of the tests in machines, and a container that shows a file of its cgroup."""

from __future__ import annotations

import json

MIB = 1 << 20


DISK = {"major": 98, "minor": 0}
"""The disk of the machine, /dev/ubda."""


def config_of(guest, resources, file):
    """Write the config.json of a container that shows a file of its cgroup."""
    bundle = guest.bundle(f"cat /sys/fs/cgroup/{file}", resources)
    path = guest.machine.shared / bundle.rpartition("/")[2] / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["namespaces"] = [
        {"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user", "cgroup", "network")
    ]
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    path.write_text(json.dumps(config))
    return bundle
