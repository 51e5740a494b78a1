"""A bundle and its config.json: read and checked."""
