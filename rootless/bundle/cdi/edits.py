"""What the devices of CDI specs change in config.json.

Source: SPEC.md of the Container Device Interface, "OCI Edits"; the results are those of podman 5.4
(tests/engines/test_podman_cdi.py).
"""

from __future__ import annotations

from rootless.bundle.cdi.host_files import Stale, linux_device
from rootless.bundle.edit import environment, mounts, process, security
from rootless.bundle.edit.values import changed
from rootless.errors import place
from rootless.paths import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.bundle.cdi.devices import Chosen
    from rootless.bundle.edit.values import Config

    Elements = list[tuple[Chosen, Any]]
    """Elements of one kind of container edits, each with the device that brings it."""


class Edited:
    """A configuration with devices.

    Attributes:
        config: the configuration.
        places: the flags that changed something, by its place in the configuration.
        mounts: flags by the destinations of the mounts that they added.
        nodes: flags by the paths of the elements of linux.devices that they added.
        sources: paths of device nodes on the host, by their paths in the container.
    """

    def __init__(self, config: Config, devices: Sequence[Chosen]) -> None:
        """Apply the edits of the devices in their order, and those that all devices of a spec share once.

        Raises:
            RootlessError: `RL-CDI`: a spec names files that this host does not have.
        """
        self.config = config
        self.places: dict[str, str] = {}
        self.mounts: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        edits: Elements = []
        shared = set()
        for device in devices:
            device.check()
            if device.spec not in shared:
                edits.append((device, device.spec.edits))
            shared.add(device.spec)
            edits.append((device, device.spec.devices[device.name]))
        for kind, add in (
            ("env", self._add_variables),
            ("deviceNodes", self._add_nodes),
            ("netDevices", self._add_interfaces),
            ("mounts", self._add_mounts),
            ("hooks", self._add_hooks),
            ("additionalGids", self._add_groups),
        ):
            elements = [(device, element) for device, each in edits for element in each.get(kind) or ()]
            if elements:
                add(elements)
        for device, each in edits:
            if each.get("intelRdt"):
                self._set_resctrl(device, each["intelRdt"])

    def _add_variables(self, elements: Elements) -> None:
        self.config = environment.set_variables(self.config, [entry for _, entry in elements])
        flags = {entry.partition("=")[0]: device.flag for device, entry in elements}
        for index, entry in enumerate(self.config["process"]["env"]):
            if (name := entry.partition("=")[0]) in flags:
                self.places[f"process.env[{index}]"] = flags[name]

    def _add_nodes(self, elements: Elements) -> None:
        user = self.config["process"].get("user") or {}
        found: dict[str, tuple[Config, str]] = {}
        for device, node in elements:
            try:
                made = linux_device(node)
            except Stale as stale:  # since it was checked
                raise device.stale(str(stale), "deviceNodes") from None
            # the program's user owns it, unless that is root
            made = {name: user[name] for name in ("uid", "gid") if user.get(name)} | made
            found[made["path"]] = (made, node.get("permissions") or "rwm")
            self.nodes[made["path"]] = device.flag
            self.sources[made["path"]] = node.get("hostPath") or node["path"]
        self.config = security.add_devices(self.config, list(found.values()))

    def _add_interfaces(self, elements: Elements) -> None:
        moved = {each["hostInterfaceName"]: {"name": each["name"]} for _, each in elements}
        before = (self.config.get("linux") or {}).get("netDevices") or {}
        self.config = changed(self.config, "linux", netDevices=before | moved)
        for device, each in elements:
            self.places[place("linux", "netDevices", each["hostInterfaceName"])] = device.flag

    def _add_mounts(self, elements: Elements) -> None:
        found: dict[str, Config] = {}
        for device, each in elements:
            destination = normal("/" + each["containerPath"].lstrip("/"))
            mount = {"destination": destination, "type": each.get("type") or "bind", "source": each["hostPath"]}
            found[destination] = mount | {"options": list(each.get("options") or ())}
            self.mounts[destination] = device.flag
        self.config = mounts.add_mounts(self.config, list(found.values()))

    def _add_hooks(self, elements: Elements) -> None:
        hooks = dict(self.config.get("hooks") or {})
        for device, each in elements:
            kind = each["hookName"]
            before = hooks.get(kind) or []
            self.places[f"hooks.{kind}[{len(before)}]"] = device.flag
            hook = {name: each[name] for name in ("path", "args", "env", "timeout") if each.get(name)}
            hooks[kind] = [*before, hook]
        self.config = self.config | {"hooks": hooks}

    def _add_groups(self, elements: Elements) -> None:
        self.config = process.add_groups(self.config, [gid for _, gid in elements if gid])
        self.places["process.user.additionalGids"] = elements[0][0].flag

    def _set_resctrl(self, device: Chosen, wanted: Config) -> None:
        kept = {name: value for name, value in wanted.items() if name not in ("enableCMT", "enableMBM")}
        if len(kept) < len(wanted):  # version 1.1 has one property for both
            kept.setdefault("enableMonitoring", any(wanted.get(name) for name in ("enableCMT", "enableMBM")))
        self.config = changed(self.config, "linux", intelRdt=kept)
        self.places["linux.intelRdt"] = device.flag
