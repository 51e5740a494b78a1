"""Verbs that change an existing container."""
