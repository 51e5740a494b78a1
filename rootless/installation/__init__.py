"""The installed command: the front door, its script, and the module archive that the script loads."""
