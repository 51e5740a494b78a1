"""What the command line changes in config.json: the host is read here, rootless/bundle/edit/ makes the changes."""
