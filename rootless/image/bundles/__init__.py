"""Bundles made from this host, an archive or an image."""
