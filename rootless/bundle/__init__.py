"""A bundle and its config.json: read, checked, and edited by flags."""
