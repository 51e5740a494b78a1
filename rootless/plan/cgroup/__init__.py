"""The cgroup: manager, limits, properties of a systemd unit, device filter, resctrl."""
