"""Starting helpers/init and talking to it."""
