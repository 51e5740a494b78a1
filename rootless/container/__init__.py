"""Containers: their state on disk, their lifecycle, and the verbs."""
