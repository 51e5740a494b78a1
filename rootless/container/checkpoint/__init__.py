"""The verbs checkpoint and restore."""
