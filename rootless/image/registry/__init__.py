"""Registries: which one serves a name, with which credentials and certificates; the client that downloads from it."""
