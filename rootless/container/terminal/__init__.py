"""The terminal and the service manager of a foreground container."""
