"""Containers as they lie on disk, their lifecycle, and what the verbs do."""
