"""Edits of config.json by the flags of `run`: pure functions from a configuration and values to a new configuration."""
