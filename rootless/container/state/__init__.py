"""The state directory and the life of a container."""
