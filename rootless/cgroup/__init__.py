"""Cgroups of containers: made as directories, or by systemd; their limits, and what they use."""
