"""The network: mode, helpers, ports, names."""
