"""rootless: an OCI container runtime for people who have no root."""

__version__ = "0.1.0"

OCI_VERSION = "1.3.0"
"""The newest version of the runtime specification that this runtime knows."""
