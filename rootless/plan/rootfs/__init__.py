"""The root file system: mounts, devices, owners."""
