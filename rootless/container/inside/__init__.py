"""Verbs that run further processes in a container."""
