"""config.json: read, checked, adapted for running without root, made from images."""
