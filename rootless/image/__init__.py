"""Root file systems and bundles: made from this host, unpacked from an archive."""
