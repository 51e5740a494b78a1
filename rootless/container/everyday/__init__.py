"""The verbs of daily life with containers that run detached or are kept."""
