"""Facts about this host, read once: what planning needs to know and may not look up itself."""
