"""Where images come from: layouts, archives, registries, other programs."""
