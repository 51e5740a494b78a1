"""Facts about this host and its caller. They are read once, because planning is pure and reads nothing."""
